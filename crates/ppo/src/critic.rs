//! The learner's networks: a policy, and a value function beside it or on it.

use burn::module::Module;
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use temper_model::{CausalLm, Dropout, ScalarModel, TokenBatch, select_positions, token_logprobs};

/// The value function, given to [`train`](crate::train).
#[derive(Debug)]
pub enum Critic {
    /// A network of its own; InstructGPT starts it as the reward model.
    Separate(Box<ScalarModel>),
    /// A linear head on the policy's hidden states, zero at the start.
    ValueHead,
}

/// The policy with the value head it may carry: one module, one optimizer.
#[derive(Module, Debug)]
pub struct Policy {
    /// The language model.
    pub lm: CausalLm,
    /// `d_model → 1`, where the critic is not a network of its own.
    pub value_head: Option<Linear>,
}

/// A value head that says 0 everywhere.
pub(crate) fn zero_head(d_model: usize, device: &Device) -> Linear {
    LinearConfig::new(d_model, 1).with_initializer(Initializer::Zeros).init(device)
}

/// Episodes of one forward pass, and where their completions stand.
///
/// ```text
/// tokens    p p p a b [EOS] .     prompt_len 3
/// reads         ^ ^ ^             hidden states that predict a, b, [EOS]; values of the states before them (D4)
/// ```
pub(crate) struct EpisodeBatch {
    tokens: TokenBatch,
    positions: Vec<(usize, usize)>,
    targets: Tensor<1, Int>,
    dims: [usize; 2],
}

impl EpisodeBatch {
    /// Rows of prompt and completion; the result has `completion_len` columns, pads behind the end included.
    pub(crate) fn new(
        rows: &[&[u32]],
        prompt_lens: &[usize],
        completion_len: usize,
        device: &Device,
    ) -> Self {
        let mut positions = Vec::with_capacity(rows.len() * completion_len);
        let mut targets = Vec::with_capacity(rows.len() * completion_len);
        for (i, (row, prompt_len)) in rows.iter().zip(prompt_lens).enumerate() {
            for column in *prompt_len..prompt_len + completion_len {
                let column = column.min(row.len() - 1); // Pads read the last token again; the mask drops them.
                positions.push((i, column - 1));
                targets.push(row[column] as i32);
            }
        }
        let n = targets.len();
        Self {
            tokens: TokenBatch::right_padded(rows, device),
            positions,
            targets: Tensor::from_data(TensorData::new(targets, [n]), device),
            dims: [rows.len(), completion_len],
        }
    }
}

/// What a policy says about the completions of some episodes.
pub(crate) struct PolicyOutput {
    /// `[batch, completion_len]`.
    pub(crate) logprobs: Tensor<2>,
    /// Entropy of the whole distribution in nats: `[batch, completion_len]`.
    pub(crate) entropy: Tensor<2>,
    /// From the value head, if there is one: `[batch, completion_len]`.
    pub(crate) values: Option<Tensor<2>>,
}

impl Policy {
    /// One pass for log-probabilities, entropy and values (D14).
    ///
    /// With `entropy_gradient` false the entropy is off the tape.
    pub(crate) fn forward(
        &self,
        batch: &EpisodeBatch,
        temperature: f64,
        entropy_gradient: bool,
    ) -> PolicyOutput {
        let hidden = self.lm.transformer.forward(&batch.tokens, &mut Dropout::off());
        let hidden = select_positions(hidden, &batch.positions); // [batch · completion_len, d_model]
        let values = self.value_head.as_ref().map(|head| head.forward(hidden.clone()).reshape(batch.dims));
        let all = temper_model::log_probs(self.lm.logits(hidden), temperature);
        let for_entropy = if entropy_gradient { all.clone() } else { all.clone().inner() };
        PolicyOutput {
            entropy: temper_model::entropy(for_entropy).reshape(batch.dims),
            logprobs: token_logprobs(all, batch.targets.clone()).reshape(batch.dims),
            values,
        }
    }
}

/// Values of a separate critic at the same places: `[batch, completion_len]`.
pub(crate) fn critic_values(critic: &ScalarModel, batch: &EpisodeBatch) -> Tensor<2> {
    let hidden = critic.transformer.forward(&batch.tokens, &mut Dropout::off());
    critic.score.forward(select_positions(hidden, &batch.positions)).reshape(batch.dims)
}
