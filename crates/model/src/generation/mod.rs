//! Sampling from a language model, one column at a time.

pub(crate) mod cache;
pub(crate) mod generate;
pub(crate) mod sampler;
mod step;
