//! GELU with the tanh approximation.
//!
//! (1 + tanh u) / 2 is 1 / (1 + e⁻²ᵘ), so that GELU is x times a sigmoid, and its derivative is written with the same
//! sigmoid. It is computed again in the backward pass: to read it would take as long.

use std::f32::consts::FRAC_2_PI;

use burn::tensor::Tensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn_flex::{Flex, FlexTensor};

use super::Taped;
use super::buffer::{changed, contiguous, numbers, tensor_like};
use crate::slices::{CUBE, gelu_share};
use crate::vectorized::vectorized;

vectorized! {
    fn values<'a>(x: &'a [f32], output: &'a mut [f32]) {
        for (output, &x) in output.iter_mut().zip(x) {
            *output = x * gelu_share(x);
        }
    }
}

vectorized! {
    /// Turns the gradient of the output into that of `x`: g (σ + x σ (1 − σ) 2u′).
    fn gradients<'a>(x: &'a [f32], gradient: &'a mut [f32]) {
        let slope = 2.0 * FRAC_2_PI.sqrt();
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            let share = gelu_share(x);
            *gradient *= share + x * share * (1.0 - share) * slope * (1.0 + 3.0 * CUBE * x * x);
        }
    }
}

fn forward(x: FlexTensor) -> FlexTensor {
    let x = contiguous(x);
    let source = numbers(&x);
    let mut output = vec![0.0; source.len()];
    values(source, &mut output);
    tensor_like(&x, output)
}

fn backward(x: &FlexTensor, gradient: FlexTensor) -> FlexTensor {
    changed(gradient, |gradient| gradients(numbers(x), gradient))
}

#[derive(Debug)]
struct GeluBackward;

impl Backward<Flex, 1> for GeluBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let x = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| backward(&x, gradient));
    }
}

pub(crate) fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !x.is_autodiff() {
        let x = x.try_into_primitive::<Flex>().expect("it is on flex");
        return Tensor::from_primitive::<Flex>(forward(x));
    }
    let (x, node) = x.try_into_primitive::<Taped>().expect("it is on flex, with a tape").into_parts();
    let output = match GeluBackward.prepare::<NoCheckpointing>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let x = contiguous(x);
            let output = forward(x.clone());
            prep.finish(x, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(x)),
    };
    Tensor::from_primitive::<Taped>(output)
}
