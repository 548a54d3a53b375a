//! What the stages share when they run from files.
//!
//! A stage takes its settings, its files, and a [`Launch`]: the device, the run directory, whether an earlier run is
//! resumed, and who is told about it. [`Launch`] reads the data files, compares what a resumed run is given, and opens
//! the run directory. [`save`] and [`resume`] are the checkpoints of a stage that trains one model. [`Error`] is what can
//! go wrong in such a stage. [`Samples`] are answers that show what a model says.
//!
//! [`fresh_shape`] is the shape of a model that has not been trained yet.
//!
//! Invariant: this crate has no loop and no loss; it knows no stage by name.

mod adapter;
mod auto;
mod card;
mod checkpoint;
mod error;
mod launch;
mod samples;
mod shape;

pub use adapter::AdapterConfig;
pub use auto::{AUTO_OF_RANKINGS, CHECKPOINTING_FOLLOWS, OVERFLOW_FOLLOWS, Passes, Weights, long_row};
pub use checkpoint::{StageModel, load_like, resume, save, save_weights, stop_before_update};
pub use error::Error;
pub use launch::{EVALUATION, Launch, TRAINING, model_fingerprint};
pub use samples::{Samples, SamplesConfig};
pub use shape::{Architecture, ShapeConfig, fresh_shape};

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
