//! A fresh model answers a prompt, and a fresh reward model scores the answers. Neither has learned anything yet.
//!
//! `cargo run --release -p temper-assistant --example answer -- "Who are you?"`
//!
//! With a model directory as the second argument, that model answers instead.
#![allow(clippy::print_stdout)]

use std::path::Path;

use burn::tensor::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use temper_assistant::{Assistant, Error, RewardModel, Sampling};
use temper_model::{Pooling, ScalarModel};

fn main() -> Result<(), Error> {
    let prompt = std::env::args().nth(1).unwrap_or_else(|| "Who are you?".into());
    let device = Device::flex();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let assistant = match std::env::args().nth(2) {
        Some(dir) => Assistant::load(Path::new(&dir), &device)?,
        None => Assistant::fresh("tiny", "bare", &mut rng, &device)?,
    };

    // A reward model starts from the backbone of the language model, with a fresh head.
    let model = ScalarModel::new(assistant.model.transformer.clone(), Pooling::Last, &mut rng);
    let reward_model = RewardModel { model, text: assistant.text.clone() };

    let sampling = Sampling { max_new_tokens: 16, temperature: 0.7, ..Sampling::default() };
    let answers = assistant.answer([&prompt, &prompt, &prompt], &sampling, 0)?;
    let scores = reward_model.score(&assistant.text, &answers)?;
    for (answer, score) in answers.iter().zip(scores) {
        let logprob: f32 = answer.logprobs.iter().sum();
        println!("score {score:6.3}, log-probability {logprob:7.2}: {:?}", answer.completion);
    }
    Ok(())
}
