//! Tensors whose memory the host can read without a transfer.

use burn::tensor::{Device, Tensor};

/// Whether tensors on this device are plain host memory (flex, ndarray), so that reading one costs no transfer.
///
/// It decides where something is computed, never what. burn has no query for it that exists in every build, but its
/// devices name their backend.
pub fn is_host(device: &Device) -> bool {
    let name = format!("{device:?}");
    name.contains("Flex") || name.contains("NdArray")
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
    tensor.into_data().try_into_vec::<f32>().expect("models compute in f32")
}
