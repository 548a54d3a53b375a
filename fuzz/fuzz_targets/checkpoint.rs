//! Weights: any bytes as `model.safetensors`, next to a fixed `config.json`.
//!
//! A header without its length is the other way in: the fuzzer would rarely guess a length that fits.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use temper_model::{CausalLm, Dropout, TokenBatch};
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("there is room for a file");
    fs::write(dir.path().join("config.json"), include_bytes!("../tiny/config.json")).expect("there is room");
    dir
});
const WHOLE: &[u8] = include_bytes!("../tiny/model.safetensors");

fuzz_target!(|data: &[u8]| {
    let header_len = u64::from_le_bytes(WHOLE[..8].try_into().expect("eight bytes")) as usize;
    let body = &WHOLE[8 + header_len..];
    let with_header = [&(data.len() as u64).to_le_bytes(), data, body].concat();
    for bytes in [data, &with_header] {
        fs::write(DIR.path().join("model.safetensors"), bytes).expect("there is room for a file");
        if let Ok(model) = CausalLm::load(DIR.path(), &Device::flex()) {
            let batch = TokenBatch::right_padded(&[[0u32, 1]], &Device::flex());
            model.forward(&batch, &mut Dropout::off());
        }
    }
});
