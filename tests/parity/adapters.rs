//! Low-rank adapters: what PEFT wrote is read, computes and learns what PEFT computes and learns, and is written as it was.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;
use temper_model::{CausalLm, Dropout, TokenBatch, select_positions};
use temper_tensor::{Gradients, map};
use temper_train::Optimizer;

use crate::backends::{Backend, backends};
use crate::golden::{Golden, Stored, assert_weights, path, read, section, values};
use crate::model::{GRADIENT_TOLERANCE, LOSS_TOLERANCE, WEIGHT_TOLERANCE, completion_loss, real_positions};
use crate::optimizer::settings;

/// Directories of `assets/goldens` that have a `…-lora` next to them.
const ADAPTED: [&str; 3] = ["gpt2", "gpt_neox", "llama"];

/// Logits up to 10 after two blocks in float32: rounding leaves 4e-6.
const LOGIT_TOLERANCE: f64 = 2e-5;

fn adapted(name: &str, backend: &Backend) -> (CausalLm, Golden) {
    let base = CausalLm::load(&path(name), &backend.device).unwrap();
    let model = base.with_stored_adapters(&path(&format!("{name}-lora"))).unwrap();
    (model, Golden::read(&format!("{name}-lora")))
}

/// The tensors of the adapters, under PEFT's names and in its layout.
fn stored(model: &CausalLm) -> BTreeMap<String, Stored> {
    let dir = tempfile::tempdir().unwrap();
    model.save_adapters(dir.path()).unwrap();
    read(&dir.path().join("adapter_model.safetensors"))
}

#[test]
fn logits_of_adapters_equal_pefts_beside_the_weights_and_folded_in() {
    for backend in backends() {
        for name in ADAPTED {
            let (model, golden) = adapted(name, &backend);
            let batch = TokenBatch::right_padded(&golden.rows, &backend.device);
            let positions = real_positions(&golden, batch.dims()[1], |_, _| 0);
            for (how, model) in [("beside", model.clone()), ("folded in", model.merged())] {
                let logits = model.forward(&batch, &mut Dropout::off());
                let logits = values(select_positions(logits, &positions));
                let expected = &golden.outputs["logits"].values;
                backend.assert_close(&format!("{name}, {how}"), &logits, expected, LOGIT_TOLERANCE);
            }
        }
    }
}

#[test]
fn adapters_are_written_as_peft_wrote_them() {
    let backend = &backends()[0];
    for name in ADAPTED {
        let (model, _) = adapted(name, backend);
        let expected = read(&path(&format!("{name}-lora")).join("adapter_model.safetensors"));
        assert_eq!(stored(&model), expected, "{name}");
    }
}

#[test]
fn every_gradient_of_adapters_equals_pefts() {
    for backend in backends() {
        for name in ADAPTED {
            println!("{name}");
            let (model, golden) = adapted(name, &backend);
            let model = model.train();
            let loss = completion_loss(&model, &golden, &backend);
            let (found, expected) = (values(loss.clone().inner()), golden.outputs["losses"].values[0]);
            backend.assert_close("loss", &found, &[expected], LOSS_TOLERANCE);
            let mut gradients = Gradients::of(&model, loss);
            assert!(gradients.paths().all(|path| path.contains(".adapter.lora_")), "nothing else is learned");
            // In the place of the adapters, so that they get PEFT's names and layout.
            let in_place = map(model, |parameter| gradients.take(parameter.path).unwrap_or(parameter.value));
            let stored = stored(&in_place.valid());
            assert_weights(&backend, "gradient", &stored, &golden.gradients, GRADIENT_TOLERANCE);
        }
    }
}

#[test]
fn adapters_after_three_steps_equal_pefts() {
    let (config, learning_rate) = settings(&section("maths.json", "three_steps"));
    for backend in backends() {
        for name in ADAPTED {
            println!("{name}");
            let (model, golden) = adapted(name, &backend);
            let (mut model, base) = (model.clone().train(), model.without_adapters());
            let mut optimizer = Optimizer::new(&config);
            let mut losses = vec![];
            for _ in 0..3 {
                let loss = completion_loss(&model, &golden, &backend);
                losses.extend(values(loss.clone().inner()));
                optimizer.accumulate(&model, loss);
                (model, _) = optimizer.step(model, learning_rate).unwrap();
            }
            backend.assert_close("losses", &losses, &golden.outputs["losses"].values, WEIGHT_TOLERANCE);
            let model = model.valid();
            assert_weights(&backend, "after three steps", &stored(&model), &golden.after, WEIGHT_TOLERANCE);
            // The base has not moved.
            let weight =
                |model: &CausalLm| -> Tensor<2> { model.transformer.blocks[1].mlp.input.weight.val() };
            let moved: f32 = (weight(&model.without_adapters()) - weight(&base)).abs().max().into_scalar();
            assert_eq!(moved, 0.0);
        }
    }
}
