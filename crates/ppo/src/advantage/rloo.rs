//! RLOO: the mean of the prompt's other answers is the baseline.

use burn::tensor::Tensor;

use super::{Estimate, Estimator, KlPlacement, subtract_group_means};
use crate::rollout::Rollout;

/// REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740).
///
/// The whole answer is one action: its reward is Rᵢ = score − β Σₜ dₜ, and each of its tokens gets its advantage from
/// [`leave_one_out`]. Advantages are not whitened over the batch: the paper does not do it, and TRL's
/// `normalize_advantages` is off as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rloo;

impl Estimator for Rloo {
    fn needs_critic(&self) -> bool {
        false
    }

    fn needs_groups(&self) -> bool {
        true
    }

    fn kl(&self) -> KlPlacement {
        KlPlacement::InReward
    }

    fn estimate(&self, rollout: &Rollout, kl_coef: f64) -> Estimate {
        let rewards = rollout.total_scores() - rollout.kl().mul_scalar(kl_coef);
        let advantages = leave_one_out(rewards, rollout.samples_per_prompt);
        Estimate { advantages: rollout.on_every_token(advantages), returns: None }
    }
}

/// Aᵢ = Rᵢ − mean of the other k − 1 rewards of its group (Ahmadian et al. 2024, arXiv 2402.14740).
///
/// The other rewards do not depend on what this answer says, so the expected gradient is that of R itself. A group of
/// equal rewards gets exactly 0.
///
/// # Shapes
/// - `rewards`: `[batch]`, of whole answers, where `group_size` neighbours are one group
/// - output: `[batch]`
///
/// # Panics
/// If `group_size` is below 2 or does not divide the batch.
pub fn leave_one_out(rewards: Tensor<1>, group_size: usize) -> Tensor<1> {
    let [batch] = rewards.dims();
    let factor = group_size as f64 / (group_size as f64 - 1.0); // R − (k m − R) / (k − 1) = (R − m) k / (k − 1)
    subtract_group_means(rewards, group_size).mul_scalar(factor).reshape([batch])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advantage::standardise_groups;
    use crate::tests::{assert_close, numbers, tensor};

    /// The means of the others of 1, 4, 7 are 5.5, 4, 2.5; of −2, 0, 5 they are 2.5, 1.5, −1.
    #[test]
    fn the_baseline_of_rloo_is_the_mean_of_the_others() {
        let advantages = numbers(leave_one_out(tensor([1.0, 4.0, 7.0, -2.0, 0.0, 5.0]), 3));
        assert_close(&advantages, &[-4.5, 0.0, 4.5, -4.5, -1.5, 6.0], 2e-6);
        for group in advantages.chunks(3) {
            assert!(group.iter().sum::<f64>().abs() < 2e-6, "{group:?}");
        }
    }

    /// Three times 0.1 is not 0.3 in float32: a mean that is wrong by one rounding must not become an advantage.
    #[test]
    fn equal_rewards_give_exactly_nothing() {
        for reward in [0.1, -7.3, 1e6, 0.0] {
            assert_eq!(numbers(leave_one_out(tensor([reward; 6]), 3)), [0.0; 6]);
        }
    }

    /// A bandit with three arms and two draws, where every outcome is weighted with its probability. Σ Aᵢ (e(aᵢ) − p)
    /// is the gradient with respect to the logits. For RLOO its expectation is p (r − p · r), the gradient of the
    /// expected reward; where the mean includes the answer itself it is (k − 1) / k times that.
    #[test]
    fn the_expected_gradient_of_rloo_is_that_of_the_expected_reward() {
        let (p, r) = ([0.5, 0.2, 0.3], [1.0f32, -2.0, 4.0]);
        let pairs: Vec<[usize; 2]> = (0..9).map(|i| [i / 3, i % 3]).collect();
        let rewards: [f32; 18] = std::array::from_fn(|i| r[pairs[i / 2][i % 2]]);
        let mean: f64 = p.iter().zip(r).map(|(p, r)| p * f64::from(r)).sum();
        let exact: Vec<f64> = p.iter().zip(r).map(|(p, r)| p * (f64::from(r) - mean)).collect();
        let expected_gradient = |advantages: Vec<f64>| {
            let mut gradient = [0.0; 3];
            for (pair, advantages) in pairs.iter().zip(advantages.chunks(2)) {
                for (&arm, advantage) in pair.iter().zip(advantages) {
                    let weight = p[pair[0]] * p[pair[1]] * advantage / 2.0;
                    gradient.iter_mut().zip(p).for_each(|(g, p)| *g -= weight * p);
                    gradient[arm] += weight;
                }
            }
            gradient
        };
        assert_close(&expected_gradient(numbers(leave_one_out(tensor(rewards), 2))), &exact, 2e-6);
        let half: Vec<f64> = exact.iter().map(|g| g / 2.0).collect();
        let centred = numbers(standardise_groups(tensor(rewards), 2, false));
        assert_close(&expected_gradient(centred), &half, 2e-6);
    }
}
