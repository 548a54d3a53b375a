//! How far two policies are apart, estimated on the answers of the first.

use temper_assistant::{Answer, Assistant, Sampling, answer_logprobs};
use temper_tokenizer::TextSide;

/// Answer tokens of one forward pass: their logits over the whole vocabulary must fit into memory.
const MOST_TOKENS: usize = 1024;

/// An estimate of KL(first ∥ second), in nats per answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divergence {
    /// Mean over the first policy's answers y of log π₁(y) − log π₂(y).
    pub kl: f64,
    /// Standard error of the mean; none for a single answer.
    pub standard_error: Option<f64>,
}

/// The reason why the divergence cannot be estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The distribution of the best of several answers is not the policy's own.
    #[error("the best of several answers is not a draw from the model")]
    BestOfSeveral,
    /// The sampler cut the distribution, so the mean of the differences is not a KL.
    #[error("greedy, top-k and top-p answers are not drawn from the model's whole distribution")]
    PartOfDistribution,
    /// Ids of one policy do not mean the same to the other.
    #[error("the models put texts together differently")]
    DifferentTexts,
    /// The other policy cannot read all answers.
    #[error("an answer is longer than the other model's context")]
    TooLong,
}

/// The answers of a policy with its own log-probabilities of them. The policy itself need not stay in memory.
pub struct Draws<'a> {
    answers: &'a [Answer],
    logprobs: Vec<f64>,
    temperature: f64,
    text: TextSide,
    vocab_size: usize,
}

impl<'a> Draws<'a> {
    /// Reads the answers that `policy` sampled; `best_of` says of how many answers each one is the best.
    ///
    /// # Errors
    /// Answers that are not draws from the policy's whole distribution.
    pub fn of(
        policy: &Assistant,
        answers: &'a [Answer],
        sampling: &Sampling,
        best_of: u16,
    ) -> Result<Self, Obstacle> {
        if best_of > 1 {
            return Err(Obstacle::BestOfSeveral);
        }
        if !sampling.is_whole_distribution() {
            return Err(Obstacle::PartOfDistribution);
        }
        // The sampler's own log-probabilities may differ from these by rounding. With these, two equal policies are
        // exactly 0 apart.
        let logprobs = summed_logprobs(policy, answers, sampling.temperature);
        let vocab_size = policy.model.config().vocab_size;
        let (temperature, text) = (sampling.temperature, policy.text.clone());
        Ok(Self { answers, logprobs, temperature, text, vocab_size })
    }

    /// Estimates how far the policy is from another one.
    ///
    /// # Errors
    /// Another tokenizer or template, another vocabulary, too short a context.
    pub fn divergence_from(&self, other: &Assistant) -> Result<Divergence, Obstacle> {
        if !self.text.same_as(&other.text) || other.model.config().vocab_size != self.vocab_size {
            return Err(Obstacle::DifferentTexts);
        }
        let len = |answer: &Answer| answer.prompt_tokens.len() + answer.tokens.len();
        if self.answers.iter().map(len).max().unwrap_or(0) > other.context() {
            return Err(Obstacle::TooLong);
        }
        Ok(divergence(&self.logprobs, &summed_logprobs(other, self.answers, self.temperature)))
    }
}

/// Log-probability of each answer at a temperature, summed over its tokens.
///
/// # Panics
/// If a prompt is empty, or an answer with its prompt longer than the context.
fn summed_logprobs(policy: &Assistant, answers: &[Answer], temperature: f64) -> Vec<f64> {
    let longest = answers.iter().map(|answer| answer.tokens.len()).max().unwrap_or(0).max(1);
    let n_rows = (MOST_TOKENS / longest).max(1);
    let mut sums = Vec::with_capacity(answers.len());
    for answers in answers.chunks(n_rows) {
        let rows: Vec<(&[u32], &[u32])> =
            answers.iter().map(|answer| (&answer.prompt_tokens[..], &answer.tokens[..])).collect();
        let logprobs = answer_logprobs(&policy.model, &rows, policy.text.tokenizer.vocab_size(), temperature);
        sums.extend(logprobs.iter().map(|row| row.iter().map(|&logprob| f64::from(logprob)).sum::<f64>()));
    }
    sums
}

/// The mean difference of two lists of log-probabilities of the same answers, and its standard error.
///
/// If the answers are draws from the first policy, this is an unbiased estimate of KL(first ∥ second).
pub fn divergence(first: &[f64], second: &[f64]) -> Divergence {
    let n = first.len() as f64;
    let differences = || first.iter().zip(second).map(|(first, second)| first - second);
    let kl = differences().sum::<f64>() / n;
    let variance = differences().map(|difference| (difference - kl).powi(2)).sum::<f64>() / (n - 1.0);
    Divergence { kl, standard_error: (first.len() > 1).then(|| (variance / n).sqrt()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Differences 1, 2 and 6: mean 3, variance 7, standard error √(7/3).
    #[test]
    fn the_standard_error_is_that_of_the_mean() {
        let Divergence { kl, standard_error } = divergence(&[-1.0, -2.0, 0.0], &[-2.0, -4.0, -6.0]);
        assert_eq!(kl, 3.0);
        assert!((standard_error.unwrap() - (7.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(divergence(&[-1.0], &[-1.5]), Divergence { kl: 0.5, standard_error: None });
    }
}
