//! One file per command.

pub mod bench;
pub mod chat;
pub mod config;
pub mod devices;
pub mod dpo;
pub mod eval;
pub mod generate;
pub mod logprobs;
pub mod pipeline;
pub mod ppo;
pub mod recipe;
pub mod report;
pub mod reward;
pub mod score;
pub mod select;
pub mod sft;
pub mod tokenize;

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

/// How a command ended, if not with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is done.
    Done,
    /// Ctrl-C: a checkpoint is written, the rest is open.
    Interrupted,
}

/// One JSON value as one line on standard output.
fn print_json(value: &impl Serialize) -> Result<()> {
    print_line(&serde_json::to_string(value)?)
}

/// One line on standard output. A closed pipe is an error here and a success in `main`.
fn print_line(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("standard output")
}
