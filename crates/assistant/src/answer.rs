//! One sampled answer.

use std::sync::Arc;

use temper_scorer::Row;
use temper_tokenizer::{Prompt, PromptRef, TextSide};

/// A prompt with the other columns of its row in a data file.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptOfRow {
    /// What is asked.
    pub prompt: Prompt,
    /// The other columns; empty if the row has none.
    pub row: Arc<Row>,
}

impl From<Prompt> for PromptOfRow {
    /// A prompt without other columns.
    fn from(prompt: Prompt) -> Self {
        Self { prompt, row: Arc::default() }
    }
}

impl<'p> From<&'p PromptOfRow> for PromptRef<'p> {
    fn from(asked: &'p PromptOfRow) -> Self {
        (&asked.prompt).into()
    }
}

/// An answer to a prompt, as ids and as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The prompt, as it was asked.
    pub prompt: Prompt,
    /// The other columns of the prompt's row, for programs that score; empty if it has none.
    pub row: Arc<Row>,
    /// The prompt's ids with the template around them, as the policy read them.
    pub prompt_tokens: Vec<u32>,
    /// The answer's ids, including the end token if it ended.
    pub tokens: Vec<u32>,
    /// Log-probability of each token at the sampler's temperature, in nats. Empty if an answer was not sampled here.
    pub logprobs: Vec<f32>,
    /// Whether the answer ended by itself.
    pub ended: bool,
    /// The decoded ids.
    pub text: String,
    /// The decoded ids without what the policy's template puts around a completion.
    pub completion: String,
}

impl Answer {
    /// Decodes sampled ids, for a prompt without other columns. `text` is the text side of the policy that sampled them.
    pub fn of_ids(
        text: &TextSide,
        prompt: impl Into<Prompt>,
        prompt_tokens: Vec<u32>,
        tokens: Vec<u32>,
        logprobs: Vec<f32>,
        ended: bool,
    ) -> Self {
        let decoded = text.tokenizer.decode(&tokens);
        let completion = text.template.completion_of(&decoded).to_owned();
        Self {
            prompt: prompt.into(),
            row: Arc::default(),
            prompt_tokens,
            tokens,
            logprobs,
            ended,
            text: decoded,
            completion,
        }
    }

    /// The answer as plain text, without what the template puts around it.
    pub fn as_text(&self) -> temper_scorer::Answer<'_> {
        temper_scorer::Answer {
            prompt: (&self.prompt).into(),
            completion: &self.completion,
            ended: self.ended,
            row: Some(&*self.row).filter(|row| !row.is_empty()),
        }
    }
}

/// Share of the answers that ended by themselves; NaN without answers.
pub fn eos_rate(answers: &[Answer]) -> f64 {
    answers.iter().filter(|answer| answer.ended).count() as f64 / answers.len() as f64
}
