//! DPO by itself: a model that says both long and short answers learns from comparisons to say the short ones.
//!
//! `cargo run --release -p temper-dpo --example prefer_short`
#![allow(clippy::print_stdout)]

use burn::tensor::Device;
use temper_data::{Comparison, Encoding, Rankings};
use temper_dpo::{DpoConfig, Error, completion_logprobs, train};
use temper_model::{CausalLm, ModelConfig};
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{Event, Run, Seed, TrainingConfig};

fn main() -> Result<(), Error> {
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let answers = ["Yes", "No", "Maybe", "Later", "Never", "Today", "In May", "At noon"];
    let rows = answers
        .map(|answer| Comparison::pair("When?", &format!("{answer}."), &format!("{answer}, I should say.")));
    let data = Rankings::new(&rows, &Encoding::new(&text, 64))?;

    // DPO starts from an SFT model, which is its reference too; a fresh one is enough here.
    let sft = CausalLm::new(&ModelConfig::preset("tiny")?, &mut Seed(0).stream("init"), &Device::flex());
    let training = TrainingConfig { epochs: 20, batch_size: 8, learning_rate: 1e-3, ..Default::default() };
    let config = DpoConfig { training, ..DpoConfig::default() };
    let mut run = Run::ephemeral()?.with_observer(|event| {
        if let Event::Step { step, metrics, .. } = event
            && step % 5 == 0
        {
            println!("{step:2} loss {} accuracy {}", metrics["loss"], metrics["rewards/accuracies"]);
        }
    });
    let policy = train(&config, sft.clone(), &text, &data, None, &mut run)?;

    let unseen = [Comparison::pair("When?", "Tomorrow.", "Tomorrow, I should say.")];
    let unseen = Rankings::new(&unseen, &Encoding::new(&text, 64))?;
    for (name, model) in [("before", &sft), ("after", &policy)] {
        let logprobs = completion_logprobs(model, &[&unseen.rankings[0]]).into_data();
        println!("{name}: log-probabilities of an unseen short and long answer {logprobs}");
    }
    Ok(())
}
