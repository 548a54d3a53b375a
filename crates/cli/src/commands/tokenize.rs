//! `temper tokenize`

use std::path::Path;

use anyhow::{Result, bail};
use temper_tokenizer::{Dialog, Example, TextSide, Tokenizer, encode_dialog};

use crate::args::TokenizeArgs;
use crate::commands::{Outcome, print_json, print_line};
use crate::failure::hinted;

/// Longest dialogue that is padded; more would only fill the memory.
const LONGEST: usize = 1 << 24;

pub fn run(args: &TokenizeArgs) -> Result<Outcome> {
    if args.max_len > LONGEST {
        bail!("`--max-len` must be at most {LONGEST}, got {}", args.max_len);
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
    for (i, &id) in dialog.input_ids.iter().enumerate() {
        let piece = tokenizer.decode(&[id]).escape_debug().to_string();
        print_line(&format!("{i:8} {id:7} {:7} {:7}  {piece}", dialog.attention_mask[i], dialog.labels[i]))?;
    }
    Ok(Outcome::Done)
}

/// What a stage that starts from this model learns from a prompt and a completion; a prompt alone is what the model
/// completes, and nothing is learned from it.
fn trained(dir: &Path, args: &TokenizeArgs) -> Result<(Dialog, Tokenizer)> {
    let mut text = TextSide::load(dir)?;
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
