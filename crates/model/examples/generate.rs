//! A decoder by itself: fresh weights, batched sampling through the KV cache, the same log-probabilities from one
//! full forward, and a round trip through a model directory.
//!
//! `cargo run --release -p temper-model --example generate`
#![allow(clippy::print_stdout)]

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use temper_model::{
    CausalLm, Completion, Dropout, Error, GenerateOptions, ModelConfig, Sampler, TokenBatch, generate,
    select_positions,
};
use temper_tensor::{log_probs, token_logprobs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let config = ModelConfig { d_model: 96, n_heads: 6, d_ff: 384, ..ModelConfig::preset("tiny")? };
    let model = CausalLm::new(&config, &mut ChaCha8Rng::seed_from_u64(0), &device);

    let prompts = [vec![1, 76, 109, 2], vec![1, 90, 91, 92, 93, 2]];
    for (prompt, completion) in prompts.iter().zip(sample(&model, &prompts)?) {
        println!("{prompt:?} -> {:?}", completion.tokens);
        println!("  cached against full forward: {:.1e}", greatest_difference(&model, prompt, &completion));
    }

    let dir = std::env::temp_dir().join(format!("temper-model-example-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    model.save(&dir, 3)?;
    let loaded = CausalLm::load(&dir, &device);
    std::fs::remove_dir_all(&dir)?;
    println!("loaded again, the same answers: {}", sample(&loaded?, &prompts)? == sample(&model, &prompts)?);
    Ok(())
}

fn sample(model: &CausalLm, prompts: &[Vec<u32>]) -> Result<Vec<Completion>, Error> {
    let sampler = Sampler::Random { temperature: 1.0, top_k: 0, top_p: 1.0 };
    generate(
        model,
        prompts,
        &GenerateOptions {
            max_new_tokens: 12,
            sampler,
            end_tokens: vec![3],
            seed: 7,
            ..GenerateOptions::default()
        },
    )
}

/// Between the sampler's log-probabilities and those of one forward over prompt and completion.
fn greatest_difference(model: &CausalLm, prompt: &[u32], completion: &Completion) -> f32 {
    let n = completion.tokens.len();
    let batch = TokenBatch::right_padded(&[[prompt, &completion.tokens[..]].concat()], &model.device());
    let hidden = model.transformer.forward(&batch, &mut Dropout::off());
    let places: Vec<(usize, usize)> = (0..n).map(|t| (0, prompt.len() - 1 + t)).collect();
    let targets: Vec<i32> = completion.tokens.iter().map(|&token| token as i32).collect();
    let targets = Tensor::from_data(TensorData::new(targets, [n]), &model.device());
    let logprobs = token_logprobs(log_probs(model.logits(select_positions(hidden, &places)), 1.0), targets);
    let logprobs = logprobs.into_data();
    let logprobs = logprobs.as_slice::<f32>().expect("the model computes in f32");
    logprobs.iter().zip(&completion.logprobs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
