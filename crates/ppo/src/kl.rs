//! The KL to the reference: token by token, its coefficient, and the penalty as a term of the loss.

use burn::tensor::Tensor;
use temper_tensor::masked_mean;

use crate::config::KlConfig;

/// dₜ = log π_old(yₜ) − log π_ref(yₜ), and 0 on padding. Its sum over an answer estimates the answer's KL to the
/// reference, in nats (InstructGPT section 3.5, Eq. (2)).
///
/// It is positive where the token is more probable than in the reference. Single dₜ may be negative, but not their mean
/// over many answers.
///
/// # Shapes
/// - all: `[batch, completion_len]`
pub fn token_kl(old_logprobs: Tensor<2>, ref_logprobs: Tensor<2>, completion_mask: Tensor<2>) -> Tensor<2> {
    (old_logprobs - ref_logprobs) * completion_mask
}

/// A KL coefficient β: fixed, or adapted so that the KL comes near a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KlController {
    /// The current β.
    pub coef: f64,
    target: f64,
    horizon: f64,
}

impl KlController {
    /// A controller at the start of a run.
    pub fn new(config: &KlConfig) -> Self {
        Self { coef: config.coef, target: config.target, horizon: config.horizon }
    }

    /// β ← β (1 + clip(KL / target − 1, ±0.2) · episodes / horizon) (Ziegler et al. 2019, section 2.2).
    ///
    /// Call it once per rollout, after β was used. `kl` is the KL per answer in nats, the mean over `episodes` answers. A
    /// fixed β stays as it is.
    pub fn update(&mut self, kl: f64, episodes: usize) {
        if self.target > 0.0 {
            let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
            self.coef *= 1.0 + error * episodes as f64 / self.horizon;
        }
    }
}

/// Greatest log-ratio in nats that is exponentiated: e¹⁰ is already 22,026.
const GREATEST_LOG_RATIO: f64 = 10.0;

/// exp(r) − r − 1 with r = log π_ref − log π, averaged over completion tokens (GRPO: Shao et al. 2024,
/// arXiv 2402.03300, Eq. (4)): `[1]`.
///
/// The exp(r) of a token that is far less probable than in the reference would dominate the whole update. Above r = 10 the
/// exponential is therefore continued along its tangent: the gradient still points back to the reference, and its length
/// is bounded. (OpenRLHF and verl clamp r at 10 and 20, which removes the gradient; TRL has no bound.)
///
/// The loss is never below 0, and below r = 10 its mean over the policy's own tokens is KL(π, π_ref). Its gradient
/// (1 − π_ref / π) ∇ log π is in expectation that of KL(π_ref, π), which is the same to first order and differs further
/// away. Gradients flow into `logprobs` only.
///
/// # Shapes
/// - all: `[batch, completion_len]`
pub fn kl_loss(logprobs: Tensor<2>, ref_logprobs: Tensor<2>, completion_mask: Tensor<2>) -> Tensor<1> {
    // Masked before the exponential: otherwise padding could overflow and turn the sum into NaN.
    let log_ratio = (ref_logprobs - logprobs) * completion_mask.clone();
    let bounded = log_ratio.clone().clamp_max(GREATEST_LOG_RATIO);
    let excess = log_ratio.clone() - bounded.clone();
    masked_mean(bounded.exp() * (excess + 1.0) - log_ratio - 1.0, completion_mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// The first answer gains ½ and ½ and loses 1; the second has one token that counts.
    #[test]
    fn the_kl_of_an_answer_is_the_sum_over_its_tokens() {
        let tensor = |rows: [[f32; 3]; 2]| Tensor::<2>::from_data(rows, &Device::flex());
        let d = token_kl(
            tensor([[-1.0, -2.0, -3.0], [-0.5, -9.0, -9.0]]),
            tensor([[-1.5, -1.0, -3.5], [-2.5, -4.0, -5.0]]),
            tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]),
        );
        assert_eq!(d.clone().into_data().as_slice::<f32>().unwrap(), [0.5, -1.0, 0.5, 2.0, 0.0, 0.0]);
        assert_eq!(d.sum_dim(1).into_data().as_slice::<f32>().unwrap(), [0.0, 2.0]);
    }

    /// r = ln 2, −ln 4, 0: 2 − ln 2 − 1, ¼ + 2 ln 2 − 1 and 0, together ¼ + ln 2; padding does not count.
    #[test]
    fn the_kl_in_the_loss_is_that_of_eq_4() {
        let tensor = |row: [f32; 4]| Tensor::<2>::from_data([row], &Device::flex());
        let ln_2 = std::f32::consts::LN_2;
        let loss = kl_loss(
            tensor([-1.0, -1.0, -2.0, -99.0]),
            tensor([-1.0 + ln_2, -1.0 - 2.0 * ln_2, -2.0, 99.0]),
            tensor([1.0, 1.0, 1.0, 0.0]),
        );
        let value: f32 = loss.into_scalar();
        assert!((value - (0.25 + ln_2) / 3.0).abs() < 1e-6, "{value}");
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
        let value: f64 = loss.clone().inner().into_scalar();
        assert!((value / expected - 1.0).abs() < 1e-5, "{value} {expected}");
        let gradient = logprobs.grad(&loss.backward()).unwrap().into_data();
        for (value, expected) in gradient.as_slice::<f32>().unwrap().iter().zip([at_10, at_9]) {
            let expected = -(expected - 1.0) / 2.0;
            assert!((f64::from(*value) / expected - 1.0).abs() < 1e-5, "{value} {expected}");
        }
    }

    const ADAPTIVE: KlConfig = KlConfig { coef: 0.15, target: 6.0, horizon: 10_000.0 };

    /// Oracle 13: the adaptive coefficient of Ziegler et al.
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
