//! The gated activation of a feed-forward layer.

use burn::tensor::Tensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::{Flex, FlexTensor};

use super::Taped;
use super::buffer::{changed, contiguous, numbers, tensor_like};
use crate::slices::sigmoid;
use crate::vectorized::vectorized;

vectorized! {
    fn values<'a>(gates: &'a [f32], xs: &'a [f32], output: &'a mut [f32]) {
        for ((output, gate), x) in output.iter_mut().zip(gates).zip(xs) {
            *output = gate * sigmoid(*gate) * x;
        }
    }
}

vectorized! {
    /// Turns the gradient of the output, g, into that of the gate z, g x (σ + z σ (1 − σ)), and writes that of x, g z σ.
    fn gradients<'a>(gates: &'a [f32], xs: &'a [f32], gradient: &'a mut [f32], of_x: &'a mut [f32]) {
        for (((gradient, of_x), &gate), x) in gradient.iter_mut().zip(of_x).zip(gates).zip(xs) {
            let share = sigmoid(gate);
            *of_x = *gradient * gate * share;
            *gradient *= x * (share + gate * share * (1.0 - share));
        }
    }
}

fn forward(gate: &FlexTensor, x: &FlexTensor) -> FlexTensor {
    let (gates, xs) = (numbers(gate), numbers(x));
    let mut output = vec![0.0; xs.len()];
    values(gates, xs, &mut output);
    tensor_like(x, output)
}

fn backward(gate: &FlexTensor, x: &FlexTensor, gradient: FlexTensor) -> [FlexTensor; 2] {
    let (gates, xs) = (numbers(gate), numbers(x));
    let mut of_x = vec![0.0; xs.len()];
    let of_gate = changed(gradient, |gradient| gradients(gates, xs, gradient, &mut of_x));
    [of_gate, tensor_like(x, of_x)]
}

#[derive(Debug)]
struct SwigluBackward;

impl Backward<Flex, 2> for SwigluBackward {
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<[FlexTensor; 2], 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let [gate, x] = ops.state;
        for (parent, gradient) in ops.parents.into_iter().zip(backward(&gate, &x, gradient)) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

pub(crate) fn swiglu<const D: usize>(gate: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
    if !x.is_autodiff() {
        let [gate, x] = [gate, x].map(|x| contiguous(x.try_into_primitive::<Flex>().expect("it is on flex")));
        return Tensor::from_primitive::<Flex>(forward(&gate, &x));
    }
    let parts = |x: Tensor<D>| x.try_into_primitive::<Taped>().expect("it has a tape").into_parts();
    let ((gate, of_gate), (x, of_x)) = (parts(gate), parts(x));
    let [gate, x] = [gate, x].map(contiguous);
    let output = forward(&gate, &x);
    let prep = SwigluBackward.prepare::<NoCheckpointing>([of_gate, of_x]).compute_bound().stateful();
    Tensor::from_primitive::<Taped>(match prep {
        OpsKind::Tracked(prep) => prep.finish([gate, x], output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    })
}
