//! Two policies on the same prompts.

use serde::Serialize;
use temper_assistant::eos_rate;

use crate::{Divergence, Duel, JudgedAnswers, WinRate, kl_bound, length_controlled, win_rate};

/// How a first policy does against a second one, as `temper eval --against` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PolicyComparison {
    /// Share of the prompts on which the first policy's answer has the higher score.
    #[serde(flatten)]
    pub win_rate: WinRate,
    /// [`length_controlled`] win rate; none where its fit does not converge.
    pub length_controlled_win_rate: Option<f64>,
    /// 95 % interval of the length-controlled win rate.
    pub length_controlled_win_rate_ci95: Option<[f64; 2]>,
    /// Number of prompts.
    pub prompts: usize,
    /// Mean score of the first policy.
    pub score: f64,
    /// Mean score of the second policy.
    pub score_against: f64,
    /// Share of the first policy's answers that ended by themselves.
    pub eos_rate: f64,
    /// Share of the second policy's answers that ended by themselves.
    pub eos_rate_against: f64,
    /// Mean length of the first policy's answers, in characters.
    pub length: f64,
    /// Mean length of the second policy's answers, in characters.
    pub length_against: f64,
    /// Mean length of the first policy's answers, in tokens.
    pub tokens: f64,
    /// Mean length of the second policy's answers, in tokens.
    pub tokens_against: f64,
    /// How many answers the first policy gave to each prompt. A reward model picked one of them.
    pub best_of: u16,
    /// [`kl_bound`] of that number.
    pub best_of_kl_bound: f64,
    /// KL of the first policy from the second, in nats per answer: see [`Divergence`].
    pub kl: Option<f64>,
    /// Its standard error.
    pub kl_standard_error: Option<f64>,
}

impl PolicyComparison {
    /// Compares the answers of two policies to the same prompts.
    ///
    /// # Panics
    /// If the policies did not answer the same number of prompts.
    pub fn new(first: &JudgedAnswers, second: &JudgedAnswers, divergence: Option<Divergence>) -> Self {
        assert_eq!(first.answers.len(), second.answers.len(), "both policies answer the same prompts");
        let (lens, lens_against) = (first.lens(), second.lens());
        let duels: Vec<Duel> = (0..first.answers.len())
            .map(|i| Duel { scores: [first.scores[i], second.scores[i]], lens: [lens[i], lens_against[i]] })
            .collect();
        let controlled = length_controlled(&duels);
        let scores = first.scores.iter().copied().zip(second.scores.iter().copied());
        let tokens = |side: &JudgedAnswers| side.mean(|i| side.answers[i].tokens.len() as f64);
        Self {
            win_rate: win_rate(scores),
            length_controlled_win_rate: controlled.map(|controlled| controlled.win_rate),
            length_controlled_win_rate_ci95: controlled.map(|controlled| controlled.win_rate_ci95),
            prompts: first.answers.len(),
            score: first.mean(|i| first.scores[i]),
            score_against: second.mean(|i| second.scores[i]),
            eos_rate: eos_rate(&first.answers),
            eos_rate_against: eos_rate(&second.answers),
            length: first.mean(|i| lens[i] as f64),
            length_against: second.mean(|i| lens_against[i] as f64),
            tokens: tokens(first),
            tokens_against: tokens(second),
            best_of: first.best_of,
            best_of_kl_bound: kl_bound(first.best_of),
            kl: divergence.map(|divergence| divergence.kl),
            kl_standard_error: divergence.and_then(|divergence| divergence.standard_error),
        }
    }
}
