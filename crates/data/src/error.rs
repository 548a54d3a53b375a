//! What can go wrong with data: files, their rows, and rows as tokens.

use std::io;
use std::path::{Path, PathBuf};

use crate::Place;
use crate::containers::Format;

/// Every failure of this crate. Messages are one line; [`Error::hint`] may add what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused: the file is missing, not permitted, or damaged gzip.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: `read`, `list` or `unpack`.
        action: &'static str,
        /// The data file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A row holds bytes that are not UTF-8.
    #[error("{}:{line}: not valid UTF-8", path.display())]
    InvalidUtf8 {
        /// The data file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
    },
    /// A row that should be JSON is not.
    #[error("{}:{line}: broken JSON: {message} (column {column})", path.display())]
    BrokenJson {
        /// The data file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// 1-based column within the row, as the JSON parser counts it.
        column: usize,
        /// What the JSON parser said.
        message: String,
    },
    /// A row is JSON but not an object.
    #[error("{}:{line}: expected an object, found {found}", path.display())]
    NotAnObject {
        /// The data file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What the row is instead.
        found: &'static str,
    },
    /// A row is an object, but its columns are not the ones that are needed.
    #[error("{}:{line}: {message}", path.display())]
    BadRow {
        /// The data file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// Which column is wrong, and how.
        message: String,
    },
    /// A data file has no row.
    #[error("{}: no rows", path.display())]
    NoRows {
        /// The data file.
        path: PathBuf,
    },
    /// A data file has rows, but none that can be used.
    #[error("{first}{}", none_of(*n_rows))]
    NoGoodRow {
        /// What is wrong with the first one.
        first: Box<Error>,
        /// How many rows the file has.
        n_rows: usize,
        /// What to do about a file like this.
        advice: String,
        /// Whether the first row has the column that it is read by, with a value that cannot be in it.
        have_columns: bool,
    },
    /// A data file that begins as a JSON array but is not one.
    #[error("{}:{line}: broken JSON: {message} (column {column})", path.display())]
    BrokenArray {
        /// The data file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// 1-based column, as the JSON parser counts it.
        column: usize,
        /// What the JSON parser said.
        message: String,
    },
    /// A Parquet file that is damaged, not whole, encrypted, or of types that are not read.
    #[error("cannot read the Parquet file {}: {message}", path.display())]
    BrokenParquet {
        /// The data file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A data file of a format that is not read.
    #[error("{} is {format}; {}", path.display(), format.instead())]
    OtherFormat {
        /// The data file.
        path: PathBuf,
        /// Its format.
        format: Format,
    },
    /// Data is given as something that is not a file.
    #[error("cannot read {}: it is {kind}, and data must be a file", path.display())]
    NotAFile {
        /// What was given.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A directory has no data files.
    #[error("{} has no data files: none with a name that ends in {endings}, there or in `data`", path.display())]
    NoDataFiles {
        /// The directory.
        path: PathBuf,
        /// The ends of names that were looked for.
        endings: String,
    },
    /// A directory has files of several parts of a data set, such as training and test data.
    #[error("{} has files of several splits: {splits}", path.display())]
    SeveralSplits {
        /// The directory.
        path: PathBuf,
        /// The splits, from the names of the files.
        splits: String,
    },
    /// A compressed file holds more than any text would.
    #[error("cannot unpack {}: its {packed} bytes unpack to more than {limit}", path.display())]
    UnpacksTooFar {
        /// The data file.
        path: PathBuf,
        /// Its size in bytes.
        packed: u64,
        /// How many bytes it may unpack to.
        limit: u64,
    },
    /// Every row of the data is longer than the limit.
    #[error("none of the {rows} {what} fits into {max_seq_len} tokens")]
    NothingFits {
        /// What a row is, in the plural.
        what: &'static str,
        /// Rows that were given.
        rows: usize,
        /// The limit.
        max_seq_len: usize,
    },
    /// Every prompt is longer than the limit.
    #[error("none of the {rows} prompts fits into {max_prompt_len} tokens, which leave room for an answer")]
    NoPromptFits {
        /// Rows that were given.
        rows: usize,
        /// Most tokens of a prompt.
        max_prompt_len: usize,
    },
    /// The tokenizer has no id for anything in the data that would be learned.
    #[error("none of the {rows} {what} has a token to learn from")]
    NothingToLearn {
        /// What a row is, in the plural.
        what: &'static str,
        /// Rows that were given.
        rows: usize,
    },
    /// No plain text has a token to learn.
    #[error("none of the {rows} plain texts has a token to learn")]
    NoText {
        /// Rows that were given.
        rows: usize,
    },
    /// The part of the prompts to keep for evaluation is not a part.
    #[error("`--eval-fraction` must be above 0 and below 1, got {fraction}")]
    EvalFraction {
        /// What was given.
        fraction: f64,
    },
    /// A split by the prompts of the rows has no row on one side.
    #[error("`--eval-fraction {fraction}` leaves no {side} data of the {rows} rows")]
    EmptySide {
        /// The part of the prompts that was to be kept for evaluation.
        fraction: f64,
        /// What is empty: `training` or `evaluation`.
        side: &'static str,
        /// Rows that were split.
        rows: usize,
    },
    /// A weight of a data file is out of range.
    #[error("`--mix` must give {} a weight above 0 and up to {largest}, got {weight}", path.display())]
    Weight {
        /// The data file.
        path: PathBuf,
        /// What was given.
        weight: f64,
        /// The largest weight.
        largest: f64,
    },
    /// A data file has two weights.
    #[error("`--mix` gives {} two weights", path.display())]
    TwoWeights {
        /// The data file.
        path: PathBuf,
    },
    /// The weights of the data files keep no row.
    #[error("`--mix` leaves none of the {rows} rows of training data")]
    EmptyMix {
        /// Rows that were weighed.
        rows: usize,
    },
    /// The template cannot put a row together.
    #[error("{place}: {message}")]
    Refused {
        /// Which row: its place, or its number from 1 if it does not come from a file.
        place: String,
        /// Its index among the rows that were given.
        row: usize,
        /// What the template said.
        message: String,
    },
    /// The template does not fit the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] temper_tokenizer::Error),
}

impl Error {
    /// What the user can do about it, where that is known and the source of the error does not say it.
    pub fn hint(&self) -> Option<String> {
        let hint: &str = match self {
            Error::Io { action: "unpack", .. } => "the file is damaged or not whole: copy it again",
            Error::NoGoodRow { advice, .. } => advice,
            Error::BrokenArray { .. } => {
                "the file is a JSON array, which can only be read as a whole: fix this place, or save its rows as \
                 JSON lines"
            }
            Error::BrokenParquet { .. } => {
                "copy the file again; if it is whole, save its rows as JSON lines, for example in Python: \
                 datasets.load_dataset(\"parquet\", data_files=…)[\"train\"].to_json(\"rows.jsonl\")"
            }
            Error::OtherFormat { path, format } => return Some(format.advice(path)),
            Error::NoDataFiles { .. } => "give the files themselves",
            Error::SeveralSplits { .. } => "give the files of one, such as DIR/data/train-*",
            Error::NotAFile { .. } => "give a file; save the output of a pipe or a device in a file first",
            Error::UnpacksTooFar { .. } => {
                "no text can be packed as much as that; if the file is really data, unpack it first (`gunzip` for gzip)"
            }
            Error::InvalidUtf8 { .. } => {
                "save the file as UTF-8, or leave such rows out with `--skip-bad-rows`"
            }
            Error::BrokenJson { .. }
            | Error::NotAnObject { .. }
            | Error::BadRow { .. }
            | Error::Refused { .. } => "fix the row, or leave such rows out with `--skip-bad-rows`",
            Error::NoRows { .. } => {
                "the file must hold JSON lines or a JSON array, one object per row, or plain text if its name ends in .txt"
            }
            Error::NothingFits { .. } => {
                "use a model with a longer context, raise `max_seq_len`, or `--set overflow=truncate_prompt`"
            }
            Error::NoPromptFits { .. } => {
                "use a model with a longer context, lower `rollout.max_new_tokens`, or \
                 `--set overflow=truncate_prompt`"
            }
            Error::NothingToLearn { .. } => {
                "the tokenizer knows none of these texts: use a model whose tokenizer does"
            }
            Error::EvalFraction { .. } => "0.05 keeps the rows of one prompt in twenty for evaluation",
            Error::EmptySide { side: "training", .. } => {
                "a hash of each prompt decides: use a smaller fraction, or give evaluation data by `--eval-data`"
            }
            Error::EmptySide { .. } => {
                "a hash of each prompt decides: use a larger fraction, or give evaluation data by `--eval-data`"
            }
            Error::Weight { .. } => {
                "0.5 keeps half of the rows, 2 repeats each; leave out a file that is not wanted"
            }
            Error::TwoWeights { .. } => "name each file once",
            Error::EmptyMix { .. } => "use larger weights",
            Error::NoText { .. } => "each row needs a `text` of two tokens or more",
            Error::Io { .. } | Error::Tokenizer(_) => return None,
        };
        Some(hint.to_owned())
    }

    /// The same error with the place of the row that it is about.
    pub(crate) fn at(self, places: &[Place]) -> Self {
        match self {
            Self::Refused { row, message, .. } if row < places.len() => {
                Self::Refused { place: places[row].to_string(), row, message }
            }
            other => other,
        }
    }

    /// An [`Error::Io`] maker for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }
}

fn none_of(n_rows: usize) -> String {
    if n_rows == 1 { String::new() } else { format!(" (none of the {n_rows} rows can be read)") }
}

/// A message of another library as one line.
pub(crate) fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
