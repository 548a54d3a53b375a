//! The work that is counted, with the preset `small`.

use burn::tensor::Device;
use temper_data::{Demonstration, Demonstrations, EncodedPrompt, Encoding, Prompts};
use temper_model::{CausalLm, GenerateOptions, ModelConfig, generate};
use temper_ppo::{Critic, Data, MissingEos, Models, PpoConfig, Sample, Scorers};
use temper_sft::SftConfig;
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{Run, Seed, TrainingConfig};

fn model(device: &Device) -> CausalLm {
    CausalLm::new(&ModelConfig::preset("small").unwrap(), &mut Seed(1).stream("init"), device)
}

fn text() -> TextSide {
    TextSide::new(Tokenizer::byte(), Template::notebook())
}

/// SFT steps with four rows of about a hundred tokens.
pub fn sft(device: &Device, n_steps: usize) {
    let rows: Vec<Demonstration> = (0..4)
        .map(|i| Demonstration {
            prompt: format!("question {i}").into(),
            completion: format!("{i}").repeat(80),
        })
        .collect();
    let text = text();
    let data = Demonstrations::new(&rows, &Encoding::new(&text, 128)).unwrap();
    let training = TrainingConfig {
        max_steps: n_steps,
        epochs: n_steps.max(10),
        batch_size: 4,
        ..SftConfig::default().training
    };
    let config = SftConfig { training, ..SftConfig::default() };
    let mut run = Run::ephemeral().unwrap();
    temper_sft::train(&config, model(device), &text, &data, None, &mut run).unwrap();
}

/// Tokens of eight rows at once.
pub fn decode(device: &Device, n_tokens: usize) {
    let prompts: Vec<Vec<u32>> = (0..8).map(|i| vec![5 + i, 6, 7]).collect();
    let options = GenerateOptions { max_new_tokens: n_tokens, ..GenerateOptions::default() };
    generate(&model(device), &prompts, &options).unwrap();
}

/// PPO iterations with eight answers of sixteen tokens, learned in two updates, with a value head.
pub fn ppo(device: &Device, n_iterations: usize) {
    let text = text();
    let rows: Vec<EncodedPrompt> = (0..8).map(|i| EncodedPrompt::new("", vec![1, 20 + i, 2])).collect();
    let prompts = Prompts::from(rows);
    let mut config = PpoConfig::default();
    let training = &mut config.training;
    (training.max_steps, training.epochs, training.batch_size) = (n_iterations, n_iterations.max(10), 8);
    (config.rollout.max_new_tokens, config.rollout.missing_eos) = (16, MissingEos::Keep);
    (config.update.ppo_epochs, config.update.minibatch_size) = (1, 4);
    let models = Models { policy: model(device), ref_policy: model(device), critic: Critic::ValueHead };
    let mut score =
        |samples: &[Sample<'_>]| Ok(samples.iter().map(|s| s.completion_tokens.len() as f32).collect());
    let scorers = Scorers { score: &mut score, token_rewards: None, gold: None };
    let data = Data { prompts: &prompts, eval_prompts: None, texts: None };
    let mut run = Run::ephemeral().unwrap();
    temper_ppo::train(&config, models, &text, data, scorers, &mut run).unwrap();
}
