use super::*;
use crate::{Activation, Bias, Dropout, FeedForward, Init, Linear, NormKind, Positions, TokenBatch};
use burn::module::Param;
use burn::tensor::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::SafeTensors;
use serde_json::json;
use std::path::PathBuf;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(3)
}

fn batch() -> TokenBatch {
    TokenBatch::right_padded(&[vec![1, 50, 60, 2, 70], vec![1, 2, 3]], &Device::flex())
}

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("temper-model-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn a_saved_model_computes_the_same() {
    for preset in ["notebook", "gpt2-tiny", "tiny"] {
        for tie_head in [true, false] {
            let dir = scratch(&format!("lm-{preset}-{tie_head}"));
            let config = ModelConfig { tie_head, ..ModelConfig::preset(preset).unwrap() };
            let model = CausalLm::new(&config, &mut rng(), &Device::flex());
            model.save(&dir, 3).unwrap();
            let back = CausalLm::load(&dir, &Device::flex()).unwrap();
            assert_eq!(back.config(), &config);
            let difference: f32 = (model.forward(&batch(), &mut Dropout::off())
                - back.forward(&batch(), &mut Dropout::off()))
            .abs()
            .max()
            .into_scalar();
            assert_eq!(difference, 0.0);
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}

#[test]
fn a_saved_reward_model_scores_the_same_and_is_not_a_language_model() {
    for (preset, pooling) in [("notebook", Pooling::Mean), ("gpt2-tiny", Pooling::Last)] {
        let dir = scratch(&format!("rm-{preset}"));
        let config = ModelConfig::preset(preset).unwrap();
        let lm = CausalLm::new(&config, &mut rng(), &Device::flex());
        let model = ScalarModel::new(lm.transformer.clone(), pooling, &mut rng());
        model.save(&dir, 3).unwrap();
        let back = ScalarModel::load(&dir, &Device::flex()).unwrap();
        let score = |m: &ScalarModel| m.scores(&batch(), &[4, 2], &mut Dropout::off()).into_data();
        assert_eq!(score(&model), score(&back));
        assert_eq!(back.pooling(), pooling);
        assert!(matches!(CausalLm::load(&dir, &Device::flex()), Err(Error::WrongHead { .. })));
        lm.save(&dir, 3).unwrap();
        assert!(matches!(ScalarModel::load(&dir, &Device::flex()), Err(Error::WrongHead { .. })));
        std::fs::remove_dir_all(dir).unwrap();
    }
}

/// As `GPT2ForSequenceClassification` writes it: no bias, and no word of pooling.
#[test]
fn a_reward_model_of_hugging_face_has_no_bias_and_may_be_normalised_and_saved() {
    let dir = scratch("hugging-face-rm");
    let config = ModelConfig::preset("gpt2-tiny").unwrap();
    let lm = CausalLm::new(&config, &mut rng(), &Device::flex());
    let model = ScalarModel::new(lm.transformer, Pooling::Last, &mut rng()).rescaled(1.0, 0.5);
    model.save(&dir, 3).unwrap();
    rewrite(&dir, |name| name != "score.bias");
    let error = ScalarModel::load(&dir, &Device::flex()).unwrap_err();
    assert!(
        matches!(&error, Error::MissingWeight { name, .. } if name == "score.bias"),
        "ours is damaged: {error}"
    );
    edit_config(&dir, |json| _ = json.as_object_mut().unwrap().remove("temper_pooling"));
    let scores = |model: &ScalarModel| {
        let data = model.scores(&batch(), &[4, 2], &mut Dropout::off()).into_data();
        data.as_slice::<f32>().unwrap().to_vec()
    };
    let loaded = ScalarModel::load(&dir, &Device::flex()).unwrap();
    let close = |found: &[f32], expected: &[f32], shift: f32| {
        found.iter().zip(expected).all(|(found, expected)| (found - expected - shift).abs() < 1e-6)
    };
    assert!(close(&scores(&model), &scores(&loaded), 0.5), "its bias is 0");
    let shifted = loaded.rescaled(1.0, -2.0);
    shifted.save(&dir, 3).unwrap();
    let back = ScalarModel::load(&dir, &Device::flex()).unwrap();
    assert_eq!(scores(&back), scores(&shifted), "the shift is saved");
    assert!(close(&scores(&model), &scores(&back), 2.5));
    std::fs::remove_dir_all(dir).unwrap();
}

fn ids() -> TokenIds {
    TokenIds { eos: 3, end_tokens: vec![3, 7], bos: Some(1), pad: Some(0) }
}

/// β + b w / ‖w‖² by hand: w = (3, 4), b = 50, so b / ‖w‖² = 2.
#[test]
fn the_bias_of_a_head_moves_into_the_norm_before_it() {
    let config = ModelConfig { d_model: 2, n_heads: 1, ..ModelConfig::preset("gpt2-tiny").unwrap() };
    let lm = CausalLm::new(&config, &mut rng(), &Device::flex());
    let head = Linear {
        weight: Param::from_tensor(Tensor::from_data([[3.0], [4.0]], &Device::flex())),
        bias: Some(Param::from_tensor(Tensor::from_data([50.0], &Device::flex()))),
        adapter: None,
    };
    let model = ScalarModel::from_parts(lm.transformer.clone(), head.clone(), Pooling::Last);
    let moved = model.clone().with_bias_in_norm();
    let beta = |model: &ScalarModel| {
        let norm = model.transformer.final_norm.as_ref().unwrap();
        temper_tensor::values_of(norm.beta.as_ref().unwrap().val())
    };
    assert_eq!((beta(&moved), moved.score_bias()), (vec![6.0, 8.0], 0.0));
    let scores =
        |model: &ScalarModel| temper_tensor::values_of(model.scores(&batch(), &[4, 2], &mut Dropout::off()));
    for (moved, score) in scores(&moved).iter().zip(scores(&model)) {
        assert!((moved - score).abs() < 2e-5, "{moved} {score}");
    }
    // The mean over a completion is nothing that transformers computes, so nothing is gained.
    let mean = ScalarModel::from_parts(lm.transformer, head, Pooling::Mean);
    assert_eq!(mean.clone().with_bias_in_norm().score_bias(), 50.0);
}

#[test]
fn an_exported_reward_model_scores_the_same_with_and_without_a_norm_for_its_bias() {
    let llama = ModelConfig {
        norm_kind: NormKind::Rms,
        positions: Positions::Rotary { theta: 1e4, share: 1.0, scaling: None },
        feed_forward: FeedForward::Gated,
        activation: Activation::Silu,
        bias: Bias::None,
        init: Init::Plain,
        ..ModelConfig::preset("gpt2-tiny").unwrap()
    };
    for (name, config, is_in_norm) in
        [("export-gpt2", ModelConfig::preset("gpt2-tiny").unwrap(), true), ("export-llama", llama, false)]
    {
        let dir = scratch(name);
        let lm = CausalLm::new(&config, &mut rng(), &Device::flex());
        let model = ScalarModel::new(lm.transformer, Pooling::Last, &mut rng()).rescaled(3.0, -1.25);
        model.export(&dir, &ids()).unwrap();
        let json = read_config(&dir).unwrap();
        assert_eq!((&json["temper_pooling"], &json["num_labels"]), (&Value::Null, &json!(1)));
        assert_eq!(json["pad_token_id"], 0);
        let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert!(file.tensor("score.bias").is_err() && file.tensor("score.weight").is_ok());
        let stored = ScoreBias::load(&dir).unwrap();
        assert_eq!(stored, Some(if is_in_norm { 0.0 } else { -1.25 }), "{name}");
        let scores = |model: &ScalarModel| {
            temper_tensor::values_of(model.scores(&batch(), &[4, 2], &mut Dropout::off()))
        };
        let back = ScalarModel::load(&dir, &Device::flex()).unwrap();
        assert_eq!(back.pooling(), Pooling::Last);
        for (back, score) in scores(&back).iter().zip(scores(&model)) {
            assert!((back - score).abs() < 2e-6, "{name}: {back} {score}");
        }
        // A second export changes nothing, and a checkpoint in the same place has its own bias.
        back.export(&dir, &ids()).unwrap();
        assert!(std::fs::read(dir.join("model.safetensors")).unwrap() == bytes);
        back.save(&dir, 3).unwrap();
        let again = ScalarModel::load(&dir, &Device::flex()).unwrap();
        assert_eq!(scores(&again), scores(&back));
        std::fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn a_temper_json_that_cannot_be_read_is_an_error() {
    let dir = scratch("bias");
    let config = ModelConfig::preset("gpt2-tiny").unwrap();
    let lm = CausalLm::new(&config, &mut rng(), &Device::flex());
    ScalarModel::new(lm.transformer, Pooling::Last, &mut rng()).export(&dir, &ids()).unwrap();
    for (text, expected) in
        [("{", "EOF"), (r#"{"score_bias": 1e39}"#, "finite"), (r#"{"bias": 1}"#, "unknown field")]
    {
        std::fs::write(dir.join("temper.json"), text).unwrap();
        let error = ScalarModel::load(&dir, &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("temper.json") && error.contains(expected), "{error}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_finished_model_names_its_end_tokens_for_other_tools() {
    let dir = scratch("generation-config");
    let config = ModelConfig::preset("gpt2-tiny").unwrap();
    let lm = CausalLm::new(&config, &mut rng(), &Device::flex());
    let generation = || -> Value {
        serde_json::from_str(&std::fs::read_to_string(dir.join("generation_config.json")).unwrap()).unwrap()
    };
    lm.save(&dir, 3).unwrap();
    assert!(!dir.join("generation_config.json").exists(), "a checkpoint needs none");
    lm.export(&dir, &ids()).unwrap();
    assert_eq!(generation(), json!({"bos_token_id": 1, "eos_token_id": [3, 7], "pad_token_id": 0}));
    // One that came with the model is kept, with the end tokens that it lacks.
    for (eos, expected) in [(json!(3), json!([3, 7])), (json!([7, 9, 3]), json!([7, 9, 3]))] {
        let carried = json!({"eos_token_id": eos, "top_k": 20, "pad_token_id": 5});
        std::fs::write(dir.join("generation_config.json"), carried.to_string()).unwrap();
        CausalLm::load(&dir, &Device::flex()).unwrap().export(&dir, &ids()).unwrap();
        let mut all = json!({"eos_token_id": expected, "top_k": 20, "pad_token_id": 5});
        if !eos.is_array() {
            all["bos_token_id"] = json!(1);
        }
        assert_eq!(generation(), all);
    }
    std::fs::remove_dir_all(dir).unwrap();
}

fn edit_config(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join("config.json");
    let mut json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    edit(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

/// A model is loaded without a field that nobody knows, so it is saved without it too.
#[test]
fn ignored_fields_are_not_written_again() {
    let dir = scratch("ignored");
    let config = ModelConfig::preset("gpt2-tiny").unwrap();
    CausalLm::new(&config, &mut rng(), &Device::flex()).save(&dir, 3).unwrap();
    edit_config(&dir, |json| json["new_idea"] = json!(1));
    let error = CausalLm::load(&dir, &Device::flex()).unwrap_err();
    assert!(matches!(&error, Error::UnknownFields { fields, .. } if fields == &["new_idea"]), "{error}");
    assert!(ModelConfig::load(&dir).is_err());
    let options = LoadOptions { ignored_fields: vec!["new_idea".into()], ..LoadOptions::default() };
    assert_eq!(ModelConfig::load_with(&dir, &options).unwrap(), config);
    CausalLm::load_with(&dir, &Device::flex(), &options).unwrap().save(&dir, 3).unwrap();
    CausalLm::load(&dir, &Device::flex()).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

/// A reward model whose class cannot be read must not be taken for a language model.
#[test]
fn classes_that_are_not_a_list_of_names_are_an_error() {
    let dir = scratch("classes");
    let config = ModelConfig::preset("gpt2-tiny").unwrap();
    let lm = CausalLm::new(&config, &mut rng(), &Device::flex());
    ScalarModel::new(lm.transformer, Pooling::Last, &mut rng()).save(&dir, 3).unwrap();
    for classes in [json!("GPT2ForSequenceClassification"), json!([5])] {
        edit_config(&dir, |json| json["architectures"] = classes.clone());
        let error = CausalLm::load(&dir, &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("`architectures` must be a list of names"), "{error}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_reward_model_of_another_architecture_is_unsupported_and_not_called_a_reward_model() {
    let dir = scratch("mamba-rm");
    let json = json!({"model_type": "mamba", "architectures": ["MambaForSequenceClassification"]});
    std::fs::write(dir.join("config.json"), json.to_string()).unwrap();
    for error in [
        CausalLm::load(&dir, &Device::flex()).unwrap_err(),
        ScalarModel::load(&dir, &Device::flex()).unwrap_err(),
    ] {
        assert!(matches!(error, Error::UnsupportedArchitecture { .. }), "{error}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_truncated_file_and_a_wrong_shape_are_named() {
    let dir = scratch("broken");
    let config = ModelConfig::preset("tiny").unwrap();
    CausalLm::new(&config, &mut rng(), &Device::flex()).save(&dir, 3).unwrap();
    let other = ModelConfig { d_ff: 32, ..config };
    let json = std::fs::read_to_string(dir.join("config.json")).unwrap();
    std::fs::write(dir.join("config.json"), families::of(&other).write_config(&other).to_string()).unwrap();
    let error = CausalLm::load(&dir, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("c_fc.weight"), "{error}");
    std::fs::write(dir.join("config.json"), json).unwrap();
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    std::fs::write(dir.join("model.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    let error = CausalLm::load(&dir, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}

/// The weights of a saved model, written again but for those that `keep` leaves out.
fn rewrite(dir: &Path, keep: impl Fn(&str) -> bool) {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kept = file.tensors().into_iter().filter(|(name, _)| keep(name));
    std::fs::write(path, safetensors::serialize(kept, None).unwrap()).unwrap();
}

#[test]
fn a_config_of_a_million_tiny_layers_is_refused_before_they_are_made() {
    let dir = scratch("layers");
    let config = ModelConfig { d_model: 1, n_heads: 1, d_ff: 1, ..ModelConfig::preset("tiny").unwrap() };
    CausalLm::new(&config, &mut rng(), &Device::flex()).save(&dir, 3).unwrap();
    let deep = ModelConfig { n_layers: 10_000, ..config };
    let bytes = std::fs::metadata(dir.join("model.safetensors")).unwrap().len() as usize;
    assert!(deep.n_matrix_params().unwrap() < 16 * bytes, "the numbers alone would be believed");
    std::fs::write(dir.join("config.json"), families::of(&deep).write_config(&deep).to_string()).unwrap();
    let error = CausalLm::load(&dir, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("config.json describes a larger model"), "{error}");
    std::fs::remove_dir_all(dir).unwrap();
}
