//! RLOO and GRPO: answers to one prompt are compared with each other.

use super::{
    assert_same_metrics, collect, config, language_model, learner, numbers, padded, prompts, scalar_model,
    targets, updated,
};
use crate::networks::Critic;
use crate::{AdvantageKind, PpoConfig};

/// Settings for two answers to each prompt.
fn in_pairs(kind: AdvantageKind) -> PpoConfig {
    let mut config = config();
    (config.advantage.kind, config.rollout.samples_per_prompt) = (kind, 2);
    config
}

/// Oracle 1 (the first ratio is 1), with a reference that is the policy itself and with another one.
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

/// With equal scores, GRPO comes nearer to its reference, and without a penalty nothing moves.
#[test]
fn with_equal_scores_only_the_kl_is_learned() {
    let after = |kind, kl_coef| {
        let mut config = in_pairs(kind);
        config.kl.coef = kl_coef;
        let learner = learner(&config, Critic::None);
        let mut rollout = collect(&config, &learner, &language_model(3), &prompts(4));
        rollout.scores = rollout.scores.zeros_like() + 0.1;
        let (first, learner) = updated(&config, learner, &rollout);
        let (second, learner) = updated(&config, learner, &rollout);
        let moved = learner.policy().lm.transformer.token_embedding.weight.val();
        let from = language_model(1).transformer.token_embedding.weight.val();
        let moved = numbers(moved).iter().zip(numbers(from)).any(|(a, b)| *a != b);
        (first.kl_loss, second.kl_loss, moved)
    };
    let (first, second, moved) = after(AdvantageKind::Grpo, 1.0);
    assert!(moved && second < first.map(|kl| 0.9 * kl), "{first:?} {second:?}");
    assert!(!after(AdvantageKind::Grpo, 0.0).2 && !after(AdvantageKind::Rloo, 0.0).2);
}

/// Oracle 5 (padding changes nothing) without a critic.
#[test]
fn pad_columns_change_no_metric_of_a_group_baseline() {
    for kind in [AdvantageKind::Rloo, AdvantageKind::Grpo] {
        let mut config = in_pairs(kind);
        config.update.ppo_epochs = 2;
        let rollout = collect(&config, &learner(&config, Critic::None), &language_model(3), &prompts(4));
        let [(plain, _), (padded, _)] = [&rollout, &padded(&rollout)]
            .map(|rollout| updated(&config, learner(&config, Critic::None), rollout));
        assert_same_metrics(&plain, &padded);
    }
}

/// A critic that is passed with a group baseline is ignored.
#[test]
fn a_group_baseline_ignores_a_critic() {
    for critic in [Critic::ValueHead, Critic::Separate(Box::new(scalar_model(2)))] {
        let learner = learner(&in_pairs(AdvantageKind::Rloo), critic);
        assert!(learner.policy().value_head.is_none());
        let tokenizer = temper_tokenizer::Tokenizer::byte();
        assert!(learner.models(&language_model(1), &tokenizer).critic.is_none());
    }
}

/// Three answers to each of two prompts; the expected advantages are computed from what was recorded, token by token.
#[test]
fn every_token_carries_its_answers_advantage_and_only_rloo_has_the_kl_in_it() {
    for (kind, with_kl) in [(AdvantageKind::Rloo, true), (AdvantageKind::Grpo, false)] {
        let mut config = config();
        config.advantage.kind = kind;
        config.advantage.scale_by_std = false;
        config.rollout.samples_per_prompt = 3;
        let rollout = collect(&config, &learner(&config, Critic::None), &language_model(3), &prompts(2));
        let [old, reference] = [&rollout.old_logprobs, &rollout.ref_logprobs].map(|x| numbers(x.clone()));
        let columns = rollout.episodes.completion_len;
        let len = |i: usize| rollout.episodes.rows[i].len() - rollout.episodes.prompt_lens[i];
        let reward = |i: usize| {
            let tokens = i * columns..i * columns + len(i);
            let kl: f64 = tokens.map(|t| old[t] - reference[t]).sum();
            f64::from(rollout.raw_scores[i]) - if with_kl { 0.1 * kl } else { 0.0 }
        };
        let (targets, metrics) = targets(&config, &rollout);
        let advantages = numbers(targets.advantages);
        let mut greatest: f64 = 0.0;
        for i in 0..6 {
            let group = i / 3 * 3..i / 3 * 3 + 3;
            let mean = group.map(reward).sum::<f64>() / 3.0;
            let expected = (reward(i) - mean) * if with_kl { 1.5 } else { 1.0 };
            greatest = greatest.max(expected.abs());
            for t in 0..columns {
                let expected = if t < len(i) { expected } else { 0.0 };
                let advantage = advantages[i * columns + t];
                assert!((advantage - expected).abs() < 1e-5, "{kind:?}, {i}, {t}: {advantage} {expected}");
            }
        }
        assert!(greatest > 0.5, "the scores differ: {greatest}");
        assert_eq!(metrics.explained_var, None);
    }
}
