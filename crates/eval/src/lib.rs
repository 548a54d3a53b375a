//! How good a policy is: judges, win rates, divergence, best-of-n, and the selection of a checkpoint.
//!
//! A [`Judge`] scores answers by an exact rule, a reward model or a program. [`judged_answers`] lets a policy answer and a
//! judge score, [`PolicyScores`] sums that up, and [`PolicyComparison`] compares two policies on the same prompts:
//! [`win_rate`], [`length_controlled`], and the [`Divergence`] between them. [`RunModels`] selects the best checkpoint of
//! a run.
//!
//! **Invariant:** both policies of a comparison answer the same prompts with the same sampling and the same seed.
//!
//! ```
//! use temper_eval::win_rate;
//!
//! // The first policy wins two prompts, loses one, and ties on one.
//! let result = win_rate([(0.9, 0.1), (0.7, 0.2), (0.3, 0.4), (0.5, 0.5)]);
//! assert_eq!(result.win_rate, 2.5 / 4.0);
//! assert!(result.win_rate_ci95[0] < 0.5, "four prompts are too few to tell which one is better");
//! ```

mod best_of;
mod comparison;
mod divergence;
mod error;
mod judge;
mod length_controlled;
mod policy;
mod selection;
mod win_rate;

pub use best_of::{BestOf, best_answers, kl_bound};
pub use comparison::PolicyComparison;
pub use divergence::{Divergence, Draws, Obstacle, divergence};
pub use error::Error;
pub use judge::{Judge, JudgeSpec};
pub use length_controlled::{Duel, LengthControlled, length_controlled};
pub use policy::{JudgedAnswers, PolicyScores, judged_answers};
pub use selection::{Candidate, RunModel, RunModels, Selection};
pub use win_rate::{WinRate, win_rate};

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
