//! Tools over burn: parameters by path, tensor files, masked statistics, and one training step summed over all parts of
//! a batch.
//!
//! - [`visit`], [`map`] and [`Trainable`] are the one walk over a module's parameters.
//! - [`accumulate`] sums [`Gradients`] and metrics over microbatches, threads and the processes of a [`World`].
//! - [`recomputed`] runs a part of a forward pass again when gradients are taken, so that less has to be kept.
//! - [`TensorFile`] and [`write_tensors`] read and write safetensors bytes, [`save_tensors`] one tensor at a time; [`TensorReader`] reads a file in pieces.
//! - [`masked_mean`], [`whiten`], [`log_probs`] and [`entropy`] are pure functions on tensors.
//!
//! **Invariant:** this crate knows no model, no stage and no file of ours, and depends on no other crate of ours but the
//! kernels.

mod accumulate;
mod gradients;
mod host;
mod logprobs;
mod masked;
mod parallel;
mod params;
mod recompute;
mod tensor_file;
mod tensor_reader;
mod unread;
mod world;

pub use accumulate::{Sum, accumulate, accumulate_onto, accumulate_with};
pub use gradients::{Gradients, VALUES_PER_TASK};
pub use host::{Transfers, backend_name, floats, ints, is_host, values_of};
pub use logprobs::{
    entropy, first_columns, log_probs, measured_entropy, reads_in_one_pass, target_logprobs, token_logprobs,
};
pub use masked::{masked_mean, masked_variance, scale_to_unit_variance, whiten};
pub use parallel::{in_parallel, n_threads, shards, start_threads};
pub use params::{Parameter, Trainable, device_of, map, visit};
pub use recompute::recomputed;
pub use tensor_file::{NamedTensor, StoredTensor, TensorFile, TensorSource, save_tensors, write_tensors};
pub use tensor_reader::{ReadError, TensorReader};
pub use unread::Unread;
pub use world::{Link, World};

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
