//! Causal multi-head self-attention.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use temper_kernels::{attention, self_attention, split_heads};

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
    /// Heads of queries.
    pub(crate) fn n_heads(&self) -> usize {
        self.n_heads
    }

    /// Heads of keys, and of values.
    pub(crate) fn n_kv_heads(&self) -> usize {
        self.n_kv_heads
    }

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
            (None, Some(bias)) if dropout.drops(self.dropout) => {
                let [q, k, v] = projected.split();
                attention(q, k, v, bias.clone(), |probs| dropout.apply(probs, self.dropout))
            }
            (None, Some(bias)) => projected.mix(bias.clone()),
            (None, None) => panic!("without a cache a bias says what each query may see"),
        };
        self.output.forward(mixed)
    }

    /// Queries, keys and values as attention uses them: projected, then normed, then rotated.
    fn project(&self, x: Tensor<3>, rotation: Option<&Rotation>) -> Projected {
        let (n_heads, n_kv_heads) = (self.n_heads, self.n_kv_heads);
        let mut projected = Projected { fused: self.input.forward(x), n_heads, n_kv_heads };
        if let Some((query_norm, key_norm)) = self.query_norm.as_ref().zip(self.key_norm.as_ref()) {
            projected = projected.map_heads(|heads| {
                let queries = query_norm.forward(heads.clone().narrow(2, 0, n_heads));
                let keys = key_norm.forward(heads.clone().narrow(2, n_heads, n_kv_heads));
                Tensor::cat(vec![queries, keys, heads.narrow(2, n_heads + n_kv_heads, n_kv_heads)], 2)
            });
        }
        match rotation {
            Some(rotation) => projected.map_heads(|heads| rotation.apply(heads, n_heads + n_kv_heads)),
            None => projected,
        }
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

    /// The same with what `f` makes of all heads: those of the queries, then of the keys, then of the values.
    ///
    /// # Shapes
    /// - input and output of `f`: `[batch, seq, n_heads + 2 · n_kv_heads, d_head]`
    fn map_heads(self, f: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Self {
        let ([batch, seq, width], d_head) = (self.fused.dims(), self.d_head());
        let mapped = f(self.fused.reshape([batch, seq, width / d_head, d_head]));
        Self { fused: mapped.reshape([batch, seq, width]), ..self }
    }

    /// Queries `[batch, n_heads, seq, d_head]`, and keys and values `[batch, n_kv_heads, seq, d_head]`.
    pub(crate) fn split(self) -> [Tensor<4>; 3] {
        split_heads(self.fused, self.n_heads, self.n_kv_heads)
    }

    /// The attention of these columns to each other, `[batch, seq, n_heads · d_head]`.
    pub(crate) fn mix(self, bias: Tensor<4>) -> Tensor<3> {
        self_attention(self.fused, bias, self.n_heads, self.n_kv_heads)
    }

    /// The same numbers in host memory.
    pub(crate) fn read(self) -> HostProjected {
        let ([batch, seq, _], d_head) = (self.fused.dims(), self.d_head());
        HostProjected {
            data: self.fused.into_data(),
            batch,
            seq,
            q_width: self.n_heads * d_head,
            kv_width: self.n_kv_heads * d_head,
        }
    }
}

/// Queries, keys and values of some columns in host memory.
pub(crate) struct HostProjected {
    data: TensorData,
    /// Number of rows.
    pub(crate) batch: usize,
    /// Number of columns.
    pub(crate) seq: usize,
    /// Numbers of all query heads of a column.
    pub(crate) q_width: usize,
    /// Numbers of all key heads of a column, and of all value heads.
    kv_width: usize,
}

impl HostProjected {
    /// All numbers, row by row and column by column.
    pub(crate) fn numbers(&self) -> &[f32] {
        self.data.as_slice::<f32>().expect("models compute in f32")
    }

    /// Queries, keys and values of one column of a row.
    pub(crate) fn column(&self, row: usize, column: usize) -> [&[f32]; 3] {
        let width = self.q_width + 2 * self.kv_width;
        let start = (row * self.seq + column) * width;
        let all = &self.numbers()[start..][..width];
        let (q, kv) = all.split_at(self.q_width);
        let (k, v) = kv.split_at(self.kv_width);
        [q, k, v]
    }
}
