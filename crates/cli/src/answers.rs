//! Answers of a policy, and a reward model's scores of them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;
use temper_model::{CausalLm, Finish, ScalarModel};
use temper_tokenizer::{Example, Overflow, Template};
use temper_train::Prompt;

use crate::args::SamplingArgs;
use crate::commands::generate::{complete, options};
use crate::failure::hinted;
use crate::session::Session;
use crate::text::TextSide;

/// Rows that are answered or scored together.
pub const BATCH_SIZE: usize = 64;

/// One answer to one prompt.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// What was said, without what the policy's template puts around a completion.
    pub completion: String,
    pub tokens: Vec<u32>,
    pub ended: bool,
}

/// Reads prompts.
pub fn prompts(session: &Session, paths: &[PathBuf], skip_bad_rows: bool) -> Result<Vec<String>> {
    let rows: Vec<Prompt> = session.rows(paths, skip_bad_rows)?;
    Ok(rows.into_iter().map(|row| row.prompt).collect())
}

/// Samples one answer per prompt.
pub fn answer(
    model: &CausalLm,
    text: &TextSide,
    prompts: &[String],
    sampling: &SamplingArgs,
    seed: u64,
) -> Result<Vec<Answer>> {
    let mut answers = Vec::with_capacity(prompts.len());
    for (i, part) in prompts.chunks(BATCH_SIZE).enumerate() {
        let options = options(sampling, seed.wrapping_add((i as u64) << 32))?;
        answers.extend(complete(model, text, part, &options)?.into_iter().map(|completion| Answer {
            completion: text.template.completion_of(&text.tokenizer.decode(&completion.tokens)).to_owned(),
            tokens: completion.tokens,
            ended: completion.finish == Finish::Stop,
        }));
    }
    Ok(answers)
}

/// Share of the answers that ended by themselves.
pub fn eos_rate(answers: &[Answer]) -> f64 {
    answers.iter().filter(|answer| answer.ended).count() as f64 / answers.len() as f64
}

/// A text to be scored.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    pub prompt: &'a str,
    /// As [`Answer::completion`].
    pub completion: &'a str,
    pub ended: bool,
}

/// Prompts with their answers.
pub fn said<'a>(prompts: &'a [String], answers: &'a [Answer]) -> Vec<Said<'a>> {
    let said = |(prompt, answer): (&'a String, &'a Answer)| Said {
        prompt,
        completion: &answer.completion,
        ended: answer.ended,
    };
    prompts.iter().zip(answers).map(said).collect()
}

/// A reward model's scores of texts, encoded as it learned them: by its own template and tokenizer.
///
/// What does not fit is an error, or with [`Overflow::TruncatePrompt`] loses the left end of its prompt.
pub fn score_texts(
    model: &ScalarModel,
    text: &TextSide,
    dir: &Path,
    said: &[Said<'_>],
    overflow: Overflow,
) -> Result<Vec<f32>> {
    let context = model.config().max_seq_len;
    // A directory without a template is plain, and a score is read at the end of the text.
    let template = if text.has_template { text.template.clone() } else { Template::plain_eos() };
    let too_long = || {
        hinted(
            format!("an answer does not fit into the {context} tokens of {}", dir.display()),
            "let answers be shorter, or score them with a model of a longer context",
        )
    };
    let mut examples: Vec<Example> = Vec::with_capacity(said.len());
    for Said { prompt, completion, ended } in said {
        let completion = template.encode_answer(&text.tokenizer, completion, *ended);
        let room = context.checked_sub(completion.len()).ok_or_else(too_long)?;
        let mut tokens = template.encode_prompt(&text.tokenizer, prompt);
        if tokens.len() > room {
            if overflow == Overflow::Drop {
                return Err(too_long());
            }
            tokens =
                template.encode_prompt_truncated(&text.tokenizer, prompt, room).map_err(|_| too_long())?;
        }
        let prompt_len = tokens.len();
        tokens.extend(completion);
        if tokens.is_empty() {
            return Err(hinted(
                format!("the tokenizer of {} has no token for a prompt and its answer", dir.display()),
                "a score is read at the last token",
            ));
        }
        examples.push(Example { tokens, prompt_len, n_cut: 0 });
    }
    Ok(temper_reward::score(model, &examples.iter().collect::<Vec<_>>(), BATCH_SIZE))
}

/// [`score_texts`] of a policy's answers, each of which must fit.
pub fn score_answers(
    model: &ScalarModel,
    text: &TextSide,
    dir: &Path,
    prompts: &[String],
    answers: &[Answer],
) -> Result<Vec<f64>> {
    let scores = score_texts(model, text, dir, &said(prompts, answers), Overflow::Drop)?;
    Ok(scores.into_iter().map(f64::from).collect())
}
