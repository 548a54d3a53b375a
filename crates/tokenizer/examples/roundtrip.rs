//! Encodes a prompt and a completion, shows which tokens count, and decodes them again.
//!
//! `cargo run --release -p temper-tokenizer --example roundtrip [MODEL_DIR]`
#![allow(clippy::print_stdout)]

use std::path::Path;

use temper_tokenizer::{Error, Overflow, Template, Tokenizer};

fn main() -> Result<(), Error> {
    let (tokenizer, template) = match std::env::args().nth(1) {
        Some(dir) => {
            let dir = Path::new(&dir);
            (Tokenizer::from_dir(dir)?, Template::load(dir)?.unwrap_or_else(Template::plain_eos))
        }
        None => (Tokenizer::byte(), Template::notebook()),
    };
    template.check(&tokenizer)?;
    println!("{} ids, special {:?}", tokenizer.vocab_size(), tokenizer.special());
    println!("fingerprint {}, template {} {}", tokenizer.fingerprint(), template.name(), template.hash());

    let example = template.encode_example(&tokenizer, "什么是 AI?", "AI is 🧪 </s>.", 128, Overflow::Drop)?;
    let Some(example) = example else {
        println!("too long, dropped");
        return Ok(());
    };
    for (token, counts) in example.tokens.iter().zip(example.completion_mask()) {
        println!("{token:6} {}", if counts { "counts" } else { "" });
    }
    println!("prompt     {}", tokenizer.decode(example.prompt()));
    println!("completion {}", tokenizer.decode(example.completion()));
    Ok(())
}
