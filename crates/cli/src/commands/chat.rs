//! `temper chat`

use std::io::IsTerminal;

use anyhow::{Context, Result};
use temper_assistant::{Assistant, batch_seed};

use crate::args::ChatArgs;
use crate::commands::{Outcome, print_line};
use crate::device;
use crate::lines::{Line, next_line};
use crate::session::Session;
use crate::terminal;

/// Reads prompts until the end of input. Each one is answered by itself, because the stages train single turns. A line
/// that cannot be answered does not end the session.
pub fn run(session: &Session, args: &ChatArgs) -> Result<Outcome> {
    let sampling = args.sampling.checked()?;
    let device = device::open(session.device_name())?;
    let assistant = Assistant::load_with(&args.model, &device, &args.load.options())?;
    session.note("One prompt per line; an empty line or Ctrl-D ends.");
    for turn in 0.. {
        if std::io::stdin().is_terminal() {
            // Standard output is for answers only.
            terminal::ask("> ");
        }
        let line = match next_line(&mut std::io::stdin().lock()).context("standard input")? {
            None => break,
            Some(Line::Text(line)) if line.is_empty() => break,
            Some(line) => line,
        };
        let prompt = line.text().and_then(|line| match assistant.encode(&line) {
            Ok(tokens) => Ok((line.into(), tokens)),
            Err(fault) => Err(fault.to_string()),
        });
        let prompt = match prompt {
            Ok(prompt) => prompt,
            Err(message) => {
                tracing::error!("{message}");
                continue;
            }
        };
        let seed = batch_seed(session.seed.unwrap_or(0), turn);
        print_line(&assistant.answer_batch(&[prompt], &sampling, seed)?[0].text)?;
    }
    Ok(Outcome::Done)
}
