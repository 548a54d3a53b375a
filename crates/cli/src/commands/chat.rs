//! `temper chat`

use std::io::{BufRead, IsTerminal};

use anyhow::{Context, Result};
use temper_model::GenerateOptions;

use crate::args::ChatArgs;
use crate::commands::generate::{complete, options};
use crate::commands::{Outcome, print_line};
use crate::device;
use crate::session::Session;
use crate::terminal;
use crate::text::load_policy;

/// Reads prompts until the end of input. Each one is answered by itself: the models of the three stages learn
/// single turns.
pub fn run(session: &Session, args: &ChatArgs) -> Result<Outcome> {
    let options = options(&args.sampling, session.seed.unwrap_or(0))?;
    let device = device::open(session.device_name())?;
    let (model, text) = load_policy(&args.model, &device)?;
    session.note("One prompt per line; an empty line or Ctrl-D ends.");
    for turn in 0.. {
        if std::io::stdin().is_terminal() {
            // Standard output is for answers only.
            terminal::ask("> ");
        }
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line).context("standard input")?;
        let line = line.trim_end_matches(['\n', '\r']).to_owned();
        if read == 0 || line.is_empty() {
            break;
        }
        let options = GenerateOptions { seed: options.seed.wrapping_add(turn << 32), ..options.clone() };
        let completions = complete(&model, &text, &[line], &options)?;
        print_line(&text.tokenizer.decode(&completions[0].tokens))?;
    }
    Ok(Outcome::Done)
}
