//! Tensors of a safetensors file on disk, one at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::tensor::{Metadata, SafeTensorError, TensorInfo};

use crate::tensor_file::to_f32;

/// Bytes that are read at once: a tensor is converted in pieces, so that it is in memory only as `f32`.
const PIECE: usize = 1 << 20;

/// The longest header that the safetensors crate accepts, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// A safetensors file whose header is in memory; its numbers are read when they are asked for.
///
/// A file of a large model is never in memory as a whole, unlike with [`TensorFile`](crate::TensorFile).
#[derive(Debug)]
pub struct TensorReader {
    file: File,
    tensors: HashMap<String, TensorInfo>,
    /// Where the numbers start.
    start: u64,
    len: u64,
}

/// Why a file cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// What the system said.
    Io(io::Error),
    /// What is wrong with the bytes, in words.
    Malformed(String),
}

impl TensorReader {
    /// Reads the header of a file, and checks that the file holds all that it announces.
    ///
    /// # Errors
    /// A file that cannot be opened, or is not a whole safetensors file.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let mut file = File::open(path).map_err(ReadError::Io)?;
        let len = file.metadata().map_err(ReadError::Io)?.len();
        let malformed = |error: SafeTensorError| ReadError::Malformed(error.to_string());
        if len < 8 {
            return Err(malformed(SafeTensorError::HeaderTooSmall));
        }
        let mut header_len = [0; 8];
        file.read_exact(&mut header_len).map_err(ReadError::Io)?;
        let header_len = u64::from_le_bytes(header_len);
        if header_len > LONGEST_HEADER {
            return Err(malformed(SafeTensorError::HeaderTooLarge));
        }
        if header_len > len - 8 {
            return Err(malformed(SafeTensorError::InvalidHeaderLength));
        }
        let mut header = vec![0; header_len as usize];
        file.read_exact(&mut header).map_err(ReadError::Io)?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|e| malformed(SafeTensorError::InvalidHeaderDeserialization(e)))?;
        let tensors: HashMap<String, TensorInfo> =
            header.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let start = 8 + header_len;
        check_offsets(&tensors, len - start).map_err(malformed)?;
        Ok(Self { file, tensors, start, len })
    }

    /// Size of the file, in bytes.
    pub fn file_len(&self) -> u64 {
        self.len
    }

    /// Names of all tensors, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of the tensor of this name, if there is one.
    pub fn dims(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors.get(name)?.shape)
    }

    /// The name of a tensor's number type: `F32`, `BF16` and so on.
    pub fn type_name(&self, name: &str) -> Option<String> {
        Some(format!("{:?}", self.tensors.get(name)?.dtype))
    }

    /// A tensor's numbers as `f32`, row by row. `None` if the file has no tensor of this name, or if its type is not F32,
    /// F16 or BF16.
    ///
    /// # Errors
    /// What the system said.
    pub fn values(&self, name: &str) -> io::Result<Option<Vec<f32>>> {
        let Some(info) = self.tensors.get(name) else { return Ok(None) };
        let (start, end) = info.data_offsets;
        let mut values = Vec::with_capacity(info.shape.iter().product());
        let mut piece = vec![0; PIECE.min(end - start)];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start + start as u64))?;
        let mut left = end - start;
        while left > 0 {
            let piece = &mut piece[..PIECE.min(left)]; // a multiple of the size of a number, as is `left`
            file.read_exact(piece)?;
            if !to_f32(info.dtype, piece, &mut values) {
                return Ok(None);
            }
            left -= piece.len();
        }
        Ok(Some(values))
    }
}

/// The tensors must fill the `len` bytes after the header, one after the other and without gaps.
fn check_offsets(tensors: &HashMap<String, TensorInfo>, len: u64) -> Result<(), SafeTensorError> {
    let mut in_order: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
    in_order.sort_unstable_by_key(|(_, info)| info.data_offsets);
    let mut next = 0;
    for (name, info) in in_order {
        let (start, end) = info.data_offsets;
        if start != next || end < start {
            return Err(SafeTensorError::InvalidOffset(name.clone()));
        }
        let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, &n| bits.checked_mul(n));
        if bits.ok_or(SafeTensorError::ValidationOverflow)? != (end - start).saturating_mul(8) {
            return Err(SafeTensorError::TensorInvalidInfo);
        }
        next = end;
    }
    if next as u64 == len { Ok(()) } else { Err(SafeTensorError::MetadataIncompleteBuffer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NamedTensor, TensorFile, write_tensors};

    fn scratch(name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("temper-tensor-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// More numbers than fit into one piece, and a tensor without any.
    #[test]
    fn numbers_are_read_as_from_the_bytes() {
        let tensor = |name: &str, dims: &[usize]| NamedTensor {
            name: name.into(),
            dims: dims.into(),
            values: (0..dims.iter().product()).map(|i| i as f32 * 0.5).collect(),
        };
        let tensors = [tensor("a", &[3, 100_001]), tensor("none", &[0]), tensor("b", &[2])];
        let bytes = write_tensors(&tensors, ("format", "pt"));
        let path = scratch("whole", &bytes);
        let reader = TensorReader::open(&path).unwrap();
        assert_eq!((reader.file_len(), reader.names().count()), (bytes.len() as u64, 3));
        for tensor in &tensors {
            assert_eq!(reader.dims(&tensor.name), Some(&tensor.dims[..]));
            assert_eq!(reader.values(&tensor.name).unwrap().as_ref(), Some(&tensor.values));
        }
        assert_eq!(reader.values("c").unwrap(), None);
        std::fs::remove_file(path).unwrap();
    }

    /// Whatever [`TensorFile`] refuses, the reader refuses too.
    #[test]
    fn damaged_files_are_refused() {
        let tensor = NamedTensor { name: "a".into(), dims: vec![2, 2], values: vec![1.0; 4] };
        let whole = write_tensors(&[tensor], ("format", "pt"));
        let header = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[0; 8]].concat();
        let shaped = |shape: &str, end: &str| {
            header(&format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#))
        };
        for bytes in [
            whole[..whole.len() - 1].to_vec(),
            whole[..20].to_vec(),
            whole[..7].to_vec(),
            vec![],
            [&whole[..], &[0]].concat(),
            [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat(),
            header("{}"),
            header("["),
            shaped("[1]", "8"),
            shaped("[2]", "4"),
            shaped("[9223372036854775807,4]", "8"),
            header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#),
        ] {
            let path = scratch("damaged", &bytes);
            assert!(TensorFile::parse(&bytes).is_err());
            let opened = TensorReader::open(&path);
            assert!(matches!(&opened, Err(ReadError::Malformed(_))), "{opened:?}");
            std::fs::remove_file(path).unwrap();
        }
    }
}
