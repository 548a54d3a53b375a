//! The rows of one file as records of one kind.

use std::path::Path;

use crate::containers::{Content, Format, shortened};
use crate::error::{Error, one_line};
use crate::families::{Group, Joiner};
use crate::options::ReadOptions;
use crate::records::{Fault, Record, Row, advice};
use crate::rows::{BadRows, UnusedRows};

/// How many columns of a row a message lists.
const COLUMNS_LISTED: usize = 20;

/// A bad row.
pub(crate) struct BadRow {
    pub error: Error,
    /// What is wrong with its columns, and their names, if it is an object.
    fault: Option<(Fault, Vec<String>)>,
}

/// The rows of one file that were read so far.
pub(crate) struct FileReader<'p, R> {
    path: &'p Path,
    options: &'p ReadOptions,
    joiner: Joiner,
    /// Each record with its line.
    pub records: Vec<(usize, R)>,
    pub n_bad: usize,
    pub first_bad: Option<BadRow>,
    pub unused: Vec<UnusedRows>,
    first_unused: Option<BadRow>,
    pub families: Vec<(&'static str, usize)>,
    n_rows: usize,
    /// Rows that have a column which somebody has named.
    n_renamed: usize,
}

impl<'p, R: Record> FileReader<'p, R> {
    pub fn new(path: &'p Path, options: &'p ReadOptions) -> Self {
        Self {
            path,
            options,
            joiner: Joiner::default(),
            records: Vec::new(),
            n_bad: 0,
            first_bad: None,
            unused: Vec::new(),
            first_unused: None,
            families: Vec::new(),
            n_rows: 0,
            n_renamed: 0,
        }
    }

    /// Adds one row of the file.
    pub fn take(&mut self, line: usize, row: Result<Row, Error>) -> Result<(), Error> {
        match row {
            Ok(row) => match self.rename(row) {
                Ok(row) => {
                    self.joiner.push(line, row).into_iter().try_for_each(|group| self.take_group(&group))
                }
                Err((fault, row)) => self.reject(line, &row, fault),
            },
            Err(error) => self.add_bad(BadRow { error, fault: None }),
        }
    }

    fn rename(&mut self, row: Row) -> Result<Row, (Fault, Row)> {
        self.n_rows += 1;
        self.n_renamed += usize::from(self.options.columns.are_in(&row));
        self.options.columns.rename(row)
    }

    /// Adds what is complete only at the end of the file.
    pub fn finish(&mut self) -> Result<(), Error> {
        if self.n_rows > 0 && self.n_renamed == 0 && !self.options.columns.is_empty() {
            tracing::warn!("{}: no row has a column that `--columns` names", self.path.display());
        }
        let groups = std::mem::take(&mut self.joiner).finish();
        groups.into_iter().try_for_each(|group| self.take_group(&group))
    }

    /// Adds the records of one example.
    fn take_group(&mut self, group: &Group) -> Result<(), Error> {
        if let Some(name) = group.name() {
            match self.families.iter_mut().find(|(family, _)| *family == name) {
                Some((_, n)) => *n += 1,
                None => self.families.push((name, 1)),
            }
        }
        let rows = match group.read(R::PURPOSE) {
            Ok(rows) => rows,
            Err(fault) => return self.reject(group.line, &group.rows[0], fault),
        };
        for row in rows {
            match R::from_row(&row) {
                Ok(record) => self.records.push((group.line, record)),
                Err(fault) => self.reject(group.line, &group.rows[0], fault)?,
            }
        }
        self.refuse()
    }

    /// Leaves out a row, whose columns are those of `row`.
    fn reject(&mut self, line: usize, row: &Row, fault: Fault) -> Result<(), Error> {
        if !fault.is_unused() {
            return self.add_bad(self.bad_row(line, row, fault));
        }
        let reason = one_line(&fault.to_string());
        match self.unused.iter_mut().find(|unused| unused.reason == reason) {
            Some(unused) => unused.n += 1,
            None => self.unused.push(UnusedRows { reason, n: 1, first: line }),
        }
        if self.first_unused.is_none() {
            self.first_unused = Some(self.bad_row(line, row, fault));
        }
        Ok(())
    }

    fn add_bad(&mut self, bad: BadRow) -> Result<(), Error> {
        tracing::debug!("bad row: {}", bad.error);
        self.n_bad += 1;
        self.first_bad.get_or_insert(bad);
        self.refuse()
    }

    /// Refuses the first bad row, if bad rows are refused.
    ///
    /// A bad row before any good one is remembered until a good one follows: if there is none, the whole file is of
    /// another kind, and skipping rows would not help.
    fn refuse(&mut self) -> Result<(), Error> {
        if self.options.bad_rows == BadRows::Refuse
            && !self.records.is_empty()
            && let Some(bad) = self.first_bad.take()
        {
            return Err(bad.error);
        }
        Ok(())
    }

    fn bad_row(&self, line: usize, row: &Row, fault: Fault) -> BadRow {
        let columns: Vec<String> = row.keys().cloned().collect();
        let mut message = one_line(&fault.to_string());
        if fault.is_missing_column() {
            message += &if columns.is_empty() {
                "; the row is empty".into()
            } else {
                format!("; the row has {}", listed(&columns))
            };
        }
        let error = Error::BadRow { path: self.path.to_owned(), line, message };
        BadRow { error, fault: Some((fault, columns)) }
    }

    /// The same, once the whole file was read.
    ///
    /// # Errors
    /// No row could be used; the error says what to do about a file like this.
    pub fn with_any_record(self, content: Content) -> Result<Self, Error> {
        let path = self.path.to_owned();
        if !self.records.is_empty() {
            return Ok(self);
        }
        let n_rows = self.n_bad + self.unused.iter().map(|unused| unused.n).sum::<usize>();
        let Some(BadRow { error: first, fault }) = self.first_bad.or(self.first_unused) else {
            return Err(Error::NoRows { path });
        };
        let is_json = content == Content::Json;
        // A text is only of no use as something else, and has its own mistakes.
        let is_of_use = |format| format == Format::Text && fault.is_none();
        if let Some(format) = Format::of_name(&path).filter(|format| !is_of_use(*format))
            && content == Content::OtherText
        {
            return Err(Error::OtherFormat { path, format });
        }
        let have_columns = fault.as_ref().is_some_and(|(fault, _)| fault.is_wrong_value());
        let advice = match (&first, fault) {
            (_, Some((fault, columns))) => advice(&fault, &columns, R::PURPOSE),
            (Error::InvalidUtf8 { .. }, _) => "save the file as UTF-8".into(),
            (Error::BrokenJson { .. }, _) if is_json => {
                "each line must be one whole JSON object; objects that span several lines must be in a JSON array"
                    .into()
            }
            (Error::BrokenJson { .. } | Error::NotAnObject { .. }, _) => {
                "each line must be one JSON object, such as {\"prompt\": \"…\", \"completion\": \"…\"}".into()
            }
            _ => "fix the rows of the file".into(),
        };
        Err(Error::NoGoodRow { first: Box::new(first), n_rows, advice, have_columns })
    }
}

/// The names of columns, as many as one line should hold.
pub(crate) fn listed(columns: &[String]) -> String {
    let names = columns.iter().take(COLUMNS_LISTED).map(|column| format!("`{}`", shortened(column)));
    let names = names.collect::<Vec<_>>().join(", ");
    match columns.len().saturating_sub(COLUMNS_LISTED) {
        0 => names,
        others => format!("{names} and {others} more"),
    }
}
