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
    /// None: the answers of a prompt are each other's baseline. Another one is left alone there.
    None,
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
                // One past the end reads the last token: the value of having ended. What comes behind reads it again,
                // and the masks drop it.
                positions.push((i, (column - 1).min(row.len() - 1)));
                targets.push(row[column.min(row.len() - 1)] as i32);
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

#[cfg(test)]
mod tests {
    use super::*;
    use temper_model::Pooling;

    use crate::tests::{EOS, language_model, numbers, scalar_model};

    /// Prompts of 3 and 1 tokens, answers of 4 and 2.
    const ROWS: [&[u32]; 2] = [&[1, 4, 2, 5, 6, 7, EOS], &[1, 6, EOS]];
    const PROMPT_LENS: [usize; 2] = [3, 1];
    /// Float32 through two blocks, in batches of another shape.
    const ROUNDING: f64 = 1e-5;

    fn batch(rows: &[&[u32]]) -> EpisodeBatch {
        EpisodeBatch::new(rows, &PROMPT_LENS, 4, &Device::flex())
    }

    fn policy() -> Policy {
        let lm = language_model(1);
        let value_head = Some(scalar_model(2).score);
        Policy { lm, value_head }
    }

    /// Log-probabilities at temperature 0.5, entropies and values of the policy, and values of a critic.
    fn outputs(batch: &EpisodeBatch) -> [Vec<f64>; 4] {
        let output = policy().forward(batch, 0.5, false);
        let values = critic_values(&scalar_model(3), batch);
        [output.logprobs, output.entropy, output.values.unwrap(), values].map(numbers)
    }

    fn same(a: &[f64], b: &[f64]) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < ROUNDING)
    }

    /// Row i of the logits predicts token i + 1, and V is read where that token is chosen.
    #[test]
    fn log_probs_and_values_are_read_before_their_token() {
        let [logprobs, entropy, head, critic] = outputs(&batch(&ROWS));
        let (policy, value_model) = (policy(), scalar_model(3));
        for (row, (tokens, prompt_len)) in ROWS.iter().zip(PROMPT_LENS).enumerate() {
            let alone = TokenBatch::right_padded(&[tokens], &Device::flex());
            let logits = numbers(policy.lm.forward(&alone, &mut Dropout::off()));
            let by_head = ScalarModel::from_parts(
                policy.lm.transformer.clone(),
                policy.value_head.clone().unwrap(),
                Pooling::Last,
            );
            let by_head = numbers(by_head.values(&alone, &mut Dropout::off()));
            let by_critic = numbers(value_model.values(&alone, &mut Dropout::off()));
            for (t, column) in (prompt_len - 1..tokens.len() - 1).enumerate() {
                let logits = &logits[column * 8..][..8];
                let total: f64 = logits.iter().map(|l| (2.0 * l).exp()).sum();
                let p = |token: usize| (2.0 * logits[token]).exp() / total;
                let expected = [
                    p(tokens[column + 1] as usize).ln(),
                    (0..8).map(|token| -p(token) * p(token).ln()).sum(),
                    by_head[column],
                    by_critic[column],
                ];
                let found = [&logprobs, &entropy, &head, &critic].map(|x| x[row * 4 + t]);
                assert!(same(&found, &expected), "row {row}, token {t}: {found:?} {expected:?}");
            }
        }
    }

    /// D4: the notebook's update reads the state after the token. Before it, nothing of the token is known.
    #[test]
    fn d4_a_value_does_not_know_its_own_token() {
        let other: [&[u32]; 2] = [&[1, 4, 2, 5, 7, 7, EOS], ROWS[1]];
        for which in [2, 3] {
            let [a, b] = [ROWS, other].map(|rows| outputs(&batch(&rows))[which].clone());
            assert!(same(&a[..2], &b[..2]), "the second token differs: {a:?} {b:?}");
            assert!(!same(&a[2..3], &b[2..3]), "the value after it does not: {a:?} {b:?}");
        }
    }

    /// Oracle 7: what stands behind the end changes nothing, the end itself does.
    #[test]
    fn tokens_behind_the_end_change_nothing() {
        let with_pad = |token: i32| {
            let mut batch = batch(&ROWS);
            let rows = [[1, 4, 2, 5, 6, 7, EOS as i32], [1, 6, EOS as i32, token, token, token, token]];
            batch.tokens.tokens = Tensor::from_data(rows, &Device::flex());
            outputs(&batch)
        };
        for (a, b) in with_pad(0).iter().zip(with_pad(5)) {
            assert!(same(a, &b), "{a:?} {b:?}");
        }
        let no_end: [&[u32]; 2] = [&[1, 4, 2, 5, 6, 7, 4], ROWS[1]];
        let [a, b] = [ROWS, no_end].map(|rows| outputs(&batch(&rows))[0].clone());
        assert!(same(&a[..3], &b[..3]) && !same(&a[3..4], &b[3..4]), "{a:?} {b:?}");
    }

    /// Oracle 11: one token further, at the end token itself, a critic that starts as the reward model says the
    /// score, bias included.
    #[test]
    fn behind_the_end_a_critic_that_was_the_reward_model_says_the_score() {
        let model = scalar_model(3);
        let tokens = TokenBatch::right_padded(&ROWS, &Device::flex());
        let scores = numbers(model.scores(&tokens, &PROMPT_LENS, &mut Dropout::off()));
        let values =
            numbers(critic_values(&model, &EpisodeBatch::new(&ROWS, &PROMPT_LENS, 5, &Device::flex())));
        assert!(same(&[values[4], values[5 + 2]], &scores), "{values:?} {scores:?}");
    }
}
