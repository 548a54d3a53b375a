//! The learner's networks: a policy, and a value function beside it or on it.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use temper_model::{CausalLm, Dropout, Linear, ScalarModel, TokenBatch, select_positions};
use temper_tensor::{first_columns, token_logprobs};

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
    /// Tokens that can be sampled: the tokenizer's. The model may have more rows than these.
    #[module(skip)]
    pub n_tokens: usize,
}

/// A value head that says 0 everywhere.
pub(crate) fn zero_head(d_model: usize, device: &Device) -> Linear {
    Linear::zeros(d_model, 1, true, device)
}

/// Episodes of one forward pass, and the places of their completions.
///
/// ```text
/// tokens    p p p a b [EOS] .     prompt_len 3
/// reads         ^ ^ ^             hidden states that predict a, b, [EOS]; values of the states before them (D4)
/// ```
///
/// Only these places reach the heads, above all the one over the vocabulary: prompts and padding cost nothing there.
pub(crate) struct EpisodeBatch {
    tokens: TokenBatch,
    targets: Tensor<1, Int>,
    logprob_places: Places,
    value_places: Places,
}

/// Hidden states that a head reads, and where its results belong: one row per episode, one column per completion token.
struct Places {
    /// Row and column of each hidden state.
    positions: Vec<(usize, usize)>,
    /// For each cell of the result the index of its hidden state; one past the last for a cell without one.
    cells: Tensor<1, Int>,
    dims: [usize; 2],
}

impl Places {
    /// Row `i` has `lens[i]` places, of which the first is the last token of its prompt.
    fn new(prompt_lens: &[usize], lens: &[usize], completion_len: usize, device: &Device) -> Self {
        let n: usize = lens.iter().sum();
        let mut positions = Vec::with_capacity(n);
        let mut cells = Vec::with_capacity(lens.len() * completion_len);
        for (row, (prompt_len, len)) in prompt_lens.iter().zip(lens).enumerate() {
            for column in 0..completion_len {
                let is_read = column < *len;
                cells.push(if is_read { positions.len() } else { n } as i32);
                if is_read {
                    positions.push((row, prompt_len - 1 + column));
                }
            }
        }
        let n_cells = cells.len();
        let cells = Tensor::from_data(TensorData::new(cells, [n_cells]), device);
        Self { positions, cells, dims: [lens.len(), completion_len] }
    }

    /// `[batch, seq, d_model]` to the hidden states that are read, `[places, d_model]`.
    fn read(&self, hidden: Tensor<3>) -> Tensor<2> {
        select_positions(hidden, &self.positions)
    }

    /// One number per place, `[places]`, to `[batch, completion_len]` with 0 where there is none.
    fn spread(&self, x: Tensor<1>) -> Tensor<2> {
        let nothing = Tensor::zeros([1], &x.device());
        Tensor::cat(vec![x, nothing], 0).select(0, self.cells.clone()).reshape(self.dims)
    }
}

impl EpisodeBatch {
    /// Rows of prompt and completion, with the values that each completion has: one for each token, and one more where
    /// there is one past the end. Results have `completion_len` columns.
    pub(crate) fn new(
        rows: &[&[u32]],
        prompt_lens: &[usize],
        value_lens: &[usize],
        completion_len: usize,
        device: &Device,
    ) -> Self {
        let completions = || rows.iter().zip(prompt_lens).map(|(row, prompt_len)| &row[*prompt_len..]);
        let targets: Vec<i32> = completions().flatten().map(|token| *token as i32).collect();
        let lens: Vec<usize> = completions().map(<[u32]>::len).collect();
        let n = targets.len();
        Self {
            tokens: TokenBatch::right_padded(rows, device),
            targets: Tensor::from_data(TensorData::new(targets, [n]), device),
            logprob_places: Places::new(prompt_lens, &lens, completion_len, device),
            // One past the end reads the last token: the value of having ended.
            value_places: Places::new(prompt_lens, value_lens, completion_len, device),
        }
    }
}

/// What becomes of the entropy of the whole distribution, which takes several passes over the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entropy {
    /// It is not computed.
    Skipped,
    /// It is computed off the tape, to be logged.
    Measured,
    /// It is part of the loss.
    Learned,
}

/// What a policy says about the completions of some episodes; 0 where a completion has no token.
pub(crate) struct PolicyOutput {
    /// `[batch, completion_len]`.
    pub(crate) logprobs: Tensor<2>,
    /// Entropy of the whole distribution in nats, if it was asked for: `[batch, completion_len]`.
    pub(crate) entropy: Option<Tensor<2>>,
    /// From the value head, if there is one: `[batch, completion_len]`.
    pub(crate) values: Option<Tensor<2>>,
}

impl Policy {
    /// A policy that samples the first `n_tokens` ids of the model, or all where it has fewer.
    pub(crate) fn new(lm: CausalLm, value_head: Option<Linear>, n_tokens: usize) -> Self {
        let n_tokens = n_tokens.min(lm.config().vocab_size);
        Self { lm, value_head, n_tokens }
    }

    /// One pass for log-probabilities, entropy and values (D14).
    pub(crate) fn forward(&self, batch: &EpisodeBatch, temperature: f64, entropy: Entropy) -> PolicyOutput {
        let hidden = self.lm.transformer.forward(&batch.tokens, &mut Dropout::off());
        let values = self.value_head.as_ref().map(|head| {
            let values = head.forward(batch.value_places.read(hidden.clone()));
            batch.value_places.spread(values.squeeze_dim(1))
        });
        let places = &batch.logprob_places;
        let logits = first_columns(self.lm.logits(places.read(hidden)), self.n_tokens);
        let all = temper_tensor::log_probs(logits, temperature); // [tokens, n_tokens]
        let entropy = match entropy {
            Entropy::Skipped => None,
            Entropy::Measured => Some(all.clone().inner()),
            Entropy::Learned => Some(all.clone()),
        };
        PolicyOutput {
            entropy: entropy.map(|all| places.spread(temper_tensor::entropy(all))),
            logprobs: places.spread(token_logprobs(all, batch.targets.clone())),
            values,
        }
    }
}

/// Values of a separate critic at the same places: `[batch, completion_len]`.
pub(crate) fn critic_values(critic: &ScalarModel, batch: &EpisodeBatch) -> Tensor<2> {
    let hidden = critic.transformer.forward(&batch.tokens, &mut Dropout::off());
    let values = critic.score.forward(batch.value_places.read(hidden));
    batch.value_places.spread(values.squeeze_dim(1))
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
        EpisodeBatch::new(rows, &PROMPT_LENS, &[4, 2], 4, &Device::flex())
    }

    fn policy() -> Policy {
        let lm = language_model(1);
        Policy::new(lm, Some(scalar_model(2).score), 8)
    }

    /// Log-probabilities at temperature 0.5, entropies and values of the policy, and values of a critic.
    fn outputs(batch: &EpisodeBatch) -> [Vec<f64>; 4] {
        let output = policy().forward(batch, 0.5, Entropy::Measured);
        let values = critic_values(&scalar_model(3), batch);
        [output.logprobs, output.entropy.unwrap(), output.values.unwrap(), values].map(numbers)
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

    /// A padded model has rows that no token of the tokenizer belongs to; here the last three of eight.
    #[test]
    fn tokens_that_cannot_be_sampled_take_no_part_in_the_distribution() {
        let rows: [&[u32]; 2] = [&[1, 4, 2, 4, 1, 2, EOS], &[1, 4, EOS]];
        let narrow = Policy::new(language_model(1), None, 5).forward(&batch(&rows), 0.5, Entropy::Measured);
        let whole = Policy::new(language_model(1), None, 999);
        assert_eq!(whole.n_tokens, 8);
        let logprobs = numbers(whole.forward(&batch(&rows), 0.5, Entropy::Skipped).logprobs);
        let (narrow, entropy) = (numbers(narrow.logprobs), numbers(narrow.entropy.unwrap()));
        // Without competitors every token is more probable, and no entropy is above that of five equal tokens.
        assert!(narrow[..4].iter().zip(&logprobs[..4]).all(|(a, b)| a > b), "{narrow:?} {logprobs:?}");
        assert!(entropy.iter().all(|entropy| *entropy <= 5f64.ln() + 1e-6), "{entropy:?}");
    }

    /// The head over the vocabulary reads real tokens alone.
    #[test]
    fn prompts_and_padding_do_not_reach_the_vocabulary() {
        let batch = batch(&ROWS);
        assert_eq!(batch.logprob_places.positions.len(), 4 + 2);
        assert_eq!(batch.targets.dims(), [6]);
        let [logprobs, entropy, values, critic] = outputs(&batch);
        for outside in [logprobs, entropy, values, critic] {
            assert_eq!(outside[6..], [0.0, 0.0], "nothing after the end of the second answer");
        }
    }

    /// Oracle 11: one token further, at the end token itself, a critic that starts as the reward model says the
    /// score, bias included.
    #[test]
    fn behind_the_end_a_critic_that_was_the_reward_model_says_the_score() {
        let model = scalar_model(3);
        let tokens = TokenBatch::right_padded(&ROWS, &Device::flex());
        let scores = numbers(model.scores(&tokens, &PROMPT_LENS, &mut Dropout::off()));
        let batch = EpisodeBatch::new(&ROWS, &PROMPT_LENS, &[5, 3], 5, &Device::flex());
        let values = numbers(critic_values(&model, &batch));
        assert!(same(&[values[4], values[5 + 2]], &scores), "{values:?} {scores:?}");
    }
}
