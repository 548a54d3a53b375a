//! Named tensors as the bytes of a safetensors file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors, TensorInfo, TensorView, View};

/// A tensor with its name, ready to be written as `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape.
    pub dims: Vec<usize>,
    /// Its numbers, row by row; as many as the shape says.
    pub values: Vec<f32>,
}

impl View for &NamedTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.dims
    }

    fn data(&self) -> Cow<'_, [u8]> {
        bytes_of(&self.values).into()
    }

    fn data_len(&self) -> usize {
        4 * self.values.len()
    }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 * values.len());
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The bytes of a safetensors file with these tensors and one line of metadata, a key and its value.
///
/// # Panics
/// If two tensors have the same name, or one has another number of values than its shape says.
pub fn write_tensors(tensors: &[NamedTensor], (key, value): (&str, &str)) -> Vec<u8> {
    for tensor in tensors {
        assert_eq!(tensor.dims.iter().product::<usize>(), tensor.values.len(), "`{}`", tensor.name);
    }
    let metadata = HashMap::from([(key.to_owned(), value.to_owned())]);
    let views = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor));
    safetensors::serialize(views, Some(metadata)).expect("f32 tensors serialise")
}

/// A tensor whose numbers are made when they are written.
pub struct TensorSource<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its shape.
    pub dims: Vec<usize>,
    /// Makes its numbers, row by row; as many as the shape says.
    pub values: Box<dyn Fn() -> Vec<f32> + 'a>,
}

/// Writes a safetensors file with these tensors and one line of metadata, a key and its value. The memory that it needs
/// is that of one tensor.
///
/// The `safetensors` crate has such a function too, but its file can only be read by its owner.
///
/// # Errors
/// A file that cannot be written.
///
/// # Panics
/// If two tensors have the same name, or one has another number of values than its shape says.
pub fn save_tensors(
    path: &Path,
    mut tensors: Vec<TensorSource<'_>>,
    (key, value): (&str, &str),
) -> io::Result<()> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut end = 0;
    let info = |tensor: &TensorSource<'_>| {
        let start = end;
        end += 4 * tensor.dims.iter().product::<usize>();
        let info = TensorInfo { dtype: Dtype::F32, shape: tensor.dims.clone(), data_offsets: (start, end) };
        (tensor.name.clone(), info)
    };
    let infos = tensors.iter().map(info).collect();
    let metadata = HashMap::from([(key.to_owned(), value.to_owned())]);
    let metadata = Metadata::new(Some(metadata), infos).expect("f32 tensors of different names");
    let mut header = serde_json::to_vec(&metadata)?;
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');

    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for tensor in tensors {
        let values = (tensor.values)();
        assert_eq!(tensor.dims.iter().product::<usize>(), values.len(), "`{}`", tensor.name);
        for part in values.chunks(PART) {
            file.write_all(&bytes_of(part))?;
        }
    }
    file.flush()
}

/// Numbers that are turned into bytes at a time.
const PART: usize = 1 << 16;

/// A safetensors file in memory.
#[derive(Debug)]
pub struct TensorFile<'a> {
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> TensorFile<'a> {
    /// Reads the header of a file; the numbers are read one tensor at a time.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let words = |error: SafeTensorError| error.to_string();
        let tensors = SafeTensors::deserialize(bytes).map_err(words)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(words)?;
        Ok(Self { tensors, metadata: header.metadata().clone().unwrap_or_default() })
    }

    /// The value of a metadata key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Names of all tensors.
    pub fn names(&self) -> Vec<&str> {
        self.tensors.names()
    }

    /// The tensor of this name, if there is one.
    pub fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        Some(StoredTensor(self.tensors.tensor(name).ok()?))
    }
}

/// A tensor in a file, not yet read.
#[derive(Debug)]
pub struct StoredTensor<'a>(TensorView<'a>);

impl StoredTensor<'_> {
    /// Its shape.
    pub fn dims(&self) -> &[usize] {
        self.0.shape()
    }

    /// The name of its number type: `F32`, `BF16` and so on.
    pub fn type_name(&self) -> String {
        format!("{:?}", self.0.dtype())
    }

    /// Whether its numbers are stored as `f32`.
    pub fn is_f32(&self) -> bool {
        self.0.dtype() == Dtype::F32
    }

    /// Its numbers as `f32`, row by row; `None` for a type other than F32, F16 and BF16.
    pub fn values(&self) -> Option<Vec<f32>> {
        let mut values = Vec::with_capacity(self.0.shape().iter().product());
        to_f32(self.0.dtype(), self.0.data(), &mut values).then_some(values)
    }
}

/// Appends the numbers in `bytes`; `false` for a type other than F32, F16 and BF16.
pub(crate) fn to_f32(dtype: Dtype, bytes: &[u8], values: &mut Vec<f32>) -> bool {
    let halves = || bytes.as_chunks::<2>().0.iter().map(|&bytes| u16::from_le_bytes(bytes));
    match dtype {
        Dtype::F32 => values.extend(bytes.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b))),
        Dtype::BF16 => values.extend(halves().map(|bits| f32::from_bits(u32::from(bits) << 16))),
        Dtype::F16 => values.extend(halves().map(f16_to_f32)),
        _ => return false,
    }
    true
}

/// The value of an IEEE 754 half-precision number.
fn f16_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023) / 1024.0);
    sign * match exponent {
        0 => fraction * 2f32.powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_numbers_are_read() {
        // 1.0, −2.0, 65504 (the largest), 2^−24 (the smallest), as IEEE 754 writes them.
        let bits = [0x3C00, 0xC000, 0x7BFF, 0x0001];
        assert_eq!(bits.map(f16_to_f32), [1.0, -2.0, 65504.0, 2f32.powi(-24)]);
    }

    #[test]
    fn written_tensors_are_read_back() {
        let tensor = |name: &str, dims: &[usize], values: &[f32]| NamedTensor {
            name: name.into(),
            dims: dims.into(),
            values: values.into(),
        };
        let tensors = [tensor("b", &[2], &[1.5, -0.0]), tensor("a", &[1, 3], &[1.0, 2.0, f32::NAN])];
        let bytes = write_tensors(&tensors, ("updates", "7"));
        let file = TensorFile::parse(&bytes).unwrap();
        assert_eq!((file.metadata("updates"), file.metadata("other")), (Some("7"), None));
        assert_eq!(file.names().len(), 2);
        for expected in &tensors {
            let stored = file.tensor(&expected.name).unwrap();
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(stored.dims(), expected.dims);
            assert_eq!(bits(&stored.values().unwrap()), bits(&expected.values));
        }
        let source = |tensor: &NamedTensor| TensorSource {
            name: tensor.name.clone(),
            dims: tensor.dims.clone(),
            values: Box::new({
                let values = tensor.values.clone();
                move || values.clone()
            }),
        };
        let path = std::env::temp_dir().join(format!("temper-tensors-{}", std::process::id()));
        save_tensors(&path, tensors.iter().map(source).collect(), ("updates", "7")).unwrap();
        assert!(std::fs::read(&path).unwrap() == bytes, "one tensor at a time gives the same file");
        std::fs::remove_file(&path).unwrap();
        assert!(save_tensors(&path.join("nowhere"), vec![], ("updates", "7")).is_err());
        assert!(file.tensor("c").is_none());
        assert!(TensorFile::parse(&bytes[..bytes.len() - 1]).is_err());
    }

    /// BF16 keeps the upper half of an f32: 0x3FC0 is 1.5.
    #[test]
    fn brain_floats_are_read_and_integers_are_not() {
        let view = |dtype| TensorView::new(dtype, vec![2], &[0xC0, 0x3F, 0x00, 0xC0][..]);
        let bytes = safetensors::serialize([("x", view(Dtype::BF16).unwrap())], None).unwrap();
        assert_eq!(TensorFile::parse(&bytes).unwrap().tensor("x").unwrap().values(), Some(vec![1.5, -2.0]));
        let bytes = safetensors::serialize([("x", view(Dtype::I16).unwrap())], None).unwrap();
        let file = TensorFile::parse(&bytes).unwrap();
        let stored = file.tensor("x").unwrap();
        assert_eq!((stored.values(), stored.type_name()), (None, "I16".to_owned()));
    }
}
