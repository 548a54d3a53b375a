//! Scores of texts by a reward model.

use burn::module::Module;
use temper_model::{Dropout, ScalarModel, TokenBatch};
use temper_tokenizer::Example;

/// Scores each example, `batch_size` at a time, without dropout and off the tape (D6).
///
/// # Panics
/// If an example is longer than the model's context.
pub fn score(model: &ScalarModel, examples: &[&Example], batch_size: usize) -> Vec<f32> {
    let model = model.valid();
    let device = model.device();
    let mut scores = vec![0.0; examples.len()];
    // Rows of similar length side by side: less padding, the same scores.
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|&i| examples[i].tokens.len());
    for part in order.chunks(batch_size) {
        let rows: Vec<&[u32]> = part.iter().map(|&i| examples[i].tokens.as_slice()).collect();
        let prompt_lens: Vec<usize> = part.iter().map(|&i| examples[i].prompt_len).collect();
        let batch = TokenBatch::right_padded(&rows, &device);
        let found = model.scores(&batch, &prompt_lens, &mut Dropout::off()).into_data();
        for (&i, score) in part.iter().zip(found.as_slice::<f32>().expect("the model computes in f32")) {
            scores[i] = *score;
        }
    }
    scores
}
