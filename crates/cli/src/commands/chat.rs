//! `temper chat`

use std::io::IsTerminal;

use anyhow::{Context, Result};
use temper_assistant::{Assistant, batch_seed};
use temper_tokenizer::Message;

use crate::args::ChatArgs;
use crate::commands::{Outcome, print_line};
use crate::device;
use crate::lines::{Line, next_line};
use crate::session::Session;
use crate::terminal;

/// Reads lines until the end of input, and answers each. A line that cannot be answered does not end the session.
///
/// A model with a chat template hears the conversation so far; when that fills its context, the first turns are left out.
/// Any other model hears each line by itself, because it has learned single turns.
pub fn run(session: &Session, args: &ChatArgs) -> Result<Outcome> {
    let sampling = args.sampling.of_model(&args.model)?;
    let device = device::open(session.device_name())?;
    let assistant = Assistant::load_with(&args.model, &device, &args.load.options())?;
    session.note("One prompt per line; an empty line or Ctrl-D ends.");
    let mut conversation: Vec<Message> = Vec::new();
    let remembers = assistant.text.template.chat_template().is_some();
    let room = assistant.context().saturating_sub(sampling.max_new_tokens.min(assistant.context() / 2));
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
        let line = match line.text() {
            Ok(line) => line,
            Err(message) => {
                tracing::error!("{message}");
                continue;
            }
        };
        let n_before = conversation.len();
        conversation.push(Message::user(&line));
        let encoded = match remembers {
            true => assistant
                .text
                .encode_prompt_truncated(&*conversation, room)
                .map_err(|fault| fault.to_string()),
            false => assistant.encode(&line).map_err(|fault| fault.to_string()),
        };
        let tokens = match encoded {
            Ok(tokens) => tokens,
            Err(message) => {
                tracing::error!("{message}");
                conversation.truncate(n_before);
                continue;
            }
        };
        let seed = batch_seed(session.seed.unwrap_or(0), turn);
        let answer = assistant.answer_batch(&[(line.into(), tokens)], &sampling, seed)?.remove(0);
        print_line(&answer.text)?;
        conversation.push(Message::assistant(&answer.text));
    }
    Ok(Outcome::Done)
}
