//! Text without a prompt, as in pretraining.

use serde::Serialize;

use super::columns::text;
use super::{Fault, Purpose, Record, Row, TrainingRecord};

/// Columns that plain text is read from.
pub(super) const TEXT: [&str; 1] = ["text"];

/// Text without a prompt, all of it to be learned, as in pretraining.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlainText {
    /// The text.
    pub text: String,
}

impl Record for PlainText {
    const PURPOSE: Purpose = Purpose::Texts;
    fn from_row(row: &Row) -> Result<Self, Fault> {
        Ok(Self { text: text(row, &TEXT)?.to_owned() })
    }
}

impl TrainingRecord for PlainText {
    fn question(&self) -> &str {
        &self.text
    }
}
