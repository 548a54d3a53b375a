//! Operations of a decoder in one pass over memory, forwards and backwards.
//!
//! burn composes each of them of five to ten operations, and autodiff keeps what lies between them. On a CPU that is a
//! large part of the time of a small model. Every function here has two forms: the formula, written with burn's operations, and a
//! kernel for burn's CPU backend flex, with its derivative written by hand. Which one computes depends on the device and on
//! the feature `flex`, and changes the result by rounding only.

#[cfg(feature = "flex")]
mod flex;
#[cfg(not(feature = "flex"))]
#[path = "without_flex.rs"]
mod flex;
mod formula;

use burn::tensor::Tensor;

/// GELU with the tanh approximation (Hendrycks and Gimpel 2016): x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
///
/// # Shapes
/// - `x` and output: any
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if flex::is_flex(&x) { flex::gelu_tanh(x) } else { formula::gelu_tanh(x) }
}

/// softmax(scores + bias) over the last dimension. No gradient flows into the bias.
///
/// A position with a bias of −∞ gets exactly 0; one row at least of each must be above that.
///
/// # Shapes
/// - `scores` and output: `[batch, n_heads, queries, keys]`
/// - `bias`: `[batch or 1, 1, queries, keys]`
pub fn softmax_with_bias(scores: Tensor<4>, bias: Tensor<4>) -> Tensor<4> {
    if flex::is_flex(&scores) {
        flex::softmax_with_bias(scores, bias)
    } else {
        formula::softmax_with_bias(scores, bias)
    }
}

/// Layer norm over the last dimension (Ba et al. 2016): γ (x − mean) / √(variance + ε) + β.
///
/// # Shapes
/// - `x` and output: `[.., width]`
/// - `gamma` and `beta`: `[width]`
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    if flex::is_flex(&x) {
        flex::layer_norm(x, gamma, beta, epsilon)
    } else {
        formula::layer_norm(x, gamma, beta, epsilon)
    }
}

/// RMS norm over the last dimension (Zhang and Sennrich 2019): γ x / √(mean of x² + ε).
///
/// # Shapes
/// - `x` and output: `[.., width]`
/// - `gamma`: `[width]`
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Tensor<D> {
    if flex::is_flex(&x) { flex::rms_norm(x, gamma, epsilon) } else { formula::rms_norm(x, gamma, epsilon) }
}

/// The gated activation of a feed-forward layer (Shazeer 2020): z sigmoid(z) x, with the gate z.
///
/// # Shapes
/// - `gate`, `x` and output: the same
pub fn swiglu<const D: usize>(gate: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
    if flex::is_flex(&x) { flex::swiglu(gate, x) } else { formula::swiglu(gate, x) }
}

/// Rotates each pair (a, b) of a head by an angle: (a cos − b sin, b cos + a sin). Number i and number i + pairs of a head are
/// a pair; numbers after the pairs stay (`rotate_half` of transformers). No gradient flows into the angles.
///
/// # Shapes
/// - `heads` and output: `[batch, seq, heads, d_head]`
/// - `cos` and `sin`: `[batch or 1, seq, 1, pairs]`
pub fn rotate(heads: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    if flex::is_flex(&heads) { flex::rotate(heads, cos, sin) } else { formula::rotate(heads, cos, sin) }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
