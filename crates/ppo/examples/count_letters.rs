//! PPO by itself: a fresh policy with a value head learns to write small letters, scored by a closure. No reward
//! model takes part.
//!
//! `cargo run --release -p temper-ppo --example count_letters`
#![allow(clippy::print_stdout)]

use burn::tensor::Device;
use temper_data::{Encoding, PromptRow, Prompts};
use temper_model::{CausalLm, ModelConfig};
use temper_ppo::{Critic, Error, MissingEos, Models, PpoConfig, Sample, train};
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{Event, Run, Seed, TrainingConfig};

fn main() -> Result<(), Error> {
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let prompts = ["Write", "Say something", "Letters, please"].map(PromptRow::new);
    let prompts = Prompts::new(&prompts, &Encoding::new(&text, 64))?;

    let policy = CausalLm::new(&ModelConfig::preset("tiny")?, &mut Seed(0).stream("init"), &Device::flex());
    let models = Models { ref_policy: policy.clone(), policy, critic: Critic::ValueHead };
    // The score of an answer: how many of its characters are small letters.
    let mut count_letters = |samples: &[Sample<'_>]| {
        let count = |sample: &Sample<'_>| sample.completion.chars().filter(char::is_ascii_lowercase).count();
        Ok(samples.iter().map(|sample| count(sample) as f32).collect())
    };

    let training =
        TrainingConfig { epochs: 40, batch_size: 48, learning_rate: 1e-3, ..PpoConfig::default().training };
    let mut config = PpoConfig { training, ..PpoConfig::default() };
    config.rollout.max_new_tokens = 8;
    config.rollout.missing_eos = MissingEos::Keep;
    config.update.ppo_epochs = 2;
    config.kl.coef = 0.0; // The reference has random weights, so the policy need not stay near it.

    let mut run = Run::ephemeral()?.with_observer(|event| {
        if let Event::Step { step, metrics, .. } = event
            && (step == 1 || step % 10 == 0)
        {
            println!(
                "{step:3} small letters in 8 tokens: {:.2}",
                metrics["objective/scores"].as_f64().unwrap_or(0.0)
            );
        }
    });
    train(&config, models, &text, &prompts, &mut count_letters, &mut run)?;
    Ok(())
}
