//! The two heads: next-token logits, and one scalar.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::module::linear;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::backbone::Backbone;
use crate::config::ModelConfig;
use crate::dropout::Dropout;
use crate::init;
use crate::input::TokenBatch;
use crate::kv_cache::KvCache;

/// A language model: a backbone and a head over the vocabulary.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// The decoder.
    pub transformer: Backbone,
    /// The output head where it is not the embedding: `[d_model, vocab]`.
    pub lm_head: Option<Linear>,
}

impl CausalLm {
    /// Fresh weights.
    pub fn new(config: &ModelConfig, rng: &mut impl Rng, device: &Device) -> Self {
        init::initialise(Self::blank(config, device), config, rng)
    }

    pub(crate) fn blank(config: &ModelConfig, device: &Device) -> Self {
        let head = || LinearConfig::new(config.d_model, config.vocab_size).with_bias(false).init(device);
        Self { transformer: Backbone::blank(config, device), lm_head: (!config.tie_head).then(head) }
    }

    /// The decoder's shape.
    pub fn config(&self) -> &ModelConfig {
        self.transformer.config()
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.transformer.device()
    }

    /// Logits at every position.
    ///
    /// # Shapes
    /// - `batch`: `[batch, seq]`
    /// - output: `[batch, seq, vocab]`; row i predicts token i + 1
    pub fn forward(&self, batch: &TokenBatch, dropout: &mut Dropout) -> Tensor<3> {
        let [rows, seq] = batch.dims();
        let hidden = self.transformer.forward(batch, dropout);
        let d_model = self.config().d_model;
        self.logits(hidden.reshape([rows * seq, d_model])).reshape([rows, seq, self.config().vocab_size])
    }

    /// The head: hidden states `[n, d_model]` to logits `[n, vocab]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            // One parameter, read twice: both uses add to its gradient.
            None => linear(hidden, self.transformer.wte.weight.val().transpose(), None),
        }
    }

    /// Reads left-padded prompts; gives the logits `[batch, vocab]` of the next token.
    pub(crate) fn prefill(&self, batch: &TokenBatch, cache: &mut KvCache) -> Tensor<2> {
        let [_, seq] = batch.dims();
        let hidden = self.transformer.prefill(batch, cache);
        self.logits(hidden.narrow(1, seq - 1, 1).squeeze_dim(1))
    }

    /// Reads one more token per row; gives the logits `[batch, vocab]` of the next one.
    pub(crate) fn decode(&self, tokens: &[u32], positions: &[usize], cache: &mut KvCache) -> Tensor<2> {
        self.logits(self.transformer.decode(tokens, positions, cache).squeeze_dim(1))
    }
}

/// Which hidden states the scalar head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The last token's (the end token), as InstructGPT does it.
    Last,
    /// The mean over the completion, as the notebook does it; the last token's where the completion is empty.
    Mean,
}

/// A backbone and a linear head to one number: the reward model, and the critic that starts from it.
#[derive(Module, Debug)]
pub struct ScalarModel {
    /// The decoder.
    pub transformer: Backbone,
    /// `d_model → 1`.
    pub score: Linear,
    #[module(skip)]
    pooling: Pooling,
}

impl ScalarModel {
    /// A scalar model on an existing backbone, with a fresh head N(0, 1/√(d_model + 1)) and bias 0.
    pub fn new(transformer: Backbone, pooling: Pooling, rng: &mut impl Rng) -> Self {
        let score = Self::fresh_head(transformer.config(), rng, &transformer.device());
        Self { transformer, score, pooling }
    }

    /// A scalar model of a backbone and a head that exist.
    pub fn from_parts(transformer: Backbone, score: Linear, pooling: Pooling) -> Self {
        Self { transformer, score, pooling }
    }

    /// A head to one number, for whoever keeps it elsewhere (a critic on the policy's own backbone).
    pub fn fresh_head(config: &ModelConfig, rng: &mut impl Rng, device: &Device) -> Linear {
        #[derive(Module, Debug)]
        struct Head {
            score: Linear,
        }
        let score = LinearConfig::new(config.d_model, 1).with_bias(true).init(device);
        init::initialise(Head { score }, config, rng).score
    }

    pub(crate) fn blank(config: &ModelConfig, pooling: Pooling, device: &Device) -> Self {
        Self {
            transformer: Backbone::blank(config, device),
            score: LinearConfig::new(config.d_model, 1).with_bias(true).init(device),
            pooling,
        }
    }

    /// The decoder's shape.
    pub fn config(&self) -> &ModelConfig {
        self.transformer.config()
    }

    /// Which hidden states [`ScalarModel::scores`] reads.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.transformer.device()
    }

    /// The head at every position, as a critic reads it.
    ///
    /// # Shapes
    /// - `batch`: `[batch, seq]`
    /// - output: `[batch, seq]`
    pub fn values(&self, batch: &TokenBatch, dropout: &mut Dropout) -> Tensor<2> {
        self.score.forward(self.transformer.forward(batch, dropout)).squeeze_dim(2)
    }

    /// One score per right-padded row, whose completion starts at `prompt_lens[row]`.
    ///
    /// # Shapes
    /// - `batch`: `[batch, seq]`
    /// - output: `[batch]`
    pub fn scores(&self, batch: &TokenBatch, prompt_lens: &[usize], dropout: &mut Dropout) -> Tensor<1> {
        let [rows, seq] = batch.dims();
        let hidden = self.transformer.forward(batch, dropout); // [batch, seq, d_model]
        let pooled = match self.pooling {
            Pooling::Last => {
                let last: Vec<usize> = batch.lens.iter().map(|len| len - 1).collect();
                select_positions(hidden, &(0..rows).map(|row| (row, last[row])).collect::<Vec<_>>())
            }
            Pooling::Mean => {
                let weights: Vec<f32> =
                    (0..rows).flat_map(|row| mean_weights(prompt_lens[row], batch.lens[row], seq)).collect();
                let weights =
                    Tensor::from_data(TensorData::new(weights, [rows, 1, seq]), &hidden.device().inner());
                weights.matmul(hidden).squeeze_dim(1)
            }
        }; // [batch, d_model]
        self.score.forward(pooled).squeeze_dim(1)
    }
}

/// 1/n on each of the n completion tokens; all on the last token where there is none.
fn mean_weights(prompt_len: usize, len: usize, seq: usize) -> impl Iterator<Item = f32> {
    let first = prompt_len.min(len - 1);
    let weight = 1.0 / (len - first) as f32;
    (0..seq).map(move |i| if (first..len).contains(&i) { weight } else { 0.0 })
}

/// Picks hidden states by (row, column): `[batch, seq, d_model]` to `[n, d_model]`.
///
/// Whatever comes after the pick costs nothing for pads and prompts: the head over the vocabulary above all.
pub fn select_positions(hidden: Tensor<3>, positions: &[(usize, usize)]) -> Tensor<2> {
    let [rows, seq, d_model] = hidden.dims();
    let flat: Vec<i32> = positions.iter().map(|(row, column)| (row * seq + column) as i32).collect();
    let index =
        Tensor::<1, Int>::from_data(TensorData::new(flat, [positions.len()]), &hidden.device().inner());
    hidden.reshape([rows * seq, d_model]).select(0, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_covers_the_completion_and_falls_back_to_the_last_token() {
        assert_eq!(mean_weights(2, 4, 6).collect::<Vec<_>>(), [0.0, 0.0, 0.5, 0.5, 0.0, 0.0]);
        assert_eq!(mean_weights(3, 3, 4).collect::<Vec<_>>(), [0.0, 0.0, 1.0, 0.0]);
    }
}
