//! One file per command.

pub mod bench;
pub mod chat;
pub mod config;
pub mod devices;
pub mod dpo;
pub mod eval;
pub mod generate;
pub mod init;
pub mod inspect;
pub mod logprobs;
pub mod merge;
pub mod pipeline;
pub mod ppo;
pub mod recipe;
pub mod report;
pub mod reward;
pub mod score;
pub mod select;
pub mod sft;
pub mod tokenize;
pub mod tokenizer;

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::terminal::visible;

/// How a command ended, if not with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is done.
    Done,
    /// Ctrl-C: a checkpoint is written, the rest is open.
    Interrupted,
}

/// The context of a failure to print a result: a closed pipe is a success, anything else is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandardOutput;

impl std::fmt::Display for StandardOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("standard output")
    }
}

/// One JSON value as one line on standard output.
fn print_json(value: &impl Serialize) -> Result<()> {
    print_line(&serde_json::to_string(value)?)
}

/// A text and a line break on standard output: as it is, but on a terminal with escapes in place of control
/// characters, which a model may have learned or a path may hold.
fn print_line(text: &str) -> Result<()> {
    let out = std::io::stdout().lock();
    let is_terminal = out.is_terminal();
    print_to(out, is_terminal, text)
}

/// A text whose control characters are already escapes, except those that colour it.
fn print_coloured(text: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context(StandardOutput)
}

fn print_to(mut out: impl Write, is_terminal: bool, text: &str) -> Result<()> {
    let text = if is_terminal { visible(text, &['\n', '\t']) } else { text.into() };
    writeln!(out, "{text}").context(StandardOutput)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters_and_a_pipe_all_of_them() {
        let printed = |is_terminal| {
            let mut out = Vec::new();
            print_to(&mut out, is_terminal, "\x1b]0;x\x07a\n\tb").unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(true), "\\u{1b}]0;x\\u{7}a\n\tb\n");
        assert_eq!(printed(false), "\x1b]0;x\x07a\n\tb\n");
    }
}
