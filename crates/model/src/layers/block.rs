//! One transformer block: attention and feed-forward, each on a residual branch.

use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::{Device, Tensor};

use crate::config::{ModelConfig, NormPlacement};
use crate::generation::cache::LayerCache;
use crate::layers::attention::Attention;
use crate::layers::dropout::Dropout;
use crate::layers::mlp::Mlp;
use crate::layers::norm::{layer_norm, residual};

/// Attention and feed-forward with their norms.
#[derive(Module, Debug)]
pub struct Block {
    /// The norm of the attention branch.
    pub attention_norm: LayerNorm,
    /// Self-attention.
    pub attention: Attention,
    /// The norm of the feed-forward branch.
    pub feed_forward_norm: LayerNorm,
    /// The feed-forward layer.
    pub mlp: Mlp,
    #[module(skip)]
    norm: NormPlacement,
    dropout: f64,
}

impl Block {
    pub(crate) fn blank(config: &ModelConfig, device: &Device) -> Self {
        Self {
            attention_norm: layer_norm(config, device),
            attention: Attention::blank(config, device),
            feed_forward_norm: layer_norm(config, device),
            mlp: Mlp::blank(config, device),
            norm: config.norm,
            dropout: config.dropout,
        }
    }

    /// # Shapes
    /// - `x` and output: `[batch, seq, d_model]`
    /// - `bias` and `cache`: as [`Attention::forward`]
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        bias: Option<&Tensor<4>>,
        dropout: &mut Dropout,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let x = residual(x, self.norm, &self.attention_norm, |x| {
            let branch = self.attention.forward(x, bias, dropout, cache);
            dropout.apply(branch, self.dropout)
        });
        residual(x, self.norm, &self.feed_forward_norm, |x| {
            let branch = self.mlp.forward(x, dropout);
            dropout.apply(branch, self.dropout)
        })
    }
}
