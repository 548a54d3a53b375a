//! Run directories: whatever an interrupted run has left, a resume continues or says why not.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use temper_data::{Demonstrations, EncodedPrompt, Prompts};
use temper_model::CausalLm;
use temper_ppo::{Critic, Models, PpoConfig, Sample};
use temper_sft::SftConfig;
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::{
    Inputs, MetricsWriter, Run, TrainingConfig, latest, load_json, read_metrics, verify, write_atomic,
};
use tempfile::TempDir;

use crate::damage::{Files, damaged, damages, files_of, put, within_memory};
use crate::tiny::{CONTEXT, VOCAB, cases, example, language_model, weights};

const CHECKPOINT: &str = "checkpoints/step-000001";
const SETTINGS: &str = "seed = 0\n[kl]\ncoef = 0.5\n";

fn model() -> CausalLm {
    let config = temper_model::ModelConfig {
        vocab_size: VOCAB as usize,
        max_seq_len: CONTEXT,
        d_model: 4,
        n_layers: 1,
        n_heads: 1,
        d_ff: 4,
        // Nothing but the config says how long a sequence may be.
        positions: temper_model::Positions::None,
        ..temper_model::ModelConfig::preset("gpt2-tiny").unwrap()
    };
    language_model(&config, 1)
}

fn sft(run: &mut Run) -> Result<CausalLm, temper_sft::Error> {
    let training = TrainingConfig { max_steps: 2, checkpoint_every: 1, ..SftConfig::default().training };
    let config = SftConfig { training, dropout: false, ..SftConfig::default() };
    let examples = vec![example(&[1, 5], &[6, 3]), example(&[1, 7], &[8, 9, 3])];
    let data = Demonstrations::of(examples);
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    temper_sft::train(&config, model(), &text, &data, None, run)
}

fn ppo(run: &mut Run) -> Result<CausalLm, temper_ppo::Error> {
    let mut config = PpoConfig::default();
    (config.training.epochs, config.training.batch_size, config.training.checkpoint_every) = (2, 2, 1);
    config.rollout.max_new_tokens = 4;
    let prompt = |tokens: &[u32]| EncodedPrompt::new("", tokens.to_vec());
    let prompts = Prompts::from(vec![prompt(&[1, 5]), prompt(&[1, 6, 7])]);
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let mut score = |samples: &[Sample<'_>]| {
        Ok(samples.iter().map(|s| s.completion_tokens.len() as f32).collect::<Vec<_>>())
    };
    let models = Models { policy: model(), ref_policy: model(), critic: Critic::ValueHead };
    temper_ppo::train(&config, models, &text, &prompts, &mut score, run)
}

/// Runs of SFT and of PPO, each with one checkpoint after its first step of two.
static RUNS: LazyLock<[Files; 2]> = LazyLock::new(|| {
    std::array::from_fn(|which| {
        let dir = tempfile::tempdir().unwrap();
        let mut run =
            Run::open(dir.path(), ["sft", "ppo"][which], SETTINGS, &Inputs::default(), false).unwrap();
        let _trained = if which == 0 { sft(&mut run).unwrap() } else { ppo(&mut run).unwrap() };
        verify(&dir.path().join(CHECKPOINT)).unwrap();
        fs::remove_dir_all(dir.path().join("final")).unwrap();
        files_of(dir.path())
    })
});

const FILES: [[&str; 8]; 2] = [
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "template.json",
        "training/state.json",
        "training/optimizer.safetensors",
        "training/optimizer.safetensors",
        "training/state.json",
    ],
    [
        "config.json",
        "model.safetensors",
        "critic/config.json",
        "critic/model.safetensors",
        "training/state.json",
        "training/policy_optimizer.safetensors",
        "training/policy_optimizer.safetensors",
        "training/state.json",
    ],
];

const RUN_FILES: [&str; 4] = [
    "config.toml",
    "metrics.jsonl",
    "checkpoints/best.json",
    "checkpoints/step-000001/training/manifest.json",
];

/// A copy of a run whose checkpoint has another content in one file, and checksums that fit.
fn resealed(which: usize, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(&RUNS[which], dir.path());
    let checkpoint = dir.path().join(CHECKPOINT);
    let fill = |temp: &Path| {
        put(&files_of(&checkpoint), temp);
        fs::remove_file(temp.join("training/manifest.json")).unwrap();
        fs::write(temp.join(name), change(fs::read(temp.join(name)).unwrap())).unwrap();
        Ok::<(), temper_train::Error>(())
    };
    write_atomic(&checkpoint, fill).unwrap();
    verify(&checkpoint).unwrap();
    dir
}

/// Resumes, and checks that what comes out is a model.
fn resume(dir: &Path, which: usize) -> Result<(), String> {
    within_memory(|| {
        let mut run = Run::open(dir, ["sft", "ppo"][which], SETTINGS, &Inputs::default(), true)
            .map_err(|error| error.to_string())?;
        let trained = match which {
            0 => sft(&mut run).map_err(|error| error.to_string()),
            _ => ppo(&mut run).map_err(|error| error.to_string()),
        };
        trained.map(|model| {
            assert!(weights(&model).iter().all(|weight| weight.is_finite()), "weights are numbers")
        })
    })
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn a_damaged_checkpoint_is_an_error_or_resumes(
        which in 0usize..2, file in 0usize..8, damages in damages(),
    ) {
        let dir = resealed(which, FILES[which][file], |bytes| damaged(&bytes, &damages));
        let _ = resume(dir.path(), which);
    }

    #[test]
    fn any_bytes_in_a_checkpoint_are_an_error(which in 0usize..2, file in 4usize..8, bytes: Vec<u8>) {
        let dir = resealed(which, FILES[which][file], |_| bytes);
        prop_assert!(resume(dir.path(), which).is_err());
    }

    #[test]
    fn a_damaged_run_directory_is_an_error_or_resumes(
        name in prop::sample::select(RUN_FILES.to_vec()), damages in damages(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        put(&RUNS[0], dir.path());
        fs::write(dir.path().join("checkpoints/best.json"), "{\"step\": 1}").unwrap();
        let path = dir.path().join(name);
        fs::write(&path, damaged(&fs::read(&path).unwrap(), &damages)).unwrap();
        let _ = resume(dir.path(), 0);
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_bytes_next_to_a_model_are_read_or_an_error(bytes: Vec<u8>, step in 0usize..9) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, &bytes).unwrap();
        let _ = read_metrics(&path);
        let _ = load_json::<std::collections::BTreeMap<String, u64>>(&path);
        // Rows that were there before the checkpoint and are not now are an error.
        if MetricsWriter::append_after(&path, step).is_ok() {
            prop_assert!(read_metrics(&path).is_ok(), "what is torn was cut");
        }

        let checkpoint = dir.path().join("checkpoints/step-000007");
        fs::create_dir_all(checkpoint.join("training")).unwrap();
        fs::write(checkpoint.join("training/manifest.json"), &bytes).unwrap();
        prop_assert!(verify(&checkpoint).is_err());
        let error = latest(dir.path()).unwrap_err().to_string();
        prop_assert!(error.contains("step-000007"), "{}", error);
    }
}

/// Numbers that are well written and cannot be.
#[test]
fn an_impossible_state_is_an_error() {
    for (which, text, says) in [
        (0, "{\"step\": -1}", "state.json"),
        (0, "{\"step\": 1.5}", "state.json"),
        (0, "{}", "step"),
        (1, "{\"step\": 1, \"kl_coef\": \"-0.5\", \"recent_scores\": []}", "kl_coef"),
        (1, "{\"step\": 1, \"kl_coef\": \"inf\", \"recent_scores\": []}", "kl_coef"),
        (1, "{\"step\": 1, \"kl_coef\": \"x\", \"recent_scores\": []}", "state.json"),
        (1, "{\"step\": 1, \"kl_coef\": null}", "state.json"),
    ] {
        let dir = resealed(which, "training/state.json", |_| text.into());
        let message = resume(dir.path(), which).unwrap_err();
        assert!(message.contains("state.json") && message.contains(says), "{message}");
    }
}

#[test]
fn a_checkpoint_of_a_shorter_context_is_an_error() {
    for which in [0, 1] {
        let shorten = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains("\"max_seq_len\": 32"), "{text}");
            text.replace("\"max_seq_len\": 32", "\"max_seq_len\": 3").into_bytes()
        };
        let message = resume(resealed(which, "config.json", shorten).path(), which).unwrap_err();
        assert!(message.contains("`max_seq_len`: 3 in the checkpoint, 32 when the run started"), "{message}");
    }
}

/// A file that was changed without a new manifest is recognised by its checksum; it is the only checkpoint.
#[test]
fn a_checkpoint_that_does_not_fit_its_checksums_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    put(&RUNS[0], dir.path());
    let path = dir.path().join(CHECKPOINT).join("training/state.json");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace('1', "2")).unwrap();
    let message = resume(dir.path(), 0).unwrap_err();
    assert!(message.contains("state.json does not have the bytes that were written"), "{message}");
}
