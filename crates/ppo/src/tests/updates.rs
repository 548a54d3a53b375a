//! Updates of a small model: ratios, losses, and which weights they move.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use temper_model::{CausalLm, ModelConfig, Pooling, ScalarModel};
use temper_train::Seed;

use super::{
    VOCAB, assert_same_metrics, both_critics, collect, config, language_model, learner, model_config,
    numbers, padded, prompts, scalar_model, targets, updated,
};
use crate::networks::{Critic, Entropy};
use crate::{Learner, LearningRates, Targets, UpdateInput};

/// Oracle 1 (the first ratio is 1): before its first update the policy is the one that sampled. After whitening the
/// advantages have mean 0, and so does the loss.
#[test]
fn the_first_minibatch_has_ratio_1_and_nothing_clipped() {
    for critic in both_critics() {
        let config = config();
        let learner = learner(&config, critic);
        let rollout = collect(&config, &learner, &language_model(3), &prompts(8));
        let (metrics, _) = updated(&config, learner, &rollout);
        // A few float32 roundings of a log-probability near 2.
        assert!(metrics.first_ratio_error <= 1e-5, "{metrics:?}");
        assert!((metrics.ratio - 1.0).abs() <= 1e-6, "{metrics:?}");
        assert!(metrics.approx_kl <= 1e-11, "{metrics:?}");
        assert_eq!((metrics.policy_clip_frac, metrics.value_clip_frac), (0.0, Some(0.0)));
        assert!(metrics.policy_loss.abs() <= 1e-6, "{metrics:?}");
        assert!(metrics.sampler_error <= 1e-5, "{metrics:?}");
    }
}

#[test]
fn later_minibatches_move_away_from_ratio_1() {
    let mut config = config();
    (config.update.ppo_epochs, config.update.minibatch_size) = (4, 4);
    let learner = learner(&config, Critic::ValueHead);
    let rollout = collect(&config, &learner, &language_model(3), &prompts(8));
    let (metrics, _) = updated(&config, learner, &rollout);
    assert!(metrics.first_ratio_error <= 1e-5, "the first alone: {metrics:?}");
    assert!(metrics.approx_kl > 1e-4 && metrics.ratio_var > 0.0, "{metrics:?}");
}

/// The first ratio shows a policy that is not the one that sampled.
#[test]
fn the_ratio_check_measures_what_is_off() {
    let config = config();
    let learner = learner(&config, Critic::ValueHead);
    let mut rollout = collect(&config, &learner, &language_model(3), &prompts(8));
    rollout.old_logprobs = rollout.old_logprobs - 0.05;
    let (metrics, _) = updated(&config, learner, &rollout);
    assert!((metrics.first_ratio_error - (0.05f64.exp() - 1.0)).abs() < 1e-5, "{metrics:?}");
}

/// Oracle 5 (padding changes nothing): three more columns after the longest answer change no metric.
#[test]
fn pad_columns_change_no_metric() {
    for critic in [0, 1] {
        let mut config = config();
        (config.update.ppo_epochs, config.update.whiten_rewards) = (2, true);
        let learner = || learner(&config, both_critics().into_iter().nth(critic).unwrap());
        let rollout = collect(&config, &learner(), &language_model(3), &prompts(8));
        let [(plain, _), (padded, _)] =
            [&rollout, &padded(&rollout)].map(|rollout| updated(&config, learner(), rollout));
        assert_same_metrics(&plain, &padded);
    }
}

/// D2: the notebook's policy gets no gradient. Here better answers become more probable.
#[test]
fn d2_an_update_moves_the_policy_towards_the_better_answers() {
    for critic in both_critics() {
        let mut config = config();
        config.training.learning_rate = 1e-3;
        let learner = learner(&config, critic);
        let rollout = collect(&config, &learner, &language_model(1), &prompts(48));
        let before = numbers(rollout.old_logprobs.clone());
        let advantages = numbers(targets(&config, &rollout).0.advantages);
        let (_, learner) = updated(&config, learner, &rollout);
        let all: Vec<usize> = (0..48).collect();
        let batch = rollout.batch(&all, 16, &Device::flex());
        let output = learner.policy().valid().forward(&batch, 0.7, Entropy::Skipped);
        let after = numbers(output.logprobs * rollout.completion_mask.clone());
        let gain: f64 = advantages.iter().zip(before.iter().zip(&after)).map(|(a, (b, c))| a * (c - b)).sum();
        assert!(gain > 0.1, "{gain}");
    }
}

/// The value loss reaches a value head, weighted with `vf_coef`.
#[test]
fn a_value_head_learns_at_its_weight() {
    let weight = |vf_coef: f64| {
        let mut config = config();
        config.update.vf_coef = vf_coef;
        // With so large an epsilon, the step of Adam is the gradient times 10⁴ / 10⁶.
        config.training.optimizer.epsilon = 1e6;
        (config.training.optimizer.max_grad_norm, config.training.learning_rate) = (0.0, 1e4);
        let learner = learner(&config, Critic::ValueHead);
        let rollout = collect(&config, &learner, &language_model(1), &prompts(8));
        let head = updated(&config, learner, &rollout).1.policy().value_head.clone().unwrap();
        numbers(head.weight.val())
    };
    assert_eq!(weight(0.0), [0.0; 16]);
    let [one, three] = [weight(0.1), weight(0.3)];
    assert!(one.iter().any(|w| w.abs() > 1e-5), "{one:?}");
    assert!(one.iter().zip(&three).all(|(a, b)| (3.0 * a - b).abs() < 1e-6), "{one:?} {three:?}");
}

/// A separate critic comes nearer to the returns of the same rollout with every update.
#[test]
fn a_separate_critic_learns_the_returns() {
    let mut config = config();
    (config.critic.learning_rate, config.update.ppo_epochs, config.update.value_clip_range) =
        (1e-2, 8, 100.0);
    let learner = learner(&config, Critic::Separate(Box::new(scalar_model(2))));
    let rollout = collect(&config, &learner, &language_model(1), &prompts(8));
    let (first, learner) = updated(&config, learner, &rollout);
    let (second, _) = updated(&config, learner, &rollout);
    let [first, second] = [first, second].map(|metrics| metrics.value_loss.unwrap());
    assert!(second < 0.7 * first, "{first} {second}");
}

/// A critic whose context is too short for the episodes would panic if it ran.
#[test]
fn a_critic_without_returns_to_learn_does_not_run() {
    let config = config();
    let rollout = collect(
        &config,
        &learner(&config, Critic::Separate(Box::new(scalar_model(2)))),
        &language_model(1),
        &prompts(8),
    );
    let backbone = CausalLm::new(
        &ModelConfig { max_seq_len: 2, ..model_config() },
        &mut Seed(1).stream("init"),
        &Device::flex(),
    );
    let critic = ScalarModel::new(backbone.transformer, Pooling::Last, &mut Seed(1).stream("head"));
    let mut learner = learner(&config, Critic::Separate(Box::new(critic)));
    let advantages = rollout.on_every_token(rollout.scores.clone());
    let targets = Targets { advantages, returns: None, kl_loss_coef: None };
    let learning_rates = LearningRates { policy: 1e-3, critic: 1e-3 };
    let input = UpdateInput {
        rollout: &rollout,
        targets: &targets,
        texts: None,
        learning_rates,
        step: 0,
        seed: Seed(5),
    };
    let stats = learner.update(&config, &input).unwrap();
    assert!(stats.means.value_loss == 0.0 && stats.grad_norm > 0.0, "{stats:?}");
}

/// The bonus has the right sign: without scores to gain, the distribution of the policy becomes flatter.
#[test]
fn an_entropy_bonus_raises_the_entropy() {
    let entropies: Vec<f64> = [0.0, 1.0]
        .into_iter()
        .map(|entropy_coef| {
            let mut config = config();
            config.update.entropy_coef = entropy_coef;
            (config.update.ppo_epochs, config.kl.coef) = (8, 0.0);
            let learner = learner(&config, Critic::ValueHead);
            let mut rollout = collect(&config, &learner, &language_model(1), &prompts(8));
            rollout.scores = Tensor::zeros([8], &Device::flex());
            updated(&config, learner, &rollout).0.entropy
        })
        .collect();
    assert!(entropies[1] > entropies[0] + 0.01, "{entropies:?}");
}

/// D10: the notebook's "entropy" is −p log p of the taken token, at most 1/e.
#[test]
fn d10_the_entropy_of_a_uniform_policy_is_the_log_of_its_vocabulary() {
    let config = config();
    let mut lm = language_model(1);
    let head = lm.lm_head.as_mut().unwrap();
    head.weight = head.weight.clone().map(|weight| weight * 0.0);
    let learner = Learner::new(&config, lm.clone(), Critic::ValueHead, VOCAB);
    let rollout = collect(&config, &learner, &lm, &prompts(8));
    let (metrics, _) = updated(&config, learner, &rollout);
    let ln_vocab = (VOCAB as f64).ln();
    assert!((metrics.entropy - ln_vocab).abs() < 1e-5, "{metrics:?}");
    assert!((metrics.sampled_entropy - ln_vocab * metrics.length_mean).abs() < 1e-4, "{metrics:?}");
}
