//! The formulas, in operations of burn: what the kernels must agree with, and what every other device computes.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu_approximate, silu, softmax};
use burn::tensor::module;

pub(crate) fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    gelu_approximate(x)
}

pub(crate) fn softmax_with_bias(scores: Tensor<4>, bias: Tensor<4>) -> Tensor<4> {
    softmax(scores + bias, 3)
}

pub(crate) fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    module::layer_norm(x, gamma, Some(beta), epsilon)
}

pub(crate) fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let size = (x.clone().square().mean_dim(D - 1) + epsilon).sqrt(); // [.., 1]
    x / size * gamma.unsqueeze()
}

pub(crate) fn swiglu<const D: usize>(gate: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
    silu(gate) * x
}

pub(crate) fn rotate(heads: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let ([_, _, _, d_head], [_, _, _, n_pairs]) = (heads.dims(), cos.dims());
    let part = |start, len| heads.clone().narrow(3, start, len);
    let (a, b) = (part(0, n_pairs), part(n_pairs, n_pairs));
    let mut parts = vec![a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin];
    let rotated = 2 * n_pairs;
    if rotated < d_head {
        parts.push(part(rotated, d_head - rotated));
    }
    Tensor::cat(parts, 3)
}
