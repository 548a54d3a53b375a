//! Language models: logits, the loss on completions, and its gradient.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use temper_model::{CausalLm, Dropout, TokenBatch, log_probs, select_positions, token_logprobs};

use crate::golden::{Golden, LANGUAGE_MODELS, assert_close, assert_gradients, devices, path, values};

/// Sums of 16 to 24 float32 products through two blocks, onto logits up to 3: rounding leaves 1e-6.
const LOGIT_TOLERANCE: f64 = 1e-5;
/// A float32 of size 5 has steps of 5e-7.
const LOSS_TOLERANCE: f64 = 3e-6;
/// Gradients here are below 1; rounding leaves 3e-7.
const GRADIENT_TOLERANCE: f64 = 3e-6;

/// Where each token of the completions is predicted, as (row, column), and the token itself.
fn predictions(golden: &Golden) -> (Vec<(usize, usize)>, Vec<i32>) {
    let targets = |(row, tokens): (usize, &Vec<u32>)| {
        let first = golden.prompt_lens[row];
        (first..tokens.len()).map(|i| ((row, i - 1), tokens[i] as i32)).collect::<Vec<_>>()
    };
    golden.rows.iter().enumerate().flat_map(targets).unzip()
}

/// Mean of −log p over the tokens of the completions.
fn completion_loss(model: &CausalLm, golden: &Golden, device: &Device) -> Tensor<1> {
    let (positions, targets) = predictions(golden);
    let batch = TokenBatch::right_padded(&golden.rows, device);
    let hidden = model.transformer.forward(&batch, &mut Dropout::off());
    let log_probs = log_probs(model.logits(select_positions(hidden, &positions)), 1.0);
    let count = targets.len();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [count]), device);
    -token_logprobs(log_probs, targets).mean()
}

#[test]
fn logits_equal_pytorchs() {
    for (device_name, device) in devices() {
        for name in LANGUAGE_MODELS {
            let golden = Golden::read(name);
            let model = CausalLm::load(&path(name), &device).unwrap();
            let batch = TokenBatch::right_padded(&golden.rows, &device);
            let logits = model.forward(&batch, &mut Dropout::off());
            // Nothing is expected of pads.
            let real = golden
                .rows
                .iter()
                .enumerate()
                .flat_map(|(row, tokens)| (0..tokens.len()).map(move |column| (row, column)));
            let found = values(select_positions(logits, &real.collect::<Vec<_>>()));
            let expected = &golden.outputs["logits"].values;
            assert_close(&format!("{device_name}, {name}: logits"), &found, expected, LOGIT_TOLERANCE);
        }
    }
}

/// Left padding shifts columns, not positions: the same logits come out.
#[test]
fn logits_of_left_padded_rows_equal_pytorchs() {
    for (device_name, device) in devices() {
        for name in LANGUAGE_MODELS {
            let golden = Golden::read(name);
            let model = CausalLm::load(&path(name), &device).unwrap();
            let batch = TokenBatch::left_padded(&golden.rows, &device);
            let [_, seq] = batch.dims();
            let logits = model.forward(&batch, &mut Dropout::off());
            let real = golden
                .rows
                .iter()
                .enumerate()
                .flat_map(|(row, tokens)| (seq - tokens.len()..seq).map(move |column| (row, column)));
            let found = values(select_positions(logits, &real.collect::<Vec<_>>()));
            let expected = &golden.outputs["logits"].values;
            assert_close(&format!("{device_name}, {name}: logits"), &found, expected, LOGIT_TOLERANCE);
        }
    }
}

#[test]
fn loss_and_every_gradient_equal_pytorchs() {
    for (device_name, device) in devices() {
        for name in LANGUAGE_MODELS {
            let golden = Golden::read(name);
            let model = CausalLm::load(&path(name), &device).unwrap().train();
            let loss = completion_loss(&model, &golden, &device);
            let what = format!("{device_name}, {name}");
            let found = values(loss.clone().inner());
            assert_close(&format!("{what}: loss"), &found, &golden.outputs["loss"].values, LOSS_TOLERANCE);
            assert_gradients(&what, &model, loss, &golden, GRADIENT_TOLERANCE);
        }
    }
}
