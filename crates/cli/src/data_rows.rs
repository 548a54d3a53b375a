//! The rows of data files with their places, and notes about those that were left out.

use std::path::PathBuf;

use anyhow::Result;
use serde::de::DeserializeOwned;
use temper_train::{AllRows, FileRows, Place, RowReport, read_all};

use crate::session::{Session, bad_rows};

/// What a stage learns from, for [`Session::data_rows`].
pub const TRAINING: &str = "training data";
/// What a stage is measured on.
pub const EVALUATION: &str = "evaluation data";

/// The rows of some data files, and what they are for.
pub struct DataRows<T> {
    /// The rows, in the order of the files.
    pub rows: Vec<T>,
    /// Where each of them is.
    places: Vec<Place>,
    files: Vec<FileRows>,
    purpose: &'static str,
}

impl<T> DataRows<T> {
    fn new(all: AllRows<T>, purpose: &'static str) -> Self {
        let (places, rows) = all.rows.into_iter().unzip();
        Self { rows, places, files: all.files, purpose }
    }

    /// The rows of each file, as indices into [`DataRows::rows`].
    fn files(&self) -> impl Iterator<Item = (&FileRows, std::ops::Range<usize>)> {
        self.files.iter().scan(0, |end, file| {
            let start = *end;
            *end += file.n_rows;
            Some((file, start..*end))
        })
    }

    /// One line for each file that has any of `idxs`: what `sentence` makes of "3 of 40 rows of a.jsonl (training
    /// data)", and where the first of them is.
    ///
    /// An index may occur more than once, where `parts` says how many things like that a row has in all.
    fn lines(
        &self,
        idxs: &[usize],
        what: &str,
        parts: impl Fn(&T) -> usize,
        sentence: impl Fn(&str) -> String,
    ) -> Vec<String> {
        let line = |(file, range): (&FileRows, std::ops::Range<usize>)| {
            let mut own = idxs.iter().filter(|idx| range.contains(idx));
            let first = *own.next()?;
            let (n, total) = (own.count() + 1, self.rows[range].iter().map(&parts).sum::<usize>());
            let line = self.places[first].line;
            Some(format!("{} (first: line {line})", sentence(&self.share(n, total, what, file))))
        };
        self.files().filter_map(line).collect()
    }

    fn share(&self, n: usize, total: usize, what: &str, file: &FileRows) -> String {
        let purpose = if self.purpose.is_empty() { String::new() } else { format!(" ({})", self.purpose) };
        format!("{n} of {total} {what} of {}{purpose}", file.path.display())
    }
}

impl Session {
    /// The rows of some data files, and a note for each file that had rows skipped. `purpose` says what the rows
    /// are for: [`TRAINING`], [`EVALUATION`] or other words, or nothing.
    pub fn data_rows<T: DeserializeOwned>(
        &self,
        paths: &[PathBuf],
        purpose: &'static str,
        skip_bad_rows: bool,
    ) -> Result<DataRows<T>> {
        self.remember_inputs(paths);
        let data = DataRows::new(read_all::<T>(paths, bad_rows(skip_bad_rows))?, purpose);
        for file in data.files.iter().filter(|file| file.skipped > 0) {
            let share = data.share(file.skipped, file.n_rows + file.skipped, "rows", file);
            let first = file.first_skipped.as_deref().unwrap_or_default();
            self.note(&format!("note: left out {share}: they cannot be read (first: {first})"));
        }
        Ok(data)
    }

    /// A note for each file that has any of the rows `idxs`. `sentence` is given "3 of 40 rows of a.jsonl (training
    /// data)" and says what became of them.
    pub fn note_rows<T>(&self, data: &DataRows<T>, idxs: &[usize], sentence: impl Fn(&str) -> String) {
        self.note_parts(data, idxs, "rows", |_| 1, sentence);
    }

    /// The same for parts of rows, such as completions. `parts` counts those of a row. `idxs` has the row
    /// of each part, so a row may occur more than once.
    pub fn note_parts<T>(
        &self,
        data: &DataRows<T>,
        idxs: &[usize],
        what: &str,
        parts: impl Fn(&T) -> usize,
        sentence: impl Fn(&str) -> String,
    ) {
        for line in data.lines(idxs, what, parts, sentence) {
            self.note(&format!("note: {line}"));
        }
    }

    /// Notes of the rows that were left out because they are too long or hold no token, and of those that lost a part
    /// of their prompt.
    pub fn note_report<T>(&self, data: &DataRows<T>, report: &RowReport, max_seq_len: usize) {
        self.note_rows(data, &report.too_long, |rows| {
            format!("left out {rows}: they do not fit into {max_seq_len} tokens")
        });
        self.note_rows(data, &report.without_tokens, |rows| {
            format!("left out {rows}: the tokenizer has no token for what would be learned")
        });
        self.note_rows(data, &report.truncated, |rows| {
            format!("cut the prompt on the left in {rows}, to fit into {max_seq_len} tokens")
        });
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_file_has_its_own_line_with_how_many_of_how_many() {
        let (one, two): (Arc<Path>, Arc<Path>) = (Path::new("1.jsonl").into(), Path::new("2.jsonl").into());
        let file = |path: &Arc<Path>, n_rows| FileRows {
            path: path.clone(),
            n_rows,
            skipped: 0,
            first_skipped: None,
        };
        let row = |path: &Arc<Path>, line, row: usize| (Place { path: path.clone(), line }, row);
        let all = AllRows {
            rows: vec![row(&one, 1, 2), row(&one, 4, 3), row(&two, 1, 2), row(&two, 2, 5), row(&two, 9, 2)],
            skipped: 0,
            files: vec![file(&one, 2), file(&two, 3)],
        };
        let data = DataRows::new(all, TRAINING);
        let lines = |idxs: &[usize]| data.lines(idxs, "rows", |_| 1, |rows| format!("left out {rows}"));
        assert_eq!(
            lines(&[1, 3, 4]),
            [
                "left out 1 of 2 rows of 1.jsonl (training data) (first: line 4)",
                "left out 2 of 3 rows of 2.jsonl (training data) (first: line 2)"
            ]
        );
        assert!(lines(&[]).is_empty());
        // Parts of rows: as many as the row holds.
        let parts = data.lines(&[3, 3, 4], "completions", |&n| n, |rows| format!("left out {rows}"));
        assert_eq!(parts, ["left out 3 of 9 completions of 2.jsonl (training data) (first: line 2)"]);
    }
}
