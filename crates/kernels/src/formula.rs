//! The formulas, in operations of burn: what the kernels must agree with, and what every other device computes.

use burn::tensor::activation::{gelu_approximate, log_softmax, silu, softmax};
use burn::tensor::{Int, Tensor, module};

/// All vectors are the rows of one matrix: burn would give each row of a batch a gradient of the weight, and add them up.
pub(crate) fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let mut dims = x.dims();
    let d_in = dims[D - 1];
    let rows = x.reshape([dims[..D - 1].iter().product(), d_in]);
    let output = module::linear(rows, weight, bias);
    dims[D - 1] = output.dims()[1];
    output.reshape(dims)
}

pub(crate) fn transposed_linear<const D: usize>(x: Tensor<D>, matrix: Tensor<2>) -> Tensor<D> {
    linear(x, matrix.transpose(), None)
}

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

pub(crate) fn rotate(heads: Tensor<4>, n_rotated: usize, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let ([_, _, n_heads, d_head], [_, _, _, n_pairs]) = (heads.dims(), cos.dims());
    if n_rotated < n_heads {
        let first = rotate(heads.clone().narrow(2, 0, n_rotated), n_rotated, cos, sin);
        return Tensor::cat(vec![first, heads.narrow(2, n_rotated, n_heads - n_rotated)], 2);
    }
    let part = |start, len| heads.clone().narrow(3, start, len);
    let (a, b) = (part(0, n_pairs), part(n_pairs, n_pairs));
    let mut parts = vec![a.clone() * cos.clone() - b.clone() * sin.clone(), b * cos + a * sin];
    let rotated = 2 * n_pairs;
    if rotated < d_head {
        parts.push(part(rotated, d_head - rotated));
    }
    Tensor::cat(parts, 3)
}

pub(crate) fn self_attention(
    projected: Tensor<3>,
    bias: Tensor<4>,
    n_heads: usize,
    n_kv_heads: usize,
) -> Tensor<3> {
    let [q, k, v] = split_heads(projected, n_heads, n_kv_heads);
    attention(q, k, v, bias, |probs| probs)
}

/// Queries `[batch, n_heads, seq, d_head]`, and keys and values `[batch, n_kv_heads, seq, d_head]`, of a projection that has
/// them side by side.
///
/// # Shapes
/// - `projected`: `[batch, seq, (n_heads + 2 · n_kv_heads) · d_head]`
pub fn split_heads(projected: Tensor<3>, n_heads: usize, n_kv_heads: usize) -> [Tensor<4>; 3] {
    let [batch, seq, width] = projected.dims();
    let d_head = width / (n_heads + 2 * n_kv_heads);
    let heads = [n_heads, n_kv_heads, n_kv_heads];
    let widths = heads.map(|n| n * d_head).to_vec();
    let mut parts = projected.split_with_sizes(widths, 2).into_iter();
    heads.map(|n| {
        let part = parts.next().expect("three parts were cut");
        part.reshape([batch, seq, n, d_head]).swap_dims(1, 2)
    })
}

/// The formula of [`self_attention`](crate::self_attention) for any queries and keys, with a function that is applied to the
/// probabilities, such as dropout.
///
/// # Shapes
/// - `q`: `[batch, n_heads, queries, d_head]`
/// - `k` and `v`: `[batch, n_kv_heads, keys, d_head]`; each is shared by `n_heads / n_kv_heads` consecutive query heads
/// - `bias`: `[batch or 1, 1, queries, keys]`, 0 where a query may look and −∞ where not
/// - `drop`: from and to probabilities, `[batch, n_heads, queries, keys]`
/// - output: `[batch, queries, n_heads · d_head]`
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Tensor<4>,
    drop: impl FnOnce(Tensor<4>) -> Tensor<4>,
) -> Tensor<3> {
    let [batch, n_heads, queries, d_head] = q.dims();
    let [k, v] = [k, v].map(|shared| share_heads(shared, n_heads));
    let q = q.div_scalar((d_head as f64).sqrt());
    let scores = q.matmul(k.swap_dims(2, 3)); // [batch, n_heads, queries, keys]
    let probs = drop(crate::softmax_with_bias(scores, bias));
    probs.matmul(v).swap_dims(1, 2).reshape([batch, queries, n_heads * d_head])
}

/// Repeats each head for its group of query heads: `[batch, n_kv_heads, keys, d_head]` to `[batch, n_heads, …]`.
fn share_heads(x: Tensor<4>, n_heads: usize) -> Tensor<4> {
    let [batch, n_kv_heads, keys, d_head] = x.dims();
    if n_kv_heads == n_heads {
        return x;
    }
    let group = n_heads / n_kv_heads;
    let repeated = x.reshape([batch, n_kv_heads, 1, keys * d_head]).repeat_dim(2, group);
    repeated.reshape([batch, n_heads, keys, d_head])
}

pub(crate) fn target_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>, temperature: f64) -> Tensor<1> {
    read_targets(log_probs(logits, temperature), targets)
}

pub(crate) fn entropy(logits: Tensor<2>, temperature: f64) -> Tensor<1> {
    entropy_of_log_probs(log_probs(logits, temperature))
}

/// The number of each row that a target names.
///
/// # Shapes
/// - `rows`: `[n, vocab]`
/// - `targets` and output: `[n]`
pub fn read_targets(rows: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    rows.gather(1, targets.unsqueeze_dim::<2>(1)).squeeze_dim(1)
}

/// Entropy of each distribution in nats: −Σ p log p.
///
/// # Shapes
/// - `logprobs`: `[n, vocab]`
/// - output: `[n]`
pub fn entropy_of_log_probs(logprobs: Tensor<2>) -> Tensor<1> {
    -(logprobs.clone().exp() * logprobs).sum_dim(1).squeeze_dim(1)
}

pub(crate) fn log_probs(logits: Tensor<2>, temperature: f64) -> Tensor<2> {
    let logits = if temperature == 1.0 { logits } else { logits.div_scalar(temperature) };
    log_softmax(logits, 1)
}
