//! Reads data files, and prints what `temper-data` notes about their rows.

use std::path::PathBuf;

use anyhow::Result;
use temper_data::{Dataset, Encoding, Place, ReadOptions, Record, Rows, read_rows};
use temper_stage::EVALUATION;

use crate::failure::hinted;
use crate::session::Session;

impl Session {
    /// The records of some data files, and a note for each file that had rows skipped.
    pub fn rows<R: Record>(&self, paths: &[PathBuf], options: impl Into<ReadOptions>) -> Result<Rows<R>> {
        let rows = read_rows::<R>(paths, options)?;
        rows.notes_of_skipped().iter().for_each(|note| self.note(&format!("note: {note}")));
        Ok(rows)
    }

    /// The token rows of some data files to measure a model on, and notes about what was left out.
    pub fn evaluation_data<D: Dataset>(
        &self,
        paths: &[PathBuf],
        encoding: &Encoding<'_>,
        options: impl Into<ReadOptions>,
    ) -> Result<D> {
        let note = &mut |sentence: &str| self.note(&format!("note: {sentence}"));
        Ok(D::read(paths, EVALUATION, options, encoding, note)?)
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
}
