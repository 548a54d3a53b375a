//! What a resume reads next to the model: optimizer, state, manifest, metrics.
//!
//! The first byte chooses the file; the rest is its content.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use burn::module::Module;
use burn::tensor::Device;
use libfuzzer_sys::fuzz_target;
use temper_model::CausalLm;
use temper_train::{AdamWConfig, MetricsWriter, Optimizer, latest, read_metrics, verify};
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("there is room for a file");
    for name in ["config.json", "model.safetensors"] {
        let bytes: &[u8] = match name {
            "config.json" => include_bytes!("../tiny/config.json"),
            _ => include_bytes!("../tiny/model.safetensors"),
        };
        fs::write(dir.path().join(name), bytes).expect("there is room");
    }
    fs::create_dir_all(dir.path().join("checkpoints/step-000001/training")).expect("there is room");
    dir
});
thread_local! {
    static MODEL: CausalLm = CausalLm::load(DIR.path(), &Device::flex()).expect("our own file").train();
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let path = DIR.path().join("file");
    match choice % 3 {
        0 => {
            fs::write(&path, bytes).expect("there is room for a file");
            MODEL.with(|model| {
                let mut optimizer = Optimizer::new(&AdamWConfig::default());
                if optimizer.load(&path, model).is_ok() {
                    assert!(optimizer.updates() < u64::MAX, "there is no next update");
                }
            });
        }
        1 => {
            let checkpoint = DIR.path().join("checkpoints/step-000001");
            fs::write(checkpoint.join("training/manifest.json"), bytes).expect("there is room for a file");
            let whole = verify(&checkpoint).is_ok();
            // The only checkpoint: none to fall back to.
            assert_eq!(latest(DIR.path()).is_ok(), whole, "what is taken is whole");
        }
        _ => {
            fs::write(&path, bytes).expect("there is room for a file");
            let _ = read_metrics(&path);
            // Fewer than three whole lines are an error, and then the file stays as it was.
            if MetricsWriter::append_after(&path, 3).is_ok() {
                let rows = read_metrics(&path).expect("what is left is whole");
                assert_eq!(rows.len(), 3, "a checkpoint of three lines keeps three");
            } else {
                assert_eq!(fs::read(&path).expect("our own file"), bytes);
            }
        }
    }
});
