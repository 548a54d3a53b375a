//! Renders conversations with chat templates, for comparisons with other implementations.
//!
//! Each line of standard input is `{"source", "special_tokens", "date", "messages", "add_generation_prompt"}`, and each
//! line of the output is `{"text"}` or `{"error"}`.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, BufRead, Write},
};

use serde::Deserialize;
use serde_json::json;
use temper_tokenizer::{ChatTemplate, Message};

#[derive(Deserialize)]
struct Request {
    source: String,
    special_tokens: BTreeMap<String, String>,
    date: String,
    messages: Vec<Message>,
    add_generation_prompt: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let rendered = match render(&request) {
            Ok(text) => json!({ "text": text }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        writeln!(out, "{rendered}")?;
    }
    Ok(())
}

fn render(request: &Request) -> Result<String, temper_tokenizer::Error> {
    let tokens = request.special_tokens.iter().map(|(name, token)| (name.as_str(), token.as_str()));
    ChatTemplate::new(&request.source, tokens)?
        .with_date(request.date.parse()?)
        .render(&request.messages, request.add_generation_prompt)
}
