//! Comparisons, encoded: what the reward model and DPO both learn from.
//!
//! A [`ComparisonDataset`] holds a [`Ranking`] for each prompt, with every completion once and a [`Pair`] for every
//! two of which one is better. A stage gives each completion one number, its score or its implicit reward, and
//! [`ScorePairs`] says which of these are compared and how much each comparison counts.
//!
//! **Invariant:** every ranking counts the same however many completions it has, and tied ones make no pair.
//!
//! ```
//! use temper_comparisons::{ComparisonDataset, Pair};
//! use temper_tokenizer::{Overflow, Template, Tokenizer};
//! use temper_train::Comparison;
//!
//! let rows = [Comparison::pair("Say hi", "Hi!", "No.")];
//! let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
//! let data = ComparisonDataset::new(&rows, &tokenizer, &template, 128, Overflow::Drop)?;
//! assert_eq!(data.rankings[0].completions.len(), 2);
//! assert_eq!(data.rankings[0].pairs, [Pair { chosen: 0, rejected: 1, gap: 1.0 }]);
//! # Ok::<(), temper_tokenizer::Error>(())
//! ```

mod accuracy;
mod dataset;
mod pairs;
mod ranking;

pub use accuracy::{accuracy, correctness};
pub use dataset::ComparisonDataset;
pub use pairs::ScorePairs;
pub use ranking::{Pair, Ranking};

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
