//! Advantages without a critic: the answers of one prompt are each other's baseline.

use burn::tensor::Tensor;

use crate::PpoConfig;
use crate::config::AdvantageKind;
use crate::gae::Advantages;
use crate::rollout::Rollout;

/// Added to a group's standard deviation (TRL): where scores differ by nothing but rounding, nothing is made of it.
const STD_EPSILON: f64 = 1e-4;

/// Aᵢ = Rᵢ − mean of the other k − 1 rewards of its group (RLOO: Ahmadian et al. 2024, arXiv 2402.14740).
///
/// What others got does not depend on what this answer says, so the expected gradient is that of R itself. `rewards`
/// are of whole answers, k neighbours a group. Those of equal rewards get exactly 0.
///
/// # Shapes
/// - `rewards` and the result: `[batch]`
///
/// # Panics
/// If `group_size` is below 2 or does not divide the batch.
pub fn leave_one_out(rewards: Tensor<1>, group_size: usize) -> Tensor<1> {
    let [batch] = rewards.dims();
    let factor = group_size as f64 / (group_size as f64 - 1.0); // R − (k m − R) / (k − 1) = (R − m) k / (k − 1)
    from_group_mean(rewards, group_size).mul_scalar(factor).reshape([batch])
}

/// Aᵢ = (sᵢ − group mean) / (group standard deviation + 1e-4)
/// (GRPO: Shao et al. 2024, arXiv 2402.03300, section 4.1.2).
///
/// The deviation is the sample's, with k − 1: the paper does not say which, and TRL, verl and OpenRLHF take this one.
/// Without `scale_by_std` the mean alone is taken off (Dr. GRPO: Liu et al. 2025, arXiv 2503.20783): the
/// division makes much of a prompt whose answers hardly differ. A group of equal scores gets exactly 0 either way.
///
/// # Shapes
/// - `scores` and the result: `[batch]`, k neighbours a group
///
/// # Panics
/// If `group_size` is below 2 or does not divide the batch.
pub fn standardise_groups(scores: Tensor<1>, group_size: usize, scale_by_std: bool) -> Tensor<1> {
    let [batch] = scores.dims();
    let centred = from_group_mean(scores, group_size);
    let found = if scale_by_std {
        let variance = centred.clone().square().sum_dim(1).div_scalar(group_size as f64 - 1.0);
        centred / variance.sqrt().add_scalar(STD_EPSILON)
    } else {
        centred
    };
    found.reshape([batch])
}

/// What is left of each entry without its group's mean: `[groups, group_size]`.
fn from_group_mean(x: Tensor<1>, group_size: usize) -> Tensor<2> {
    let [batch] = x.dims();
    assert!(group_size >= 2 && batch.is_multiple_of(group_size), "{batch} answers in groups of {group_size}");
    let x = x.reshape([batch / group_size, group_size]);
    // The first is taken off first, so that rounding in the mean of equal numbers leaves nothing behind.
    let x = x.clone() - x.narrow(1, 0, 1);
    x.clone() - x.mean_dim(1)
}

/// Advantages of whole answers on each of their tokens. They are not whitened over the batch: neither paper does it,
/// TRL's `normalize_advantages` is off as well, and a mean of 0 per group is more than a mean of 0 in all.
///
/// In RLOO the reward is the score less β Σ dₜ; in GRPO the score alone, and the KL is part of the loss. There is no
/// critic, and nobody learns the returns: they are that reward.
pub(crate) fn of_groups(config: &PpoConfig, rollout: &Rollout, kl: &Tensor<1>, kl_coef: f64) -> Advantages {
    let mut scores = rollout.scores.clone();
    if let Some(token_rewards) = &rollout.token_rewards {
        scores = scores + token_rewards.clone().sum_dim(1).squeeze_dim(1);
    }
    let size = config.rollout.samples_per_prompt;
    let (rewards, advantages) = if config.advantage.kind == AdvantageKind::Grpo {
        (scores.clone(), standardise_groups(scores, size, config.advantage.scale_by_std))
    } else {
        let rewards = scores - kl.clone().mul_scalar(kl_coef);
        (rewards.clone(), leave_one_out(rewards, size))
    };
    let on_every_token = |x: Tensor<1>| rollout.completion_mask.clone() * x.unsqueeze_dim::<2>(1);
    Advantages { advantages: on_every_token(advantages), returns: on_every_token(rewards) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    use crate::critic::Critic;
    use crate::tests::{
        collect, config, language_model, learner, numbers, prompts, scalar_model, targets, updated,
    };

    /// Float32 at numbers of size 1 to 10.
    const ROUNDING: f64 = 2e-6;

    fn tensor<const N: usize>(x: [f32; N]) -> Tensor<1> {
        Tensor::from_data(x, &Device::flex())
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < ROUNDING), "{found:?} {expected:?}");
    }

    /// Of 1, 4, 7 the others' means are 5.5, 4, 2.5; of −2, 0, 5 they are 2.5, 1.5, −1.
    #[test]
    fn the_baseline_of_rloo_is_the_mean_of_the_others() {
        let found = numbers(leave_one_out(tensor([1.0, 4.0, 7.0, -2.0, 0.0, 5.0]), 3));
        close(&found, &[-4.5, 0.0, 4.5, -4.5, -1.5, 6.0]);
        for group in found.chunks(3) {
            assert!(group.iter().sum::<f64>().abs() < ROUNDING, "{group:?}");
        }
    }

    /// 1, 4, 7 have mean 4 and deviation √(18 / 2) = 3; 0 and 2, of another prompt, mean 1 and deviation √2.
    #[test]
    fn grpo_takes_mean_and_deviation_of_the_group() {
        let one = 3.0 / (3.0 + 1e-4);
        let found = numbers(standardise_groups(tensor([1.0, 4.0, 7.0, 101.0, 104.0, 107.0]), 3, true));
        close(&found, &[-one, 0.0, one, -one, 0.0, one]);
        let half = 1.0 / (2f64.sqrt() + 1e-4);
        close(&numbers(standardise_groups(tensor([0.0, 2.0]), 2, true)), &[-half, half]);
        close(&numbers(standardise_groups(tensor([0.0, 2.0, 1.0, 4.0]), 2, false)), &[-1.0, 1.0, -1.5, 1.5]);
    }

    #[test]
    fn groups_of_grpo_have_mean_0_and_deviation_1() {
        let scores: [f32; 12] = std::array::from_fn(|i| (1.7 * i as f32).sin() * (i / 4 + 1) as f32 + 3.0);
        let found = numbers(standardise_groups(tensor(scores), 4, true));
        for group in found.chunks(4) {
            assert!(group.iter().sum::<f64>().abs() < ROUNDING, "{group:?}");
            let deviation = (group.iter().map(|a| a * a).sum::<f64>() / 3.0).sqrt();
            // The epsilon of 1e-4 beside deviations near 1.
            assert!((deviation - 1.0).abs() < 3e-4, "{deviation}");
        }
    }

    /// Three times 0.1 is not 0.3 in float32: a mean that is off by a rounding must not become an advantage.
    #[test]
    fn equal_scores_give_exactly_nothing() {
        for score in [0.1, -7.3, 1e6, 0.0] {
            assert_eq!(numbers(leave_one_out(tensor([score; 6]), 3)), [0.0; 6]);
            assert_eq!(numbers(standardise_groups(tensor([score; 6]), 3, true)), [0.0; 6]);
            assert_eq!(numbers(standardise_groups(tensor([score; 6]), 3, false)), [0.0; 6]);
        }
    }

    /// A bandit with three arms and two draws, every outcome of which is counted at its probability. Σ Aᵢ (e(aᵢ) − p)
    /// is the gradient by the logits; its expectation is p (r − p · r), that of the expected reward, for RLOO, and
    /// (k − 1) / k of it where the mean has the answer itself in it.
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
        close(&expected_gradient(numbers(leave_one_out(tensor(rewards), 2))), &exact);
        let half: Vec<f64> = exact.iter().map(|g| g / 2.0).collect();
        close(&expected_gradient(numbers(standardise_groups(tensor(rewards), 2, false))), &half);
    }

    /// Settings for two answers to each prompt.
    fn in_pairs(kind: AdvantageKind) -> PpoConfig {
        let mut config = config();
        (config.advantage.kind, config.rollout.samples_per_prompt) = (kind, 2);
        config
    }

    /// Oracle 1, with a reference that is another model, and with one that is the policy itself.
    #[test]
    fn the_first_minibatch_of_a_group_baseline_has_ratio_1() {
        for kind in [AdvantageKind::Rloo, AdvantageKind::Grpo] {
            for reference in [1, 3] {
                let config = in_pairs(kind);
                let learner = learner(&config, Critic::None);
                let rollout = collect(&config, &learner, &language_model(reference), &prompts(4));
                let (metrics, _) = updated(&config, learner, &rollout);
                // A few float32 roundings of a log-probability near 2.
                assert!(metrics.first_ratio_error <= 1e-5, "{metrics:?}");
                assert!((metrics.ratio - 1.0).abs() <= 1e-6, "{metrics:?}");
                assert_eq!((metrics.policy_clip_frac, metrics.value_clip_frac), (0.0, None));
                assert_eq!((metrics.value_loss, metrics.explained_var), (None, None));
                match (kind, metrics.kl_loss) {
                    (AdvantageKind::Grpo, Some(kl)) if reference == 1 => assert!(kl.abs() < 1e-6, "{kl}"),
                    (AdvantageKind::Grpo, Some(kl)) => assert!(kl > 0.01, "{kl}"),
                    (AdvantageKind::Rloo, None) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// With nothing to choose between, GRPO comes nearer to its reference, and without a penalty nothing moves.
    #[test]
    fn of_equal_scores_only_the_kl_is_learned() {
        let after = |kind, kl_coef| {
            let mut config = in_pairs(kind);
            config.kl.coef = kl_coef;
            let learner = learner(&config, Critic::None);
            let mut rollout = collect(&config, &learner, &language_model(3), &prompts(4));
            rollout.scores = rollout.scores.zeros_like() + 0.1;
            let (first, learner) = updated(&config, learner, &rollout);
            let (second, learner) = updated(&config, learner, &rollout);
            let moved = learner.policy.lm.transformer.token_embedding.weight.val();
            let from = language_model(1).transformer.token_embedding.weight.val();
            let moved = numbers(moved).iter().zip(numbers(from)).any(|(a, b)| *a != b);
            (first.kl_loss, second.kl_loss, moved)
        };
        let (first, second, moved) = after(AdvantageKind::Grpo, 1.0);
        assert!(moved && second < first.map(|kl| 0.9 * kl), "{first:?} {second:?}");
        assert!(!after(AdvantageKind::Grpo, 0.0).2 && !after(AdvantageKind::Rloo, 0.0).2);
    }

    /// Oracle 5 without a critic.
    #[test]
    fn pad_columns_change_no_metric_of_a_group_baseline() {
        for kind in [AdvantageKind::Rloo, AdvantageKind::Grpo] {
            let mut config = in_pairs(kind);
            config.ppo.ppo_epochs = 2;
            let rollout = collect(&config, &learner(&config, Critic::None), &language_model(3), &prompts(4));
            let mut padded = rollout.clone();
            padded.completion_len += 3;
            let pad = |x: &Tensor<2>| Tensor::cat(vec![x.clone(), Tensor::zeros([8, 3], &x.device())], 1);
            padded.completion_mask = pad(&rollout.completion_mask);
            padded.value_mask = pad(&rollout.value_mask);
            padded.old_logprobs = pad(&rollout.old_logprobs);
            padded.ref_logprobs = pad(&rollout.ref_logprobs);
            padded.values = pad(&rollout.values);
            let [a, b] = [&rollout, &padded].map(|rollout| {
                let learner = learner(&config, Critic::None);
                serde_json::to_value(updated(&config, learner, rollout).0).unwrap()
            });
            for (key, a) in a.as_object().unwrap() {
                let (a, b) = (a.as_f64().unwrap(), b[key].as_f64().unwrap());
                assert!((a - b).abs() <= 1e-4 * a.abs().max(0.01), "{key}: {a} {b}");
            }
        }
    }

    /// A critic that is given all the same is neither trained nor written.
    #[test]
    fn a_group_baseline_leaves_a_critic_alone() {
        for critic in [Critic::ValueHead, Critic::Separate(Box::new(scalar_model(2)))] {
            let learner = learner(&in_pairs(AdvantageKind::Rloo), critic);
            assert!(learner.policy.value_head.is_none());
            let tokenizer = temper_tokenizer::Tokenizer::byte();
            assert!(learner.actors(&language_model(1), &tokenizer).critic.is_none());
        }
    }

    /// Three answers to each of two prompts, judged once more from what was recorded, token by token.
    #[test]
    fn every_token_carries_its_answers_advantage_and_only_rloo_has_the_kl_in_it() {
        for (kind, with_kl) in [(AdvantageKind::Rloo, true), (AdvantageKind::Grpo, false)] {
            let mut config = config();
            config.advantage.kind = kind;
            config.advantage.scale_by_std = false;
            config.rollout.samples_per_prompt = 3;
            let rollout = collect(&config, &learner(&config, Critic::None), &language_model(3), &prompts(2));
            let [old, reference] = [&rollout.old_logprobs, &rollout.ref_logprobs].map(|x| numbers(x.clone()));
            let columns = rollout.completion_len;
            let len = |i: usize| rollout.rows[i].len() - rollout.prompt_lens[i];
            let reward = |i: usize| {
                let tokens = i * columns..i * columns + len(i);
                let kl: f64 = tokens.map(|t| old[t] - reference[t]).sum();
                f64::from(rollout.raw_scores[i]) - if with_kl { 0.1 * kl } else { 0.0 }
            };
            let (found, metrics, _) = targets(&config, &rollout);
            let advantages = numbers(found.advantages);
            let mut greatest: f64 = 0.0;
            for i in 0..6 {
                let group = i / 3 * 3..i / 3 * 3 + 3;
                let mean = group.map(reward).sum::<f64>() / 3.0;
                let expected = (reward(i) - mean) * if with_kl { 1.5 } else { 1.0 };
                greatest = greatest.max(expected.abs());
                for t in 0..columns {
                    let expected = if t < len(i) { expected } else { 0.0 };
                    let found = advantages[i * columns + t];
                    assert!((found - expected).abs() < 1e-5, "{kind:?}, {i}, {t}: {found} {expected}");
                }
            }
            assert!(greatest > 0.5, "the scores differ: {greatest}");
            assert_eq!(metrics.explained_var, None);
        }
    }

    #[test]
    fn answers_of_one_prompt_stand_side_by_side_and_differ() {
        let mut config = config();
        config.rollout.samples_per_prompt = 4;
        let rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(3));
        assert_eq!(rollout.prompt_lens, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
        for group in rollout.rows.chunks(4) {
            assert!(group[1..].iter().any(|row| row != &group[0]), "{group:?}");
        }
        // The same seed, the same groups.
        let again = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(3));
        assert_eq!(again.rows, rollout.rows);
    }
}
