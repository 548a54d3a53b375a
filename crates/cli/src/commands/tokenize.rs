//! `temper tokenize`

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::json;
use temper_assistant::{LoadOptions, load_text};
use temper_tokenizer::{Dialog, Example, IGNORE_LABEL, Message, Rendered, Tokenizer, encode_dialog};

use crate::args::TokenizeArgs;
use crate::commands::{Outcome, print_json, print_line};
use crate::failure::hinted;

/// Longest dialogue that is padded; more would only fill the memory.
const LONGEST: usize = 1 << 24;

pub fn run(args: &TokenizeArgs) -> Result<Outcome> {
    if args.max_len > LONGEST {
        bail!("`--max-len` must be at most {LONGEST}, got {}", args.max_len);
    }
    if let (Some(messages), Some(dir)) = (&args.messages, &args.model) {
        return print_conversation(dir, messages, args);
    }
    let (dialog, tokenizer) = match &args.model {
        None => (encode_dialog(&args.prompt, &args.completion, args.max_len), Tokenizer::byte()),
        Some(dir) => trained(dir, args)?,
    };
    if args.json {
        print_json(&dialog)?;
        return Ok(Outcome::Done);
    }
    print_line("position   input  attend   label  text")?;
    let n_read = dialog.attention_mask.iter().rposition(|&read| read != 0).map_or(0, |last| last + 1);
    for (i, &id) in dialog.input_ids[..n_read].iter().enumerate() {
        let piece = tokenizer.decode(&[id]).escape_debug().to_string();
        print_line(&format!("{i:8} {id:7} {:7} {:7}  {piece}", dialog.attention_mask[i], dialog.labels[i]))?;
    }
    if let [pad, ..] = dialog.input_ids[n_read..] {
        print_line(&format!(
            "{n_read:8} {pad:7} {:7} {IGNORE_LABEL:7}  padding, up to {}",
            0,
            dialog.input_ids.len()
        ))?;
    }
    Ok(Outcome::Done)
}

/// Prints a conversation as this model reads it: its text, the ids, and what a stage would learn of them.
fn print_conversation(dir: &Path, messages: &str, args: &TokenizeArgs) -> Result<Outcome> {
    let messages: Vec<Message> = serde_json::from_str(messages).map_err(|error| {
        let hint = "give a list such as `[{\"role\": \"user\", \"content\": \"Hi\"}]`";
        hinted(format!("`--messages` is not a list of messages: {error}"), hint)
    })?;
    let mut text = load_text(dir, &LoadOptions::default())?;
    text.settle("auto")?;
    let Rendered { text: rendered, tokens, mask } = text.render(&messages, args.add_generation_prompt)?;
    let label = |(id, learned): (&u32, &bool)| if *learned { i64::from(*id) } else { IGNORE_LABEL };
    let labels: Vec<i64> = tokens.iter().zip(&mask).map(label).collect();
    if args.json {
        print_json(&json!({"text": rendered, "input_ids": tokens, "labels": labels}))?;
        return Ok(Outcome::Done);
    }
    print_line("position      id   label  text")?;
    for (i, (id, label)) in tokens.iter().zip(labels).enumerate() {
        let piece = text.tokenizer.name_of(*id).escape_debug().to_string();
        print_line(&format!("{i:8} {id:7} {label:7}  {piece}"))?;
    }
    Ok(Outcome::Done)
}

/// What a stage that starts from this model learns from a prompt and a completion; a prompt alone is what the model
/// completes, and nothing is learned from it.
fn trained(dir: &Path, args: &TokenizeArgs) -> Result<(Dialog, Tokenizer)> {
    let mut text = load_text(dir, &LoadOptions::default())?;
    let example = if args.completion.is_empty() {
        let prompt = text.encode_prompt(&args.prompt)?;
        let prompt_len = prompt.len();
        Example::new(prompt, prompt_len)
    } else {
        text.settle("auto")?;
        text.encode_answer(&args.prompt, &args.completion, true)?
    };
    if example.tokens.len() > args.max_len {
        return Err(hinted(
            format!("{} tokens are more than `--max-len {}`", example.tokens.len(), args.max_len),
            "raise `--max-len`; training drops what is too long, or cuts its prompt with `overflow=truncate_prompt`",
        ));
    }
    let special = text.tokenizer.special();
    Ok((example.dialog(special.pad.unwrap_or(special.eos), args.max_len), text.tokenizer))
}
