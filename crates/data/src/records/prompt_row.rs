//! A prompt alone: what PPO samples completions for.

use serde::Serialize;
use temper_tokenizer::Prompt;

use super::columns::prompt;
use super::{Fault, Purpose, Record, Row, TrainingRecord, question};

/// A prompt alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PromptRow {
    /// What is asked.
    pub prompt: Prompt,
}

impl Record for PromptRow {
    const PURPOSE: Purpose = Purpose::Prompts;
    fn from_row(row: &Row) -> Result<Self, Fault> {
        Ok(Self { prompt: prompt(row)? })
    }
}

impl TrainingRecord for PromptRow {
    fn question(&self) -> &str {
        question(&self.prompt)
    }
}
