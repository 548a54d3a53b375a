//! One transformer block: attention and feed-forward, each on a residual branch.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, gelu_approximate, relu};
use burn::tensor::{Device, Tensor};

use crate::attention::Attention;
use crate::config::{Activation, ModelConfig, NormPlacement};
use crate::dropout::Dropout;
use crate::kv_cache::LayerCache;

/// The feed-forward layer: two linear maps with a non-linearity between them.
#[derive(Module, Debug)]
pub struct FeedForward {
    /// `d_model → d_ff`.
    pub c_fc: Linear,
    /// `d_ff → d_model`, onto the residual stream.
    pub c_proj: Linear,
    #[module(skip)]
    activation: Activation,
    dropout: f64,
}

impl FeedForward {
    fn new(config: &ModelConfig, device: &Device) -> Self {
        let linear = |d_in, d_out| LinearConfig::new(d_in, d_out).with_bias(config.bias).init(device);
        Self {
            c_fc: linear(config.d_model, config.d_ff),
            c_proj: linear(config.d_ff, config.d_model),
            activation: config.activation,
            dropout: config.ff_dropout,
        }
    }

    fn forward(&self, x: Tensor<3>, dropout: &mut Dropout) -> Tensor<3> {
        let hidden = self.c_fc.forward(x); // [batch, seq, d_ff]
        let hidden = match self.activation {
            Activation::Relu => relu(hidden),
            Activation::Gelu => gelu(hidden),
            Activation::GeluTanh => gelu_approximate(hidden),
        };
        self.c_proj.forward(dropout.apply(hidden, self.dropout))
    }
}

/// Attention and feed-forward with their norms. Field names are GPT-2's.
#[derive(Module, Debug)]
pub struct Block {
    /// The norm of the attention branch.
    pub ln_1: LayerNorm,
    /// Self-attention.
    pub attn: Attention,
    /// The norm of the feed-forward branch.
    pub ln_2: LayerNorm,
    /// Feed-forward.
    pub mlp: FeedForward,
    #[module(skip)]
    norm: NormPlacement,
    dropout: f64,
}

impl Block {
    pub(crate) fn new(config: &ModelConfig, device: &Device) -> Self {
        let layer_norm = || LayerNormConfig::new(config.d_model).with_epsilon(config.norm_eps).init(device);
        Self {
            ln_1: layer_norm(),
            attn: Attention::new(config, device),
            ln_2: layer_norm(),
            mlp: FeedForward::new(config, device),
            norm: config.norm,
            dropout: config.dropout,
        }
    }

    /// Whole sequences: `[batch, seq, d_model]` in and out.
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        attend_bias: &Tensor<4>,
        dropout: &mut Dropout,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        self.residual(x, dropout, |x, dropout| self.attn.forward(x, attend_bias, dropout, cache))
    }

    /// One new token per row: `[batch, 1, d_model]` in and out.
    pub(crate) fn decode(&self, x: Tensor<3>, cache: &mut LayerCache) -> Tensor<3> {
        self.residual(x, &mut Dropout::off(), |x, _| self.attn.decode(x, cache))
    }

    fn residual(
        &self,
        x: Tensor<3>,
        dropout: &mut Dropout,
        attend: impl FnOnce(Tensor<3>, &mut Dropout) -> Tensor<3>,
    ) -> Tensor<3> {
        match self.norm {
            NormPlacement::Pre => {
                let branch = attend(self.ln_1.forward(x.clone()), dropout);
                let x = x + dropout.apply(branch, self.dropout);
                let branch = self.mlp.forward(self.ln_2.forward(x.clone()), dropout);
                x + dropout.apply(branch, self.dropout)
            }
            NormPlacement::Post => {
                let branch = attend(x.clone(), dropout);
                let x = self.ln_1.forward(x + dropout.apply(branch, self.dropout));
                let branch = self.mlp.forward(x.clone(), dropout);
                self.ln_2.forward(x + dropout.apply(branch, self.dropout))
            }
        }
    }
}
