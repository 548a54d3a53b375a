//! Kinds of records: what a row of a data file can be, under any of the column names that are in use. Rows of the formats
//! that data are published in get these names first (`families`).
//!
//! | part of a record | columns; the first one counts that the row has and that is not null |
//! | --- | --- |
//! | `prompt` | `prompt` (a text or a list of messages), `instruction` or `question`; after the last two, a blank line and each non-empty one of `input` and `context` |
//! | `completion` | `completion`, `response`, `output`, `answer` |
//! | a conversation | `messages`, where the row has neither a prompt nor a completion |
//! | plain text | `text`, where the row has neither a prompt nor a completion |
//! | `completions`, ranked | `completions` or `responses`, with `scores` or `ranking` |
//! | a pair of them | `chosen`, `rejected`, and `margin` if given; without a prompt column, whole hh-rlhf transcripts |
//!
//! `scores` holds a number for each completion: the higher the better, equal ones are tied. `ranking` holds the indices
//! of all completions from best to worst, tied ones in a list of their own: `[2, [0, 1], 3]`. If a row has both,
//! `scores` count.
//!
//! Other columns are ignored, or kept next to a prompt ([`PromptRow::columns`]), except for those that would change what
//! a row means and that Temper does not read. Unless they are empty, a row is refused for them: `input` and `context` next
//! to `prompt`, `system`, `system_prompt` and `history` (they are all part of what was asked); and a `score_chosen` that is
//! not above `score_rejected`. Among rows for SFT, `label: false` is refused too: it marks a bad answer.
//!
//! Texts without a visible character count as empty and are refused.
//!
//! A new kind of record is one file with a type that implements [`Record`], and its lines in this one.

mod columns;
#[cfg(test)]
mod testing;
mod transcripts;

mod answer;
mod comparison;
mod conversation;
mod demonstration;
mod plain_text;
mod prompt_row;
mod sft_row;

use serde::Serialize;
use serde_json::{Map, Value};
use temper_tokenizer::{Message, Prompt};

pub use columns::Fault;
pub(crate) use columns::{advice, has_content, is_blank, material, present, text};

/// The columns of a row, in the order of the file.
pub type Row = Map<String, Value>;

/// What the rows of a file are read for. It decides what a row is where it has more than one use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Whatever a policy can learn to imitate.
    Demonstrations,
    /// A prompt with one answer, whoever gave it.
    Answers,
    /// Answers to the same prompt, ranked.
    Comparisons,
    /// What is asked, without an answer.
    Prompts,
    /// Plain text.
    Texts,
}

/// What a row of a data file can be.
pub trait Record: Sized {
    /// What its rows are read for.
    const PURPOSE: Purpose;

    /// The record in a row.
    ///
    /// # Errors
    /// A [`Fault`]: a column is missing, or its value cannot be used.
    fn from_row(row: &Row) -> Result<Self, Fault>;
}

/// A record that a model learns from or is measured on. Records that are written as the same JSON are the same.
pub trait TrainingRecord: Record + Clone + Serialize {
    /// What the record is about: its prompt, of a conversation the first message of a user, of plain text the text.
    /// Records about the same stay together when data are split.
    fn question(&self) -> &str;
}

/// What a prompt is about.
fn question(prompt: &Prompt) -> &str {
    match prompt {
        Prompt::Text(text) => text,
        Prompt::Messages(messages) => first_question(messages),
    }
}

/// What a conversation is about: its first message of a user. Without one, its first message.
fn first_question(messages: &[Message]) -> &str {
    let of_user = messages.iter().find(|message| message.role == "user");
    of_user.or(messages.first()).map_or("", Message::text)
}

pub use answer::Answer;
pub use comparison::Comparison;
pub use conversation::Conversation;
pub use demonstration::Demonstration;
pub use plain_text::PlainText;
pub use prompt_row::PromptRow;
pub use sft_row::SftRow;

/// A record with all columns of its row, those that the record ignores included.
#[derive(Clone, Debug, PartialEq)]
pub struct WithColumns<R> {
    /// The record.
    pub record: R,
    /// Every column of the row, as it was written.
    pub columns: Row,
}

impl<R: Record> Record for WithColumns<R> {
    const PURPOSE: Purpose = R::PURPOSE;

    fn from_row(row: &Row) -> Result<Self, Fault> {
        Ok(Self { record: R::from_row(row)?, columns: row.clone() })
    }
}
