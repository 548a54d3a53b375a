//! Settings: any TOML, any `--set`, any `config.json`.
//!
//! The first byte chooses; the rest is the file, or the argument.

#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use temper_model::{CausalLm, Dropout, ScalarModel, TokenBatch};
use temper_ppo::PpoConfig;
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_train::{Inputs, Run, resolve};
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("there is room for a file");
    fs::write(dir.path().join("model.safetensors"), include_bytes!("../tiny/model.safetensors"))
        .expect("there is room");
    dir
});

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 6 {
        0 => drop(file(bytes, |path| {
            resolve::<SftConfig>(None, Some(path), &[]).map(|config| config.validate())
        })),
        1 => drop(file(bytes, |path| {
            resolve::<RewardConfig>(None, Some(path), &[]).map(|config| config.validate())
        })),
        2 => drop(file(bytes, |path| {
            resolve::<PpoConfig>(None, Some(path), &[]).map(|config| config.validate())
        })),
        3 => {
            let sets: Vec<String> = String::from_utf8_lossy(bytes).split('\0').map(str::to_owned).collect();
            let _ = resolve::<PpoConfig>(None, None, &sets).map(|config| config.validate());
        }
        4 => {
            let _ = Run::open(&DIR.path().join("run"), "sft", &String::from_utf8_lossy(bytes), &Inputs::default(), false);
        }
        _ => model(bytes),
    }
});

fn file<T>(bytes: &[u8], read: impl Fn(&Path) -> T) -> T {
    let path = DIR.path().join("settings.toml");
    fs::write(&path, bytes).expect("there is room for a file");
    read(&path)
}

/// What loads must also run: its numbers were believed.
fn model(bytes: &[u8]) {
    fs::write(DIR.path().join("config.json"), bytes).expect("there is room for a file");
    let batch = || TokenBatch::right_padded(&[[0u32]], &Device::flex());
    if let Ok(model) = CausalLm::load(DIR.path(), &Device::flex()) {
        model.forward(&batch(), &mut Dropout::off());
    }
    if let Ok(model) = ScalarModel::load(DIR.path(), &Device::flex()) {
        model.scores(&batch(), &[1], &mut Dropout::off());
    }
}
