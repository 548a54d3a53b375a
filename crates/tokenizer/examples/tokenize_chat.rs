//! Prints the text, the ids and the learned tokens of conversations, for comparisons with other implementations.
//!
//! The arguments are a model directory and which turns are learned, `all` or `last`. Each line of standard input is a list of messages, and each line of the output is
//! `{"text", "input_ids", "labels"}` or `{"error"}`; the label of a token that is not learned is -100.

use std::{
    env,
    error::Error,
    io::{self, BufRead, Write},
    path::PathBuf,
};

use serde_json::{Value, json};
use temper_tokenizer::{ChatTemplate, IGNORE_LABEL, LearnedTurns, Message, PretrainedTokenizer, Tokenizer};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(env::args_os().nth(1).ok_or("which model directory?")?);
    let turns: LearnedTurns =
        serde_json::from_value(env::args().nth(2).ok_or("all turns or the last?")?.into())?;
    let Tokenizer::Pretrained(tokenizer) = Tokenizer::from_dir(&dir)? else {
        return Err("the byte tokenizer has no chat template".into());
    };
    let template = ChatTemplate::load(&dir)?.ok_or("the directory has no chat template")?;
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let messages: Vec<Message> = serde_json::from_str(&line?)?;
        let tokenized = tokenize(&tokenizer, &template, &messages, turns);
        writeln!(out, "{}", tokenized.unwrap_or_else(|error| json!({ "error": error.to_string() })))?;
    }
    Ok(())
}

fn tokenize(
    tokenizer: &PretrainedTokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    turns: LearnedTurns,
) -> Result<Value, temper_tokenizer::Error> {
    let conversation = template.render_conversation(tokenizer, messages, turns)?;
    let label = |(id, is_learned): (&u32, &bool)| if *is_learned { i64::from(*id) } else { IGNORE_LABEL };
    let labels: Vec<i64> = conversation.tokens.iter().zip(&conversation.mask).map(label).collect();
    Ok(json!({ "text": conversation.text, "input_ids": conversation.tokens, "labels": labels }))
}
