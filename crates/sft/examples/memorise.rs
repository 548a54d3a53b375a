//! Supervised fine-tuning by itself: a fresh model learns two answers by heart.
//!
//! `cargo run --release -p temper-sft --example memorise`
#![allow(clippy::print_stdout)]

use burn::tensor::Device;
use temper_data::{Demonstration, Demonstrations, Encoding};
use temper_model::{CausalLm, GenerateOptions, ModelConfig, Sampler, generate};
use temper_sft::{Error, SftConfig, evaluate, train};
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{Event, Run, Seed, TrainingConfig};

fn main() -> Result<(), Error> {
    let text = TextSide::new(Tokenizer::byte(), Template::notebook());
    let rows = [("Say hello", "Hello, nice to meet you!"), ("Capital of Spain?", "It is Madrid.")];
    let rows = rows
        .map(|(prompt, completion)| Demonstration { prompt: prompt.into(), completion: completion.into() });
    let data = Demonstrations::new(&rows, &Encoding::new(&text, 128))?;

    let model = ModelConfig::preset("tiny")?;
    let model = CausalLm::new(&model, &mut Seed(0).stream("init"), &Device::flex());
    let training =
        TrainingConfig { epochs: 60, batch_size: 2, learning_rate: 3e-3, ..SftConfig::default().training };
    let config = SftConfig { training, ..SftConfig::default() };
    let mut run = Run::ephemeral()?.with_observer(|event| {
        if let Event::Step { step, metrics, .. } = event
            && step % 20 == 0
        {
            println!("{step:3} loss {}", metrics["loss"]);
        }
    });
    let model = train(&config, model, &text, &data, None, &mut run)?;
    println!("token accuracy {:.2}", evaluate(&model, &data, 2).eval_mean_token_accuracy);

    let prompts: Vec<Vec<u32>> =
        rows.iter().map(|row| text.encode_prompt(&row.prompt)).collect::<Result<_, _>>()?;
    let options = GenerateOptions {
        max_new_tokens: 40,
        sampler: Sampler::Greedy,
        end_tokens: text.end_tokens(),
        ..GenerateOptions::default()
    };
    for (row, answer) in rows.iter().zip(generate(&model, &prompts, &options)?) {
        println!("{} -> {}", row.prompt, text.tokenizer.decode(&answer.tokens));
    }
    Ok(())
}
