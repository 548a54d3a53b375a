//! `temper chat`

use std::io::IsTerminal;

use anyhow::{Context, Result};
use temper_model::GenerateOptions;

use crate::answers::fault;
use crate::args::ChatArgs;
use crate::commands::generate::{complete, options};
use crate::commands::{Outcome, print_line};
use crate::device;
use crate::lines::{Line, next_line};
use crate::session::Session;
use crate::terminal;
use crate::text::load_policy;

/// Reads prompts until the end of input. Each one is answered by itself: the models of the three stages learn
/// single turns. A line that cannot be answered does not end the session.
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
        let line = match next_line(&mut std::io::stdin().lock()).context("standard input")? {
            None => break,
            Some(Line::Text(line)) if line.is_empty() => break,
            Some(line) => line,
        };
        let row = line.text().and_then(|line| {
            let row = text.template.encode_prompt(&text.tokenizer, &line);
            fault(&row, model.config().max_seq_len).map_or(Ok(row), |(message, _)| Err(message))
        });
        let row = match row {
            Ok(row) => row,
            Err(message) => {
                tracing::error!("{message}");
                continue;
            }
        };
        let options = GenerateOptions { seed: options.seed.wrapping_add(turn << 32), ..options.clone() };
        let completions = complete(&model, &text, &[row], &options)?;
        print_line(&text.tokenizer.decode(&completions[0].tokens))?;
    }
    Ok(Outcome::Done)
}
