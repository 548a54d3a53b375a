//! Kernels for burn's CPU backend flex.
//!
//! A kernel is a pair of functions on slices, forwards and backwards, and a [`Backward`](burn_autodiff::ops::Backward) that
//! puts them on autodiff's tape. They run on the thread that calls: stages share rows among threads, not the inside of an
//! operation (`temper_tensor::in_parallel`).

mod attention;
mod buffer;
mod gelu;
mod linear;
mod log_probs;
mod matrix;
mod norm;
mod rotary;
mod softmax;
mod swiglu;

use burn::tensor::{DType, Device, Tensor};
use burn_autodiff::Autodiff;
use burn_flex::Flex;

pub(crate) use attention::self_attention;
pub use buffer::Numbers;
pub(crate) use gelu::gelu_tanh;
pub(crate) use linear::{linear, transposed_linear};
pub(crate) use log_probs::{entropy, log_probs, target_log_probs};
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use rotary::rotate;
pub(crate) use softmax::softmax_with_bias;
pub(crate) use swiglu::swiglu;

/// Flex with a tape, as `Device::autodiff` makes it.
type Taped = Autodiff<Flex>;

/// Whether a tensor is on flex, and in `f32`.
pub(crate) fn is_flex<const D: usize>(x: &Tensor<D>) -> bool {
    // Devices are equal with and without a tape.
    x.dtype() == DType::F32 && x.device() == Device::flex()
}
