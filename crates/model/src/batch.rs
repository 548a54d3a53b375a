//! Rows of token ids as one padded batch, with the positions and the attention mask that belong to it.

use burn::tensor::{Device, Int, Tensor};
use temper_tensor::ints;

use crate::visibility::{COMMON, Segments};

/// A batch of token rows, padded to the longest one.
///
/// Right padding needs no mask of its own: under the causal mask no real token can see what follows it.
/// Left padding, for generation, hides the pads and counts positions from the first real token
/// (as lm-human-preferences and TRL do).
///
/// ```text
/// right  a b c . .     positions 0 1 2 3 4
/// left   . . a b c     positions 0 0 0 1 2
/// ```
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// `[batch, seq]`.
    pub tokens: Tensor<2, Int>,
    /// `[batch, seq]`; `None` for 0, 1, 2, … in every row.
    pub positions: Option<Tensor<2, Int>>,
    /// Added to the attention scores: 0 where a query may look, −∞ where not.
    /// `[batch or 1, 1, seq, seq]`.
    pub attend_bias: Tensor<4>,
    /// Real tokens of each row.
    pub lens: Vec<usize>,
    /// One more than the last position: the context that the batch needs.
    pub n_positions: usize,
}

impl TokenBatch {
    /// Rows with their pads on the right: for training and scoring.
    ///
    /// # Panics
    /// If there is no row or an empty one.
    pub fn right_padded<R: AsRef<[u32]>>(rows: &[R], device: &Device) -> Self {
        let (lens, seq) = row_lens(rows);
        let mut tokens = Vec::with_capacity(rows.len() * seq);
        for row in rows {
            tokens.extend(row.as_ref().iter().map(|&t| t as i32));
            tokens.resize(tokens.len() + seq - row.as_ref().len(), 0);
        }
        Self {
            tokens: ints(tokens, [rows.len(), seq], device),
            positions: None,
            attend_bias: Segments::of_text(seq).bias(device),
            lens,
            n_positions: seq,
        }
    }

    /// Rows that end in the same column, pads in front: for generation.
    ///
    /// # Panics
    /// If there is no row or an empty one.
    pub fn left_padded<R: AsRef<[u32]>>(rows: &[R], device: &Device) -> Self {
        let (lens, seq) = row_lens(rows);
        let batch = rows.len();
        let mut tokens = vec![0; batch * seq];
        let mut positions = vec![0; batch * seq];
        let mut segments = Segments::of_pads(batch, seq);
        for (i, row) in rows.iter().enumerate() {
            let pads = seq - lens[i];
            for (j, &token) in row.as_ref().iter().enumerate() {
                tokens[i * seq + pads + j] = token as i32;
                positions[i * seq + pads + j] = j as i32;
            }
            segments.set(i, pads, lens[i], COMMON);
        }
        Self {
            tokens: ints(tokens, [batch, seq], device),
            positions: Some(ints(positions, [batch, seq], device)),
            attend_bias: segments.bias(device),
            lens,
            n_positions: seq,
        }
    }

    /// Number of rows and padded length.
    pub fn dims(&self) -> [usize; 2] {
        self.tokens.dims()
    }
}

fn row_lens<R: AsRef<[u32]>>(rows: &[R]) -> (Vec<usize>, usize) {
    let lens: Vec<usize> = rows.iter().map(|row| row.as_ref().len()).collect();
    assert!(lens.iter().all(|&len| len > 0), "a row without tokens: {lens:?}");
    let seq = *lens.iter().max().expect("a batch has at least one row");
    (lens, seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visible(batch: &TokenBatch, row: usize) -> Vec<Vec<bool>> {
        let [_, seq] = batch.dims();
        let data = batch.attend_bias.clone().into_data();
        let bias: &[f32] = data.as_slice().unwrap();
        let row = if batch.attend_bias.dims()[0] == 1 { 0 } else { row };
        (0..seq).map(|q| (0..seq).map(|k| bias[(row * seq + q) * seq + k] == 0.0).collect()).collect()
    }

    #[test]
    fn left_padded_rows_see_their_own_tokens_only() {
        let batch = TokenBatch::left_padded(&[vec![7, 8], vec![4, 5, 6]], &Device::flex());
        let (t, f) = (true, false);
        assert_eq!(visible(&batch, 0), [[t, f, f], [f, t, f], [f, t, t]]);
        assert_eq!(visible(&batch, 1), [[t, f, f], [t, t, f], [t, t, t]]);
        let positions = batch.positions.unwrap().into_data();
        assert_eq!(positions.as_slice::<i32>().unwrap(), [0, 0, 1, 0, 1, 2]);
    }

    #[test]
    fn right_padded_rows_see_what_comes_before_them() {
        let batch = TokenBatch::right_padded(&[vec![7, 8], vec![4, 5, 6]], &Device::flex());
        let (t, f) = (true, false);
        assert_eq!(visible(&batch, 0), [[t, f, f], [t, t, f], [t, t, t]]);
        assert_eq!(batch.tokens.into_data().as_slice::<i32>().unwrap(), [7, 8, 0, 4, 5, 6]);
    }
}
