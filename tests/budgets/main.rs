//! What a step of training and a token of decoding may allocate: a guard against steps that become slower or larger,
//! which needs no clock and counts the same on every machine.
//!
//! A budget is a tenth above what was counted when it was set. A step that allocates more has a new intermediate result, a
//! copy, or an operation that was one and is several now. Change the budget where that is meant, and say why. Products of
//! matrices pack what they read into buffers whose sizes follow from the caches of the processor, so the peaks vary most.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy.toml allows both in tests; helpers are no less"
)]

mod counting;

use burn::tensor::Device;
use temper_data::{Demonstration, Demonstrations, EncodedPrompt, Encoding, Prompts};
use temper_model::{CausalLm, GenerateOptions, ModelConfig, generate};
use temper_ppo::{Critic, Data, MissingEos, Models, PpoConfig, Sample, Scorers};
use temper_sft::SftConfig;
use temper_tensor::start_threads;
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{Run, Seed, TrainingConfig};

use crate::counting::{Allocations, allocations_of};

/// What one unit of work may allocate.
struct Budget {
    /// How many times.
    count: usize,
    /// Bytes, whether or not they were freed in between.
    bytes: usize,
    /// The most bytes at the same time, above what was there before.
    peak: usize,
}

/// Compares `n` units of work with a budget for each. The peak is that of all.
fn check(what: &str, n: usize, found: Allocations, budget: Budget) {
    let (count, bytes) = (found.count / n, found.bytes / n);
    println!("{what}: {count} allocations, {bytes} bytes, peak {}", found.peak);
    for (unit, found, budget) in [
        ("allocations", count, budget.count),
        ("bytes", bytes, budget.bytes),
        ("bytes at once", found.peak, budget.peak),
    ] {
        assert!(found <= budget, "{what}: {found} {unit}, and the budget is {budget}");
        assert!(found * 2 > budget, "{what}: {found} {unit}, so that the budget of {budget} guards nothing");
    }
}

fn model() -> CausalLm {
    CausalLm::new(&ModelConfig::preset("small").unwrap(), &mut Seed(1).stream("init"), &Device::flex())
}

fn text() -> TextSide {
    TextSide::new(Tokenizer::byte(), Template::notebook())
}

/// One after the other, on two threads: what another test allocates would count, too.
#[test]
fn steps_allocate_no_more_than_their_budgets() {
    assert_eq!(start_threads(2), 2);
    a_token_of_decoding();
    an_sft_step();
    a_ppo_iteration();
}

/// Four rows of about a hundred tokens.
fn an_sft_step() {
    let rows: Vec<Demonstration> = (0..4)
        .map(|i| Demonstration {
            prompt: format!("question {i}").into(),
            completion: format!("{i}").repeat(80),
        })
        .collect();
    let text = text();
    let data = Demonstrations::new(&rows, &Encoding::new(&text, 128)).unwrap();
    let train = |max_steps| {
        let training =
            TrainingConfig { max_steps, epochs: 10, batch_size: 4, ..SftConfig::default().training };
        let config = SftConfig { training, ..SftConfig::default() };
        let mut run = Run::ephemeral().unwrap();
        allocations_of(|| temper_sft::train(&config, model(), &text, &data, None, &mut run).unwrap())
    };
    train(1);
    let of_steps = train(6).minus(train(2));
    check("an SFT step", 4, of_steps, Budget { count: 13_700, bytes: 52_000_000, peak: 30_000_000 });
}

/// Eight rows at once.
fn a_token_of_decoding() {
    let model = model();
    let prompts: Vec<Vec<u32>> = (0..8).map(|i| vec![5 + i, 6, 7]).collect();
    let decode = |max_new_tokens| {
        let options = GenerateOptions { max_new_tokens, ..GenerateOptions::default() };
        allocations_of(|| generate(&model, &prompts, &options).unwrap())
    };
    decode(4);
    let of_tokens = decode(40).minus(decode(8));
    check("a token of decoding", 32, of_tokens, Budget { count: 60, bytes: 123_000, peak: 2_200_000 });
}

/// Eight answers of sixteen tokens, learned in two updates, with a value head.
fn a_ppo_iteration() {
    let text = text();
    let rows: Vec<EncodedPrompt> = (0..8).map(|i| EncodedPrompt::new("", vec![1, 20 + i, 2])).collect();
    let prompts = Prompts::from(rows);
    let train = |max_steps| {
        let mut config = PpoConfig::default();
        (config.training.max_steps, config.training.epochs, config.training.batch_size) = (max_steps, 10, 8);
        (config.rollout.max_new_tokens, config.rollout.missing_eos) = (16, MissingEos::Keep);
        (config.update.ppo_epochs, config.update.minibatch_size) = (1, 4);
        let models = Models { policy: model(), ref_policy: model(), critic: Critic::ValueHead };
        let mut score =
            |samples: &[Sample<'_>]| Ok(samples.iter().map(|s| s.completion_tokens.len() as f32).collect());
        let scorers = Scorers { score: &mut score, token_rewards: None, gold: None };
        let data = Data { prompts: &prompts, eval_prompts: None, texts: None };
        let mut run = Run::ephemeral().unwrap();
        allocations_of(|| temper_ppo::train(&config, models, &text, data, scorers, &mut run).unwrap())
    };
    train(1);
    let of_iterations = train(4).minus(train(2));
    check("a PPO iteration", 2, of_iterations, Budget { count: 36_600, bytes: 67_000_000, peak: 16_500_000 });
}
