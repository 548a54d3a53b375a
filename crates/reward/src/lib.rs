//! Stage 2 of InstructGPT: a reward model learned from comparisons.
//!
//! [`Rankings`](temper_data::Rankings) encodes comparisons of two or more completions, [`ranking_loss`] is the mean of −log σ of their
//! score differences, [`train`] the loop,
//! [`score`] what the model is for. The model itself is [`temper_model::ScalarModel`], started from the SFT
//! backbone.
//!
//! **Invariant:** a text is scored exactly as it was learned: same template, same tokenizer, no dropout.
//!
//! ```
//! use burn::tensor::Device;
//! use temper_model::{CausalLm, ModelConfig, Pooling, ScalarModel};
//! use temper_data::{Comparison, Encoding, Rankings};
//! use temper_reward::{RewardConfig, train};
//! use temper_tokenizer::{Template, TextSide, Tokenizer};
//! use temper_train::{Run, Seed};
//!
//! # fn main() -> Result<(), temper_reward::Error> {
//! let text = TextSide::new(Tokenizer::byte(), Template::notebook());
//! let row = Comparison::pair("Say hi", "Hi!", "No.");
//! let data = Rankings::new(&[row], &Encoding::new(&text, 128))?;
//! let mut init = Seed(0).stream("init");
//! let sft = CausalLm::new(&ModelConfig::preset("tiny")?, &mut init, &Device::flex());
//! let model = ScalarModel::new(sft.transformer, Pooling::Last, &mut init);
//! let model = train(&RewardConfig::default(), model, &text, &data, None, &mut Run::ephemeral()?)?;
//! # Ok(())
//! # }
//! ```

mod auto;
mod config;
mod evaluation;
mod loss;
mod normalize;
mod run;
mod score;
mod train;

pub use config::RewardConfig;
pub use evaluation::{Bucket, ConfidenceBucket, OrderBucket, RewardDetails, examine};
pub use loss::ranking_loss;
pub use normalize::{Normalize, ScoreStats, normalized};
pub use run::{RewardFiles, run};
pub use score::score;
pub use temper_stage::Error;
pub use train::{RewardEvaluation, RewardMetrics, evaluate, train};

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
