//! A model together with its text side.
//!
//! [`Assistant`] is a language model that answers prompts, and [`RewardModel`] is a model that scores answers. Both join
//! the network of `temper-model` with the [`TextSide`](temper_tokenizer::TextSide) that is stored next to its weights.
//! [`Scorer`] adds up what a reward model, a program and an endpoint say about an answer.
//!
//! **Invariant:** a reward model reads the sampled ids wherever these mean the same to it, and the text otherwise.
//! **Invariant:** an answer that did not end never gets an end token.
//!
//! Problems that do not stop the work are reported through `tracing::warn!`, each one once per process.
//!
//! ```
//! use burn::tensor::Device;
//! use rand::SeedableRng;
//! use temper_assistant::{Assistant, Sampling};
//!
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//! let assistant = Assistant::fresh("tiny", "bare", &mut rng, &Device::flex())?;
//! let sampling = Sampling { max_new_tokens: 8, ..Sampling::default() };
//! let answers = assistant.answer(&["Who are you?"], &sampling, 0)?;
//! assert!(answers[0].tokens.len() <= 8);
//! assert_eq!(answers[0].prompt.to_string(), "Who are you?");
//! # Ok::<(), temper_assistant::Error>(())
//! ```

mod answer;
mod assistant;
mod error;
mod export;
mod logprobs;
mod once;
mod outline;
mod reward_model;
mod sampling;
mod scorer;

pub use answer::{Answer, PromptOfRow, eos_rate};
pub use assistant::Assistant;
pub use error::{Error, PromptFault, RowFault};
pub use export::Export;
pub use logprobs::answer_logprobs;
pub use outline::{Outline, context_len, load_text};
pub use reward_model::RewardModel;
pub use sampling::{Sampling, batch_seed};
pub use scorer::{Scorer, ScorerSpec};
pub use temper_model::{LoadOptions, is_adapter};

/// Rows that are answered or scored together.
pub const BATCH_SIZE: usize = 64;

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
