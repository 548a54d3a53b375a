//! Reward models: scores by both poolings, and the gradient of the pairwise loss.

use burn::module::Module;
use burn::tensor::activation::softplus;
use temper_model::{Dropout, Pooling, ScalarModel, TokenBatch};

use crate::golden::{Golden, SCALAR_MODELS, assert_close, assert_gradients, devices, path, values};

/// One dot product of 16 float32 numbers near 1 behind the same two blocks as in `model`: rounding leaves 4e-7.
const SCORE_TOLERANCE: f64 = 4e-6;
/// The loss is a mean of functions of slope below 1 of those scores.
const LOSS_TOLERANCE: f64 = 2e-6;
/// As in `model`.
const GRADIENT_TOLERANCE: f64 = 3e-6;

#[test]
fn both_poolings_are_there() {
    let pooling = |name: &str| ScalarModel::load(&path(name), &devices()[0].1).unwrap().pooling();
    assert_eq!(SCALAR_MODELS.map(pooling), [Pooling::Mean, Pooling::Last]);
}

#[test]
fn scores_pairwise_loss_and_every_gradient_equal_pytorchs() {
    for (device_name, device) in devices() {
        for name in SCALAR_MODELS {
            let golden = Golden::read(name);
            let model = ScalarModel::load(&path(name), &device).unwrap().train();
            let batch = TokenBatch::right_padded(&golden.rows, &device);
            let scores = model.scores(&batch, &golden.prompt_lens, &mut Dropout::off());
            let what = format!("{device_name}, {name}");
            let found = values(scores.clone().inner());
            assert_close(
                &format!("{what}: scores"),
                &found,
                &golden.outputs["scores"].values,
                SCORE_TOLERANCE,
            );

            // The first half of the rows was chosen, the second rejected.
            let pairs = golden.rows.len() / 2;
            let margin = scores.clone().narrow(0, 0, pairs) - scores.narrow(0, pairs, pairs);
            let loss = softplus(-margin, 1.0).mean();
            let found = values(loss.clone().inner());
            assert_close(&format!("{what}: loss"), &found, &golden.outputs["loss"].values, LOSS_TOLERANCE);
            assert_gradients(&what, &model, loss, &golden, GRADIENT_TOLERANCE);
        }
    }
}

/// A critic reads the same head at every position, whatever the pooling.
#[test]
fn values_equal_pytorchs() {
    for (device_name, device) in devices() {
        for name in SCALAR_MODELS {
            let golden = Golden::read(name);
            let model = ScalarModel::load(&path(name), &device).unwrap();
            let batch = TokenBatch::right_padded(&golden.rows, &device);
            let [_, seq] = batch.dims();
            let all = values(model.values(&batch, &mut Dropout::off()));
            let found: Vec<f64> = golden
                .rows
                .iter()
                .enumerate()
                .flat_map(|(row, tokens)| all[row * seq..][..tokens.len()].to_vec())
                .collect();
            let expected = &golden.outputs["values"].values;
            assert_close(&format!("{device_name}, {name}: values"), &found, expected, SCORE_TOLERANCE);
        }
    }
}
