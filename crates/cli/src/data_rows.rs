//! Reads data files, and prints what `temper-data` notes about their rows.

use std::path::PathBuf;

use anyhow::Result;
use temper_data::{Dataset, Record, Rows, read_rows};
use temper_tokenizer::{Overflow, TextSide};

use crate::session::{Session, bad_rows};

/// What a stage learns from, for [`Session::dataset`].
pub const TRAINING: &str = "training data";
/// What a model is measured on.
pub const EVALUATION: &str = "evaluation data";

impl Session {
    /// The records of some data files, and a note for each file that had rows skipped. `purpose` says what they are
    /// for: [`TRAINING`], [`EVALUATION`] or other words, or nothing.
    pub fn rows<R: Record>(
        &self,
        paths: &[PathBuf],
        purpose: &'static str,
        skip_bad_rows: bool,
    ) -> Result<Rows<R>> {
        self.remember_inputs(paths);
        let rows = read_rows::<R>(paths, bad_rows(skip_bad_rows))?.with_purpose(purpose);
        self.note_rows(rows.notes_of_skipped());
        Ok(rows)
    }

    /// The token rows of some data files, in at most `max_len` tokens each, and notes about what was left out.
    pub fn dataset<D: Dataset>(
        &self,
        paths: &[PathBuf],
        purpose: &'static str,
        text: &TextSide,
        max_len: usize,
        overflow: Overflow,
        skip_bad_rows: bool,
    ) -> Result<D> {
        let rows = self.rows::<D::Record>(paths, purpose, skip_bad_rows)?;
        let data = D::encode(&rows.records, &text.tokenizer, &text.template, max_len, overflow)?;
        self.note_rows(data.notes(&rows, max_len));
        Ok(data)
    }

    /// Prints notes about rows of data files.
    pub fn note_rows(&self, notes: Vec<String>) {
        notes.iter().for_each(|note| self.note(&format!("note: {note}")));
    }
}
