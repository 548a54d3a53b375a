//! Model directories: whatever is in them, a model loads and runs or an error says why not.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use burn::tensor::Device;
use proptest::prelude::*;
use serde_json::{Value, json};
use temper_model::{
    Activation, Bias, CausalLm, Dropout, Error, FeedForward, Heads, Init, ModelConfig, NormKind,
    NormPlacement, Pooling, Positions, ScalarModel, TokenBatch,
};
use temper_tokenizer::{Overflow, Template, Tokenizer};

use crate::damage::{Damage, Files, damaged, damages, files_of, put, within_memory};
use crate::tiny::{cases, language_model, scalar_model};

/// A language model as GPT-2's, one of our own kind, and a reward model; with tokenizer and template.
static DIRS: LazyLock<[Files; 3]> = LazyLock::new(|| {
    let gpt2 = ModelConfig {
        vocab_size: 260,
        max_seq_len: 12,
        d_model: 4,
        n_layers: 2,
        n_heads: 2,
        heads: Heads::default(),
        d_ff: 6,
        activation: Activation::GeluTanh,
        feed_forward: FeedForward::Plain,
        norm: NormPlacement::Pre,
        norm_kind: NormKind::Layer,
        norm_eps: 1e-5,
        positions: Positions::Learned,
        embedding_scale: false,
        embedding_norm: false,
        final_norm: true,
        bias: Bias::All,
        tie_head: true,
        dropout: 0.0,
        attention_dropout: 0.0,
        ff_dropout: 0.0,
        init: Init::Normal,
    };
    let own = ModelConfig {
        norm: NormPlacement::Post,
        positions: Positions::None,
        tie_head: false,
        ..gpt2.clone()
    };
    let saved = |save: &dyn Fn(&Path) -> Result<(), Error>| {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path()).unwrap();
        Tokenizer::byte().save(dir.path()).unwrap();
        Template::notebook().save(dir.path()).unwrap();
        files_of(dir.path())
    };
    [
        saved(&|dir| language_model(&gpt2, 1).save(dir, 3)),
        saved(&|dir| language_model(&own, 2).save(dir, 3)),
        saved(&|dir| scalar_model(&own, Pooling::Mean, 3).save(dir, 3)),
    ]
});

/// Loads everything that is in a directory, and uses what loads.
fn use_all(dir: &Path) {
    within_memory(|| {
        let batch = || TokenBatch::right_padded(&[[0u32]], &Device::flex());
        if let Ok(model) = CausalLm::load(dir, &Device::flex()) {
            model.forward(&batch(), &mut Dropout::off());
        }
        if let Ok(model) = ScalarModel::load(dir, &Device::flex()) {
            model.scores(&batch(), &[1], &mut Dropout::off());
        }
        if let (Ok(tokenizer), Ok(Some(template))) = (Tokenizer::from_dir(dir), Template::load(dir)) {
            let ids = tokenizer.encode("What is 2 + 2? 你好 [EOS]");
            tokenizer.decode(&[&ids[..], &[0, 7, 400, u32::MAX]].concat());
            let _ = template.encode_example(&tokenizer, "ask", "say", 40, Overflow::TruncatePrompt);
            tokenizer.fingerprint();
        }
    });
}

const FILES: [&str; 5] =
    ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "template.json"];

fn with_file(which: usize, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    put(&DIRS[which], dir.path());
    let path = dir.path().join(name);
    fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
    use_all(dir.path());
}

/// The header of a safetensors file damaged, and its length put right: a wrong length hides all the rest.
fn damaged_header(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = damaged(&bytes[8..8 + len], damages);
    [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + len..]].concat()
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn any_bytes_in_any_file_are_an_error_or_a_model(
        which in 0usize..3, name in prop::sample::select(FILES.to_vec()), bytes: Vec<u8>,
    ) {
        with_file(which, name, |_| bytes);
    }

    #[test]
    fn a_damaged_file_is_an_error_or_a_model(
        which in 0usize..3, name in prop::sample::select(FILES.to_vec()), damages in damages(),
    ) {
        with_file(which, name, |bytes| damaged(&bytes, &damages));
    }

    #[test]
    fn a_damaged_header_of_weights_is_an_error_or_a_model(which in 0usize..3, damages in damages()) {
        with_file(which, "model.safetensors", |bytes| damaged_header(&bytes, &damages));
    }
}

/// Every number of a `config.json`, one after the other, at every size that a mistake could give it.
#[test]
fn no_number_in_a_config_costs_more_memory_than_its_weights() {
    for files in DIRS.iter() {
        let dir = tempfile::tempdir().unwrap();
        put(files, dir.path());
        let path = dir.path().join("config.json");
        let whole: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let section = if whole["model_type"] == "temper" { "/temper" } else { "" };
        let keys: Vec<String> =
            whole.pointer(section).unwrap().as_object().unwrap().keys().cloned().collect();
        for key in keys.iter().filter(|key| whole.pointer(section).unwrap()[*key].is_number()) {
            for number in [
                json!(0),
                json!(-1),
                json!(3),
                json!(1_000_000),
                json!(1u64 << 31),
                json!(1_000_000_000_000u64),
                json!(1u64 << 62),
                json!((1u64 << 62) + 1),
                json!(u64::MAX),
                json!(1e300),
                json!(1e-320),
                json!(null),
                json!("12"),
            ] {
                let mut config = whole.clone();
                config.pointer_mut(section).unwrap()[key] = number;
                fs::write(&path, config.to_string()).unwrap();
                use_all(dir.path());
            }
        }
        // Each of them may be believed, their product not.
        let pairs = if section.is_empty() {
            [["n_embd", "n_layer"], ["n_embd", "vocab_size"]]
        } else {
            [["d_model", "n_layers"], ["d_model", "vocab_size"]]
        };
        for pair in pairs {
            let mut config = whole.clone();
            for key in pair {
                config.pointer_mut(section).unwrap()[key] = json!(1u64 << 30);
            }
            fs::write(&path, config.to_string()).unwrap();
            use_all(dir.path());
            assert!(CausalLm::load(dir.path(), &Device::flex()).is_err());
        }
    }
}

/// Headers that say more than the file holds, by overflow or by plain size.
#[test]
fn weights_of_impossible_sizes_are_an_error() {
    let bytes = &DIRS[0][Path::new("model.safetensors")];
    let header_len = |len: u64| [&len.to_le_bytes()[..], &bytes[8..]].concat();
    let header = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[0; 64]].concat();
    let shaped = |shape: &str, end: &str| {
        header(&format!(
            r#"{{"transformer.wte.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}}}"#
        ))
    };
    for spoiled in [
        header_len(0),
        header_len(u64::MAX),
        header_len(u64::MAX - 7),
        header_len(1 << 40),
        header_len(bytes.len() as u64),
        shaped("[4294967296,4294967296]", "64"),
        shaped("[9223372036854775807,4]", "64"),
        shaped("[4611686018427387904]", "0"),
        shaped("[1000000000000]", "4000000000000"),
        shaped("[0]", "18446744073709551615"),
        shaped("[-1]", "64"),
        header("{}"),
        header(&"[".repeat(100_000)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        put(&DIRS[0], dir.path());
        fs::write(dir.path().join("model.safetensors"), &spoiled).unwrap();
        use_all(dir.path());
        assert!(CausalLm::load(dir.path(), &Device::flex()).is_err());
    }
}
