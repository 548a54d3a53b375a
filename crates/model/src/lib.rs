//! A configurable decoder: token ids in, tensors out.
//!
//! One transformer serves all three stages of InstructGPT. [`CausalLm`] is the policy and its reference,
//! [`ScalarModel`] the reward model and the critic. Both are a [`Decoder`] with a head, and its shape is a
//! [`ModelConfig`]: the notebook's post-norm decoder, GPT-2, Llama, or anything between. [`generate()`] samples
//! with a cache of keys and values. A family of models, with its `config.json` and its names of weights, is one file in `families/`.
//!
//! **Invariant:** this crate knows no text and no stage. It enables no backend: whoever makes a
//! [`Device`](burn::tensor::Device) decides. Weights start and tokens are drawn on the host, so one seed gives
//! one model and one text on every backend.
//!
//! ```
//! use burn::tensor::Device;
//! use rand::SeedableRng;
//! use temper_model::{CausalLm, GenerateOptions, ModelConfig, Sampler, generate};
//!
//! let config = ModelConfig::preset("tiny")?;
//! let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//! let model = CausalLm::new(&config, &mut rng, &Device::flex());
//! let options = GenerateOptions { max_new_tokens: 8, sampler: Sampler::PLAIN, end_tokens: vec![3], ..GenerateOptions::default() };
//! let completions = generate(&model, &[vec![1, 76, 109, 2]], &options)?;
//! assert!(completions[0].tokens.len() <= 8);
//! # Ok::<(), temper_model::Error>(())
//! ```

// What a model is.
mod config;
mod decoder;
mod heads;
mod init;
mod layers;

// What goes into it and comes out.
mod batch;
mod finite;
mod generation;
mod scoring;
mod shared_prompt;
mod targets;
mod visibility;

// How it is stored.
mod adapters;
mod carried;
mod directory;
mod error;
mod families;
mod weights;

pub use adapters::{Lora, adapter_chain, base_of, is_adapter};
pub use batch::TokenBatch;
pub use carried::max_new_tokens;
pub use config::{
    Activation, Bias, FeedForward, Heads, INIT_STD, Init, ModelConfig, NormKind, NormPlacement, PRESETS,
    Positions, RotaryScaling,
};
pub use decoder::Decoder;
pub use directory::{ADAPTER_DIR, LoadOptions, TokenIds};
pub use error::Error;
pub use families::former_path;
pub use generation::generate::{Completion, Finish, GenerateOptions, StopToken, generate};
pub use generation::sampler::Sampler;
pub use heads::{CausalLm, Pooling, ScalarModel, select_positions};
pub use layers::attention::Attention;
pub use layers::block::Block;
pub use layers::dropout::Dropout;
pub use layers::linear::{Adapter, Linear};
pub use layers::mlp::Mlp;
pub use layers::norm::Norm;
pub use shared_prompt::{SharedPrompt, Span};
pub use targets::{TargetLogits, TargetRow, nll};
pub use weights::weight_files;

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
