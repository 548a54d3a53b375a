//! One policy by itself: its answers, and what a judge says about them.

use serde::Serialize;
use temper_assistant::{Answer, Assistant, PromptOfRow, Sampling, eos_rate};
use temper_tokenizer::TextSide;

use crate::{BestOf, Error, Judge, best_answers, kl_bound};

/// The answers of a policy with their scores.
#[derive(Clone, Debug)]
pub struct JudgedAnswers {
    /// The text side of the policy.
    pub text: TextSide,
    /// One answer to each prompt.
    pub answers: Vec<Answer>,
    /// The judge's score of each answer.
    pub scores: Vec<f64>,
    /// How many answers the policy gave to each prompt. A reward model picked one of them; 1 without best-of-n.
    pub best_of: u16,
}

/// Lets a policy answer each prompt and a judge score the answers. A program that judges gets the other columns of the
/// prompts' rows, too.
///
/// # Errors
/// Prompts that cannot be answered, models whose output is not finite, a judge that fails.
pub fn judged_answers(
    policy: &Assistant,
    prompts: &[PromptOfRow],
    sampling: &Sampling,
    seed: u64,
    best_of: Option<BestOf<'_>>,
    judge: &mut Judge,
) -> Result<JudgedAnswers, Error> {
    let mut answers = match best_of {
        None => policy.answer(prompts, sampling, seed)?,
        Some(best_of) => best_answers(policy, prompts, sampling, seed, best_of)?,
    };
    for (answer, asked) in answers.iter_mut().zip(prompts) {
        answer.row = asked.row.clone();
    }
    let scores = judge.scores(&policy.text, &answers)?;
    let best_of = best_of.map_or(1, |best_of| best_of.n);
    Ok(JudgedAnswers { text: policy.text.clone(), answers, scores, best_of })
}

impl JudgedAnswers {
    /// Length of each completion, in characters.
    pub fn lens(&self) -> Vec<usize> {
        self.answers.iter().map(|answer| answer.completion.chars().count()).collect()
    }

    /// Mean over the answers, in their order.
    pub(crate) fn mean(&self, value: impl Fn(usize) -> f64) -> f64 {
        (0..self.answers.len()).map(value).sum::<f64>() / self.answers.len() as f64
    }

    /// The figures of the policy by itself.
    pub fn summary(&self) -> PolicyScores {
        let (n, lens) = (self.answers.len() as f64, self.lens());
        let score = self.mean(|i| self.scores[i]);
        let variance = self.scores.iter().map(|each| (each - score).powi(2)).sum::<f64>() / (n - 1.0);
        PolicyScores {
            score,
            score_standard_error: (self.answers.len() > 1).then(|| (variance / n).sqrt()),
            prompts: self.answers.len(),
            eos_rate: eos_rate(&self.answers),
            length: self.mean(|i| lens[i] as f64),
            tokens: self.mean(|i| self.answers[i].tokens.len() as f64),
            best_of: self.best_of,
            best_of_kl_bound: kl_bound(self.best_of),
        }
    }
}

/// How one policy does by itself, as `temper eval` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyScores {
    /// Mean of the judge's scores.
    pub score: f64,
    /// Standard error of that mean; none for a single prompt.
    pub score_standard_error: Option<f64>,
    /// Number of prompts.
    pub prompts: usize,
    /// Share of the answers that ended by themselves.
    pub eos_rate: f64,
    /// Mean length in characters.
    pub length: f64,
    /// Mean length in tokens, the end token included.
    pub tokens: f64,
    /// Answers to each prompt; a reward model picked one of them.
    pub best_of: u16,
    /// [`kl_bound`] of that number.
    pub best_of_kl_bound: f64,
}
