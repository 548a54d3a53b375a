//! The loss of SFT.

use burn::tensor::{Device, Int, Tensor, TensorData};
use temper_model::{CausalLm, Dropout, TokenBatch, log_probs, select_positions, token_logprobs};
use temper_tokenizer::Example;

/// Mean negative log-likelihood of the target tokens, in nats (InstructGPT section 3.5, supervised fine-tuning).
///
/// # Shapes
/// - `logits`: `[n, vocab]`, one row per target
/// - `targets`: `[n]`
/// - output: `[1]`; gradients flow into `logits`
pub fn sft_loss(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    -token_logprobs(log_probs(logits, 1.0), targets).mean()
}

/// Logits and targets of every completion token of some examples.
///
/// ```text
/// tokens   [BOS] p p [SEP] a b [EOS] .
/// row       0    1 2   3   4 5   6        reads hidden states 3 4 5, predicts a b [EOS]
/// ```
///
/// Only these rows reach the head over the vocabulary; prompts and padding cost nothing there.
#[derive(Debug)]
pub struct CompletionLogits {
    /// `[n, vocab]`.
    pub logits: Tensor<2>,
    /// `[n]`.
    pub targets: Tensor<1, Int>,
}

impl CompletionLogits {
    /// Runs `model` over the examples. An example with an empty prompt has no row for its first token.
    pub fn new(model: &CausalLm, examples: &[&Example], device: &Device, dropout: &mut Dropout) -> Self {
        let rows: Vec<&[u32]> = examples.iter().map(|example| example.tokens.as_slice()).collect();
        let batch = TokenBatch::right_padded(&rows, device);
        let hidden = model.transformer.forward(&batch, dropout);
        let mut positions = Vec::new();
        let mut targets = Vec::new();
        for (row, example) in examples.iter().enumerate() {
            for column in example.prompt_len.max(1)..example.tokens.len() {
                positions.push((row, column - 1));
                targets.push(example.tokens[column] as i32);
            }
        }
        let n = targets.len();
        Self {
            logits: model.logits(select_positions(hidden, &positions)),
            targets: Tensor::from_data(TensorData::new(targets, [n]), device),
        }
    }

    /// Number of target tokens.
    pub fn n_targets(&self) -> usize {
        self.targets.dims()[0]
    }

    /// How many targets are the most probable token.
    pub fn n_correct(&self) -> usize {
        let best = self.logits.clone().inner().argmax(1).squeeze_dim::<1>(1);
        best.equal(self.targets.clone()).int().sum().into_scalar::<i64>() as usize
    }
}

/// Number of target tokens of an example: what its loss is the mean over.
pub(crate) fn n_targets(example: &Example) -> usize {
    example.tokens.len().saturating_sub(example.prompt_len.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use temper_model::ModelConfig;

    #[test]
    fn the_loss_is_the_mean_negative_log_likelihood() {
        let device = Device::flex();
        // Probabilities 1/4 and 1/2 of the targets: (ln 4 + ln 2) / 2.
        let logits = Tensor::from_data([[1f32.ln(), 3f32.ln()], [0.0, 0.0]], &device);
        let targets = Tensor::from_data(TensorData::new(vec![0i32, 1], [2]), &device);
        let loss: f32 = sft_loss(logits, targets).into_scalar();
        assert!((loss - (4f32.ln() + 2f32.ln()) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn every_completion_token_is_a_target_and_nothing_else() {
        let device = Device::flex();
        let config = ModelConfig { n_layers: 1, ..ModelConfig::preset("tiny").unwrap() };
        let model = CausalLm::new(&config, &mut rand_chacha::ChaCha8Rng::seed_from_u64(0), &device);
        let long = Example { tokens: vec![1, 70, 2, 80, 81, 3], prompt_len: 3, n_cut: 0 };
        let short = Example { tokens: vec![1, 2, 90, 3], prompt_len: 2, n_cut: 0 };
        let found = CompletionLogits::new(&model, &[&long, &short], &device, &mut Dropout::off());
        assert_eq!(found.targets.into_data().as_slice::<i32>().unwrap(), [80, 81, 3, 90, 3]);
    }
}
