//! Layer norm and RMS norm.

use burn::tensor::Tensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn_flex::{Flex, FlexTensor};

use super::Taped;
use super::buffer::{changed, contiguous, numbers, tensor_like};
use crate::math::sum;
use crate::slices::{measure, normalise};
use crate::vectorized::vectorized;

/// What the backward pass of a norm reads.
#[derive(Clone, Debug)]
struct Normed {
    x: FlexTensor,
    gamma: FlexTensor,
    /// Mean of each row; 0 in an RMS norm.
    means: Vec<f32>,
    /// 1 / √(variance + ε) of each row, or 1 / √(mean square + ε).
    scales: Vec<f32>,
    subtracts_mean: bool,
}

impl Normed {
    fn of(x: FlexTensor, gamma: FlexTensor, subtracts_mean: bool, epsilon: f64) -> Self {
        let (x, gamma) = (contiguous(x), contiguous(gamma));
        let width = numbers(&gamma).len();
        let n_rows = numbers(&x).len() / width;
        let (mut means, mut scales) = (vec![0.0; n_rows], vec![0.0; n_rows]);
        measure(numbers(&x), width, subtracts_mean, epsilon as f32, &mut means, &mut scales);
        Self { x, gamma, means, scales, subtracts_mean }
    }

    fn output(&self, beta: Option<&FlexTensor>) -> FlexTensor {
        let gamma = numbers(&self.gamma);
        let zeros = vec![0.0; gamma.len()];
        let beta = beta.map_or(zeros.as_slice(), numbers);
        let mut output = numbers(&self.x).to_vec();
        normalise(&mut output, gamma, beta, &self.means, &self.scales);
        tensor_like(&self.x, output)
    }

    /// The gradients of x, γ and β from that of the output.
    fn gradients(&self, gradient: FlexTensor) -> [FlexTensor; 3] {
        let (xs, gamma) = (numbers(&self.x), numbers(&self.gamma));
        let width = gamma.len();
        let (mut of_gamma, mut of_beta) = (vec![0.0; width], vec![0.0; width]);
        let of_x = changed(gradient, |gradient| {
            let mut normed = vec![0.0; width];
            let rows = gradient.chunks_exact_mut(width).zip(xs.chunks_exact(width));
            for ((g, x), (mean, scale)) in rows.zip(self.means.iter().zip(&self.scales)) {
                gradients_of_row(
                    x,
                    gamma,
                    *mean,
                    *scale,
                    self.subtracts_mean,
                    &mut normed,
                    g,
                    &mut of_gamma,
                    &mut of_beta,
                );
            }
        });
        [of_x, tensor_like(&self.gamma, of_gamma), tensor_like(&self.gamma, of_beta)]
    }
}

vectorized! {
    /// Turns the gradient of a row of the output, `g`, into that of the row, and adds to those of γ and β.
    ///
    /// With n = (x − mean) · scale and h = g γ, that of x is scale (h − mean of h − n · mean of h n), and without the mean of
    /// h in an RMS norm. `normed` is room for n.
    fn gradients_of_row<'a>(
        x: &'a [f32],
        gamma: &'a [f32],
        mean: f32,
        scale: f32,
        subtracts_mean: bool,
        normed: &'a mut [f32],
        g: &'a mut [f32],
        of_gamma: &'a mut [f32],
        of_beta: &'a mut [f32],
    ) {
        let width = x.len();
        for (normed, x) in normed.iter_mut().zip(x) {
            *normed = (x - mean) * scale;
        }
        for (of_gamma, (g, normed)) in of_gamma.iter_mut().zip(g.iter().zip(normed.iter())) {
            *of_gamma += g * normed;
        }
        for (of_beta, g) in of_beta.iter_mut().zip(g.iter()) {
            *of_beta += g;
        }
        for (g, gamma) in g.iter_mut().zip(gamma) {
            *g *= gamma;
        }
        let mean_h = if subtracts_mean { sum(width, |i| g[i]) / width as f32 } else { 0.0 };
        let mean_hn = sum(width, |i| g[i] * normed[i]) / width as f32;
        for (g, normed) in g.iter_mut().zip(normed.iter()) {
            *g = scale * (*g - mean_h - normed * mean_hn);
        }
    }
}

/// The backward pass of a norm with N inputs: x, γ, and in a layer norm β.
#[derive(Debug)]
struct NormBackward;

impl<const N: usize> Backward<Flex, N> for NormBackward {
    type State = Normed;

    fn backward(self, ops: Ops<Normed, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state.gradients(gradient)) {
            if let Some(parent) = parent {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

fn taped<const N: usize, const D: usize>(
    nodes: [NodeGuard; N],
    normed: Normed,
    beta: Option<&FlexTensor>,
) -> Tensor<D> {
    let output = normed.output(beta);
    let output = match NormBackward.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(normed, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    Tensor::from_primitive::<Taped>(output)
}

pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    if !x.is_autodiff() {
        let [gamma, beta] = [gamma, beta].map(|p| p.try_into_primitive::<Flex>().expect("it is on flex"));
        let x = x.try_into_primitive::<Flex>().expect("it is on flex");
        let output = Normed::of(x, gamma, true, epsilon).output(Some(&contiguous(beta)));
        return Tensor::from_primitive::<Flex>(output);
    }
    let parts = |p: Tensor<1>| p.try_into_primitive::<Taped>().expect("it has a tape").into_parts();
    let ((gamma, of_gamma), (beta, of_beta)) = (parts(gamma), parts(beta));
    let (x, of_x) = x.try_into_primitive::<Taped>().expect("it has a tape").into_parts();
    let normed = Normed::of(x, gamma, true, epsilon);
    taped([of_x, of_gamma, of_beta], normed, Some(&contiguous(beta)))
}

pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Tensor<D> {
    if !x.is_autodiff() {
        let gamma = gamma.try_into_primitive::<Flex>().expect("it is on flex");
        let x = x.try_into_primitive::<Flex>().expect("it is on flex");
        return Tensor::from_primitive::<Flex>(Normed::of(x, gamma, false, epsilon).output(None));
    }
    let (gamma, of_gamma) = gamma.try_into_primitive::<Taped>().expect("it has a tape").into_parts();
    let (x, of_x) = x.try_into_primitive::<Taped>().expect("it has a tape").into_parts();
    taped([of_x, of_gamma], Normed::of(x, gamma, false, epsilon), None)
}
