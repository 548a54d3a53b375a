//! Logits and targets of the tokens that a language model is taught.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor};

use crate::batch::TokenBatch;
use crate::heads::{CausalLm, select_positions};
use crate::layers::dropout::Dropout;
use temper_tensor::{ints, target_logprobs};

/// A row of tokens, and which of them are targets.
#[derive(Clone, Copy, Debug)]
pub struct TargetRow<'a> {
    /// Token ids without padding.
    pub tokens: &'a [u32],
    /// The column of the first target. The first token of a row is never one: nothing comes before it.
    pub first: usize,
    /// Columns after that which are no targets either.
    pub except: &'a [Range<usize>],
}

impl TargetRow<'_> {
    /// The columns of the targets, ascending.
    fn targets(&self) -> impl Iterator<Item = usize> {
        let is_target = |column: &usize| !self.except.iter().any(|range| range.contains(column));
        (self.first.max(1)..self.tokens.len()).filter(is_target)
    }
}

/// Every token from a given column on is a target.
impl<'a> From<(&'a [u32], usize)> for TargetRow<'a> {
    fn from((tokens, first): (&'a [u32], usize)) -> Self {
        Self { tokens, first, except: &[] }
    }
}

/// Logits and targets of some rows, from a given token of each to its end.
///
/// ```text
/// tokens   [BOS] p p [SEP] a b [EOS] .
/// row       0    1 2   3   4 5   6        first target 4: reads hidden states 3 4 5, predicts a b [EOS]
/// ```
///
/// Only these rows reach the head over the vocabulary; prompts and padding cost nothing there.
#[derive(Clone, Debug)]
pub struct TargetLogits {
    /// `[n, vocab]`.
    pub logits: Tensor<2>,
    /// `[n]`.
    pub targets: Tensor<1, Int>,
}

impl TargetLogits {
    /// Runs `model` over rows.
    pub fn new(model: &CausalLm, rows: &[TargetRow<'_>], device: &Device, dropout: &mut Dropout) -> Self {
        let tokens: Vec<&[u32]> = rows.iter().map(|row| row.tokens).collect();
        let hidden = model.transformer.forward(&TokenBatch::right_padded(&tokens, device), dropout);
        let mut positions = Vec::new();
        let mut targets = Vec::new();
        for (idx, row) in rows.iter().enumerate() {
            for column in row.targets() {
                positions.push((idx, column - 1));
                targets.push(row.tokens[column] as i32);
            }
        }
        let n = targets.len();
        Self {
            logits: model.logits(select_positions(hidden, &positions)),
            targets: ints(targets, [n], device),
        }
    }

    /// Number of target tokens.
    pub fn n_targets(&self) -> usize {
        self.targets.dims()[0]
    }

    /// How many targets are the most probable token, without gradients.
    ///
    /// It is still on the device, so that it can be read together with other numbers.
    ///
    /// # Shapes
    /// - output: `[1]`; exact up to 2²⁴ tokens, which no pass has
    pub fn correct(&self) -> Tensor<1> {
        let best = self.logits.clone().inner().argmax(1).squeeze_dim::<1>(1);
        best.equal(self.targets.clone()).float().sum()
    }

    /// [`nll`] of these.
    pub fn nll(self) -> Tensor<1> {
        nll(self.logits, self.targets)
    }
}

/// Mean negative log-likelihood of the targets, in nats: the loss of a language model.
///
/// # Shapes
/// - `logits`: `[n, vocab]`, one row per target
/// - `targets`: `[n]`
/// - output: `[1]`; gradients flow into `logits`
pub fn nll(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    -target_logprobs(logits, targets, 1.0).mean()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelConfig;
    use rand::SeedableRng;

    #[test]
    fn the_loss_is_the_mean_negative_log_likelihood() {
        let device = Device::flex();
        // Probabilities 1/4 and 1/2 of the targets: (ln 4 + ln 2) / 2.
        let logits = Tensor::from_data([[1f32.ln(), 3f32.ln()], [0.0, 0.0]], &device);
        let targets = Tensor::from_data([0, 1], &device);
        let loss: f32 = nll(logits, targets).into_scalar();
        assert!((loss - (4f32.ln() + 2f32.ln()) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn every_token_from_the_first_target_on_is_one_but_never_the_first_of_a_row() {
        let device = Device::flex();
        let config = ModelConfig { n_layers: 1, ..ModelConfig::preset("tiny").unwrap() };
        let model = CausalLm::new(&config, &mut rand_chacha::ChaCha8Rng::seed_from_u64(0), &device);
        let rows: [(&[u32], usize); 3] =
            [(&[1, 70, 2, 80, 81, 3], 3), (&[1, 2, 90, 3], 2), (&[60, 61, 3], 0)];
        let rows = rows.map(TargetRow::from);
        let logits = TargetLogits::new(&model, &rows, &device, &mut Dropout::off());
        assert_eq!(logits.n_targets(), 7);
        assert_eq!(logits.targets.into_data().as_slice::<i32>().unwrap(), [80, 81, 3, 90, 3, 61, 3]);
        let except = std::slice::from_ref(&(4..6));
        let between = TargetRow { tokens: &[1, 70, 80, 3, 71, 72, 81, 3], first: 2, except };
        let logits = TargetLogits::new(&model, &[between], &device, &mut Dropout::off());
        assert_eq!(logits.targets.into_data().as_slice::<i32>().unwrap(), [80, 3, 81, 3]);
    }
}
