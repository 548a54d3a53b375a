//! The two heads: next-token logits, and one scalar.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;
use serde::{Deserialize, Serialize};
use temper_kernels::transposed_linear;
use temper_tensor::{floats, ints, values_of};

use crate::batch::TokenBatch;
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::families::{self, Family};
use crate::generation::cache::KvCache;
use crate::init::initialise;
use crate::layers::dropout::Dropout;
use crate::layers::linear::Linear;
use crate::shared_prompt::Span;

/// A language model: a backbone and a head over the vocabulary.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// The decoder.
    pub transformer: Decoder,
    /// The output head where it is not the embedding: `[d_model, vocab]`.
    pub lm_head: Option<Linear>,
}

impl CausalLm {
    /// Fresh weights.
    pub fn new(config: &ModelConfig, rng: &mut impl Rng, device: &Device) -> Self {
        initialise(Self::blank(config, families::of(config), device), config, rng)
    }

    pub(crate) fn blank(config: &ModelConfig, family: &'static dyn Family, device: &Device) -> Self {
        let head = || Linear::zeros(config.d_model, config.vocab_size, false, device);
        Self { transformer: Decoder::blank(config, family, device), lm_head: (!config.tie_head).then(head) }
    }

    /// The same model with every adapter folded into its weight.
    #[must_use]
    pub fn merged(self) -> Self {
        Self { transformer: self.transformer.merged(), ..self }
    }

    /// The same model: see [`Decoder::with_gradient_checkpointing`].
    #[must_use]
    pub fn with_gradient_checkpointing(self, recomputes_blocks: bool) -> Self {
        Self { transformer: self.transformer.with_gradient_checkpointing(recomputes_blocks), ..self }
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
            None => transposed_linear(hidden, self.transformer.token_embedding.weight.val()),
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
    pub transformer: Decoder,
    /// `d_model → 1`.
    pub score: Linear,
    #[module(skip)]
    pooling: Pooling,
}

impl ScalarModel {
    /// A scalar model on an existing backbone, with a fresh head N(0, 1/√(d_model + 1)) and bias 0.
    pub fn new(transformer: Decoder, pooling: Pooling, rng: &mut impl Rng) -> Self {
        let score = Self::fresh_head(transformer.config(), rng, &transformer.device());
        Self { transformer, score, pooling }
    }

    /// A scalar model of a backbone and a head that exist.
    pub fn from_parts(transformer: Decoder, score: Linear, pooling: Pooling) -> Self {
        Self { transformer, score, pooling }
    }

    /// A head to one number with fresh weights.
    fn fresh_head(config: &ModelConfig, rng: &mut impl Rng, device: &Device) -> Linear {
        #[derive(Module, Debug)]
        struct Head {
            score: Linear,
        }
        let score = Linear::zeros(config.d_model, 1, true, device);
        initialise(Head { score }, config, rng).score
    }

    pub(crate) fn blank(
        config: &ModelConfig,
        family: &'static dyn Family,
        pooling: Pooling,
        device: &Device,
    ) -> Self {
        let score = Linear::zeros(config.d_model, 1, true, device);
        Self { transformer: Decoder::blank(config, family, device), score, pooling }
    }

    /// The same model with every adapter folded into its weight.
    #[must_use]
    pub fn merged(self) -> Self {
        Self { transformer: self.transformer.merged(), ..self }
    }

    /// The same model: see [`Decoder::with_gradient_checkpointing`].
    #[must_use]
    pub fn with_gradient_checkpointing(self, recomputes_blocks: bool) -> Self {
        Self { transformer: self.transformer.with_gradient_checkpointing(recomputes_blocks), ..self }
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

    /// The model whose scores are `gain` · score + `shift`: both go into the head, so that whatever starts from the
    /// model has them too.
    #[must_use]
    pub fn rescaled(self, gain: f64, shift: f64) -> Self {
        let Linear { weight, bias, .. } = self.score.merge();
        let score = Linear {
            weight: weight.map(|weight| weight * gain),
            bias: bias.map(|bias| bias.map(|bias| bias * gain + shift)),
            adapter: None,
        };
        Self { score, ..self }
    }

    /// The bias of the head.
    pub fn score_bias(&self) -> f32 {
        self.score.bias.as_ref().map_or(0.0, |bias| values_of(bias.val().inner())[0])
    }

    /// The same scores with a head whose bias is 0, as the heads of transformers: β of the final norm becomes
    /// β + b · w / ‖w‖², for weight w and bias b of the head.
    ///
    /// The model stays as it is where its final norm has no β, where w is 0, and where transformers cannot compute its
    /// scores anyway ([`ScalarModel::has_transformers_form`]).
    #[must_use]
    pub fn with_bias_in_norm(self) -> Self {
        let (bias, weight) = (f64::from(self.score_bias()), values_of(self.score.weight.val().inner()));
        let square: f64 = weight.iter().map(|&w| f64::from(w).powi(2)).sum();
        let Some(beta) = self.transformer.final_norm.as_ref().and_then(|norm| norm.beta.clone()) else {
            return self;
        };
        if bias == 0.0 || square == 0.0 || !self.has_transformers_form() {
            return self;
        }
        let beta = beta.map(|beta| {
            let moved = values_of(beta.clone()).into_iter().zip(weight);
            let moved: Vec<f32> =
                moved.map(|(beta, w)| (f64::from(beta) + bias * f64::from(w) / square) as f32).collect();
            Tensor::from_data(TensorData::new(moved, beta.dims()), &beta.device())
        });
        let mut model = self.rescaled(1.0, -bias);
        if let Some(norm) = &mut model.transformer.final_norm {
            norm.beta = Some(beta);
        }
        model
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
        let span = |(row, &len): (usize, &usize)| {
            let start = prompt_lens[row].min(len);
            Span { row, start, len: len - start }
        };
        let spans: Vec<Span> = batch.lens.iter().enumerate().map(span).collect();
        self.span_scores(batch, &spans, dropout)
    }

    /// One score per completion, wherever it is: see [`TokenBatch::shared_prompts`].
    ///
    /// # Shapes
    /// - `batch`: `[batch, seq]`
    /// - output: `[spans]`
    pub fn span_scores(&self, batch: &TokenBatch, spans: &[Span], dropout: &mut Dropout) -> Tensor<1> {
        let hidden = self.transformer.forward(batch, dropout); // [batch, seq, d_model]
        let pooled = match self.pooling {
            Pooling::Last => {
                let last: Vec<_> = spans.iter().map(|span| (span.row, span.start + span.len - 1)).collect();
                select_positions(hidden, &last)
            }
            Pooling::Mean => span_means(hidden, spans),
        }; // [spans, d_model]
        self.score.forward(pooled).squeeze_dim(1)
    }
}

/// Mean hidden state of each span; that of the token before it where it is empty.
///
/// # Shapes
/// - `hidden`: `[batch, seq, d_model]`
/// - output: `[spans, d_model]`
fn span_means(hidden: Tensor<3>, spans: &[Span]) -> Tensor<2> {
    let [rows, seq, _] = hidden.dims();
    // Each span's place among those of its row.
    let mut n_of_row = vec![0; rows];
    let places: Vec<(usize, usize)> = spans
        .iter()
        .map(|span| {
            n_of_row[span.row] += 1;
            (span.row, n_of_row[span.row] - 1)
        })
        .collect();
    let width = *n_of_row.iter().max().expect("a batch has at least one row");
    let mut weights = vec![0.0; rows * width * seq];
    for (span, &(row, place)) in spans.iter().zip(&places) {
        let weights = &mut weights[(row * width + place) * seq..][..seq];
        match span.len {
            0 => weights[span.start - 1] = 1.0,
            len => weights[span.start..][..len].fill(1.0 / len as f32),
        }
    }
    let means = floats(weights, [rows, width, seq], &hidden.device().inner()).matmul(hidden);
    select_positions(means, &places)
}

/// Picks hidden states by (row, column): `[batch, seq, d_model]` to `[n, d_model]`.
///
/// Whatever comes after the pick costs nothing for pads and prompts: the head over the vocabulary above all.
pub fn select_positions(hidden: Tensor<3>, positions: &[(usize, usize)]) -> Tensor<2> {
    let [rows, seq, d_model] = hidden.dims();
    let flat: Vec<i32> = positions.iter().map(|(row, column)| (row * seq + column) as i32).collect();
    let index = ints(flat, [positions.len()], &hidden.device().inner());
    hidden.reshape([rows * seq, d_model]).select(0, index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_prompt::SharedPrompt;
    use rand::SeedableRng;

    #[test]
    fn the_mean_covers_the_completion_and_falls_back_to_the_token_before() {
        let hidden =
            Tensor::from_data([[[1.0], [2.0], [4.0], [8.0]], [[1.0], [3.0], [5.0], [0.0]]], &Device::flex());
        let span = |row, start, len| Span { row, start, len };
        let means = span_means(hidden, &[span(0, 1, 2), span(0, 3, 1), span(1, 2, 0)]).into_data();
        assert_eq!(means.as_slice::<f32>().unwrap(), [3.0, 8.0, 3.0]);
    }

    /// It has no token of its own, and its neighbours must not lend it theirs.
    #[test]
    fn an_empty_completion_scores_as_its_prompt_does() {
        let config = ModelConfig::preset("tiny").unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        let backbone = Decoder::new(&config, &mut rng, &Device::flex());
        let scores = |model: &ScalarModel, completions: Vec<&[u32]>| {
            let row = SharedPrompt { prompt: &[1, 70, 80, 2], completions };
            let (batch, spans) = TokenBatch::shared_prompts(&[row], &Device::flex());
            let scores = model.span_scores(&batch, &spans, &mut Dropout::off()).into_data();
            scores.as_slice::<f32>().unwrap().to_vec()
        };
        for pooling in [Pooling::Last, Pooling::Mean] {
            let model = ScalarModel::new(backbone.clone(), pooling, &mut rng);
            let alone = scores(&model, vec![&[]])[0];
            let between = scores(&model, vec![&[65, 66, 3], &[], &[67, 3], &[]]);
            assert!(
                (between[1] - alone).abs() < 2e-6 && (between[3] - alone).abs() < 2e-6,
                "{between:?} {alone}"
            );
            assert!(
                (between[0] - alone).abs() > 1e-3 && (between[2] - alone).abs() > 1e-3,
                "{between:?} {alone}"
            );
        }
    }

    #[test]
    fn completions_after_a_shared_prompt_score_as_in_rows_of_their_own() {
        let config = ModelConfig::preset("tiny").unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        let backbone = Decoder::new(&config, &mut rng, &Device::flex());
        let prompts: [&[u32]; 2] = [&[1, 70, 80, 2], &[1, 90, 2]];
        let completions: [Vec<&[u32]>; 2] =
            [vec![&[65, 66, 67, 3], &[68, 3], &[69, 70, 71, 72, 73, 3]], vec![&[74, 75, 3], &[3]]];
        for pooling in [Pooling::Last, Pooling::Mean] {
            let model = ScalarModel::new(backbone.clone(), pooling, &mut rng);
            let shared: Vec<SharedPrompt<'_>> = (prompts.iter().zip(&completions))
                .map(|(prompt, completions)| SharedPrompt { prompt, completions: completions.clone() })
                .collect();
            let (batch, spans) = TokenBatch::shared_prompts(&shared, &Device::flex());
            let scores = model.span_scores(&batch, &spans, &mut Dropout::off()).into_data();

            let apart: Vec<(usize, Vec<u32>)> = (prompts.iter().zip(&completions))
                .flat_map(|(p, cs)| cs.iter().map(|c| (p.len(), [*p, *c].concat())))
                .collect();
            let prompt_lens: Vec<usize> = apart.iter().map(|(prompt_len, _)| *prompt_len).collect();
            let rows: Vec<&[u32]> = apart.iter().map(|(_, row)| row.as_slice()).collect();
            let batch = TokenBatch::right_padded(&rows, &Device::flex());
            let expected = model.scores(&batch, &prompt_lens, &mut Dropout::off()).into_data();
            let pairs = scores.as_slice::<f32>().unwrap().iter().zip(expected.as_slice::<f32>().unwrap());
            for (scores, expected) in pairs {
                // Sums of at most 64 products in another order.
                assert!((scores - expected).abs() < 2e-6, "{pooling:?}: {scores}, {expected}");
            }
        }
    }
}
