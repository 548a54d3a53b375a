//! KL, advantages and returns of a rollout.

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    both_critics, collect, config, language_model, learner, numbers, prompts, scalar_model, targets,
};
use crate::advantage::Targets;
use crate::metrics::PpoMetrics;
use crate::networks::Critic;
use crate::rollout::Rollout;

/// Oracle 2: the KL is 0 where the policy is its reference.
#[test]
fn a_policy_that_is_its_reference_has_no_kl() {
    for critic in both_critics() {
        let config = config();
        let learner = learner(&config, critic);
        let rollout = collect(&config, &learner, &language_model(1), &prompts(8));
        let (_, metrics) = targets(&config, &rollout);
        let kl = numbers(rollout.kl());
        assert_eq!((metrics.kl, metrics.non_score_reward), (0.0, 0.0));
        assert_eq!(kl, [0.0; 8]);
        assert!((metrics.rlhf_reward - metrics.scores).abs() < 1e-6, "{metrics:?}");
    }
}

/// The KL to another reference is above 0 in the mean over many answers.
#[test]
fn a_policy_away_from_its_reference_has_a_positive_kl() {
    let config = config();
    let rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(3), &prompts(192));
    let (_, metrics) = targets(&config, &rollout);
    let kl = numbers(rollout.kl());
    assert!((metrics.kl - kl.iter().sum::<f64>() / 192.0).abs() < 1e-5);
    assert!(metrics.kl > 0.5, "{}", metrics.kl);
    assert!((metrics.non_score_reward + 0.1 * metrics.kl).abs() < 1e-9);
    assert!((metrics.rlhf_reward - metrics.scores - metrics.non_score_reward).abs() < 1e-4, "{metrics:?}");
}

/// D11: the notebook whitens each answer by itself, which is 0 / 0 for an answer of one token.
#[test]
fn d11_one_token_answers_are_compared_with_each_other() {
    let mut config = config();
    config.rollout.max_new_tokens = 1;
    let rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(48));
    let (targets, _) = targets(&config, &rollout);
    let advantages = numbers(targets.advantages);
    let fives = rollout.episodes.rows.iter().map(|row| row.last() == Some(&5));
    for (advantage, five) in advantages.iter().zip(fives) {
        assert!(advantage.is_finite() && (*advantage > 0.0) == five, "{advantages:?}");
    }
    let alone = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(1));
    assert_eq!(numbers(super::targets(&config, &alone).0.advantages), [0.0]);
}

/// Advantages are whitened over all tokens that count. Returns are made from the plain advantages, so that the critic
/// learns the rewards to come and not their deviation from the mean. With γ = λ = 1 they are the sum of the rewards to
/// come.
#[test]
fn returns_are_the_rewards_to_come_and_advantages_are_whitened() {
    for whiten_rewards in [false, true] {
        let mut config = config();
        (config.update.gae_lambda, config.update.whiten_rewards) = (1.0, whiten_rewards);
        let learner = learner(&config, Critic::Separate(Box::new(scalar_model(2))));
        let rollout = collect(&config, &learner, &language_model(3), &prompts(12));
        let columns = rollout.episodes.completion_len;
        let recorded_values = rollout.values.clone().unwrap();
        let [old, reference, values, mask] =
            [&rollout.old_logprobs, &rollout.ref_logprobs, &recorded_values, &rollout.completion_mask]
                .map(|x| numbers(x.clone()));
        let lens: Vec<usize> = rollout.episodes.completion_lens().collect();
        let mut rewards: Vec<f64> = (0..old.len()).map(|i| -0.1 * (old[i] - reference[i])).collect();
        for (i, len) in lens.iter().enumerate() {
            rewards[i * columns + len - 1] += f64::from(rollout.raw_scores[i]);
        }
        let counts: Vec<usize> = (0..mask.len()).filter(|&i| mask[i] == 1.0).collect();
        let statistics = |x: &[f64]| {
            let mean = counts.iter().map(|&i| x[i]).sum::<f64>() / counts.len() as f64;
            let variance = counts.iter().map(|&i| (x[i] - mean).powi(2)).sum::<f64>() / counts.len() as f64;
            (mean, variance.sqrt())
        };
        if whiten_rewards {
            let (mean, std) = statistics(&rewards);
            rewards.iter_mut().for_each(|reward| *reward = (*reward - mean) / std + mean);
        }
        let to_come = |i: usize| {
            let (row, t) = (i / columns, i % columns);
            (t..lens[row]).map(|t| rewards[row * columns + t]).sum::<f64>()
        };
        let expected: Vec<f64> =
            (0..mask.len()).map(|i| if mask[i] == 1.0 { to_come(i) } else { 0.0 }).collect();
        let plain: Vec<f64> = expected.iter().zip(&values).map(|(r, v)| r - v).collect();
        let (mean, std) = statistics(&plain);
        let (targets, _) = targets(&config, &rollout);
        let (advantages, returns) = (numbers(targets.advantages), numbers(targets.returns.unwrap()));
        for i in 0..mask.len() {
            let whitened = mask[i] * (plain[i] - mean) / std;
            assert!((returns[i] - expected[i]).abs() < 2e-5, "{i}: {} {}", returns[i], expected[i]);
            assert!((advantages[i] - whitened).abs() < 2e-5, "{i}: {} {whitened}", advantages[i]);
        }
    }
}

/// The explained variance is the share of the variance of the returns that the values account for.
#[test]
fn values_that_are_the_returns_explain_all_of_them() {
    let config = config();
    let mut rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(8));
    let explained = |rollout: &Rollout, returns: Tensor<2>| {
        let advantages = Tensor::zeros_like(&returns);
        let targets = Targets { advantages, returns: Some(returns), kl_loss_coef: None };
        PpoMetrics::of_rollout(rollout, &targets, 0.0).explained_var.unwrap()
    };
    let [batch, len] = rollout.value_mask.dims();
    let ramp: Vec<f32> = (0..batch * len).map(|i| i as f32).collect();
    let returns = Tensor::from_data(TensorData::new(ramp, [batch, len]), &Device::flex());
    rollout.values = Some(returns.clone() + 3.0);
    let share = explained(&rollout, returns.clone());
    assert!((share - 1.0).abs() < 1e-6, "a constant error has no variance: {share}");
    rollout.values = Some(Tensor::zeros([batch, len], &Device::flex()));
    assert!(explained(&rollout, returns.clone()).abs() < 1e-6);
    rollout.values = Some(returns.clone() * 0.5);
    assert!((explained(&rollout, returns) - 0.75).abs() < 1e-5);
}
