//! Causal multi-head self-attention.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use temper_kernels::softmax_with_bias;

use crate::config::{ModelConfig, NormKind};
use crate::generation::cache::LayerCache;
use crate::layers::dropout::Dropout;
use crate::layers::linear::Linear;
use crate::layers::norm::Norm;
use crate::layers::rotary::Rotation;

/// Multi-head self-attention with one fused projection to queries, keys and values (Vaswani et al. 2017, section 3.2).
#[derive(Module, Debug)]
pub struct Attention {
    /// `d_model → (n_heads + 2 · n_kv_heads) · d_head`: queries, keys, values.
    pub input: Linear,
    /// The norm of each query, over the numbers of its head.
    pub query_norm: Option<Norm>,
    /// The norm of each key, likewise.
    pub key_norm: Option<Norm>,
    /// `n_heads · d_head → d_model`, onto the residual stream.
    pub output: Linear,
    n_heads: usize,
    n_kv_heads: usize,
    dropout: f64,
}

/// What attention has to know about the columns of a batch in addition to their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a> {
    /// The rotation of each column by its position; `None` without rotary positions.
    pub(crate) rotation: Option<&'a Rotation>,
    /// 0 where a query may look and −∞ where not: `[batch or 1, 1, seq, seq]`; `None` for one new column in a cache
    /// that knows its pads.
    pub(crate) bias: Option<&'a Tensor<4>>,
}

impl Attention {
    pub(crate) fn blank(config: &ModelConfig, device: &Device) -> Self {
        let (n_heads, n_kv_heads, d_head) = (config.n_heads, config.n_kv_heads(), config.d_head());
        let (d_model, bias) = (config.d_model, config.bias);
        let norm = || {
            let norm = || Norm::new(NormKind::Rms, d_head, config.norm_eps, device);
            config.heads.qk_norm.then(norm)
        };
        let width = (n_heads + 2 * n_kv_heads) * d_head;
        Self {
            input: Linear::zeros(d_model, width, bias.on_queries_keys_values(), device),
            query_norm: norm(),
            key_norm: norm(),
            output: Linear::zeros(n_heads * d_head, d_model, bias.on_attention_output(), device),
            n_heads,
            n_kv_heads,
            dropout: config.attention_dropout,
        }
    }

    /// [`attention`] of `x` to itself, or with a cache to the columns in it as well, which then holds those of `x` too.
    ///
    /// # Shapes
    /// - `x` and output: `[batch, seq, d_model]`
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        columns: Columns<'_>,
        dropout: &mut Dropout,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let projected = self.project(x, columns.rotation);
        let mixed = match (cache, columns.bias) {
            (Some(cache), bias) => cache.attend(projected, bias),
            (None, Some(bias)) => {
                let [q, k, v] = projected.split();
                attention(q, k, v, bias.clone(), |probs| dropout.apply(probs, self.dropout))
            }
            (None, None) => panic!("without a cache a bias says what each query may see"),
        };
        self.output.forward(mixed)
    }

    /// Queries, keys and values as attention uses them: projected, then normed, then rotated.
    fn project(&self, x: Tensor<3>, rotation: Option<&Rotation>) -> Projected {
        let (n_heads, n_kv_heads) = (self.n_heads, self.n_kv_heads);
        let projected = Projected { fused: self.input.forward(x), n_heads, n_kv_heads };
        let norms = self.query_norm.as_ref().zip(self.key_norm.as_ref());
        if norms.is_none() && rotation.is_none() {
            return projected;
        }
        projected.map_queries_and_keys(|heads| {
            let heads = match norms {
                Some((query_norm, key_norm)) => {
                    let queries = query_norm.forward(heads.clone().narrow(2, 0, n_heads));
                    let keys = key_norm.forward(heads.narrow(2, n_heads, n_kv_heads));
                    Tensor::cat(vec![queries, keys], 2)
                }
                None => heads,
            };
            match rotation {
                Some(rotation) => rotation.apply(heads),
                None => heads,
            }
        })
    }
}

/// Queries, keys and values of some columns, side by side in one tensor as they come from one projection.
///
/// The tensor formula takes them apart on the device; the kernel of the host reads them with one transfer.
#[derive(Clone, Debug)]
pub(crate) struct Projected {
    /// `[batch, seq, (n_heads + 2 · n_kv_heads) · d_head]`.
    pub(crate) fused: Tensor<3>,
    /// Query heads.
    pub(crate) n_heads: usize,
    /// Heads of keys and of values; divides `n_heads`. Fewer are each shared by a group of query heads (grouped-query
    /// attention, Ainslie et al. 2023).
    pub(crate) n_kv_heads: usize,
}

impl Projected {
    /// Width of one head.
    pub(crate) fn d_head(&self) -> usize {
        self.fused.dims()[2] / (self.n_heads + 2 * self.n_kv_heads)
    }

    /// The same with other queries and keys: `f` maps all their heads together, those of the queries first.
    ///
    /// # Shapes
    /// - input and output of `f`: `[batch, seq, n_heads + n_kv_heads, d_head]`
    fn map_queries_and_keys(self, f: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Self {
        let ([batch, seq, _], d_head) = (self.fused.dims(), self.d_head());
        let n_mapped = self.n_heads + self.n_kv_heads;
        let heads =
            self.fused.clone().narrow(2, 0, n_mapped * d_head).reshape([batch, seq, n_mapped, d_head]);
        let mapped = f(heads).reshape([batch, seq, n_mapped * d_head]);
        let values = self.fused.narrow(2, n_mapped * d_head, self.n_kv_heads * d_head);
        Self { fused: Tensor::cat(vec![mapped, values], 2), ..self }
    }

    /// Queries `[batch, n_heads, seq, d_head]`, and keys and values `[batch, n_kv_heads, seq, d_head]`.
    pub(crate) fn split(self) -> [Tensor<4>; 3] {
        let ([batch, seq, _], d_head) = (self.fused.dims(), self.d_head());
        let heads = [self.n_heads, self.n_kv_heads, self.n_kv_heads];
        let widths = heads.map(|n| n * d_head).to_vec();
        let mut parts = self.fused.split_with_sizes(widths, 2).into_iter();
        heads.map(|n| {
            let part = parts.next().expect("three parts were cut");
            part.reshape([batch, seq, n, d_head]).swap_dims(1, 2)
        })
    }

    /// The same numbers in host memory.
    pub(crate) fn read(self) -> HostProjected {
        let ([batch, seq, _], d_head) = (self.fused.dims(), self.d_head());
        assert_eq!(seq, 1, "the host attends one column at a time");
        HostProjected {
            data: self.fused.into_data(),
            batch,
            q_width: self.n_heads * d_head,
            kv_width: self.n_kv_heads * d_head,
        }
    }
}

/// One column of queries, keys and values for each row, in host memory.
pub(crate) struct HostProjected {
    data: TensorData,
    /// Number of rows.
    pub(crate) batch: usize,
    /// Numbers of all query heads of a row.
    pub(crate) q_width: usize,
    /// Numbers of all key heads of a row, and of all value heads.
    pub(crate) kv_width: usize,
}

impl HostProjected {
    /// Queries, keys and values of one row.
    pub(crate) fn row(&self, row: usize) -> [&[f32]; 3] {
        let width = self.q_width + 2 * self.kv_width;
        let all = &self.data.as_slice::<f32>().expect("models compute in f32")[row * width..][..width];
        let (q, kv) = all.split_at(self.q_width);
        let (k, v) = kv.split_at(self.kv_width);
        [q, k, v]
    }
}

/// softmax(q kᵀ / √d_head + bias) v, the heads joined again (Vaswani et al. 2017, Eq. (1)).
///
/// # Shapes
/// - `q`: `[batch, n_heads, queries, d_head]`
/// - `k` and `v`: `[batch, n_kv_heads, keys, d_head]`; each is shared by `n_heads / n_kv_heads` consecutive query heads
/// - `bias`: `[batch or 1, 1, queries, keys]`, 0 where a query may look and −∞ where not
/// - `drop` is applied to the probabilities, `[batch, n_heads, queries, keys]`
/// - output: `[batch, queries, n_heads · d_head]`
pub(crate) fn attention(
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
    let probs = drop(softmax_with_bias(scores, bias));
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

#[cfg(test)]
mod tests {
    use super::*;
    use temper_tensor::values_of;

    fn wave(dims: [usize; 4], phase: f32) -> Tensor<4> {
        let n: usize = dims.iter().product();
        let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7 + phase).sin()).collect();
        Tensor::from_data(TensorData::new(values, dims), &Device::flex())
    }

    /// One query, two keys whose scores are ln 3 · √2 / √2 and 0: probabilities 3/4 and 1/4.
    #[test]
    fn probabilities_mix_the_values() {
        let tensor = |values: Vec<f32>, keys| {
            Tensor::<4>::from_data(TensorData::new(values, [1, 1, keys, 2]), &Device::flex())
        };
        let root = 2f32.sqrt();
        let q = tensor(vec![3f32.ln(), 0.0], 1);
        let (k, v) = (tensor(vec![root, 0.0, 0.0, 5.0], 2), tensor(vec![4.0, 8.0, 0.0, -4.0], 2));
        let bias = Tensor::zeros([1, 1, 1, 2], &Device::flex());
        let mixed = values_of(attention(q, k, v, bias, |probs| probs));
        assert!((mixed[0] - 3.0).abs() < 1e-5 && (mixed[1] - 5.0).abs() < 1e-5, "{mixed:?}");
    }

    /// Two heads of keys and values for four of queries: as if each were there twice, written out by hand.
    #[test]
    fn a_shared_head_serves_its_group_of_queries() {
        let q = wave([2, 4, 3, 5], 0.0);
        let (k, v) = (wave([2, 2, 3, 5], 1.0), wave([2, 2, 3, 5], 2.0));
        let twice = |x: &Tensor<4>| {
            let head = |i| x.clone().narrow(1, i, 1);
            Tensor::cat(vec![head(0), head(0), head(1), head(1)], 1)
        };
        let bias = Tensor::zeros([1, 1, 3, 3], &Device::flex());
        let repeated = attention(q.clone(), twice(&k), twice(&v), bias.clone(), |probs| probs);
        let shared = attention(q, k, v, bias, |probs| probs);
        assert_eq!(values_of(shared), values_of(repeated));
    }
}
