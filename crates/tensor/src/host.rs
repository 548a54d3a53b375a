//! Between host memory and the memory of a device.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Whether tensors on this device are plain host memory (flex, ndarray), so that reading one costs no transfer.
///
/// It decides where something is computed, never what. burn has no query for it that exists in every build, but its
/// devices name their backend.
pub fn is_host(device: &Device) -> bool {
    let mut name = Name { bytes: [0; 256], len: 0 };
    write!(name, "{device:?}").expect("a name never refuses to be written");
    let name = &name.bytes[..name.len];
    let contains = |word: &[u8]| name.windows(word.len()).any(|part| part == word);
    contains(b"Flex") || contains(b"NdArray")
}

/// The beginning of a text, without an allocation: a device is asked for its name at every token.
struct Name {
    bytes: [u8; 256],
    len: usize,
}

impl fmt::Write for Name {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let n = text.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..][..n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}

/// The name of the device's backend in lower case: `flex`, `ndarray`, `wgpu` and so on. burn names all backends of wgpu
/// alike.
pub fn backend_name(device: &Device) -> String {
    let name = format!("{device:?}");
    let known = ["flex", "ndarray", "cuda", "rocm", "hip", "wgpu", "libtorch"];
    let lower = name.to_lowercase();
    known.into_iter().find(|known| lower.contains(known)).map_or(lower.clone(), str::to_owned)
}

/// The numbers of a tensor, row by row. On a device other than the host this waits until they are computed.
///
/// # Panics
/// If the tensor does not hold `f32`, the only type that models compute in.
pub fn values_of<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    if !is_host(&tensor.device()) {
        READS.fetch_add(1, Ordering::Relaxed);
        READ.fetch_add(
            size_of::<f32>() as u64 * tensor.dims().iter().product::<usize>() as u64,
            Ordering::Relaxed,
        );
    }
    tensor.into_data().try_into_vec::<f32>().expect("models compute in f32")
}

/// A tensor of these numbers, row by row.
///
/// # Panics
/// If there are more or fewer numbers than `dims` say.
pub fn floats<const D: usize>(values: Vec<f32>, dims: [usize; D], device: &Device) -> Tensor<D> {
    count_written(values.len(), device);
    Tensor::from_data(TensorData::new(values, dims), device)
}

/// A tensor of these integers, row by row.
///
/// # Panics
/// If there are more or fewer integers than `dims` say.
pub fn ints<const D: usize>(values: Vec<i32>, dims: [usize; D], device: &Device) -> Tensor<D, Int> {
    count_written(values.len(), device);
    Tensor::from_data(TensorData::new(values, dims), device)
}

static READS: AtomicU64 = AtomicU64::new(0);
static READ: AtomicU64 = AtomicU64::new(0);
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Both types of numbers have four bytes.
fn count_written(n: usize, device: &Device) {
    if !is_host(device) {
        WRITTEN.fetch_add(4 * n as u64, Ordering::Relaxed);
    }
}

/// What has crossed between the host and graphics cards since the process began, through the functions of this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Reads. Each waits until the card has computed everything before it.
    pub reads: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
}

impl Transfers {
    /// All of them until now.
    pub fn so_far() -> Self {
        Self {
            reads: READS.load(Ordering::Relaxed),
            bytes_read: READ.load(Ordering::Relaxed),
            bytes_written: WRITTEN.load(Ordering::Relaxed),
        }
    }

    /// Those after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            reads: self.reads - earlier.reads,
            bytes_read: self.bytes_read - earlier.bytes_read,
            bytes_written: self.bytes_written - earlier.bytes_written,
        }
    }
}
