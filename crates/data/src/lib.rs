//! From data files to token rows.
//!
//! - [`read_rows`] reads files of any container (JSON lines, a JSON array, plain text, any of them gzipped, Parquet) and any of
//!   the formats that data are published in as [`Record`]s: a [`Demonstration`], a [`Conversation`], a [`Comparison`], a
//!   [`PromptRow`], a [`PlainText`], an [`SftRow`] or an [`Answer`]. Every row keeps
//!   its [`Place`], and every mistake is named with it.
//! - A [`Dataset`] encodes records: [`Demonstrations`], [`Rankings`] with their [`ScorePairs`], [`Prompts`], [`Texts`].
//!   A [`RowReport`] says which rows did not fit.
//! - A [`Selection`] says which rows are learned, how often, and which are kept for evaluation.
//!
//! **Invariant:** this crate knows no model and no stage, and prints nothing: what it has to say are errors and notes.
//! Every ranking counts the same, however many completions it has, and tied completions make no pair.
//!
//! ```
//! use temper_data::{BadRows, Comparison, Encoding, Pair, Rankings, Rows};
//! use temper_tokenizer::{Template, TextSide, Tokenizer};
//!
//! # fn main() -> Result<(), temper_data::Error> {
//! let file = r#"{"question": "Say hi", "chosen": "Hi!", "rejected": "No."}"#;
//! let rows = Rows::<Comparison>::from_reader("a.jsonl".as_ref(), file.as_bytes(), BadRows::Refuse)?;
//! let text = TextSide::new(Tokenizer::byte(), Template::notebook());
//! let data = Rankings::new(&rows.records, &Encoding::new(&text, 128))?;
//! assert_eq!(data.rankings[0].completions.len(), 2);
//! assert_eq!(data.rankings[0].pairs, [Pair { chosen: 0, rejected: 1, gap: 1.0 }]);
//! # Ok(())
//! # }
//! ```

mod all_text;
mod config;
mod containers;
mod datasets;
mod error;
mod families;
mod file_reader;
mod inspect;
mod options;
pub mod records;
mod report;
mod rows;
mod selection;

pub use all_text::each_text;
pub use config::EncodingConfig;
pub use containers::{Format, Separator, data_files};
pub use datasets::*;
pub use error::Error;
pub use inspect::{Inspection, Lengths, Shown, inspect};
pub use options::{ColumnNames, ReadOptions};
pub use records::*;
pub use report::{Refusal, RowReport};
pub use rows::{BadRows, FileRows, Place, Rows, UnusedRows, read_rows};
pub use selection::{FileWeight, Selection};

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
