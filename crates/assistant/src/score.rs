//! The forward pass of a reward model over many rows.

use burn::module::Module;
use temper_model::{Dropout, ScalarModel, TokenBatch};
use temper_tensor::{in_parallel, shards};
use temper_tokenizer::Example;

/// Scores each example without dropout and without recording gradients, `batch_size` rows at a time.
///
/// # Panics
/// If an example is longer than the model's context.
pub fn score(model: &ScalarModel, examples: &[&Example], batch_size: usize) -> Vec<f32> {
    let model = model.valid();
    let device = model.device();
    let mut scores = vec![0.0; examples.len()];
    // Rows of similar length share a batch: this saves padding and changes no score.
    let mut order: Vec<usize> = (0..examples.len()).collect();
    order.sort_by_key(|&i| examples[i].tokens.len());
    for batch in order.chunks(batch_size) {
        let parts = shards(batch, &device).into_iter().map(|(_, rows)| (model.clone(), rows));
        let scores_of_parts = in_parallel(parts.collect(), |(model, rows)| {
            let tokens: Vec<&[u32]> = rows.iter().map(|&i| examples[i].tokens.as_slice()).collect();
            let prompt_lens: Vec<usize> = rows.iter().map(|&i| examples[i].prompt_len).collect();
            let tokens = TokenBatch::right_padded(&tokens, &device);
            let scores = model.scores(&tokens, &prompt_lens, &mut Dropout::off()).into_data();
            scores.as_slice::<f32>().expect("the model computes in f32").to_vec()
        });
        for (&i, score) in batch.iter().zip(scores_of_parts.into_iter().flatten()) {
            scores[i] = score;
        }
    }
    scores
}
