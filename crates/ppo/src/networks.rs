//! The networks that are trained: a policy, and a critic, which is a network of its own or a head on the policy.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use temper_model::{CausalLm, Dropout, Linear, ScalarModel};
use temper_tensor::{
    first_columns, log_probs, measured_entropy, reads_in_one_pass, target_logprobs, token_logprobs,
};

use crate::episodes::EpisodeBatch;

/// The value function, given to [`train`](crate::train).
#[derive(Debug)]
pub enum Critic {
    /// A network of its own; InstructGPT starts it as the reward model.
    Separate(Box<ScalarModel>),
    /// A linear head on the policy's hidden states, which starts at zero.
    ValueHead,
    /// No critic (RLOO, GRPO). A critic passed with these is ignored.
    None,
}

/// The policy with its optional value head: one module, one optimizer.
#[derive(Module, Debug)]
pub struct Policy {
    /// The language model.
    pub lm: CausalLm,
    /// `d_model → 1`, where the critic is a head on the policy.
    pub value_head: Option<Linear>,
    /// Number of tokens that can be sampled: those of the tokenizer. The model may have more embedding rows.
    #[module(skip)]
    pub n_tokens: usize,
}

/// What is trained, as one module: each thread of an update gets a copy.
#[derive(Module, Debug)]
pub(crate) struct Networks {
    pub(crate) policy: Policy,
    /// The critic, where it is a network of its own.
    pub(crate) critic: Option<ScalarModel>,
}

/// A value head whose output is 0 everywhere.
pub(crate) fn zero_head(d_model: usize, device: &Device) -> Linear {
    Linear::zeros(d_model, 1, true, device)
}

/// How the entropy of the whole distribution is computed, which takes a pass over the vocabulary or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entropy {
    /// It is not computed.
    Skipped,
    /// It is computed without gradients, to be logged.
    Measured,
    /// It is part of the loss.
    Learned,
}

/// What a policy computes for the completions of some episodes; 0 where a completion has no token.
pub struct PolicyOutput {
    /// log π of each completion token: `[batch, completion_len]`.
    pub logprobs: Tensor<2>,
    /// Entropy of the whole distribution in nats, if it was asked for: `[batch, completion_len]`.
    pub entropy: Option<Tensor<2>>,
    /// V of the state before each token, if there is a value head: `[batch, completion_len]`.
    pub values: Option<Tensor<2>>,
}

impl Policy {
    /// A policy that samples the first `n_tokens` ids of the model, or all of them where it has fewer.
    pub fn new(lm: CausalLm, value_head: Option<Linear>, n_tokens: usize) -> Self {
        let n_tokens = n_tokens.min(lm.config().vocab_size);
        Self { lm, value_head, n_tokens }
    }

    /// Computes log-probabilities, entropy and values in one pass without dropout (D14: the notebook takes two passes,
    /// one for logits and one for values).
    ///
    /// Rollouts, the reference and the updates all read log-probabilities here, at the same `temperature`, so that the
    /// importance ratio is 1 where the policies are equal. Gradients flow into all outputs but a measured entropy.
    pub fn forward(&self, batch: &EpisodeBatch, temperature: f64, entropy: Entropy) -> PolicyOutput {
        let hidden = self.lm.transformer.forward(&batch.tokens, &mut Dropout::off());
        let values = self.value_head.as_ref().map(|head| {
            let values = head.forward(batch.value_places.read(hidden.clone()));
            batch.value_places.spread(values.squeeze_dim(1))
        });
        let places = &batch.logprob_places;
        let logits = first_columns(self.lm.logits(places.read(hidden)), self.n_tokens);
        let targets = batch.targets.clone();
        let (logprobs, entropy) = if reads_in_one_pass(&logits) {
            let entropy = match entropy {
                Entropy::Skipped => None,
                Entropy::Measured => Some(measured_entropy(logits.clone(), temperature)),
                Entropy::Learned => Some(temper_tensor::entropy(log_probs(logits.clone(), temperature))),
            };
            (target_logprobs(logits, targets, temperature), entropy)
        } else {
            // One table for both.
            let all = log_probs(logits, temperature); // [tokens, n_tokens]
            let read = match entropy {
                Entropy::Skipped => None,
                Entropy::Measured => Some(all.clone().inner()),
                Entropy::Learned => Some(all.clone()),
            };
            (token_logprobs(all, targets), read.map(temper_tensor::entropy))
        };
        PolicyOutput {
            entropy: entropy.map(|entropy| places.spread(entropy)),
            logprobs: places.spread(logprobs),
            values,
        }
    }
}

/// Values of a separate critic, at the states before each completion token: `[batch, completion_len]`.
pub fn critic_values(critic: &ScalarModel, batch: &EpisodeBatch) -> Tensor<2> {
    let hidden = critic.transformer.forward(&batch.tokens, &mut Dropout::off());
    let values = critic.score.forward(batch.value_places.read(hidden));
    batch.value_places.spread(values.squeeze_dim(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_model::{Pooling, TokenBatch};

    use crate::tests::{EOS, language_model, numbers, scalar_model};

    /// Prompts of 3 and 1 tokens, answers of 4 and 2.
    const ROWS: [&[u32]; 2] = [&[1, 4, 2, 5, 6, 7, EOS], &[1, 6, EOS]];
    const PROMPT_LENS: [usize; 2] = [3, 1];
    /// Float32 through two blocks, in batches of another shape.
    const ROUNDING: f64 = 1e-5;

    fn batch(rows: &[&[u32]]) -> EpisodeBatch {
        EpisodeBatch::new(rows, &PROMPT_LENS, &[4, 2], 4, 16, &Device::flex())
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
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < ROUNDING)
    }

    /// Row i of the logits predicts token i + 1, and V is read at the same place.
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
                let outputs = [&logprobs, &entropy, &head, &critic].map(|x| x[row * 4 + t]);
                assert!(same(&outputs, &expected), "row {row}, token {t}: {outputs:?} {expected:?}");
            }
        }
    }

    /// D4: the notebook's update reads the value at the state after the token. The state before does not depend on it.
    #[test]
    fn d4_a_value_does_not_know_its_own_token() {
        let other: [&[u32]; 2] = [&[1, 4, 2, 5, 7, 7, EOS], ROWS[1]];
        for which in [2, 3] {
            let [a, b] = [ROWS, other].map(|rows| outputs(&batch(&rows))[which].clone());
            assert!(same(&a[..2], &b[..2]), "the second token differs: {a:?} {b:?}");
            assert!(!same(&a[2..3], &b[2..3]), "the value after it does not: {a:?} {b:?}");
        }
    }

    /// Oracle 7 (a token sees only what comes before it): tokens after the end change nothing, the end itself does.
    #[test]
    fn tokens_after_the_end_change_nothing() {
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

    /// A padded model has embedding rows without a token of the tokenizer; here these are the last three of eight.
    #[test]
    fn tokens_that_cannot_be_sampled_take_no_part_in_the_distribution() {
        let rows: [&[u32]; 2] = [&[1, 4, 2, 4, 1, 2, EOS], &[1, 4, EOS]];
        let narrow = Policy::new(language_model(1), None, 5).forward(&batch(&rows), 0.5, Entropy::Measured);
        let whole = Policy::new(language_model(1), None, 999);
        assert_eq!(whole.n_tokens, 8);
        let logprobs = numbers(whole.forward(&batch(&rows), 0.5, Entropy::Skipped).logprobs);
        let (narrow, entropy) = (numbers(narrow.logprobs), numbers(narrow.entropy.unwrap()));
        // With fewer tokens to choose from each is more probable, and no entropy exceeds that of five equal tokens.
        assert!(narrow[..4].iter().zip(&logprobs[..4]).all(|(a, b)| a > b), "{narrow:?} {logprobs:?}");
        assert!(entropy.iter().all(|entropy| *entropy <= 5f64.ln() + 1e-6), "{entropy:?}");
    }

    /// The head over the vocabulary reads only real completion tokens.
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

    /// Three answers to one prompt and one to another: read together and one by one.
    #[test]
    fn answers_that_share_a_row_are_read_as_if_they_were_alone() {
        let rows: [&[u32]; 4] =
            [&[1, 4, 2, 5, 6, EOS], &[1, 4, 2, 6, EOS], &[1, 4, 2, 7, 7, 7], &[1, 6, EOS]];
        let (prompt_lens, lens) = ([3, 3, 3, 2], [3, 2, 3, 1]);
        // Values have one more place, past the end, where there is room.
        let value_lens = [3, 3, 3, 2];
        let together = EpisodeBatch::new(&rows, &prompt_lens, &value_lens, 3, 16, &Device::flex());
        assert_eq!(together.tokens.dims(), [2, 3 + 3 + 2 + 3]);
        let together = outputs(&together);
        for i in 0..4 {
            let alone = EpisodeBatch::new(
                &rows[i..=i],
                &prompt_lens[i..=i],
                &value_lens[i..=i],
                3,
                16,
                &Device::flex(),
            );
            assert_eq!(alone.targets.dims(), [lens[i]]);
            for (together, alone) in together.iter().zip(outputs(&alone)) {
                assert!(same(&together[3 * i..][..3], &alone), "answer {i}: {together:?} {alone:?}");
            }
        }
    }

    /// Oracle 11 (a critic that starts as the reward model gives its score): the value past the end is read at the end token,
    /// where it equals the score, bias included.
    #[test]
    fn past_the_end_a_critic_that_starts_as_the_reward_model_gives_the_score() {
        let model = scalar_model(3);
        let tokens = TokenBatch::right_padded(&ROWS, &Device::flex());
        let scores = numbers(model.scores(&tokens, &PROMPT_LENS, &mut Dropout::off()));
        let batch = EpisodeBatch::new(&ROWS, &PROMPT_LENS, &[5, 3], 5, 16, &Device::flex());
        let values = numbers(critic_values(&model, &batch));
        assert!(same(&[values[4], values[5 + 2]], &scores), "{values:?} {scores:?}");
    }
}
