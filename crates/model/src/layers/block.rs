//! One transformer block: attention and feed-forward, each on a residual branch.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::config::{ModelConfig, NormPlacement};
use crate::generation::cache::LayerCache;
use crate::layers::attention::{Attention, Columns};
use crate::layers::dropout::Dropout;
use crate::layers::mlp::Mlp;
use crate::layers::norm::Norm;

/// Attention and feed-forward with their norms.
#[derive(Module, Debug)]
pub struct Block {
    /// The norm of the attention branch.
    pub attention_norm: Norm,
    /// Self-attention.
    pub attention: Attention,
    /// The norm of the feed-forward branch.
    pub feed_forward_norm: Norm,
    /// The feed-forward layer.
    pub mlp: Mlp,
    #[module(skip)]
    norm: NormPlacement,
    dropout: f64,
}

impl Block {
    /// Where its norms are.
    pub(crate) fn norm_placement(&self) -> NormPlacement {
        self.norm
    }

    pub(crate) fn blank(config: &ModelConfig, device: &Device) -> Self {
        Self {
            attention_norm: Norm::of_stream(config, device),
            attention: Attention::blank(config, device),
            feed_forward_norm: Norm::of_stream(config, device),
            mlp: Mlp::blank(config, device),
            norm: config.norm,
            dropout: config.dropout,
        }
    }

    /// # Shapes
    /// - `x` and output: `[batch, seq, d_model]`
    /// - `columns` and `cache`: as [`Attention::forward`]
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        columns: Columns<'_>,
        dropout: &mut Dropout,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        match self.norm {
            NormPlacement::Pre => {
                let branch = self.attend(self.attention_norm.forward(x.clone()), columns, dropout, cache);
                let x = x + branch;
                let branch = self.feed_forward(self.feed_forward_norm.forward(x.clone()), dropout);
                x + branch
            }
            NormPlacement::Post => {
                let branch = self.attend(x.clone(), columns, dropout, cache);
                let x = self.attention_norm.forward(x + branch);
                let branch = self.feed_forward(x.clone(), dropout);
                self.feed_forward_norm.forward(x + branch)
            }
            NormPlacement::Parallel => {
                let first = self.attend(self.attention_norm.forward(x.clone()), columns, dropout, cache);
                let second = self.feed_forward(self.feed_forward_norm.forward(x.clone()), dropout);
                x + (first + second)
            }
        }
    }

    fn attend(
        &self,
        x: Tensor<3>,
        columns: Columns<'_>,
        dropout: &mut Dropout,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let branch = self.attention.forward(x, columns, dropout, cache);
        dropout.apply(branch, self.dropout)
    }

    fn feed_forward(&self, x: Tensor<3>, dropout: &mut Dropout) -> Tensor<3> {
        let branch = self.mlp.forward(x, dropout);
        dropout.apply(branch, self.dropout)
    }
}
