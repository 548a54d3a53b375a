//! The loss of the reward model.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;

/// Mean of −log σ(r_chosen − r_rejected), in nats (InstructGPT section 3.5, Eq. (1), with K = 2).
///
/// A pair with equal scores costs ln 2.
///
/// # Shapes
/// - `chosen` and `rejected`: `[pairs]`
/// - output: `[1]`; gradients flow into both
pub fn pairwise_loss(chosen: Tensor<1>, rejected: Tensor<1>) -> Tensor<1> {
    -log_sigmoid(chosen - rejected).mean()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn loss<const N: usize>(chosen: [f32; N], rejected: [f32; N]) -> f32 {
        let tensor = |values: [f32; N]| Tensor::from_data(values, &Device::flex());
        pairwise_loss(tensor(chosen), tensor(rejected)).into_scalar()
    }

    #[test]
    fn equal_scores_cost_ln_2() {
        assert!((loss([3.0], [3.0]) - 2f32.ln()).abs() < 1e-6);
    }

    #[test]
    fn only_the_difference_counts() {
        // softplus(−ln 3) = ln(4/3) and softplus(ln 3) = ln 4.
        let expected = ((4f32 / 3.0).ln() + 4f32.ln()) / 2.0;
        assert!((loss([3f32.ln(), 5.0], [0.0, 5.0 + 3f32.ln()]) - expected).abs() < 1e-6);
    }

    #[test]
    fn a_hopeless_pair_costs_its_difference_and_stays_finite() {
        assert!((loss([-200.0], [300.0]) - 500.0).abs() < 1e-3);
        assert_eq!(loss([300.0], [-200.0]), 0.0);
    }
}
