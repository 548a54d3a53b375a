//! Reward models: scores by both poolings, the gradient of the pairwise loss, and three steps down it.

use burn::module::Module;
use burn::tensor::Tensor;
use temper_model::{Dropout, Pooling, ScalarModel, TokenBatch};
use temper_train::Optimizer;

use crate::backends::{Backend, backends};
use crate::golden::{
    Golden, SCALAR_MODELS, assert_gradients, assert_weights, pairwise_loss, path, read, section, values,
};
use crate::model::{GRADIENT_TOLERANCE, WEIGHT_TOLERANCE};
use crate::optimizer::settings;

/// One dot product of 16 float32 numbers near 1 after the same two blocks as in `model`: rounding leaves 4e-7.
const SCORE_TOLERANCE: f64 = 4e-6;
/// The loss is a mean of functions of slope below 1 of those scores.
const LOSS_TOLERANCE: f64 = 2e-6;

fn scores(model: &ScalarModel, golden: &Golden, backend: &Backend) -> Tensor<1> {
    let batch = TokenBatch::right_padded(&golden.rows, &backend.device);
    model.scores(&batch, &golden.prompt_lens, &mut Dropout::off())
}

/// The first half of the rows was chosen, the second rejected.
fn loss_of(scores: Tensor<1>) -> Tensor<1> {
    let pairs = scores.dims()[0] / 2;
    pairwise_loss(scores.clone().narrow(0, 0, pairs), scores.narrow(0, pairs, pairs))
}

#[test]
fn both_poolings_are_there() {
    let pooling = |name: &str| ScalarModel::load(&path(name), &backends()[0].device).unwrap().pooling();
    assert_eq!(SCALAR_MODELS.map(pooling), [Pooling::Mean, Pooling::Last]);
}

#[test]
fn scores_pairwise_loss_and_every_gradient_equal_pytorchs() {
    for backend in backends() {
        for name in SCALAR_MODELS {
            println!("{name}");
            let golden = Golden::read(name);
            let model = ScalarModel::load(&path(name), &backend.device).unwrap().train();
            let scores = scores(&model, &golden, &backend);
            let found = values(scores.clone().inner());
            backend.assert_close("scores", &found, &golden.outputs["scores"].values, SCORE_TOLERANCE);
            let loss = loss_of(scores);
            let (found, expected) = (values(loss.clone().inner()), golden.outputs["losses"].values[0]);
            backend.assert_close("loss", &found, &[expected], LOSS_TOLERANCE);
            assert_gradients(&backend, &model, loss, &golden.gradients, GRADIENT_TOLERANCE);
        }
    }
}

/// As for language models.
#[test]
fn weights_after_three_steps_of_the_pairwise_loss_equal_pytorchs() {
    let (config, learning_rate) = settings(&section("maths.json", "three_steps"));
    let saved = tempfile::tempdir().unwrap();
    for backend in backends() {
        for name in SCALAR_MODELS {
            println!("{name}");
            let golden = Golden::read(name);
            let mut model = ScalarModel::load(&path(name), &backend.device).unwrap().train();
            let mut optimizer = Optimizer::new(&config);
            let (mut losses, mut norms) = (vec![], vec![]);
            for _ in 0..3 {
                let loss = loss_of(scores(&model, &golden, &backend));
                losses.extend(values(loss.clone().inner()));
                optimizer.accumulate(&model, loss);
                let norm;
                (model, norm) = optimizer.step(model, learning_rate).unwrap();
                norms.push(norm);
            }
            backend.assert_close("losses", &losses, &golden.outputs["losses"].values, WEIGHT_TOLERANCE);
            backend.assert_close("norms", &norms, &golden.outputs["norms"].values, WEIGHT_TOLERANCE);
            model.valid().save(saved.path(), 3).unwrap();
            let found = read(&saved.path().join("model.safetensors"));
            assert_weights(&backend, "after three steps", &found, &golden.after, WEIGHT_TOLERANCE);
        }
    }
}

/// A critic reads the same head at every position, whatever the pooling.
#[test]
fn values_equal_pytorchs() {
    for backend in backends() {
        for name in SCALAR_MODELS {
            let golden = Golden::read(name);
            let model = ScalarModel::load(&path(name), &backend.device).unwrap();
            let batch = TokenBatch::right_padded(&golden.rows, &backend.device);
            let [_, seq] = batch.dims();
            let all = values(model.values(&batch, &mut Dropout::off()));
            let found: Vec<f64> = golden
                .rows
                .iter()
                .enumerate()
                .flat_map(|(row, tokens)| all[row * seq..][..tokens.len()].to_vec())
                .collect();
            let expected = &golden.outputs["values"].values;
            backend.assert_close(&format!("{name}: values"), &found, expected, SCORE_TOLERANCE);
        }
    }
}
