//! The coefficient of the KL penalty over time, and the penalty where it is part of the loss.

use burn::tensor::Tensor;
use temper_tensor::masked_mean;

use crate::config::KlConfig;

/// A KL coefficient: fixed, or aiming at a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlController {
    /// β, as it is used now.
    pub coef: f64,
    target: f64,
    horizon: f64,
}

impl KlController {
    /// A controller at the start.
    pub fn new(config: &KlConfig) -> Self {
        Self { coef: config.coef, target: config.target, horizon: config.horizon }
    }

    /// β ← β (1 + clip(KL / target − 1, ±0.2) · episodes / horizon) (Ziegler et al. 2019, section 2.2).
    ///
    /// Once per rollout, after β was used. `kl` is the mean over answers of their sums, in nats.
    pub fn update(&mut self, kl: f64, episodes: usize) {
        if self.target > 0.0 {
            let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
            self.coef *= 1.0 + error * episodes as f64 / self.horizon;
        }
    }
}

/// Log-ratios in nats above this are not exponentiated: e¹⁰ is 22,026 already.
const GREATEST_LOG_RATIO: f64 = 10.0;

/// exp(r) − r − 1 with r = log π_ref − log π, averaged over completion tokens (GRPO: Shao et al. 2024,
/// arXiv 2402.03300, Eq. (4)): `[1]`.
///
/// A token far less probable than in the reference would rule the whole update with its exp(r). Beyond r =
/// 10 the exponential continues along its tangent: the pull back to the reference stays, its length
/// has a bound. (OpenRLHF and verl clamp r at 10 and 20, which takes the pull away; TRL has no bound.)
///
/// It is never below 0, and its mean over the policy's own tokens is KL(π, π_ref). Its gradient, (1 − π_ref / π) ∇ log π,
/// is in expectation that of KL(π_ref, π): to first order the same, and further away another one.
/// Gradients flow into `logprobs` alone.
///
/// # Shapes
/// - all: `[batch, completion_len]`
pub fn kl_loss(logprobs: Tensor<2>, ref_logprobs: Tensor<2>, completion_mask: Tensor<2>) -> Tensor<1> {
    // Masked before the exponential: a pad must not overflow what counts.
    let log_ratio = (ref_logprobs - logprobs) * completion_mask.clone();
    let bounded = log_ratio.clone().clamp_max(GREATEST_LOG_RATIO);
    let excess = log_ratio.clone() - bounded.clone();
    masked_mean(bounded.exp() * (excess + 1.0) - log_ratio - 1.0, completion_mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// r = ln 2, −ln 4, 0: 2 − ln 2 − 1, ¼ + 2 ln 2 − 1 and 0, together ¼ + ln 2; the pad counts nothing.
    #[test]
    fn the_kl_in_the_loss_is_that_of_eq_4() {
        let tensor = |row: [f32; 4]| Tensor::<2>::from_data([row], &Device::flex());
        let ln_2 = std::f32::consts::LN_2;
        let found = kl_loss(
            tensor([-1.0, -1.0, -2.0, -99.0]),
            tensor([-1.0 + ln_2, -1.0 - 2.0 * ln_2, -2.0, 99.0]),
            tensor([1.0, 1.0, 1.0, 0.0]),
        );
        let found: f32 = found.into_scalar();
        assert!((found - (0.25 + ln_2) / 3.0).abs() < 1e-6, "{found}");
    }

    /// At r = 60 the loss is e¹⁰ (1 + 50) − 60 − 1, and its gradient by log π is −(e¹⁰ − 1), not −e⁶⁰.
    #[test]
    fn a_token_that_became_improbable_is_pulled_back_with_a_bounded_force() {
        let device = Device::flex().autodiff();
        let logprobs = Tensor::<2>::from_data([[-60.0f32, -9.0]], &device).require_grad();
        let row = |row: [f32; 2]| Tensor::<2>::from_data([row], &Device::flex());
        let loss = kl_loss(logprobs.clone(), row([0.0, 0.0]), row([1.0, 1.0]));
        let (at_10, at_9) = (10f64.exp(), 9f64.exp());
        let expected = (at_10 * 51.0 - 61.0 + at_9 - 10.0) / 2.0;
        let found: f64 = loss.clone().inner().into_scalar();
        assert!((found / expected - 1.0).abs() < 1e-5, "{found} {expected}");
        let gradient = logprobs.grad(&loss.backward()).unwrap().into_data();
        for (found, expected) in gradient.as_slice::<f32>().unwrap().iter().zip([at_10, at_9]) {
            let expected = -(expected - 1.0) / 2.0;
            assert!((f64::from(*found) / expected - 1.0).abs() < 1e-5, "{found} {expected}");
        }
    }

    const ADAPTIVE: KlConfig = KlConfig { coef: 0.15, target: 6.0, horizon: 10_000.0 };

    /// Oracle 13.
    #[test]
    fn on_target_it_stays_and_far_off_it_moves_by_a_fifth_of_the_share() {
        let moved = |kl| {
            let mut controller = KlController::new(&ADAPTIVE);
            controller.update(kl, 500);
            controller.coef / 0.15
        };
        assert!((moved(6.0) - 1.0).abs() < 1e-12);
        assert!((moved(600.0) - 1.01).abs() < 1e-12);
        assert!((moved(0.0) - 0.99).abs() < 1e-12);
    }

    #[test]
    fn without_a_target_it_stays() {
        let mut controller = KlController::new(&KlConfig { target: 0.0, ..ADAPTIVE });
        controller.update(1e3, 500);
        assert_eq!(controller.coef, 0.15);
    }
}
