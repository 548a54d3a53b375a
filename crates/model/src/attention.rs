//! Causal multi-head self-attention.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};

use crate::config::ModelConfig;
use crate::dropout::Dropout;
use crate::kv_cache::LayerCache;

/// Multi-head self-attention with one fused projection to queries, keys and values (Vaswani et al. 2017, section 3.2).
#[derive(Module, Debug)]
pub struct Attention {
    /// `d_model → 3 · d_model`: queries, keys, values.
    pub c_attn: Linear,
    /// `d_model → d_model`, onto the residual stream.
    pub c_proj: Linear,
    n_heads: usize,
    dropout: f64,
}

impl Attention {
    pub(crate) fn new(config: &ModelConfig, device: &Device) -> Self {
        let linear = |d_out| LinearConfig::new(config.d_model, d_out).with_bias(config.bias).init(device);
        Self {
            c_attn: linear(3 * config.d_model),
            c_proj: linear(config.d_model),
            n_heads: config.n_heads,
            dropout: config.attention_dropout,
        }
    }

    /// softmax(q kᵀ / √d_head + bias) v for a whole sequence; fills `cache` where there is one.
    ///
    /// # Shapes
    /// - `x` and output: `[batch, seq, d_model]`
    /// - `attend_bias`: `[batch or 1, 1, seq, seq]`
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        attend_bias: &Tensor<4>,
        dropout: &mut Dropout,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let [q, k, v] = self.project(x); // each [batch, n_heads, seq, d_head]
        if let Some(cache) = cache {
            cache.fill(k.clone(), v.clone());
        }
        let scores = q.matmul(k.swap_dims(2, 3)) + attend_bias.clone(); // [batch, n_heads, seq, seq]
        let probs = dropout.apply(softmax(scores, 3), self.dropout);
        let mixed = probs.matmul(v).swap_dims(1, 2).reshape([batch, seq, d_model]);
        self.c_proj.forward(mixed)
    }

    /// The same for one new token per row, against the cached keys and values.
    ///
    /// # Shapes
    /// - `x` and output: `[batch, 1, d_model]`
    pub(crate) fn decode(&self, x: Tensor<3>, cache: &mut LayerCache) -> Tensor<3> {
        let mixed = cache.attend(self.c_attn.forward(x), self.n_heads);
        self.c_proj.forward(mixed)
    }

    /// Queries (already divided by √d_head), keys and values.
    fn project(&self, x: Tensor<3>) -> [Tensor<4>; 3] {
        let [batch, seq, d_model] = x.dims();
        let d_head = d_model / self.n_heads;
        let qkv = self.c_attn.forward(x);
        let mut parts = qkv
            .chunk(3, 2)
            .into_iter()
            .map(|part| part.reshape([batch, seq, self.n_heads, d_head]).swap_dims(1, 2));
        let mut next = || parts.next().expect("three parts were cut");
        [next().div_scalar((d_head as f64).sqrt()), next(), next()]
    }
}
