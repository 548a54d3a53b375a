//! Operations of a decoder in one pass over memory, forwards and backwards.
//!
//! burn composes each of them of five to ten operations, and autodiff keeps what lies between them. On a CPU that is a
//! large part of the time of a small model. A function on tensors has two forms here: the formula, written with burn's
//! operations, and a kernel for burn's CPU backend flex, mostly with its derivative written by hand. Which one computes
//! depends on the device and on the feature `flex`, and changes the result by rounding only. Functions on slices are for
//! numbers in host memory.

mod column;
pub mod decode;
#[cfg(feature = "flex")]
mod flex;
#[cfg(not(feature = "flex"))]
#[path = "without_flex.rs"]
mod flex;
mod formula;
mod math;
mod products;
mod rows;
mod slices;
mod vectorized;

use burn::tensor::{Int, Tensor};

pub use column::attend_query;
pub use formula::{attention, entropy_of_log_probs, read_targets, split_heads};
pub use products::{add_product, transposed_product};
pub use rows::{AdamWUpdate, adamw, sum_of_exps, sum_of_squares};

/// Whether the kernels compute on this tensor, or the formulas.
pub fn has_kernels<const D: usize>(x: &Tensor<D>) -> bool {
    flex::is_flex(x)
}

/// Attention of the tokens of each row to each other: softmax(q kᵀ / √d_head + bias) v in every head, the heads joined again
/// (Vaswani et al. 2017, Eq. (1)). No gradient flows into the bias.
///
/// A position with a bias of −∞ gets exactly 0; every query must see one token at least.
///
/// # Shapes
/// - `projected`: `[batch, seq, (n_heads + 2 · n_kv_heads) · d_head]`: queries, keys and values, as [`split_heads`] reads them
/// - `bias`: `[batch or 1, 1, seq, seq]`
/// - output: `[batch, seq, n_heads · d_head]`
pub fn self_attention(projected: Tensor<3>, bias: Tensor<4>, n_heads: usize, n_kv_heads: usize) -> Tensor<3> {
    if flex::is_flex(&projected) {
        flex::self_attention(projected, bias, n_heads, n_kv_heads)
    } else {
        formula::self_attention(projected, bias, n_heads, n_kv_heads)
    }
}

/// A linear map: x W + b.
///
/// # Shapes
/// - `x`: `[.., d_in]`
/// - `weight`: `[d_in, d_out]`
/// - `bias`: `[d_out]`
/// - output: `[.., d_out]`
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    if flex::is_flex(&x) { flex::linear(x, weight, bias) } else { formula::linear(x, weight, bias) }
}

/// A linear map by the rows of a matrix: x Mᵀ.
///
/// # Shapes
/// - `x`: `[.., d_in]`
/// - `matrix`: `[d_out, d_in]`
/// - output: `[.., d_out]`
pub fn transposed_linear<const D: usize>(x: Tensor<D>, matrix: Tensor<2>) -> Tensor<D> {
    if flex::is_flex(&x) { flex::transposed_linear(x, matrix) } else { formula::transposed_linear(x, matrix) }
}

/// GELU with the tanh approximation (Hendrycks and Gimpel 2016): x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
///
/// # Shapes
/// - `x` and output: any
pub fn gelu_tanh<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if flex::is_flex(&x) { flex::gelu_tanh(x) } else { formula::gelu_tanh(x) }
}

/// softmax(scores + bias) over the last dimension. No gradient flows into the bias.
///
/// A position with a bias of −∞ gets exactly 0. Every query must have at least one key whose bias is above −∞.
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

/// Rotates each pair (a, b) of the first heads by an angle: (a cos − b sin, b cos + a sin). Number i and number i + pairs of a
/// head are a pair; numbers after the pairs stay (`rotate_half` of transformers), and so do the heads after the first
/// `n_rotated`. No gradient flows into the angles.
///
/// # Shapes
/// - `heads` and output: `[batch, seq, heads, d_head]`
/// - `cos` and `sin`: `[batch or 1, seq, 1, pairs]`
pub fn rotate(heads: Tensor<4>, n_rotated: usize, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    if flex::is_flex(&heads) {
        flex::rotate(heads, n_rotated, cos, sin)
    } else {
        formula::rotate(heads, n_rotated, cos, sin)
    }
}

/// Log-probabilities of every token under a temperature: log softmax(logits / temperature). With a tape the formula is
/// computed; [`target_log_probs`] is faster to learn from.
///
/// # Shapes
/// - `logits` and output: `[n, vocab]`
pub fn log_probs(logits: Tensor<2>, temperature: f64) -> Tensor<2> {
    if flex::is_flex(&logits) && !logits.is_autodiff() {
        flex::log_probs(logits, temperature)
    } else {
        formula::log_probs(logits, temperature)
    }
}

/// Log-probabilities of the given tokens under a temperature: log softmax(logits / temperature), read at the targets.
///
/// # Shapes
/// - `logits`: `[n, vocab]`
/// - `targets` and output: `[n]`
pub fn target_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>, temperature: f64) -> Tensor<1> {
    if flex::is_flex(&logits) {
        flex::target_log_probs(logits, targets, temperature)
    } else {
        formula::target_log_probs(logits, targets, temperature)
    }
}

/// Entropy of each distribution softmax(logits / temperature) in nats, over the whole vocabulary. With a tape the formula
/// is computed.
///
/// # Shapes
/// - `logits`: `[n, vocab]`
/// - output: `[n]`
pub fn entropy(logits: Tensor<2>, temperature: f64) -> Tensor<1> {
    if flex::is_flex(&logits) && !logits.is_autodiff() {
        flex::entropy(logits, temperature)
    } else {
        formula::entropy(logits, temperature)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests;
