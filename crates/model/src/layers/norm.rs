//! Norms, and where they are placed on a residual branch.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use temper_kernels::{layer_norm, rms_norm};

use crate::config::{ModelConfig, NormKind};

/// A norm over the last dimension that starts with γ = 1 and β = 0.
///
/// - layer norm (Ba et al. 2016): γ (x − mean) / √(variance + ε) + β
/// - RMS norm (Zhang and Sennrich 2019): γ x / √(mean of x² + ε)
#[derive(Module, Debug)]
pub struct Norm {
    /// γ: one number for each of the last dimension.
    pub gamma: Param<Tensor<1>>,
    /// β, likewise; an RMS norm has none.
    pub beta: Option<Param<Tensor<1>>>,
    epsilon: f64,
}

impl Norm {
    pub(crate) fn new(kind: NormKind, width: usize, epsilon: f64, device: &Device) -> Self {
        let has_beta = kind == NormKind::Layer;
        Self {
            gamma: Param::from_tensor(Tensor::ones([width], device)),
            beta: has_beta.then(|| Param::from_tensor(Tensor::zeros([width], device))),
            epsilon,
        }
    }

    /// A norm of the residual stream.
    /// What is added to the variance.
    pub(crate) fn epsilon(&self) -> f64 {
        self.epsilon
    }

    pub(crate) fn of_stream(config: &ModelConfig, device: &Device) -> Self {
        Self::new(config.norm_kind, config.d_model, config.norm_eps, device)
    }

    /// # Shapes
    /// - `x` and output: `[.., width]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let gamma = self.gamma.val();
        match &self.beta {
            Some(beta) => layer_norm(x, gamma, beta.val(), self.epsilon),
            None => rms_norm(x, gamma, self.epsilon),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_tensor::values_of;

    /// The mean of the squares of 1, 7, 5, 5 is 25; with ε = 0 each number is divided by 5.
    #[test]
    fn an_rms_norm_divides_by_the_root_of_the_mean_square() {
        let device = Device::flex();
        let mut norm = Norm::new(NormKind::Rms, 4, 0.0, &device);
        assert!(norm.beta.is_none());
        norm.gamma = Param::from_tensor(Tensor::from_data([1.0, 1.0, 2.0, -1.0], &device));
        let normed = values_of(norm.forward(Tensor::<2>::from_data([[1.0, 7.0, 5.0, 5.0]], &device)));
        for (found, expected) in normed.iter().zip([0.2, 1.4, 2.0, -1.0]) {
            assert!((found - expected).abs() < 1e-6, "{normed:?}");
        }
        // ε is added to the mean of the squares: 24 + 25 = 49.
        let norm = Norm::new(NormKind::Rms, 4, 24.0, &device);
        let normed = values_of(norm.forward(Tensor::<2>::from_data([[1.0, 7.0, 5.0, 5.0]], &device)));
        assert!((normed[1] - 1.0).abs() < 1e-6, "{normed:?}");
    }
}
