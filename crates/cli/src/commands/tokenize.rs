//! `temper tokenize`

use anyhow::Result;
use temper_tokenizer::encode_dialog;

use crate::args::TokenizeArgs;
use crate::commands::{Outcome, print_json, print_line};
use crate::failure::hinted;
use crate::text::TextSide;

/// Longest dialogue that is padded; more would only fill the memory.
const LONGEST: usize = 1 << 24;

pub fn run(args: &TokenizeArgs) -> Result<Outcome> {
    if args.max_len > LONGEST {
        return Err(hinted(
            format!("`--max-len` is {}", args.max_len),
            format!("it must be at most {LONGEST}"),
        ));
    }
    let text = args.model.as_deref().map(TextSide::load).transpose()?;
    let dialog = match &text {
        None => encode_dialog(&args.prompt, &args.completion, args.max_len),
        Some(text) => text.template.dialog(&text.tokenizer, &args.prompt, &args.completion, args.max_len),
    };
    if args.json {
        print_json(&dialog)?;
        return Ok(Outcome::Done);
    }
    let tokenizer = text.map_or_else(temper_tokenizer::Tokenizer::byte, |text| text.tokenizer);
    print_line("position   input  attend   label  text")?;
    for (i, &id) in dialog.input_ids.iter().enumerate() {
        let piece = tokenizer.decode(&[id]).escape_debug().to_string();
        print_line(&format!("{i:8} {id:7} {:7} {:7}  {piece}", dialog.attention_mask[i], dialog.labels[i]))?;
    }
    Ok(Outcome::Done)
}
