//! What is there instead of the kernels in a build without them.

use std::ops::Deref;

use burn::tensor::Tensor;

pub(crate) use crate::formula::{
    entropy, gelu_tanh, layer_norm, linear, log_probs, rms_norm, rotate, self_attention, softmax_with_bias,
    swiglu, target_log_probs, transposed_linear,
};

/// No tensor is for kernels that are not compiled in.
pub(crate) fn is_flex<const D: usize>(_: &Tensor<D>) -> bool {
    false
}

/// The numbers of a tensor, row by row.
#[derive(Clone, Debug)]
pub struct Numbers(Vec<f32>);

impl Numbers {
    /// A copy of those of a tensor.
    ///
    /// # Panics
    /// If they are not `f32`.
    pub fn of<const D: usize>(tensor: Tensor<D>) -> Self {
        Self(tensor.into_data().try_into_vec::<f32>().expect("models compute in f32"))
    }
}

impl Deref for Numbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}
