//! Two fresh models answer the same prompts, and the exact rule of the courtesy task decides how often the first wins.
//!
//! `cargo run --release -p temper-eval --example win_rate`
//!
//! With two model directories as arguments, those models are compared instead.
#![allow(clippy::print_stdout)]

use std::path::Path;

use burn::tensor::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use temper_assistant::{Assistant, LoadOptions, PromptOfRow, Sampling};
use temper_courtesy::{Sizes, Task};
use temper_eval::{Draws, Error, Judge, JudgeSpec, PolicyComparison, judged_answers};
use temper_scorer::Stop;
use temper_tokenizer::Prompt;

fn main() -> Result<(), Error> {
    let device = Device::flex();
    let dirs: Vec<String> = std::env::args().skip(1).collect();
    let policy = |i: usize| match dirs.get(i) {
        Some(dir) => Assistant::load(Path::new(dir), &device),
        None => Assistant::fresh("tiny", "bare", &mut ChaCha8Rng::seed_from_u64(i as u64), &device),
    };
    let questions = Task::new().generate(0, &Sizes::default()).prompts;
    let prompts: Vec<PromptOfRow> =
        questions.into_iter().take(32).map(|question| Prompt::from(question).into()).collect();
    let sampling = Sampling { max_new_tokens: 32, ..Sampling::default() };
    let mut judge = Judge::open(&JudgeSpec::Courtesy, &LoadOptions::default(), &device, &Stop::default())?;

    let (a, b) = (policy(0)?, policy(1)?);
    let first = judged_answers(&a, &prompts, &sampling, 0, None, &mut judge)?;
    let second = judged_answers(&b, &prompts, &sampling, 0, None, &mut judge)?;
    let draws = Draws::of(&a, &first.answers, &sampling, first.best_of);
    let divergence = draws.and_then(|draws| draws.divergence_from(&b));

    let comparison = PolicyComparison::new(&first, &second, divergence.ok());
    let [low, high] = comparison.win_rate.win_rate_ci95;
    println!("the first model wins {:.2} ({low:.2} to {high:.2})", comparison.win_rate.win_rate);
    println!("mean scores {:.3} and {:.3}", comparison.score, comparison.score_against);
    match divergence {
        Ok(divergence) => println!("KL of the first from the second: {:.2} nats per answer", divergence.kl),
        Err(obstacle) => println!("no KL: {obstacle}"),
    }
    Ok(())
}
