//! The clipped losses of PPO.

use burn::tensor::Tensor;
use temper_tensor::masked_mean;

/// The policy loss, with statistics of the update. All are means over completion tokens, `[1]`.
#[derive(Clone, Debug)]
pub struct PolicyLoss {
    /// To be minimised.
    pub loss: Tensor<1>,
    /// Share of tokens where clipping to 1 ± ε changed the loss, without gradients; the dual clip does not count.
    pub clip_frac: Tensor<1>,
    /// ½ (log π − log π_old)², an estimate of the KL between the two, without gradients.
    pub approx_kl: Tensor<1>,
    /// π / π_old, without gradients.
    pub ratio: Tensor<1>,
}

/// The range of the ratio within which a token has a gradient.
///
/// Converts from `f64`: ε without a dual clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyClip {
    /// ε: the ratio is clipped to 1 ± ε where a ratio outside would lower the loss.
    pub range: f64,
    /// c, above 1: a token with A < 0 costs at most −c A; 0 for no dual clip.
    pub dual: f64,
}

impl From<f64> for PolicyClip {
    fn from(range: f64) -> Self {
        Self { range, dual: 0.0 }
    }
}

/// max(−A ρ, −A clip(ρ, 1 ± ε)) with ρ = exp(log π − log π_old), averaged over completion tokens
/// (Schulman et al. 2017, Eq. (7)).
///
/// With a dual clip c, a token with A < 0 costs at most −c A (Ye et al. 2020, arXiv 1912.09729, Eq. (5)). Without it
/// nothing bounds such a token, and a single one that became far more likely could dominate the update.
///
/// Gradients flow into `logprobs` only, and not through tokens where clipping changed the loss.
///
/// # Shapes
/// - all: `[batch, completion_len]`
pub fn policy_loss(
    logprobs: Tensor<2>,
    old_logprobs: Tensor<2>,
    advantages: Tensor<2>,
    completion_mask: Tensor<2>,
    clip: impl Into<PolicyClip>,
) -> PolicyLoss {
    let clip = clip.into();
    // Masked before the exponential: otherwise padding could overflow and turn the sum into NaN.
    let log_ratio = (logprobs - old_logprobs) * completion_mask.clone();
    let ratio = log_ratio.clone().exp();
    let plain = -advantages.clone() * ratio.clone();
    let clipped = -advantages.clone() * ratio.clone().clamp(1.0 - clip.range, 1.0 + clip.range);
    let was_clipped = clipped.clone().inner().greater(plain.clone().inner()).float();
    let loss = plain.max_pair(clipped);
    let loss = if clip.dual > 0.0 {
        let is_bad = advantages.clone().lower_elem(0.0);
        let bounded = loss.clone().min_pair(-advantages * clip.dual);
        loss.mask_where(is_bad, bounded)
    } else {
        loss
    };
    let mask = completion_mask.clone();
    PolicyLoss {
        loss: masked_mean(loss, completion_mask),
        clip_frac: masked_mean(was_clipped, mask.clone()),
        approx_kl: masked_mean(log_ratio.inner().square().mul_scalar(0.5), mask.clone()),
        ratio: masked_mean(ratio.inner(), mask),
    }
}

/// The value loss with its clip fraction. Both are means over values, `[1]`.
#[derive(Clone, Debug)]
pub struct ValueLoss {
    /// To be minimised.
    pub loss: Tensor<1>,
    /// Share of values where clipping changed the loss, without gradients.
    pub clip_frac: Tensor<1>,
}

/// ½ max((V − R)², (clip(V, V_old ± ε) − R)²), averaged over values
/// (lm-human-preferences, `train_policy.py`; TRL).
///
/// Gradients flow into `values` only. `value_mask` is 1 where there is a value: on completion tokens, and one past the
/// end where the score is placed there.
///
/// # Shapes
/// - all: `[batch, completion_len]`
pub fn value_loss(
    values: Tensor<2>,
    old_values: Tensor<2>,
    returns: Tensor<2>,
    value_mask: Tensor<2>,
    value_clip_range: f64,
) -> ValueLoss {
    let moved = (values.clone() - old_values.clone()).clamp(-value_clip_range, value_clip_range);
    let plain = (values - returns.clone()).square();
    let clipped = (old_values + moved - returns).square();
    let was_clipped = clipped.clone().inner().greater(plain.clone().inner()).float();
    ValueLoss {
        loss: masked_mean(plain.max_pair(clipped), value_mask.clone()).mul_scalar(0.5),
        clip_frac: masked_mean(was_clipped, value_mask),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn tensor<const T: usize>(row: [f32; T]) -> Tensor<2> {
        Tensor::from_data([row], &Device::flex())
    }

    fn scalar(x: Tensor<1>) -> f32 {
        x.into_scalar()
    }

    /// Ratios 2, ½, 1.1 with advantages 1, −1, 3: clipped at 1.2, clipped at 0.8, not clipped; padding does not count.
    #[test]
    fn ratios_are_clipped_where_they_would_gain() {
        let logprobs = tensor([2f32.ln() - 1.0, 0.5f32.ln() - 2.0, 1.1f32.ln(), 50.0]);
        let old = tensor([-1.0, -2.0, 0.0, -50.0]);
        let mask = tensor([1.0, 1.0, 1.0, 0.0]);
        let result = policy_loss(logprobs, old, tensor([1.0, -1.0, 3.0, 7.0]), mask, 0.2);
        assert!((scalar(result.loss) - (-1.2 + 0.8 - 3.3) / 3.0).abs() < 1e-5);
        assert!((scalar(result.clip_frac) - 2.0 / 3.0).abs() < 1e-6);
        assert!((scalar(result.ratio) - 3.6 / 3.0).abs() < 1e-5);
        let kl = (2f32.ln().powi(2) * 2.0 + 1.1f32.ln().powi(2)) / 6.0;
        assert!((scalar(result.approx_kl) - kl).abs() < 1e-6);
    }

    #[test]
    fn where_every_ratio_is_clipped_no_gradient_is_left() {
        let device = Device::flex().autodiff();
        let logprobs = Tensor::<2>::from_data([[1.0f32, -1.0]], &device).require_grad();
        let result =
            policy_loss(logprobs.clone(), tensor([0.0, 0.0]), tensor([1.0, -1.0]), tensor([1.0, 1.0]), 0.2);
        let gradient = logprobs.grad(&result.loss.backward()).unwrap();
        assert_eq!(gradient.into_data().as_slice::<f32>().unwrap(), [0.0, 0.0]);
    }

    /// D2: the notebook computes the new log-probs without a gradient.
    #[test]
    fn the_policy_gets_a_gradient_at_ratio_1() {
        let device = Device::flex().autodiff();
        let logprobs = Tensor::<2>::from_data([[-1.0f32, -2.0]], &device).require_grad();
        let result =
            policy_loss(logprobs.clone(), tensor([-1.0, -2.0]), tensor([1.0, -3.0]), tensor([1.0, 1.0]), 0.2);
        let gradient = logprobs.grad(&result.loss.backward()).unwrap();
        assert_eq!(gradient.into_data().as_slice::<f32>().unwrap(), [-0.5, 1.5]);
    }

    /// Ratios 5, 2, 5 with advantages −1, −1, 2: at c = 3 the first costs 3 and not 5, the second stays at 2, and the
    /// third is clipped at 1.2. The first has no gradient.
    #[test]
    fn a_bad_token_costs_no_more_than_the_dual_clip() {
        let device = Device::flex().autodiff();
        let logprobs = Tensor::<2>::from_data([[5f32.ln(), 2f32.ln(), 5f32.ln()]], &device).require_grad();
        let (zero, one) = (tensor([0.0; 3]), tensor([1.0; 3]));
        let loss_with = |dual| {
            policy_loss(
                logprobs.clone(),
                zero.clone(),
                tensor([-1.0, -1.0, 2.0]),
                one.clone(),
                PolicyClip { range: 0.2, dual },
            )
        };
        assert!((scalar(loss_with(0.0).loss.inner()) - (5.0 + 2.0 - 2.4) / 3.0).abs() < 1e-6);
        let bounded = loss_with(3.0).loss;
        assert!((scalar(bounded.clone().inner()) - (3.0 + 2.0 - 2.4) / 3.0).abs() < 1e-6);
        let gradient = logprobs.grad(&bounded.backward()).unwrap().into_data();
        let expected = [0.0, 2.0 / 3.0, 0.0];
        assert!(gradient.as_slice::<f32>().unwrap().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    /// Values 1, 5 and returns 2, 2 from old values 0.9, 0: the second is clipped to 0.2, whose error is smaller.
    #[test]
    fn the_larger_of_both_value_errors_counts() {
        let mask = tensor([1.0, 1.0, 0.0]);
        let result =
            value_loss(tensor([1.0, 5.0, 9.0]), tensor([0.9, 0.0, 0.0]), tensor([2.0, 2.0, 0.0]), mask, 0.2);
        assert!((scalar(result.loss) - 0.5 * (1.0 + 9.0) / 2.0).abs() < 1e-6);
        assert_eq!(scalar(result.clip_frac), 0.0);
        let mask = tensor([1.0]);
        let result = value_loss(tensor([2.0]), tensor([0.0]), tensor([2.0]), mask, 0.2);
        assert!((scalar(result.loss) - 0.5 * 1.8f32.powi(2)).abs() < 1e-5);
        assert_eq!(scalar(result.clip_frac), 1.0);
    }
}
