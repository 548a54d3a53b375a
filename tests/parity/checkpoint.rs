//! Model directories in both directions: what Hugging Face wrote is read, what we write has its names.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use temper_model::{CausalLm, Dropout, ScalarModel, TokenBatch};

use crate::backends::backends;
use crate::golden::{Golden, LANGUAGE_MODELS, SCALAR_MODELS, Stored, path, read, values};

fn write(file: &Path, tensors: &BTreeMap<String, Stored>) {
    let bytes: BTreeMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, t)| (name, t.values.iter().flat_map(|&v| (v as f32).to_le_bytes()).collect()))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, t)| (name, TensorView::new(Dtype::F32, t.shape.clone(), &bytes[name]).unwrap()));
    std::fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn logits(dir: &Path) -> Vec<f64> {
    let device = &backends()[0].device;
    let batch = TokenBatch::right_padded(&Golden::read("gpt2").rows, device);
    values(CausalLm::load(dir, device).unwrap().forward(&batch, &mut Dropout::off()))
}

/// `GPT2LMHeadModel.save_pretrained` wrote `gpt2` and `gpt2-untied`: names, shapes, layouts and numbers come back.
#[test]
fn a_loaded_model_is_saved_as_it_was() {
    let device = &backends()[0].device;
    let saved = tempfile::tempdir().unwrap();
    for name in LANGUAGE_MODELS {
        CausalLm::load(&path(name), device).unwrap().save(saved.path(), 3).unwrap();
        let (found, expected) =
            (read(&saved.path().join("model.safetensors")), read(&path(name).join("model.safetensors")));
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        assert_eq!(found, expected, "{name}");
    }
    for name in SCALAR_MODELS {
        ScalarModel::load(&path(name), device).unwrap().save(saved.path(), 3).unwrap();
        let (found, expected) =
            (read(&saved.path().join("model.safetensors")), read(&path(name).join("model.safetensors")));
        assert_eq!(found, expected, "{name}");
    }
}

/// What `GPT2Config` needs to build the same model says the same in our `config.json`.
#[test]
fn a_saved_config_says_what_hugging_faces_says() {
    let device = &backends()[0].device;
    let saved = tempfile::tempdir().unwrap();
    let config = |dir: &Path| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
    };
    for name in ["gpt2", "gpt2-untied"] {
        CausalLm::load(&path(name), device).unwrap().save(saved.path(), 3).unwrap();
        let (found, expected) = (config(saved.path()), config(&path(name)));
        for key in [
            "activation_function",
            "architectures",
            "attn_pdrop",
            "embd_pdrop",
            "eos_token_id",
            "layer_norm_epsilon",
            "model_type",
            "n_embd",
            "n_head",
            "n_inner",
            "n_layer",
            "n_positions",
            "resid_pdrop",
            "tie_word_embeddings",
            "vocab_size",
        ] {
            assert_eq!(found[key], expected[key], "{name}: {key}");
        }
    }
}

/// The hub's `gpt2` has no `transformer.` in its names, and keeps its causal masks as tensors.
#[test]
fn hub_style_names_load() {
    let hub = tempfile::tempdir().unwrap();
    std::fs::copy(path("gpt2").join("config.json"), hub.path().join("config.json")).unwrap();
    let mut tensors: BTreeMap<String, Stored> = read(&path("gpt2").join("model.safetensors"))
        .into_iter()
        .map(|(name, tensor)| (name.strip_prefix("transformer.").unwrap().to_owned(), tensor))
        .collect();
    tensors
        .insert("h.0.attn.bias".into(), Stored { shape: vec![1, 1, 2, 2], values: vec![1.0, 0.0, 1.0, 1.0] });
    write(&hub.path().join("model.safetensors"), &tensors);
    assert_eq!(logits(hub.path()), logits(&path("gpt2")));
}
