//! Numbers of tensors as slices.

use std::ops::Deref;

use burn::tensor::{Bytes, DType, Shape, Tensor};
use burn_flex::{Flex, FlexTensor, Layout};

/// A tensor whose numbers lie one after the other.
pub(super) fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}

/// The numbers of a tensor that is [`contiguous`].
pub(super) fn numbers(x: &FlexTensor) -> &[f32] {
    x.as_slice().expect("the tensor was made contiguous and holds f32")
}

/// Changes the numbers of a tensor: in place if nobody else has them, and otherwise in a copy.
pub(super) fn changed(x: FlexTensor, change: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut x = contiguous(x);
    let range = x.layout().contiguous_offsets().expect("the tensor was made contiguous");
    change(&mut x.storage_mut::<f32>()[range.0..range.1]);
    x
}

/// A tensor of the shape of `like` with these numbers.
pub(super) fn tensor_like(like: &FlexTensor, numbers: Vec<f32>) -> FlexTensor {
    tensor(like.layout().shape().clone(), numbers)
}

/// A tensor of this shape with these numbers.
pub(super) fn tensor(shape: Shape, numbers: Vec<f32>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(numbers), Layout::contiguous(shape), DType::F32)
}

/// The numbers of a tensor on flex, row by row. Nothing is copied if they lie one after the other, as those of parameters do.
#[derive(Clone, Debug)]
pub struct Numbers(FlexTensor);

impl Numbers {
    /// Those of a tensor without a tape.
    ///
    /// # Panics
    /// If the tensor has a tape, or is not on flex in `f32`.
    pub fn of<const D: usize>(tensor: Tensor<D>) -> Self {
        Self(contiguous(tensor.try_into_primitive::<Flex>().expect("it is on flex, without a tape")))
    }
}

impl Deref for Numbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        numbers(&self.0)
    }
}
