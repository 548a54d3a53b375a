//! Direct preference optimisation (DPO, arXiv 2305.18290): a policy learned from comparisons, without a reward model
//! and without sampling.
//!
//! [`Rankings`](temper_data::Rankings) encodes comparisons of two or more completions, [`completion_logprobs`] is log π(completion | prompt)
//! of each of them, [`implicit_rewards`] is β times how far that has moved from the reference, [`dpo_loss`] the mean of
//! −log σ of their differences, [`train`] the loop. The reference is the model that training starts from.
//!
//! **Invariant:** before the first update every implicit reward is 0 and every pair costs ln 2.
//! **Invariant:** policy and reference read a completion alike: same tokens, no dropout, temperature 1.
//!
//! ```
//! use burn::tensor::Device;
//! use temper_data::{Comparison, Encoding, Rankings};
//! use temper_dpo::{DpoConfig, train};
//! use temper_model::{CausalLm, ModelConfig};
//! use temper_tokenizer::{Template, TextSide, Tokenizer};
//! use temper_train::{Run, Seed};
//!
//! # fn main() -> Result<(), temper_dpo::Error> {
//! let text = TextSide::new(Tokenizer::byte(), Template::notebook());
//! let row = Comparison::pair("Say hi", "Hi!", "No.");
//! let data = Rankings::new(&[row], &Encoding::new(&text, 128))?;
//! let sft = CausalLm::new(&ModelConfig::preset("tiny")?, &mut Seed(0).stream("init"), &Device::flex());
//! let policy = train(&DpoConfig::default(), sft, &text, &data, None, &mut Run::ephemeral()?)?;
//! # Ok(())
//! # }
//! ```

mod config;
mod logprobs;
mod loss;
mod metrics;
mod run;
mod train;

pub use config::DpoConfig;
pub use logprobs::completion_logprobs;
pub use loss::{dpo_loss, implicit_rewards};
pub use metrics::{DpoEvaluation, DpoMetrics};
pub use run::{DpoFiles, run};
pub use temper_stage::Error;
pub use train::{evaluate, train};

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
