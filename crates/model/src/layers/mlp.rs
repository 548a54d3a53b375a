//! The feed-forward layer.

use burn::module::Module;
use burn::tensor::activation::{gelu, gelu_approximate, relu};
use burn::tensor::{Device, Tensor};

use crate::config::{Activation, ModelConfig};
use crate::layers::dropout::Dropout;
use crate::layers::linear::Linear;

/// Two linear maps with a non-linearity between them, on each token by itself (Vaswani et al. 2017, section 3.3).
#[derive(Module, Debug)]
pub struct Mlp {
    /// `d_model → d_ff`.
    pub input: Linear,
    /// `d_ff → d_model`, onto the residual stream.
    pub output: Linear,
    #[module(skip)]
    activation: Activation,
    dropout: f64,
}

impl Mlp {
    pub(crate) fn blank(config: &ModelConfig, device: &Device) -> Self {
        Self {
            input: Linear::zeros(config.d_model, config.d_ff, config.bias, device),
            output: Linear::zeros(config.d_ff, config.d_model, config.bias, device),
            activation: config.activation,
            dropout: config.ff_dropout,
        }
    }

    /// # Shapes
    /// - `x` and output: `[batch, seq, d_model]`
    pub(crate) fn forward(&self, x: Tensor<3>, dropout: &mut Dropout) -> Tensor<3> {
        let hidden = self.input.forward(x); // [batch, seq, d_ff]
        let hidden = match self.activation {
            Activation::Relu => relu(hidden),
            Activation::Gelu => gelu(hidden),
            Activation::GeluTanh => gelu_approximate(hidden),
        };
        self.output.forward(dropout.apply(hidden, self.dropout))
    }
}
