//! A program of one's own around the SFT stage: a model directory and a data file in, a run directory out. The same
//! command again resumes the run, or finds it finished.
//!
//! `cargo run --release -p temper-sft --example fine_tune -- MODEL_DIR demonstrations.jsonl RUN_DIR`
#![allow(clippy::print_stdout)]

use std::path::PathBuf;

use burn::tensor::Device;
use temper_data::{BadRows, Demonstration, Demonstrations, read_rows};
use temper_model::CausalLm;
use temper_sft::{SftConfig, train};
use temper_tokenizer::{Overflow, TextSide};
use temper_train::{Inputs, Run};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(model_dir), Some(data_file), Some(run_dir)) = (paths.next(), paths.next(), paths.next()) else {
        return Err("give a model directory, a data file and a run directory".into());
    };
    let model = CausalLm::load(&model_dir, &Device::flex())?;
    let mut text = TextSide::load(&model_dir)?;
    text.settle("plain_eos")?;

    let rows = read_rows::<Demonstration>(&[data_file], BadRows::Refuse)?.records;
    let data = Demonstrations::new(
        &rows,
        &text.tokenizer,
        &text.template,
        model.config().max_seq_len,
        Overflow::Drop,
    )?;

    let mut config = SftConfig::default();
    config.training.max_steps = 20;
    // What a resume must find unchanged; the command line puts checksums of data and model here.
    let inputs = Inputs::default();
    let resume = run_dir.join("config.toml").exists();
    let mut run = Run::open_with(&run_dir, "sft", &config, &inputs, resume)?;
    train(&config, model, &text, &data, None, &mut run)?;
    println!("{}", run_dir.join("final").display());
    Ok(())
}
