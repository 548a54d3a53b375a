//! Evaluation: one answer to each held-out prompt, scored like those of a rollout; and answers to show, of a few of them.

use rand::RngExt;
use serde::Serialize;
use temper_data::{EncodedPrompt, Prompts};
use temper_model::{CausalLm, Completion, GenerateOptions, generate};
use temper_stage::Samples;
use temper_tokenizer::Tokenizer;
use temper_train::{Run, Seed};

use crate::config::PpoConfig;
use crate::rollout::{Answers, sampling_options};
use crate::scores::{Scorers, condition_scores, score_answers};
use crate::{Error, ScoreScale};

/// Scores and lengths of the answers to held-out prompts.
#[derive(Clone, Debug, Serialize)]
pub struct PpoEvaluation {
    /// Mean score after the rule for missing ends and the clip.
    #[serde(rename = "eval/scores")]
    pub scores: f64,
    /// Mean score, as the scoring function gave it.
    #[serde(rename = "eval/raw_scores")]
    pub raw_scores: f64,
    /// Mean score by an independent judge, if there is one.
    #[serde(rename = "eval/gold", skip_serializing_if = "Option::is_none")]
    pub gold: Option<f64>,
    /// Share of answers that ended by themselves.
    #[serde(rename = "eval/eos_rate")]
    pub eos_rate: f64,
    /// Tokens per answer.
    #[serde(rename = "eval/response_length")]
    pub length_mean: f64,
}

/// Samples one answer to each prompt and scores it.
///
/// It takes `rollout.sampling_batch_size` prompts at a time, or `batch_size` where that is 0. Every prompt has its own
/// random stream, so the answers do not depend on these sizes. `step` counts from 1 and only appears in errors; `scale` is that
/// of the run's scores.
///
/// # Errors
/// A scoring function that fails, or a model whose logits are not finite.
pub fn evaluate(
    config: &PpoConfig,
    policy: &CausalLm,
    tokenizer: &Tokenizer,
    prompts: &Prompts,
    step: usize,
    scale: ScoreScale,
    scorers: &mut Scorers<'_>,
) -> Result<PpoEvaluation, Error> {
    let options =
        sampling_options(config, tokenizer, Seed(config.training.seed).stream("evaluate").random())?;
    let size = match config.rollout.sampling_batch_size {
        0 => config.training.batch_size,
        size => size,
    };
    let (mut raw_scores, mut scores, mut gold_scores) = (Vec::new(), Vec::new(), Vec::new());
    let (mut n_ended, mut n_tokens) = (0, 0);
    for (part, prompts) in prompts.prompts.chunks(size).enumerate() {
        let prompts: Vec<&EncodedPrompt> = prompts.iter().collect();
        let rows: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
        let options = GenerateOptions { first_stream: (part * size) as u64, ..options.clone() };
        let completions = generate(policy, &rows, &options).map_err(|e| Error::from(e).in_step(step))?;
        let answers = Answers { prompts, completions };
        let scored = score_answers(&answers.samples(tokenizer), scorers, step)?;
        scores.extend(condition_scores(&scored.raw_scores, &answers.ended(), scale, &config.rollout));
        raw_scores.extend(scored.raw_scores);
        gold_scores.extend(scored.gold_scores.unwrap_or_default());
        n_ended += answers.ended().iter().filter(|ended| **ended).count();
        n_tokens += answers.completions.iter().map(|completion| completion.tokens.len()).sum::<usize>();
    }
    let n = prompts.prompts.len() as f64;
    Ok(PpoEvaluation {
        scores: mean(&scores),
        raw_scores: mean(&raw_scores),
        gold: scorers.gold.is_some().then(|| mean(&gold_scores)),
        eos_rate: n_ended as f64 / n,
        length_mean: n_tokens as f64 / n,
    })
}

/// Answers that a run shows, with what the scoring function and the judge say of them.
pub(crate) struct Shown {
    completions: Vec<Completion>,
    scores: Vec<f32>,
    gold: Vec<f32>,
}

impl Shown {
    /// Lets the policy answer, and asks who scores. The scores are as the scoring function gives them.
    ///
    /// # Errors
    /// Those of [`evaluate`].
    pub(crate) fn take(
        policy: &CausalLm,
        tokenizer: &Tokenizer,
        samples: &Samples<'_>,
        step: usize,
        scorers: &mut Scorers<'_>,
    ) -> Result<Self, Error> {
        if samples.is_empty() {
            return Ok(Self { completions: Vec::new(), scores: Vec::new(), gold: Vec::new() });
        }
        let completions = samples.answers(policy).map_err(|e| Error::from(e).in_step(step))?;
        let answers = Answers { prompts: samples.prompts().to_vec(), completions };
        let scored = score_answers(&answers.samples(tokenizer), scorers, step)?;
        let gold = scored.gold_scores.unwrap_or_default();
        Ok(Self { completions: answers.completions, scores: scored.raw_scores, gold })
    }

    /// Appends them to `samples.jsonl`.
    pub(crate) fn log(&self, samples: &Samples<'_>, run: &mut Run, step: usize) -> Result<(), Error> {
        Ok(samples.log(run, step, &self.completions, &self.scores, &self.gold)?)
    }
}

fn mean(scores: &[f32]) -> f64 {
    scores.iter().map(|&score| f64::from(score)).sum::<f64>() / scores.len() as f64
}
