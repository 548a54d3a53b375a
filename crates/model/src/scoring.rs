//! The forward pass of a reward model over many rows.

use burn::module::Module;
use temper_tensor::{in_parallel, shards};

use crate::{Dropout, ScalarModel, TokenBatch};

impl ScalarModel {
    /// The score of each row, without dropout and without recording gradients, `batch_size` rows at a time.
    ///
    /// A row is its token ids, and the number of them that belong to the prompt.
    ///
    /// # Panics
    /// If a row is longer than the context.
    pub fn score_rows(&self, rows: &[(&[u32], usize)], batch_size: usize) -> Vec<f32> {
        let model = self.valid();
        let device = model.device();
        let mut scores = vec![0.0; rows.len()];
        // Rows of similar length share a batch: this saves padding and changes no score.
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|&i| rows[i].0.len());
        for batch in order.chunks(batch_size) {
            let parts = shards(batch, &device).into_iter().map(|(_, idxs)| (model.clone(), idxs));
            let scores_of_parts = in_parallel(parts.collect(), |(model, idxs)| {
                let (tokens, prompt_lens): (Vec<&[u32]>, Vec<usize>) = idxs.iter().map(|&i| rows[i]).unzip();
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
}
