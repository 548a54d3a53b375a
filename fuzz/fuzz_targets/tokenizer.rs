//! The text side: any `tokenizer.json`, any `template.json`, any text.
//!
//! The input is cut at bytes 0xFF, which no UTF-8 text has: `tokenizer.json`, `template.json`, prompt, completion.
//! An empty first part is the byte tokenizer, an empty second one the notebook's template.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use temper_tokenizer::{Overflow, Template, Tokenizer};
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("there is room for a file"));

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|&byte| byte == 0xff);
    let mut next = || parts.next().unwrap_or_default();
    let (tokenizer, template) = (read_tokenizer(next()), read_template(next()));
    let [prompt, completion] = [next(), next()].map(String::from_utf8_lossy);
    let (Some(tokenizer), Some(template)) = (tokenizer, template) else { return };

    let ids = tokenizer.encode(&prompt);
    assert!(!ids.iter().any(|&id| tokenizer.special().contains(id)), "a text became a special token");
    let back = tokenizer.decode(&ids);
    if matches!(tokenizer, Tokenizer::Byte(_)) {
        assert_eq!(back, prompt);
    }
    let any_ids: Vec<u32> =
        data.chunks(3).map(|part| part.iter().fold(0, |id, &byte| id << 9 | u32::from(byte))).collect();
    tokenizer.decode(&any_ids);

    let max_len = prompt.len() % 64;
    for overflow in [Overflow::Drop, Overflow::TruncatePrompt] {
        let prompt = prompt.as_ref();
        let example = template.encode_example(&tokenizer, prompt, &completion, max_len, overflow);
        if let Some(example) = example.expect("pieces take every text") {
            assert!(example.tokens.len() <= max_len);
            let whole = template.encode_answer(&tokenizer, prompt, &completion, true).expect("pieces take every text");
            assert_eq!(example.completion(), whole.completion());
        }
    }
    let dialog = template.dialog(&tokenizer, &prompt, &completion, max_len).expect("pieces take every text");
    assert_eq!(dialog.labels.len(), max_len);
});

fn read_tokenizer(json: &[u8]) -> Option<Tokenizer> {
    if json.is_empty() {
        return Some(Tokenizer::byte());
    }
    fs::write(DIR.path().join("tokenizer.json"), json).expect("there is room for a file");
    Tokenizer::from_dir(DIR.path()).ok()
}

fn read_template(json: &[u8]) -> Option<Template> {
    if json.is_empty() {
        return Some(Template::notebook());
    }
    fs::write(DIR.path().join("template.json"), json).expect("there is room for a file");
    Template::load(DIR.path()).ok().flatten()
}
