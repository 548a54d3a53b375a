//! A prompt alone: what PPO samples completions for.

use serde::Serialize;

use super::columns::prompt;
use super::{Fault, Purpose, Record, Row};

/// A prompt alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prompt {
    /// What is asked.
    pub prompt: String,
}

impl Record for Prompt {
    const PURPOSE: Purpose = Purpose::Prompts;
    const READ_FROM: &'static str = "a prompt from `prompt`, `instruction` or `question`";

    fn from_row(row: &Row) -> Result<Self, Fault> {
        Ok(Self { prompt: prompt(row)? })
    }
}
