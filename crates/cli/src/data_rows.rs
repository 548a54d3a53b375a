//! Reads data files, and prints what `temper-data` notes about their rows.

use std::path::PathBuf;

use anyhow::Result;
use temper_data::{BadRows, Dataset, Place, Record, Rows, read_rows};
use temper_tokenizer::{Overflow, TextSide};

use crate::failure::hinted;
use crate::session::Session;

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
        let bad_rows = if skip_bad_rows { BadRows::Skip } else { BadRows::Refuse };
        let rows = read_rows::<R>(paths, bad_rows)?.with_purpose(purpose);
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

    /// What `encode` makes of each row for a model, before the model computes anything. `encode` fails with what is wrong
    /// with a row, and a hint.
    ///
    /// # Errors
    /// The first row that cannot be encoded. If bad rows are skipped, such rows are noted and left out, and it is an error
    /// only if no row is left.
    pub fn encode_rows<R, T>(
        &self,
        rows: Vec<(Place, R)>,
        skip_bad_rows: bool,
        encode: impl Fn(&R) -> Result<T, (String, &'static str)>,
    ) -> Result<Vec<(Place, R, T)>> {
        let n_rows = rows.len();
        let mut encoded = Vec::with_capacity(n_rows);
        let mut first_fault = None;
        for (place, row) in rows {
            match encode(&row) {
                Ok(row_of_model) => encoded.push((place, row, row_of_model)),
                Err((fault, hint)) => {
                    first_fault.get_or_insert_with(|| (format!("{place}: {fault}"), hint));
                    if !skip_bad_rows {
                        break;
                    }
                }
            }
        }
        let Some((fault, hint)) = first_fault else { return Ok(encoded) };
        if !skip_bad_rows || encoded.is_empty() {
            return Err(hinted(fault, hint));
        }
        let n_left_out = n_rows - encoded.len();
        self.note(&format!(
            "note: left out {n_left_out} of {n_rows} rows that this model cannot read (first: {fault})"
        ));
        Ok(encoded)
    }

    /// Prints notes about rows of data files.
    pub fn note_rows(&self, notes: Vec<String>) {
        notes.iter().for_each(|note| self.note(&format!("note: {note}")));
    }
}
