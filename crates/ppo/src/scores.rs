//! Scores of answers: who gives them, how they are checked, and which rules they go through.

use std::sync::Arc;

use temper_data::Row;
use temper_tokenizer::PromptRef;

use crate::config::{MissingEos, RolloutConfig};
use crate::{Error, ScoreScale};

/// An answer that is to be scored.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// The prompt as it was given.
    pub prompt: PromptRef<'a>,
    /// The other columns of the prompt's row, such as a reference answer; empty if it has none.
    pub row: &'a Arc<Row>,
    /// The prompt as the template encodes it.
    pub prompt_tokens: &'a [u32],
    /// The answer as text, without the end token.
    pub completion: String,
    /// The answer as ids, including the end token where there is one.
    pub completion_tokens: &'a [u32],
    /// Whether the answer ended by itself.
    pub ended: bool,
}

/// The error of a scoring function.
pub type ScoreError = Box<dyn std::error::Error + Send + Sync>;

/// Gives one score per sample. It may be a reward model, a rule, or anything else.
pub type ScoreFn<'a> = dyn FnMut(&[Sample<'_>]) -> Result<Vec<f32>, ScoreError> + 'a;

/// Gives one reward for each of a sample's `completion_tokens`.
pub type TokenRewardFn<'a> = dyn FnMut(&[Sample<'_>]) -> Result<Vec<Vec<f32>>, ScoreError> + 'a;

/// The functions that judge answers.
///
/// A single scoring function becomes one by `(&mut score).into()`; [`train`](crate::train) does that itself.
pub struct Scorers<'a> {
    /// Gives the scores that the policy is trained for.
    pub score: &'a mut ScoreFn<'a>,
    /// Gives rewards of single tokens, which are added to score and KL penalty.
    pub token_rewards: Option<&'a mut TokenRewardFn<'a>>,
    /// An independent judge whose scores are only recorded: they show when the score keeps rising although the answers
    /// get worse (Gao et al. 2022, arXiv 2210.10760).
    pub gold: Option<&'a mut ScoreFn<'a>>,
}

impl<'a, F> From<&'a mut F> for Scorers<'a>
where
    F: FnMut(&[Sample<'_>]) -> Result<Vec<f32>, ScoreError> + 'a,
{
    fn from(score: &'a mut F) -> Self {
        Self { score, token_rewards: None, gold: None }
    }
}

/// The scores of some answers.
pub(crate) struct Scored {
    /// As the scoring function gave them: `[batch]`.
    pub(crate) raw_scores: Vec<f32>,
    /// Of the independent judge, if there is one: `[batch]`.
    pub(crate) gold_scores: Option<Vec<f32>>,
}

/// Asks the scoring function, then the independent judge.
///
/// `step` counts from 1 and only appears in errors.
pub(crate) fn score_answers(
    samples: &[Sample<'_>],
    scorers: &mut Scorers<'_>,
    step: usize,
) -> Result<Scored, Error> {
    let raw_scores = ask_scores(samples, scorers.score, step)?;
    let gold_scores = scorers.gold.as_mut().map(|gold| ask_scores(samples, *gold, step)).transpose()?;
    Ok(Scored { raw_scores, gold_scores })
}

/// A score beyond this is almost certainly a mistake of the scorer. Products of several such numbers would leave the range
/// of `f32`, and every weight of the policy would become NaN.
const GREATEST_SCORE: f32 = 1e9;
const OUT_OF_RANGE: &str = "which is not between -1e9 and 1e9";

fn is_in_range(score: f32) -> bool {
    score.abs() <= GREATEST_SCORE
}

/// Asks for one score per answer, and checks their number and range.
fn ask_scores(samples: &[Sample<'_>], score: &mut ScoreFn<'_>, step: usize) -> Result<Vec<f32>, Error> {
    let scores = score(samples).map_err(|source| Error::Score { step, source })?;
    if scores.len() != samples.len() {
        let problem = format!("{} scores for {} answers", scores.len(), samples.len());
        return Err(Error::BadScores { step, problem });
    }
    if let Some(bad) = scores.iter().find(|score| !is_in_range(**score)) {
        return Err(Error::BadScores { step, problem: format!("the score {bad:e}, {OUT_OF_RANGE}") });
    }
    Ok(scores)
}

/// Asks for one reward per token of each answer, and checks their number and range.
pub(crate) fn ask_token_rewards(
    samples: &[Sample<'_>],
    token_rewards: &mut TokenRewardFn<'_>,
    step: usize,
) -> Result<Vec<Vec<f32>>, Error> {
    let rows = token_rewards(samples).map_err(|source| Error::Score { step, source })?;
    let bad = |problem: String| Error::BadScores { step, problem };
    if rows.len() != samples.len() {
        return Err(bad(format!("token rewards of {} answers for {}", rows.len(), samples.len())));
    }
    for (row, sample) in rows.iter().zip(samples) {
        let n_tokens = sample.completion_tokens.len();
        if row.len() != n_tokens {
            return Err(bad(format!("{} token rewards for an answer of {n_tokens} tokens", row.len())));
        }
        if let Some(reward) = row.iter().find(|reward| !is_in_range(**reward)) {
            return Err(bad(format!("the token reward {reward:e}, {OUT_OF_RANGE}")));
        }
    }
    Ok(rows)
}

/// Applies the scale, then the rule for answers without an end (`rollout.missing_eos`), then `rollout.score_clip`.
pub(crate) fn condition_scores(
    scores: &[f32],
    ended: &[bool],
    scale: ScoreScale,
    config: &RolloutConfig,
) -> Vec<f32> {
    let value = config.missing_eos_value as f32;
    let rule = |(score, ended): (f32, &bool)| match config.missing_eos {
        _ if *ended => score,
        MissingEos::Keep => score,
        MissingEos::Subtract => score - value,
        MissingEos::Replace => value,
    };
    let limit = if config.score_clip > 0.0 { config.score_clip as f32 } else { f32::INFINITY };
    scores
        .iter()
        .map(|&score| scale.apply(score))
        .zip(ended)
        .map(rule)
        .map(|score| score.clamp(-limit, limit))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle 10: only an answer whose tokens lack the end is penalised.
    #[test]
    fn only_answers_without_an_end_are_penalised() {
        let config =
            |missing_eos| RolloutConfig { missing_eos, missing_eos_value: 1.5, ..RolloutConfig::default() };
        let scores = |rule| condition_scores(&[2.0, 2.0], &[true, false], ScoreScale::NONE, &config(rule));
        assert_eq!(scores(MissingEos::Keep), [2.0, 2.0]);
        assert_eq!(scores(MissingEos::Subtract), [2.0, 0.5]);
        assert_eq!(scores(MissingEos::Replace), [2.0, 1.5]);
    }

    /// (7 − 3) / 2 = 2 and (−1 − 3) / 2 = −2. Penalty and clip are in units of the scaled scores.
    #[test]
    fn scores_are_scaled_before_the_rule_for_missing_ends_and_the_clip() {
        let (config, scale) = (RolloutConfig::default(), ScoreScale { mean: 3.0, deviation: 2.0 });
        let scores = |config: &RolloutConfig| condition_scores(&[7.0, -1.0], &[true, false], scale, config);
        assert_eq!(scores(&config), [2.0, -3.0]);
        assert_eq!(scores(&RolloutConfig { missing_eos: MissingEos::Replace, ..config.clone() }), [2.0, 1.0]);
        assert_eq!(scores(&RolloutConfig { score_clip: 1.5, ..config }), [1.5, -1.5]);
    }

    #[test]
    fn scores_are_clipped_after_the_rule_for_missing_ends() {
        let config = RolloutConfig {
            missing_eos: MissingEos::Subtract,
            missing_eos_value: 4.0,
            score_clip: 2.5,
            ..RolloutConfig::default()
        };
        let scores =
            condition_scores(&[3.0, 1.0, 6.0, -7.0], &[true, true, false, false], ScoreScale::NONE, &config);
        assert_eq!(scores, [2.5, 1.0, 2.0, -2.5]);
    }
}
