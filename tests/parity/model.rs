//! Language models: logits, the loss on completions, its gradient, and three steps down it.

use burn::module::Module;
use burn::tensor::Tensor;
use temper_model::{CausalLm, Dropout, TokenBatch, select_positions};
use temper_sft::{completion_logits, sft_loss};
use temper_tokenizer::Example;
use temper_train::Optimizer;

use crate::backends::{Backend, backends};
use crate::golden::{Golden, LANGUAGE_MODELS, assert_gradients, assert_weights, path, read, section, values};
use crate::optimizer::settings;

/// Sums of 16 to 24 float32 products through two blocks, onto logits up to 3: rounding leaves 1e-6.
const LOGIT_TOLERANCE: f64 = 1e-5;
/// A float32 of size 5 has steps of 5e-7.
pub const LOSS_TOLERANCE: f64 = 3e-6;
/// Gradients here are below 1; rounding leaves 3e-7.
pub const GRADIENT_TOLERANCE: f64 = 3e-6;
/// AdamW divides each gradient by its own size, so the rounding of a small one counts as much as that of a large one: a
/// gradient of 0 that is 1e-8 moves its weight by 1e-6 at this learning rate and epsilon.
pub const WEIGHT_TOLERANCE: f64 = 1e-5;

/// Mean of −log p over the tokens of the completions.
pub fn completion_loss(model: &CausalLm, golden: &Golden, backend: &Backend) -> Tensor<1> {
    let example = |(tokens, &prompt_len): (&Vec<u32>, _)| Example::new(tokens.clone(), prompt_len);
    let examples: Vec<Example> = golden.rows.iter().zip(&golden.prompt_lens).map(example).collect();
    let examples: Vec<&Example> = examples.iter().collect();
    let found = completion_logits(model, &examples, &backend.device, &mut Dropout::off());
    sft_loss(found.logits, found.targets)
}

/// Rows and columns of real tokens, in rows padded to `seq`; a row of `len` tokens starts at `starts_at(seq, len)`.
pub fn real_positions(
    golden: &Golden,
    seq: usize,
    starts_at: impl Fn(usize, usize) -> usize,
) -> Vec<(usize, usize)> {
    let of_row = |(row, tokens): (usize, &Vec<u32>)| {
        let first = starts_at(seq, tokens.len());
        (first..first + tokens.len()).map(move |column| (row, column))
    };
    golden.rows.iter().enumerate().flat_map(of_row).collect()
}

/// Compares the logits of real tokens; nothing is expected of pads.
fn assert_logits(
    backend: &Backend,
    pad: impl Fn(&[Vec<u32>]) -> TokenBatch,
    starts_at: impl Fn(usize, usize) -> usize,
) {
    for name in LANGUAGE_MODELS {
        let golden = Golden::read(name);
        let model = CausalLm::load(&path(name), &backend.device).unwrap();
        let batch = pad(&golden.rows);
        let [_, seq] = batch.dims();
        let logits = model.forward(&batch, &mut Dropout::off());
        let logits = values(select_positions(logits, &real_positions(&golden, seq, &starts_at)));
        let expected = &golden.outputs["logits"].values;
        backend.assert_close(&format!("{name}: logits"), &logits, expected, LOGIT_TOLERANCE);
    }
}

#[test]
fn logits_equal_pytorchs() {
    for backend in backends() {
        assert_logits(&backend, |rows| TokenBatch::right_padded(rows, &backend.device), |_, _| 0);
    }
}

/// Left padding shifts columns, not positions: the same logits come out.
#[test]
fn logits_of_left_padded_rows_equal_pytorchs() {
    for backend in backends() {
        assert_logits(&backend, |rows| TokenBatch::left_padded(rows, &backend.device), |seq, len| seq - len);
    }
}

#[test]
fn loss_and_every_gradient_equal_pytorchs() {
    for backend in backends() {
        for name in LANGUAGE_MODELS {
            println!("{name}");
            let golden = Golden::read(name);
            let model = CausalLm::load(&path(name), &backend.device).unwrap().train();
            let loss = completion_loss(&model, &golden, &backend);
            let (found, expected) = (values(loss.clone().inner()), golden.outputs["losses"].values[0]);
            backend.assert_close("loss", &found, &[expected], LOSS_TOLERANCE);
            assert_gradients(&backend, &model, loss, &golden.gradients, GRADIENT_TOLERANCE);
        }
    }
}

/// AdamW with the clip at work in each step, on the weights as they are saved.
#[test]
fn weights_after_three_steps_equal_pytorchs() {
    let (config, learning_rate) = settings(&section("maths.json", "three_steps"));
    let saved = tempfile::tempdir().unwrap();
    for backend in backends() {
        for name in LANGUAGE_MODELS {
            println!("{name}");
            let golden = Golden::read(name);
            let mut model = CausalLm::load(&path(name), &backend.device).unwrap().train();
            let mut optimizer = Optimizer::new(&config);
            let (mut losses, mut norms) = (vec![], vec![]);
            for _ in 0..3 {
                let loss = completion_loss(&model, &golden, &backend);
                losses.extend(values(loss.clone().inner()));
                optimizer.accumulate(&model, loss);
                let norm;
                (model, norm) = optimizer.step(model, learning_rate).unwrap();
                norms.push(norm);
            }
            backend.assert_close("losses", &losses, &golden.outputs["losses"].values, WEIGHT_TOLERANCE);
            backend.assert_close("norms", &norms, &golden.outputs["norms"].values, WEIGHT_TOLERANCE);
            model.valid().save(saved.path(), 3).unwrap();
            let weights = read(&saved.path().join("model.safetensors"));
            assert_weights(&backend, "after three steps", &weights, &golden.after, WEIGHT_TOLERANCE);
        }
    }
}
