//! A program of one's own around the SFT stage: a model directory and a data file in, a run directory and an answer out.
//! The same command again resumes the run, or finds it finished.
//!
//! `cargo run --release -p temper-sft --example fine_tune -- MODEL_DIR demonstrations.jsonl RUN_DIR`
#![allow(clippy::print_stdout)]

use burn::tensor::Device;
use temper_assistant::Sampling;
use temper_sft::{SftConfig, SftFiles, run};
use temper_stage::Launch;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [model, data, out] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "give three paths")?;
    let files = SftFiles { model, data: vec![data.into()], eval_data: Vec::new() };
    let mut config = SftConfig::default();
    config.training.max_steps = 20;
    let assistant = run(&config, &files, Launch::new(&Device::flex(), &out).resume(true))?;
    println!("{out}/final: {}", assistant.answer(["Say hello."], &Sampling::default(), 0)?[0].completion);
    Ok(())
}
