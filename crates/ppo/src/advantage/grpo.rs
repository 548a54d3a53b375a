//! GRPO: all answers to the prompt are the baseline, and the KL to the reference is part of the loss.

use burn::tensor::Tensor;

use super::{Estimate, Estimator, KlPlacement, subtract_group_means};
use crate::rollout::Rollout;

/// Added to a group's standard deviation (TRL), so that scores that differ only by rounding give tiny advantages.
const STD_EPSILON: f64 = 1e-4;

/// Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300).
///
/// Each token of an answer gets the answer's advantage from [`standardise_groups`]. The reward is the score alone, and
/// the KL to the reference is a term of the loss ([`kl_loss`](crate::kl_loss)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grpo {
    /// Whether advantages are divided by the standard deviation of their group; Dr. GRPO does not divide.
    pub scale_by_std: bool,
}

impl Estimator for Grpo {
    fn needs_critic(&self) -> bool {
        false
    }

    fn needs_groups(&self) -> bool {
        true
    }

    fn kl(&self) -> KlPlacement {
        KlPlacement::InLoss
    }

    fn estimate(&self, rollout: &Rollout, _: f64) -> Estimate {
        let size = rollout.samples_per_prompt;
        let advantages = standardise_groups(rollout.total_scores(), size, self.scale_by_std);
        Estimate { advantages: rollout.on_every_token(advantages), returns: None }
    }
}

/// Aᵢ = (sᵢ − group mean) / (group standard deviation + 1e-4)
/// (Shao et al. 2024, arXiv 2402.03300, section 4.1.2).
///
/// The deviation is that of a sample, with k − 1: the paper does not say which one it is, and TRL, verl and OpenRLHF
/// use this one. Without `scale_by_std` only the mean is subtracted (Dr. GRPO: Liu et al. 2025, arXiv 2503.20783),
/// because the division gives a large weight to prompts whose answers hardly differ. A group of equal scores gets
/// exactly 0 either way.
///
/// # Shapes
/// - `scores`: `[batch]`, where `group_size` neighbours are one group
/// - output: `[batch]`
///
/// # Panics
/// If `group_size` is below 2 or does not divide the batch.
pub fn standardise_groups(scores: Tensor<1>, group_size: usize, scale_by_std: bool) -> Tensor<1> {
    let [batch] = scores.dims();
    let centred = subtract_group_means(scores, group_size);
    let advantages = if scale_by_std {
        let variance = centred.clone().square().sum_dim(1).div_scalar(group_size as f64 - 1.0);
        centred / variance.sqrt().add_scalar(STD_EPSILON)
    } else {
        centred
    };
    advantages.reshape([batch])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_close, numbers, tensor};

    /// Float32 at numbers of size 1 to 10.
    const ROUNDING: f64 = 2e-6;

    /// 1, 4, 7 have mean 4 and deviation √(18 / 2) = 3; 0 and 2, of another prompt, have mean 1 and deviation √2.
    #[test]
    fn grpo_takes_mean_and_deviation_of_the_group() {
        let one = 3.0 / (3.0 + 1e-4);
        let advantages = numbers(standardise_groups(tensor([1.0, 4.0, 7.0, 101.0, 104.0, 107.0]), 3, true));
        assert_close(&advantages, &[-one, 0.0, one, -one, 0.0, one], ROUNDING);
        let half = 1.0 / (2f64.sqrt() + 1e-4);
        let advantages = numbers(standardise_groups(tensor([0.0, 2.0]), 2, true));
        assert_close(&advantages, &[-half, half], ROUNDING);
        let advantages = numbers(standardise_groups(tensor([0.0, 2.0, 1.0, 4.0]), 2, false));
        assert_close(&advantages, &[-1.0, 1.0, -1.5, 1.5], ROUNDING);
    }

    #[test]
    fn groups_of_grpo_have_mean_0_and_deviation_1() {
        let scores: [f32; 12] = std::array::from_fn(|i| (1.7 * i as f32).sin() * (i / 4 + 1) as f32 + 3.0);
        let advantages = numbers(standardise_groups(tensor(scores), 4, true));
        for group in advantages.chunks(4) {
            assert!(group.iter().sum::<f64>().abs() < ROUNDING, "{group:?}");
            let deviation = (group.iter().map(|a| a * a).sum::<f64>() / 3.0).sqrt();
            // The deviations are near 1, and 1e-4 was added to them.
            assert!((deviation - 1.0).abs() < 3e-4, "{deviation}");
        }
    }

    /// Three times 0.1 is not 0.3 in float32: a mean that is wrong by one rounding must not become an advantage.
    #[test]
    fn equal_scores_give_exactly_nothing() {
        for score in [0.1, -7.3, 1e6, 0.0] {
            assert_eq!(numbers(standardise_groups(tensor([score; 6]), 3, true)), [0.0; 6]);
            assert_eq!(numbers(standardise_groups(tensor([score; 6]), 3, false)), [0.0; 6]);
        }
    }
}
