//! Layer norm, and where it is placed on a residual branch.

use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};

use crate::config::{ModelConfig, NormPlacement};

/// A norm over the last dimension, γ (x − mean) / √(variance + ε) + β, that starts with γ = 1 and β = 0.
pub(crate) fn layer_norm(config: &ModelConfig, device: &Device) -> LayerNorm {
    LayerNormConfig::new(config.d_model).with_epsilon(config.norm_eps).init(device)
}

/// One branch `f` on the residual stream `x`: x + f(norm(x)), or norm(x + f(x)).
pub(crate) fn residual(
    x: Tensor<3>,
    placement: NormPlacement,
    norm: &LayerNorm,
    f: impl FnOnce(Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    match placement {
        NormPlacement::Pre => {
            let branch = f(norm.forward(x.clone()));
            x + branch
        }
        NormPlacement::Post => {
            let branch = f(x.clone());
            norm.forward(x + branch)
        }
    }
}
