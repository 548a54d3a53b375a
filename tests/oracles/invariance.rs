//! Oracles 5, 7 and 15 of the first two stages, and 15 of the third: padding and microbatches change nothing.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use temper_dpo::DpoConfig;
use temper_model::{Dropout, Pooling, TokenBatch};
use temper_ppo::{Critic, Models};
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{AdamWConfig, BatchingConfig, EpsilonStyle, Inputs, Run, TrainingConfig};

use crate::setup::{
    byte_model, comparisons, demonstrations, numbers, prompts, reward_model, toy_config, toy_model, weights,
};

/// Float32 through two blocks, in batches of another shape.
const ROUNDING: f64 = 1e-5;

/// So large an epsilon, and Adam's step is the gradient times 10⁴ / 10³: no direction is made of what is only small.
const PLAIN_GRADIENT: AdamWConfig = AdamWConfig {
    beta_1: 0.9,
    beta_2: 0.999,
    epsilon: 1e3,
    epsilon_style: EpsilonStyle::Pytorch,
    weight_decay: 0.0,
    max_grad_norm: 0.0,
};
const RATE: f64 = 1e4;
/// What a step moves a weight by, for each unit of its gradient.
const STEP_PER_GRADIENT: f64 = 10.0;

/// Oracle 5.
#[test]
fn neighbours_change_no_sft_loss() {
    let (model, data) = (byte_model(0.0), demonstrations());
    let [alone, together] = [1, 7].map(|batch_size| temper_sft::evaluate(&model, &data, batch_size));
    assert!((alone.eval_loss - together.eval_loss).abs() < ROUNDING, "{alone:?} {together:?}");
    assert_eq!(alone.eval_n_targets, together.eval_n_targets);
}

/// Oracle 5.
#[test]
fn neighbours_change_no_score() {
    let data = comparisons();
    let examples: Vec<_> = data.rankings.iter().flat_map(|ranking| &ranking.completions).collect();
    for pooling in [Pooling::Last, Pooling::Mean] {
        let model = reward_model(pooling, 0.0);
        let [alone, together] = [1, 10].map(|batch_size| temper_reward::score(&model, &examples, batch_size));
        assert!(
            alone.iter().zip(&together).all(|(a, b)| f64::from(a - b).abs() < ROUNDING),
            "{alone:?} {together:?}"
        );
        assert!(alone.iter().any(|a| (a - alone[0]).abs() > 0.05), "all are alike: {alone:?}");
    }
}

/// Oracle 7: both poolings look at the end token and at nothing after it.
#[test]
fn a_score_sees_the_last_token_and_nothing_after_it() {
    for pooling in [Pooling::Last, Pooling::Mean] {
        let model = reward_model(pooling, 0.0);
        let scores = |last: i32, pad: i32| {
            let mut batch = TokenBatch::right_padded(
                &[vec![1, 9, 2, 20, 3], vec![1, 2, 30, 40, 50, 60, 3]],
                &Device::flex(),
            );
            let rows = [[1, 9, 2, 20, last, pad, pad], [1, 2, 30, 40, 50, 60, 3]];
            batch.tokens = Tensor::from_data(rows, &Device::flex());
            numbers(model.scores(&batch, &[3, 2], &mut Dropout::off()))
        };
        let [plain, padded, changed] = [scores(3, 0), scores(3, 77), scores(21, 0)];
        assert!((plain[0] - padded[0]).abs() < ROUNDING, "{plain:?} {padded:?}");
        assert!((plain[0] - changed[0]).abs() > 1e-3, "{plain:?} {changed:?}");
        assert!((plain[1] - changed[1]).abs() < ROUNDING);
    }
}

/// One step with each size of microbatch, in a directory each; all models must come out the same, and moved.
fn assert_same_steps(start: &Path, step: impl Fn(usize, &mut Run)) {
    let mut before = weights(start);
    // A finished reward model has none, and the bias cancels in the scores of a pair.
    before.remove("score.bias");
    let after: Vec<BTreeMap<String, Vec<f64>>> = [0, 1, 3]
        .into_iter()
        .map(|size| {
            let dir = tempfile::tempdir().unwrap();
            step(size, &mut Run::open(dir.path(), "test", "", &Inputs::default(), false).unwrap());
            weights(&dir.path().join("final"))
        })
        .collect();
    let mut largest = 0.0f64;
    for (name, before) in &before {
        let gradients = |which: usize| {
            after[which][name]
                .iter()
                .zip(before)
                .map(|(a, b)| (a - b) / STEP_PER_GRADIENT)
                .collect::<Vec<_>>()
        };
        let whole = gradients(0);
        largest = whole.iter().fold(largest, |largest, g| largest.max(g.abs()));
        for micro in [gradients(1), gradients(2)] {
            let worst = whole.iter().zip(&micro).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // A gradient below 1 in float32, read off weights of size 1.
            assert!(worst < 1e-6, "{name}: {worst:.1e}");
        }
    }
    assert!(largest > 1e-2, "there was hardly a step: {largest:.1e}");
}

/// Oracle 15.
#[test]
fn microbatches_change_no_sft_step() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let (model, data) = (byte_model(0.0), demonstrations());
    let start = tempfile::tempdir().unwrap();
    model.save(start.path(), 3).unwrap();
    assert_same_steps(start.path(), |microbatch_size, run| {
        let training = TrainingConfig {
            max_steps: 1,
            batch_size: 7,
            learning_rate: RATE,
            optimizer: PLAIN_GRADIENT,
            ..SftConfig::default().training
        };
        let batching = BatchingConfig { microbatch_size, ..BatchingConfig::default() };
        let config = SftConfig { training, batching, ..SftConfig::default() };
        let text = TextSide::new(tokenizer.clone(), template.clone());
        temper_sft::train(&config, model.clone(), &text, &data, None, run).unwrap();
    });
}

/// Oracle 15.
#[test]
fn microbatches_change_no_reward_step() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let (model, data) = (reward_model(Pooling::Last, 0.0), comparisons());
    let start = tempfile::tempdir().unwrap();
    model.save(start.path(), 3).unwrap();
    assert_same_steps(start.path(), |microbatch_size, run| {
        let training = TrainingConfig {
            max_steps: 1,
            batch_size: 5,
            learning_rate: RATE,
            optimizer: PLAIN_GRADIENT,
            ..RewardConfig::default().training
        };
        let batching = BatchingConfig { microbatch_size, ..BatchingConfig::default() };
        let config = RewardConfig { training, batching, ..RewardConfig::default() };
        let text = TextSide::new(tokenizer.clone(), template.clone());
        temper_reward::train(&config, model.clone(), &text, &data, None, run).unwrap();
    });
}

/// Oracle 15.
#[test]
fn microbatches_change_no_dpo_step() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let (model, data) = (byte_model(0.0), comparisons());
    let start = tempfile::tempdir().unwrap();
    model.save(start.path(), 3).unwrap();
    assert_same_steps(start.path(), |microbatch_size, run| {
        let training = TrainingConfig {
            max_steps: 1,
            batch_size: 5,
            learning_rate: RATE,
            optimizer: PLAIN_GRADIENT,
            ..DpoConfig::default().training
        };
        let batching = BatchingConfig { microbatch_size, ..BatchingConfig::default() };
        let config = DpoConfig { training, batching, ..DpoConfig::default() };
        let text = TextSide::new(tokenizer.clone(), template.clone());
        temper_dpo::train(&config, model.clone(), &text, &data, None, run).unwrap();
    });
}

/// Oracle 15: answers end after 1 to 8 tokens.
#[test]
fn microbatches_change_no_ppo_step() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::bare());
    let data = prompts([&[1], &[1, 4, 5, 2], &[1, 9, 9, 9, 9, 9, 9, 2], &[1, 2]]);
    let model = toy_model(1);
    let start = tempfile::tempdir().unwrap();
    model.save(start.path(), 3).unwrap();
    assert_same_steps(start.path(), |microbatch_size, run| {
        let mut config = toy_config(8, 8);
        (config.training.max_steps, config.training.learning_rate, config.training.optimizer) =
            (1, RATE, PLAIN_GRADIENT);
        (config.update.microbatch_size, config.update.entropy_coef) = (microbatch_size, 0.1);
        let models = Models { policy: model.clone(), ref_policy: model.clone(), critic: Critic::ValueHead };
        let text = TextSide::new(tokenizer.clone(), template.clone());
        let mut score = |samples: &[temper_ppo::Sample<'_>]| {
            assert!(samples.iter().any(|a| a.completion_tokens.len() != samples[0].completion_tokens.len()));
            Ok(samples.iter().map(|s| s.completion_tokens[0] as f32).collect())
        };
        temper_ppo::train(&config, models, &text, &data, &mut score, run).unwrap();
    });
}
