//! A reward model by itself: it learns from comparisons that an answer should say thanks, and scores answers that it
//! has not seen.
//!
//! `cargo run --release -p temper-reward --example prefer_thanks`
#![allow(clippy::print_stdout)]

use burn::tensor::Device;
use temper_data::{Comparison, Encoding, Rankings};
use temper_model::{CausalLm, ModelConfig, Pooling, ScalarModel};
use temper_reward::{Error, RewardConfig, evaluate, score, train};
use temper_tokenizer::{Example, Template, TextSide, Tokenizer};
use temper_train::{Run, Seed, TrainingConfig};

fn main() -> Result<(), Error> {
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let answers = ["Yes", "No", "Maybe", "Later", "Never", "Today", "In May", "At noon"];
    let rows =
        answers.map(|answer| Comparison::pair("When?", &format!("{answer}, thanks."), &format!("{answer}.")));
    let data = Rankings::new(&rows, &Encoding::new(&text, 64))?;

    // InstructGPT starts from the SFT model's backbone; a fresh one is enough here.
    let mut init = Seed(0).stream("init");
    let backbone = CausalLm::new(&ModelConfig::preset("tiny")?, &mut init, &Device::flex()).transformer;
    let model = ScalarModel::new(backbone, Pooling::Last, &mut init);
    let training =
        TrainingConfig { epochs: 30, batch_size: 8, learning_rate: 1e-3, ..RewardConfig::default().training };
    let config = RewardConfig { training, ..RewardConfig::default() };
    let model = train(&config, model, &text, &data, None, &mut Run::ephemeral()?)?;
    println!("accuracy on the comparisons {:.2}", evaluate(&model, &data, 8).eval_accuracy);

    let unseen = ["Tomorrow, thanks.", "Tomorrow.", "Not now, thanks.", "Not now."];
    let encode = |completion: &str| text.encode_answer("When?", completion, true);
    let examples: Vec<Example> =
        unseen.into_iter().map(encode).collect::<Result<_, temper_tokenizer::Error>>()?;
    let scores = score(&model, &examples.iter().collect::<Vec<_>>(), 4);
    for (completion, score) in unseen.iter().zip(scores) {
        println!("{score:6.2}  {completion}");
    }
    Ok(())
}
