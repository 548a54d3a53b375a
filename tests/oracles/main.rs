//! What the three stages must do whatever model and data they get: gradients that are derivatives, results that
//! neither padding nor microbatches nor an interruption changes, and learning where the best is known.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy.toml allows both in tests; helpers are no less"
)]

mod adapters;
mod alarm;
mod gradients;
mod groups;
mod invariance;
mod learning;
mod optimum;
mod resume;
mod setup;
mod stages;
