//! A synthetic task with an exact judge, so that RLHF can be measured by something that is not the reward
//! model.
//!
//! Some fifty short facts are asked in about forty phrasings each and answered in four manners, rightly or
//! wrongly. The gold rule, [`Task::judge`], is plain Rust: it knows the right answer to every prompt and
//! accepts nothing else. All words are in [`facts`]; a reader who knows that file knows the task.
//!
//! Right and wrong answers occur in every manner that can be right. Were only curt answers ever wrong, a reward model would
//! learn to score courtesy alone, and PPO would write courteous nonsense.
//!
//! **Invariant.** The data is a function of the seed and the [`Sizes`]; the held-out files of the sizes
//! alone. No held-out prompt occurs in a training file.
//!
//! ```
//! use temper_courtesy::{Sizes, Task};
//!
//! let task = Task::new();
//! let good = task.judge("Capital of France?", "Sure! It is Paris.", true).ok_or("no such prompt")?;
//! assert!(good.right && good.courteous);
//! assert_eq!(good.score, 1.0);
//!
//! let sizes = Sizes { demonstrations: 100, ..Sizes::default() };
//! let data = task.generate(0, &sizes);
//! assert_eq!(data.demonstrations.len(), 100);
//! # Ok::<(), &str>(())
//! ```

pub mod facts;

mod task;

mod judge;

mod completion;
mod mixture;

mod dataset;
mod text;

mod random;

pub use completion::{Grade, Graded, Manner};
pub use dataset::{Comparison, Dataset, Demonstration, HeldoutComparison, Sizes};
pub use judge::Verdict;
pub use mixture::Mixture;
pub use task::{Fact, Prompt, Task};
pub use text::Text;

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
