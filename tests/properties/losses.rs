//! Order, microbatches and neighbours change no loss, no score and no update of SFT and of the reward model.

use std::sync::{Arc, Mutex};

use burn::module::Module;
use burn::tensor::Device;
use proptest::prelude::*;
use serde_json::{Map, Value};
use temper_data::{Demonstrations, Pair, Ranking, Rankings};
use temper_model::{CausalLm, Dropout, ModelConfig, Pooling, ScalarModel, SharedPrompt, TokenBatch};
use temper_reward::RewardConfig;
use temper_sft::{SftConfig, completion_logits, sft_loss};
use temper_tensor::{log_probs, token_logprobs};
use temper_tokenizer::{Example, Template, TextSide, Tokenizer};
use temper_train::{BatchingConfig, Event, Optimizer, Run, TrainingConfig};

use crate::tiny::{
    cases, check_close, configs, examples, language_model, scalar_model, shuffled_by, smooth, values, weights,
};

/// An ephemeral run, and the metrics of its last step.
pub fn watched_run() -> (Run, Arc<Mutex<Map<String, Value>>>) {
    let seen = Arc::new(Mutex::new(Map::new()));
    let sink = seen.clone();
    let run = Run::ephemeral().expect("there is room for a run").with_observer(move |event| {
        if let Event::Step { metrics, .. } = event {
            *sink.lock().expect("nothing panics with the lock") = metrics.clone();
        }
    });
    (run, seen)
}

/// −log p of every target.
fn surprises(model: &CausalLm, examples: &[&Example]) -> Vec<f32> {
    let found = completion_logits(model, examples, &Device::flex(), &mut Dropout::off());
    values(-token_logprobs(log_probs(found.logits, 1.0), found.targets))
}

fn mean(numbers: &[f32]) -> f32 {
    numbers.iter().sum::<f32>() / numbers.len() as f32
}

/// Weights, loss and gradient norm after one update of SFT.
fn sft_step(model: &CausalLm, examples: &[Example], microbatch_size: usize) -> (Vec<f32>, Vec<f32>) {
    let training = TrainingConfig {
        epochs: 1,
        max_steps: 1,
        learning_rate: 1.0,
        optimizer: smooth(),
        ..SftConfig::default().training
    };
    let batching = BatchingConfig { microbatch_size, ..BatchingConfig::default() };
    let config = SftConfig { training, batching, dropout: false, ..SftConfig::default() };
    let data = Demonstrations::of(examples.to_vec());
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let (mut run, seen) = watched_run();
    let trained = temper_sft::train(&config, model.clone(), &text, &data, None, &mut run).expect("one step");
    let metrics = seen.lock().expect("nothing panics with the lock");
    (weights(&trained), read(&metrics, &["loss", "mean_token_accuracy", "grad_norm"]))
}

/// Weights and what was logged after one update of the reward model.
fn reward_step(model: &ScalarModel, rankings: &[Ranking], microbatch_size: usize) -> (Vec<f32>, Vec<f32>) {
    let training = TrainingConfig {
        epochs: 1,
        max_steps: 1,
        learning_rate: 1.0,
        optimizer: smooth(),
        ..RewardConfig::default().training
    };
    let batching = BatchingConfig { microbatch_size, ..BatchingConfig::default() };
    let config = RewardConfig { training, batching, ..RewardConfig::default() };
    let data = dataset(rankings.to_vec());
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let (mut run, seen) = watched_run();
    let trained =
        temper_reward::train(&config, model.clone(), &text, &data, None, &mut run).expect("one step");
    let metrics = seen.lock().expect("nothing panics with the lock");
    let keys = ["loss", "accuracy", "margin", "mean_reward", "min_reward", "max_reward", "grad_norm"];
    (weights(&trained), read(&metrics, &keys))
}

pub fn read(metrics: &Map<String, Value>, keys: &[&str]) -> Vec<f32> {
    keys.iter().map(|key| metrics[*key].as_f64().expect("a number was logged") as f32).collect()
}

fn scalar_models() -> impl Strategy<Value = (ModelConfig, Pooling, u64)> {
    (configs(), prop_oneof![Just(Pooling::Last), Just(Pooling::Mean)], 0u64..1000)
}

/// Each example with another one, which is worse.
fn rankings(examples: &[Example], others: &[Example]) -> Vec<Ranking> {
    let pair = vec![Pair { chosen: 0, rejected: 1, gap: 1.0 }];
    let ranking = |(row, (chosen, rejected)): (usize, (&Example, &Example))| Ranking {
        completions: vec![chosen.clone(), rejected.clone()],
        pairs: pair.clone(),
        row,
    };
    examples.iter().zip(others).enumerate().map(ranking).collect()
}

fn dataset(rankings: Vec<Ranking>) -> Rankings {
    Rankings::of(rankings)
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn an_example_costs_the_same_alone_and_in_any_batch(
        config in configs(), examples in examples(1..=6), keys: [u32; 6], seed in 0u64..1000,
    ) {
        let model = language_model(&config, seed);
        let examples = shuffled_by(&examples, &keys);
        let alone: Vec<f32> = examples.iter().flat_map(|example| surprises(&model, &[example])).collect();
        let all: Vec<&Example> = examples.iter().collect();
        check_close(&surprises(&model, &all), &alone, "together");
        let found = completion_logits(&model, &all, &Device::flex(), &mut Dropout::off());
        check_close(&values(sft_loss(found.logits, found.targets)), &[mean(&alone)], "the loss");
    }

    #[test]
    fn order_and_microbatches_change_no_update_of_sft(
        config in configs(), examples in examples(2..=8), keys: [u32; 8], size in 1usize..5, seed in 0u64..1000,
    ) {
        let model = language_model(&config, seed);
        let (expected, metrics) = sft_step(&model, &examples, 0);
        prop_assert!(expected != weights(&model), "the step changes something");
        let (found, logged) = sft_step(&model, &shuffled_by(&examples, &keys), size);
        check_close(&found, &expected, "weights");
        check_close(&logged, &metrics, "metrics");
        let alone: Vec<f32> = examples.iter().flat_map(|example| surprises(&model, &[example])).collect();
        check_close(&metrics[..1], &[mean(&alone)], "the loss that was logged");
    }

    #[test]
    fn token_weighted_parts_give_the_gradient_of_the_whole(
        config in configs(), examples in examples(8..=8), seed in 0u64..1000,
    ) {
        let model = language_model(&config, seed).train();
        let n_targets =
            |part: &[&Example]| part.iter().map(|e| e.completion().len()).sum::<usize>() as f64;
        let all: Vec<&Example> = examples.iter().collect();
        let step = |parts: &[usize]| {
            let mut optimizer = Optimizer::new(&smooth());
            let mut rest = all.as_slice();
            for &n in parts {
                let (part, others) = rest.split_at(n);
                rest = others;
                let found = completion_logits(&model, part, &Device::flex(), &mut Dropout::off());
                let weight = n_targets(part) / n_targets(&all);
                optimizer.accumulate(&model, sft_loss(found.logits, found.targets).mul_scalar(weight));
            }
            let (stepped, norm) = optimizer.step(model.clone(), 1.0).expect("the gradient is finite");
            (weights(&stepped), norm as f32)
        };
        let (expected, norm) = step(&[8]);
        for parts in [&[1; 8][..], &[3, 5]] {
            let (found, found_norm) = step(parts);
            check_close(&found, &expected, &format!("{parts:?}"));
            check_close(&[found_norm], &[norm], &format!("norm of {parts:?}"));
        }
    }

    #[test]
    fn order_and_batch_size_change_no_evaluation_of_sft(
        config in configs(), examples in examples(1..=7), keys: [u32; 7], size in 1usize..9, seed in 0u64..1000,
    ) {
        let model = language_model(&config, seed);
        let data = Demonstrations::of(shuffled_by(&examples, &keys));
        let found = temper_sft::evaluate(&model, &data, size);
        let alone: Vec<f32> = examples.iter().flat_map(|example| surprises(&model, &[example])).collect();
        prop_assert_eq!(found.eval_n_targets, alone.len());
        check_close(&[found.eval_loss as f32], &[mean(&alone)], "the loss");
    }

    #[test]
    fn a_text_has_the_same_score_alone_and_in_any_batch(
        model in scalar_models(), examples in examples(1..=7), keys: [u32; 7], size in 1usize..9,
    ) {
        let (config, pooling, seed) = model;
        let model = scalar_model(&config, pooling, seed);
        let examples = shuffled_by(&examples, &keys);
        let alone: Vec<f32> = examples.iter().flat_map(|e| temper_reward::score(&model, &[e], 1)).collect();
        let all: Vec<&Example> = examples.iter().collect();
        check_close(&temper_reward::score(&model, &all, size), &alone, "scores");
    }

    #[test]
    fn order_and_microbatches_change_no_update_of_the_reward_model(
        model in scalar_models(),
        better in examples(2..=7),
        worse in examples(7..=7),
        keys: [u32; 7],
        size in 1usize..5,
    ) {
        let (config, pooling, seed) = model;
        let model = scalar_model(&config, pooling, seed);
        let rankings = rankings(&better, &worse);
        let (expected, metrics) = reward_step(&model, &rankings, 0);
        prop_assert!(expected != weights(&model), "the step changes something");
        let (found, logged) = reward_step(&model, &shuffled_by(&rankings, &keys), size);
        check_close(&found, &expected, "weights");
        check_close(&logged, &metrics, "metrics");
    }

    #[test]
    fn order_and_batch_size_change_no_evaluation_of_the_reward_model(
        model in scalar_models(),
        better in examples(1..=6),
        worse in examples(6..=6),
        keys: [u32; 6],
        size in 1usize..9,
    ) {
        let (config, pooling, seed) = model;
        let model = scalar_model(&config, pooling, seed);
        let rankings = shuffled_by(&rankings(&better, &worse), &keys);
        let alone = |example: &Example| temper_reward::score(&model, &[example], 1)[0];
        let margins: Vec<f32> =
            rankings.iter().map(|r| alone(&r.completions[0]) - alone(&r.completions[1])).collect();
        let losses: Vec<f32> = margins.iter().map(|margin| (-margin).exp().ln_1p()).collect();
        let found = temper_reward::evaluate(&model, &dataset(rankings), size);
        let found_margins: Vec<f32> = found.margins.iter().map(|(_, margin)| *margin as f32).collect();
        check_close(&found_margins, &margins, "margins");
        check_close(&[found.eval_loss as f32], &[mean(&losses)], "the loss");
    }

    #[test]
    fn a_prompt_shared_by_its_completions_changes_no_score(
        model in scalar_models(), examples in examples(2..=8), seed in 0usize..8,
    ) {
        let (config, pooling, weights_seed) = model;
        let model = scalar_model(&config, pooling, weights_seed);
        let first = &examples[seed % examples.len()];
        let prompt = &first.tokens[..first.prompt_len];
        let completions: Vec<&[u32]> = examples.iter().map(|e| &e.tokens[e.prompt_len..]).collect();
        let apart: Vec<Example> = (completions.iter())
            .map(|completion| Example::new([prompt, *completion].concat(), prompt.len()))
            .collect();
        let expected = temper_reward::score(&model, &apart.iter().collect::<Vec<_>>(), 3);
        let row = SharedPrompt { prompt, completions };
        let (batch, spans) = TokenBatch::shared_prompts(&[row], &Device::flex());
        check_close(&values(model.span_scores(&batch, &spans, &mut Dropout::off())), &expected, "scores");
    }
}
