//! Stage 1 of InstructGPT: supervised fine-tuning on demonstrations.
//!
//! [`Demonstrations`](temper_data::Demonstrations) encodes prompts and completions, [`sft_loss`] is the mean negative log-likelihood of the
//! completion tokens, [`train`] the loop.
//!
//! **Invariant:** the loss falls on completion tokens and on nothing else: not on the prompt, not on padding, and on
//! the first completion token as on every other one.
//!
//! ```
//! use burn::tensor::Device;
//! use temper_model::{CausalLm, ModelConfig};
//! use temper_data::{Demonstration, Demonstrations, Encoding};
//! use temper_sft::{SftConfig, train};
//! use temper_tokenizer::{Template, TextSide, Tokenizer};
//! use temper_train::{Run, Seed, TrainingConfig};
//!
//! # fn main() -> Result<(), temper_sft::Error> {
//! let text = TextSide::new(Tokenizer::byte(), Template::notebook());
//! let rows = [Demonstration { prompt: "Say hi".into(), completion: "Hi!".into() }];
//! let data = Demonstrations::new(&rows, &Encoding::new(&text, 128))?;
//! let model = ModelConfig::preset("tiny")?;
//! let model = CausalLm::new(&model, &mut Seed(0).stream("init"), &Device::flex());
//! let training = TrainingConfig { epochs: 2, ..SftConfig::default().training };
//! let config = SftConfig { training, ..SftConfig::default() };
//! let mut run = Run::ephemeral()?;
//! let model = train(&config, model, &text, &data, None, &mut run)?;
//! # Ok(())
//! # }
//! ```

mod auto;
mod config;
mod device_check;
mod loss;
mod run;
mod train;

pub use config::SftConfig;
pub use device_check::{Comparison, compare_devices};
pub use loss::{completion_logits, sft_loss};
pub use run::{SftFiles, run};
pub use temper_stage::Error;
pub use train::{SftEvaluation, SftMetrics, evaluate, train};

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
