//! Which rows of data files were left out or cut, and notes about them in words.

use std::ops::Range;

use crate::Error;
use crate::rows::{FileRows, Rows};

/// Which rows of a dataset were left out or shortened when they were encoded.
///
/// Rows are named by their index among those that were given, counted from 0, in ascending order. A row is in at most
/// one of the two lists of rows that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowReport {
    /// Left out: they do not fit into the longest sequence allowed.
    pub too_long: Vec<usize>,
    /// Left out: the tokenizer has no token for the part that would be learned, or for the whole row.
    pub without_tokens: Vec<usize>,
    /// Kept, but their prompt lost its left part to fit.
    pub truncated: Vec<usize>,
    /// Left out: the template cannot put them together.
    pub refused: Vec<usize>,
    /// What the template said about the first of these.
    pub first_refusal: Option<Refusal>,
}

/// A row that a template cannot put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    row: usize,
    message: String,
}

impl Refusal {
    /// The error that stops a run, if such rows are not to be skipped.
    pub(crate) fn error(&self) -> Error {
        let Self { row, message } = self.clone();
        Error::Refused { place: format!("row {}", row + 1), row, message }
    }
}

impl RowReport {
    /// How many rows were left out, for whatever reason.
    pub fn n_dropped(&self) -> usize {
        self.too_long.len() + self.without_tokens.len() + self.refused.len()
    }

    /// The value, or nothing for a row that the template refuses, which is noted.
    pub(crate) fn accepted<T>(
        &mut self,
        row: usize,
        encoded: Result<T, temper_tokenizer::Error>,
    ) -> Option<T> {
        let message = match encoded {
            Ok(encoded) => return Some(encoded),
            Err(error) => error.to_string(),
        };
        if self.refused.last() != Some(&row) {
            self.refused.push(row);
        }
        self.first_refusal.get_or_insert(Refusal { row, message });
        None
    }

    /// Fails if the template refuses a row; asked where nothing is left.
    pub(crate) fn refuses_all(&self) -> Result<(), Error> {
        self.first_refusal.as_ref().map_or(Ok(()), |refusal| Err(refusal.error()))
    }

    /// A note for each file that lost rows or parts of prompts; `room` says how much would fit, for example
    /// "128 tokens".
    pub(crate) fn notes<R>(&self, rows: &Rows<R>, room: &str, learned: &str) -> Vec<String> {
        [
            rows.notes(&self.too_long, |rows| format!("left out {rows}: they do not fit into {room}")),
            rows.notes(&self.without_tokens, |rows| {
                format!("left out {rows}: the tokenizer has no token for {learned}")
            }),
            rows.notes(&self.refused, |rows| {
                let message = self.first_refusal.as_ref().map_or("", |refusal| &refusal.message);
                format!("left out {rows}: the template refuses them, {message}")
            }),
            rows.notes(&self.truncated, |rows| {
                format!("cut the prompt on the left in {rows}, to fit into {room}")
            }),
        ]
        .concat()
    }
}

impl<R> Rows<R> {
    /// A note for each file that had bad rows, and for each reason why rows of it are of no use; they were left out.
    pub fn notes_of_skipped(&self) -> Vec<String> {
        let note = |file: &FileRows| {
            let share = self.share(file.n_skipped, file.n_examples(), "rows", file);
            let first = file.first_skipped.as_deref().unwrap_or_default();
            format!("left out {share}: they cannot be read (first: {first})")
        };
        let mut notes = Vec::new();
        for file in &self.files {
            notes.extend((file.n_skipped > 0).then(|| note(file)));
            notes.extend(file.unused.iter().map(|unused| {
                let share = self.share(unused.n, file.n_examples(), "rows", file);
                format!("left out {share}: {} (first: {} {})", unused.reason, file.place_name, unused.first)
            }));
        }
        notes
    }

    /// A note for each file that has any of the records `idxs`: the sentence that `sentence` makes of "3 of 40 rows of
    /// a.jsonl (training data)", and the line of the first of them.
    pub fn notes(&self, idxs: &[usize], sentence: impl Fn(&str) -> String) -> Vec<String> {
        self.notes_of_parts(idxs, "rows", |_| 1, sentence)
    }

    /// As [`Rows::notes`], about parts of records that are called `what`, such as completions. `n_parts` counts those
    /// of a record. `idxs` has the record of each part, so a record may occur more than once.
    pub fn notes_of_parts(
        &self,
        idxs: &[usize],
        what: &str,
        n_parts: impl Fn(&R) -> usize,
        sentence: impl Fn(&str) -> String,
    ) -> Vec<String> {
        let note = |(file, range): (&FileRows, Range<usize>)| {
            let mut in_file = idxs.iter().filter(|idx| range.contains(idx));
            let first = *in_file.next()?;
            let (n, total) = (in_file.count() + 1, self.records[range].iter().map(&n_parts).sum::<usize>());
            let line = self.places[first].line;
            Some(format!(
                "{} (first: {} {line})",
                sentence(&self.share(n, total, what, file)),
                file.place_name
            ))
        };
        self.records_of_files().filter_map(note).collect()
    }

    /// The records of each file, as indices.
    pub(crate) fn records_of_files(&self) -> impl Iterator<Item = (&FileRows, Range<usize>)> {
        self.files.iter().scan(0, |end, file| {
            let start = *end;
            *end += file.n_rows;
            Some((file, start..*end))
        })
    }

    fn share(&self, n: usize, total: usize, what: &str, file: &FileRows) -> String {
        format!("{n} of {total} {what} of {}", self.name(file))
    }

    /// A file with what its rows are for.
    fn name(&self, file: &FileRows) -> String {
        let purpose = if self.purpose.is_empty() { String::new() } else { format!(" ({})", self.purpose) };
        format!("{}{purpose}", file.path.display())
    }

    /// How many of these rows a dataset uses, with the names of the files: "12 of the 13 rows of a.jsonl and b.jsonl", or
    /// "13 rows of a.jsonl and b.jsonl".
    pub fn used(&self, n_used: usize) -> String {
        let names: Vec<String> = self.files.iter().map(|file| file.path.display().to_string()).collect();
        let files = match names.as_slice() {
            [one] => one.clone(),
            [a, b] => format!("{a} and {b}"),
            more => format!("{} files", more.len()),
        };
        let n = self.records.len();
        if n_used == n {
            format!("{n} {} of {files}", if n == 1 { "row" } else { "rows" })
        } else {
            format!("{n_used} of the {n} rows of {files}")
        }
    }

    /// All records of a file, in words: "the 40 rows of a.jsonl (training data)".
    pub(crate) fn all_of(&self, file: &FileRows) -> String {
        format!("the {} rows of {}", file.n_rows, self.name(file))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::{Place, UnusedRows};

    #[test]
    fn a_row_that_was_only_shortened_is_not_dropped() {
        let report = RowReport {
            too_long: vec![1, 4],
            without_tokens: vec![5],
            truncated: vec![0, 2],
            ..RowReport::default()
        };
        assert_eq!(report.n_dropped(), 3);
    }

    /// Two files with two and three records; a record is the number of its parts.
    fn rows() -> Rows<usize> {
        let (one, two): (Arc<Path>, Arc<Path>) = (Path::new("1.jsonl").into(), Path::new("2.jsonl").into());
        let file = |path: &Arc<Path>, n_rows| FileRows {
            path: path.clone(),
            n_rows,
            n_skipped: 0,
            first_skipped: None,
            unused: Vec::new(),
            families: Vec::new(),
            place_name: "line",
        };
        let place = |path: &Arc<Path>, line| Place { path: path.clone(), line };
        Rows {
            records: vec![2, 3, 2, 5, 2],
            places: vec![place(&one, 1), place(&one, 4), place(&two, 1), place(&two, 2), place(&two, 9)],
            files: vec![file(&one, 2), file(&two, 3)],
            purpose: "training data",
        }
    }

    #[test]
    fn every_file_has_its_own_note_with_how_many_of_how_many() {
        let rows = rows();
        let notes = |idxs: &[usize]| rows.notes(idxs, |rows| format!("left out {rows}"));
        assert_eq!(
            notes(&[1, 3, 4]),
            [
                "left out 1 of 2 rows of 1.jsonl (training data) (first: line 4)",
                "left out 2 of 3 rows of 2.jsonl (training data) (first: line 2)"
            ]
        );
        assert!(notes(&[]).is_empty());
        // Of parts, as many as the record has.
        let parts = rows.notes_of_parts(&[3, 3, 4], "completions", |&n| n, |rows| format!("left out {rows}"));
        assert_eq!(parts, ["left out 3 of 9 completions of 2.jsonl (training data) (first: line 2)"]);
    }

    #[test]
    fn rows_that_cannot_be_read_are_counted_among_all_rows_of_their_file() {
        let mut rows = rows();
        rows.files[1].n_skipped = 2;
        rows.files[1].first_skipped = Some("2.jsonl:3: not valid UTF-8".into());
        let note = "left out 2 of 5 rows of 2.jsonl (training data): they cannot be read (first: 2.jsonl:3: not valid \
                    UTF-8)";
        assert_eq!(rows.notes_of_skipped(), [note]);
        rows.files[1].place_name = "row";
        rows.files[1].unused = vec![UnusedRows { reason: "their answers are tied".into(), n: 5, first: 7 }];
        let note = "left out 5 of 10 rows of 2.jsonl (training data): their answers are tied (first: row 7)";
        assert_eq!(rows.notes_of_skipped()[1], note);
    }
}
