//! The families of transformers: what it wrote is read, computes its numbers, and is written as it was.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use serde_json::Value;
use temper_model::{
    CausalLm, Dropout, GenerateOptions, Lora, Pooling, Sampler, ScalarModel, TokenBatch, TokenIds, generate,
    select_positions,
};
use temper_tensor::{log_probs, token_logprobs};
use temper_train::Optimizer;

use crate::backends::{Backend, backends};
use crate::golden::{Golden, Stored, assert_weights, path, read, section, values};
use crate::model::{GRADIENT_TOLERANCE, LOSS_TOLERANCE, WEIGHT_TOLERANCE, completion_loss, real_positions};
use crate::optimizer::settings;

/// Directories of `assets/goldens`.
const MODELS: [&str; 6] = ["gpt_neox", "gpt_neox-sequential", "llama", "llama-scaled", "qwen2", "qwen3"];

/// Models with a scalar head that transformers wrote: `…-scalar`.
const SCALARS: [&str; 8] =
    ["gpt2", "gpt_neox", "gpt_neox-sequential", "llama", "llama-scaled", "mistral", "qwen2", "qwen3"];

/// Logits up to 10 after two blocks in float32, and transformers computes its norms in float32 too: rounding leaves 4e-6.
const LOGIT_TOLERANCE: f64 = 2e-5;
/// One dot product of 16 numbers after the same two blocks: rounding leaves 2e-6.
const SCORE_TOLERANCE: f64 = 1e-5;

#[test]
fn logits_equal_those_of_transformers_with_pads_on_either_side() {
    for backend in backends() {
        for name in MODELS {
            let golden = Golden::read(name);
            let model = CausalLm::load(&path(name), &backend.device).unwrap();
            let right = TokenBatch::right_padded(&golden.rows, &backend.device);
            let left = TokenBatch::left_padded(&golden.rows, &backend.device);
            for (side, batch) in [("right", right), ("left", left)] {
                let starts_at = |seq: usize, len: usize| if side == "left" { seq - len } else { 0 };
                let positions = real_positions(&golden, batch.dims()[1], starts_at);
                let logits = model.forward(&batch, &mut Dropout::off());
                let logits = values(select_positions(logits, &positions));
                let expected = &golden.outputs["logits"].values;
                backend.assert_close(&format!("{name}: logits, {side}"), &logits, expected, LOGIT_TOLERANCE);
            }
        }
    }
}

#[test]
fn loss_and_every_gradient_equal_those_of_transformers() {
    for backend in backends() {
        for name in MODELS {
            println!("{name}");
            let golden = Golden::read(name);
            let model = CausalLm::load(&path(name), &backend.device).unwrap().train();
            let loss = completion_loss(&model, &golden, &backend);
            let (found, expected) = (values(loss.clone().inner()), golden.outputs["losses"].values[0]);
            backend.assert_close("loss", &found, &[expected], LOSS_TOLERANCE);
            let gradients = stored_gradients(&model, loss);
            assert_weights(&backend, "gradient", &gradients, &golden.gradients, GRADIENT_TOLERANCE);
        }
    }
}

/// Saves the gradients in the place of the weights: so they get the names and the layout of the family.
fn stored_gradients(model: &CausalLm, loss: Tensor<1>) -> BTreeMap<String, Stored> {
    struct Swap(GradientsParams);
    impl ModuleMapper for Swap {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let gradient = self.0.remove::<D>(param.id).expect("every parameter has a gradient");
            param.map(|_| Tensor::from_inner(gradient))
        }
    }
    let gradients = GradientsParams::from_grads(loss.backward(), model);
    let saved = tempfile::tempdir().unwrap();
    model.clone().map(&mut Swap(gradients)).valid().save(saved.path(), 3).unwrap();
    read(&saved.path().join("model.safetensors"))
}

#[test]
fn weights_after_three_steps_equal_those_of_transformers() {
    let (config, learning_rate) = settings(&section("maths.json", "three_steps"));
    let saved = tempfile::tempdir().unwrap();
    for backend in backends() {
        for name in MODELS {
            println!("{name}");
            let golden = Golden::read(name);
            let mut model = CausalLm::load(&path(name), &backend.device).unwrap().train();
            let mut optimizer = Optimizer::new(&config);
            let mut losses = vec![];
            for _ in 0..3 {
                let loss = completion_loss(&model, &golden, &backend);
                losses.extend(values(loss.clone().inner()));
                optimizer.accumulate(&model, loss);
                (model, _) = optimizer.step(model, learning_rate).unwrap();
            }
            backend.assert_close("losses", &losses, &golden.outputs["losses"].values, WEIGHT_TOLERANCE);
            model.valid().save(saved.path(), 3).unwrap();
            let weights = read(&saved.path().join("model.safetensors"));
            assert_weights(&backend, "after three steps", &weights, &golden.after, WEIGHT_TOLERANCE);
        }
    }
}

/// Through the cache, from prompts of unequal lengths; and the log-probabilities are those of one forward pass over the
/// whole rows.
#[test]
fn greedy_answers_equal_those_of_transformers_and_of_a_full_forward_pass() {
    for backend in backends() {
        for name in MODELS {
            let golden = Golden::read(name);
            let model = CausalLm::load(&path(name), &backend.device).unwrap();
            let prompts: Vec<Vec<u32>> =
                golden.rows.iter().zip(&golden.prompt_lens).map(|(row, &n)| row[..n].to_vec()).collect();
            let options = GenerateOptions {
                max_new_tokens: 20,
                sampler: Sampler::Greedy,
                ..GenerateOptions::default()
            };
            let answers = generate(&model, &prompts, &options).unwrap();
            for (i, (prompt, answer)) in prompts.iter().zip(&answers).enumerate() {
                let tokens: Vec<f64> = answer.tokens.iter().map(|&token| f64::from(token)).collect();
                assert_eq!(tokens, golden.outputs[&format!("greedy.{i}")].values, "{}, {name}", backend.name);
                let row = [&prompt[..], &answer.tokens].concat();
                let batch = TokenBatch::right_padded(&[&row[..]], &backend.device);
                let places: Vec<(usize, usize)> =
                    (prompt.len()..row.len()).map(|column| (0, column - 1)).collect();
                let logits = select_positions(model.forward(&batch, &mut Dropout::off()), &places);
                let targets: Vec<i32> = answer.tokens.iter().map(|&token| token as i32).collect();
                let targets = Tensor::from_data(targets.as_slice(), &backend.device);
                let expected = values(token_logprobs(log_probs(logits, 1.0), targets));
                let logprobs: Vec<f64> = answer.logprobs.iter().map(|&logprob| f64::from(logprob)).collect();
                backend.assert_close(
                    &format!("{name}: log-probabilities"),
                    &logprobs,
                    &expected,
                    LOGIT_TOLERANCE,
                );
            }
        }
    }
}

/// Names, shapes, layouts and numbers come back, and every field that transformers wrote has the same value; those of
/// `rope_parameters` may be more.
#[test]
fn a_loaded_model_is_saved_as_transformers_saved_it() {
    let device = &backends()[0].device;
    let saved = tempfile::tempdir().unwrap();
    let config = |dir: &Path| -> Value {
        serde_json::from_str(&std::fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
    };
    for name in MODELS {
        let scalar = format!("{name}-scalar");
        let save_all: [(&str, &dyn Fn()); 2] = [
            (name, &|| CausalLm::load(&path(name), device).unwrap().save(saved.path(), 3).unwrap()),
            (&scalar, &|| ScalarModel::load(&path(&scalar), device).unwrap().save(saved.path(), 3).unwrap()),
        ];
        for (name, save) in save_all {
            save();
            let (mut found, expected) =
                (read(&saved.path().join("model.safetensors")), read(&path(name).join("model.safetensors")));
            // Our head has a bias; that of transformers has none, so it is 0.
            let bias = found.remove("score.bias").map(|bias| bias.values);
            assert_eq!(bias, name.ends_with("-scalar").then(|| vec![0.0]), "{name}");
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
            assert_eq!(found, expected, "{name}");
            let (found, expected) = (config(saved.path()), config(&path(name)));
            for (key, value) in expected.as_object().unwrap() {
                let is_same = match key.as_str() {
                    "dtype" | "initializer_range" => true,
                    "rope_parameters" => value
                        .as_object()
                        .unwrap()
                        .iter()
                        .all(|(key, value)| &found["rope_parameters"][key] == value),
                    key => &found[key] == value || value.is_null() && found.get(key).is_none(),
                };
                assert!(is_same, "{name}: {key} is {value}, found {}", found[key]);
            }
        }
    }
}

#[test]
fn scores_equal_those_of_transformers() {
    for backend in backends() {
        for name in SCALARS {
            let name = format!("{name}-scalar");
            let golden = Golden::read(&name);
            let model = ScalarModel::load(&path(&name), &backend.device).unwrap();
            assert_eq!(model.pooling(), Pooling::Last);
            let batch = TokenBatch::right_padded(&golden.rows, &backend.device);
            let scores = values(model.scores(&batch, &golden.prompt_lens, &mut Dropout::off()));
            let expected = &golden.outputs["scores"].values;
            backend.assert_close(&format!("{name}: scores"), &scores, expected, SCORE_TOLERANCE);
        }
    }
}

/// Before the rotation and after it, in attention and in the feed-forward layer: an adapter on every linear map of the
/// blocks learns, and is part of the weights that are saved.
#[test]
fn every_linear_map_of_a_block_takes_an_adapter() {
    let backend: &Backend = &backends()[0];
    for name in MODELS {
        let golden = Golden::read(name);
        let model = CausalLm::load(&path(name), &backend.device).unwrap();
        let mut rng = temper_train::Seed(3).stream("adapters");
        let mut paths = Vec::new();
        temper_tensor::visit(&model, |parameter| paths.push(parameter.path.to_owned()));
        let n_matrices =
            paths.iter().filter(|path| path.contains(".blocks.") && path.ends_with(".weight")).count();
        let lora = Lora { rank: 2, alpha: 2.0, targets: Vec::new(), base: name.into() };
        let mut adapted = model.with_adapters(&lora, &mut rng).unwrap().train();
        let (config, learning_rate) = settings(&section("maths.json", "three_steps"));
        let mut optimizer = Optimizer::new(&config);
        let mut losses = Vec::new();
        for _ in 0..4 {
            let loss = completion_loss(&adapted, &golden, backend);
            losses.extend(values(loss.clone().inner()));
            optimizer.accumulate(&adapted, loss);
            (adapted, _) = optimizer.step(adapted, learning_rate).unwrap();
        }
        assert!(losses[3] < losses[0], "{name}: {losses:?}");
        let mut moved = 0;
        temper_tensor::visit(&adapted, |parameter| {
            let sum: f32 = parameter.value.abs().sum().into_scalar();
            moved += usize::from(parameter.path.contains("lora_b") && sum > 0.0);
        });
        // Queries, keys and values have one each where the family stores them by themselves.
        let n_fused = if name.starts_with("gpt_neox") { 0 } else { 2 * n_matrices / 5 };
        assert_eq!(moved, n_matrices + n_fused, "{name}");
        let saved = tempfile::tempdir().unwrap();
        let adapted = adapted.valid();
        adapted.save(saved.path(), 3).unwrap();
        let merged = CausalLm::load(saved.path(), &backend.device).unwrap();
        let batch = TokenBatch::right_padded(&golden.rows, &backend.device);
        let logits = |model: &CausalLm| values(model.forward(&batch, &mut Dropout::off()));
        backend.assert_close(
            &format!("{name}: merged"),
            &logits(&merged),
            &logits(&adapted),
            LOGIT_TOLERANCE,
        );
    }
}

/// A normalised reward model is written with the tensors of transformers alone. Its scores are gain · score + bias, by the
/// scores of transformers, where Temper reads it again, and without the bias for an RMS norm where only the weights count.
#[test]
fn exported_scores_are_those_of_transformers_times_the_gain_plus_the_bias() {
    let (gain, bias) = (0.5, -0.75);
    let device = &backends()[0].device;
    let ids = TokenIds { eos: 3, end_tokens: vec![3], bos: None, pad: Some(0) };
    for name in SCALARS {
        let golden = Golden::read(&format!("{name}-scalar"));
        let model = ScalarModel::load(&path(&format!("{name}-scalar")), device).unwrap();
        let dir = tempfile::tempdir().unwrap();
        model.rescaled(gain, bias).export(dir.path(), &ids).unwrap();
        let shapes = |file: &Path| -> Vec<(String, Vec<usize>)> {
            read(file).into_iter().map(|(name, stored)| (name, stored.shape)).collect()
        };
        let theirs = shapes(&path(&format!("{name}-scalar")).join("model.safetensors"));
        assert_eq!(shapes(&dir.path().join("model.safetensors")), theirs, "{name}");
        let scores = || {
            let model = ScalarModel::load(dir.path(), device).unwrap();
            let batch = TokenBatch::right_padded(&golden.rows, device);
            values(model.scores(&batch, &golden.prompt_lens, &mut Dropout::off()))
        };
        let check = |bias: f64| {
            for (found, score) in scores().iter().zip(&golden.outputs["scores"].values) {
                let expected = gain * score + bias;
                assert!((found - expected).abs() < SCORE_TOLERANCE, "{name}: {found}, {expected}");
            }
        };
        check(bias);
        // What transformers reads.
        std::fs::remove_file(dir.path().join("temper.json")).unwrap();
        let has_layer_norm = name.starts_with("gpt");
        check(if has_layer_norm { bias } else { 0.0 });
    }
}
