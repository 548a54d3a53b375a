//! An algorithm of your own from the parts of this crate: REINFORCE, where a running mean of the scores is the baseline.
//! There is no critic and no KL penalty.
//!
//! `cargo run --release -p temper-ppo --example own_algorithm`
#![allow(clippy::print_stdout)]

use burn::tensor::Device;
use temper_data::{EncodedPrompt, Encoding, PromptRow, Prompts};
use temper_model::{CausalLm, ModelConfig};
use temper_ppo::{
    Critic, Error, Learner, LearningRates, MissingEos, PpoConfig, Sample, Targets, UpdateInput,
    collect_rollout,
};
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::Seed;

fn main() -> Result<(), Error> {
    let (tokenizer, template, seed) = (Tokenizer::byte(), Template::bare(), Seed(0));
    let prompts = ["Write", "Say something"].map(PromptRow::new);
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let prompts = Prompts::new(&prompts, &Encoding::new(&text, 64))?;
    let batch: Vec<&EncodedPrompt> = prompts.prompts.iter().cycle().take(48).collect();

    let mut config = PpoConfig::default();
    config.training.batch_size = batch.len();
    config.rollout.max_new_tokens = 8;
    config.rollout.missing_eos = MissingEos::Keep;
    let policy = CausalLm::new(&ModelConfig::preset("tiny")?, &mut seed.stream("init"), &Device::flex());
    let ref_policy = policy.clone();
    let mut learner = Learner::new(&config, policy, Critic::None, tokenizer.vocab_size());

    // The score of an answer: how many of its characters are small letters.
    let mut score = |samples: &[Sample<'_>]| {
        let count = |sample: &Sample<'_>| sample.completion.chars().filter(char::is_ascii_lowercase).count();
        Ok(samples.iter().map(|sample| count(sample) as f32).collect())
    };
    let mut baseline = None;
    for step in 0..40 {
        let models = learner.models(&ref_policy, &tokenizer);
        let rollout =
            collect_rollout(&config, &models, &batch, &mut (&mut score).into(), step as u64, step + 1)?;

        let mean_score: f64 = rollout.scores.clone().mean().into_scalar();
        let advantages = rollout.scores.clone() - *baseline.get_or_insert(mean_score);
        let advantages = rollout.on_every_token(advantages);
        let targets = Targets { advantages, returns: None, kl_loss_coef: None };

        let learning_rates = LearningRates { policy: 1e-3, critic: 0.0 };
        let input =
            UpdateInput { rollout: &rollout, targets: &targets, texts: None, learning_rates, step, seed };
        learner.update(&config, &input)?;
        baseline = baseline.map(|baseline| 0.9 * baseline + 0.1 * mean_score);
        if step % 10 == 9 {
            println!("{:3} small letters in 8 tokens: {mean_score:.2}", step + 1);
        }
    }
    Ok(())
}
