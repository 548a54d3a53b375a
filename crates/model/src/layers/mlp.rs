//! The feed-forward layer.

use std::f64::consts::SQRT_2;

use burn::module::Module;
use burn::tensor::activation::{gelu, relu, silu};
use burn::tensor::{Device, Tensor};
use temper_kernels::{gelu_tanh, swiglu};

use crate::config::{Activation, FeedForward, ModelConfig};
use crate::layers::dropout::Dropout;
use crate::layers::linear::Linear;

/// Linear maps with a non-linearity between them, on each token by itself: see [`FeedForward`].
#[derive(Module, Debug)]
pub struct Mlp {
    /// The gate V where there is one: `d_model → d_ff`.
    pub gate: Option<Linear>,
    /// W₁: `d_model → d_ff`.
    pub input: Linear,
    /// W₂: `d_ff → d_model`, onto the residual stream.
    pub output: Linear,
    #[module(skip)]
    activation: Activation,
    dropout: f64,
}

impl Mlp {
    /// The function between its layers.
    pub(crate) fn activation(&self) -> Activation {
        self.activation
    }

    pub(crate) fn blank(config: &ModelConfig, device: &Device) -> Self {
        let linear = |d_in, d_out| Linear::zeros(d_in, d_out, config.bias.on_feed_forward(), device);
        let is_gated = config.feed_forward == FeedForward::Gated;
        Self {
            gate: is_gated.then(|| linear(config.d_model, config.d_ff)),
            input: linear(config.d_model, config.d_ff),
            output: linear(config.d_ff, config.d_model),
            activation: config.activation,
            dropout: config.ff_dropout,
        }
    }

    /// # Shapes
    /// - `x` and output: `[batch, seq, d_model]`
    pub(crate) fn forward(&self, x: Tensor<3>, dropout: &mut Dropout) -> Tensor<3> {
        let hidden = match &self.gate {
            None => self.activation.apply(self.input.forward(x)),
            Some(gate) => self.activation.gate(gate.forward(x.clone()), self.input.forward(x)),
        }; // [batch, seq, d_ff]
        self.output.forward(dropout.apply(hidden, self.dropout))
    }
}

impl Activation {
    /// The activation of `gate` times `x`.
    ///
    /// # Shapes
    /// - `gate`, `x` and output: any, but the same
    fn gate<const D: usize>(self, gate: Tensor<D>, x: Tensor<D>) -> Tensor<D> {
        if self == Self::Silu { swiglu(gate, x) } else { self.apply(gate) * x }
    }

    /// # Shapes
    /// - `x` and output: any.
    fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => relu(x),
            Self::Gelu => exact_gelu(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::Silu => silu(x),
        }
    }
}

/// x (1 + erf(x / √2)) / 2 (Hendrycks and Gimpel 2016).
///
/// Only flex has the derivative of this formula; on every other backend the gradient of burn's `gelu` is that of the tanh
/// approximation. There the formula is written out, so that each of its parts is differentiated.
fn exact_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if temper_tensor::backend_name(&x.device()) == "flex" {
        return gelu(x);
    }
    let share = (x.clone().div_scalar(SQRT_2).erf() + 1.0).mul_scalar(0.5);
    x * share
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_tensor::values_of;

    /// The values of torch 2.15 at −1.5, 0.5 and 3 in float64: `torch.nn.functional.silu`, and `gelu` in both forms.
    #[test]
    fn activations_have_the_values_of_torch() {
        for (activation, expected) in [
            (Activation::Relu, [0.0, 0.5, 3.0]),
            (Activation::Silu, [-0.2736382857, 0.3112296656, 2.8577223805]),
            (Activation::Gelu, [-0.1002108019, 0.3457312306, 2.9959503059]),
            (Activation::GeluTanh, [-0.1004284230, 0.3457140098, 2.9963626079]),
        ] {
            let x = Tensor::<1>::from_data([-1.5, 0.5, 3.0], &Device::flex());
            let outputs = values_of(activation.apply(x));
            let close = outputs.iter().zip(expected).all(|(a, b)| (a - b as f32).abs() < 1e-6);
            assert!(close, "{activation:?}: {outputs:?}");
        }
    }
}
