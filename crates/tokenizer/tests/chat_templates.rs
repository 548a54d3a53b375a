//! Chat templates write what transformers writes. `assets/goldens/chat_templates.py` makes the expected texts.

#![allow(clippy::unwrap_used)] // Everything here is a test.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::Deserialize;
use temper_tokenizer::{ChatTemplate, Error, LearnedTurns, Message, PretrainedTokenizer, Tokenizer};

#[derive(Deserialize)]
struct Golden {
    date: String,
    special_tokens: BTreeMap<String, String>,
    conversations: Vec<Conversation>,
    texts: Vec<Expected>,
    own: BTreeMap<String, Own>,
}

#[derive(Deserialize)]
struct Conversation {
    name: String,
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Own {
    /// Places in the texts, for each conversation without and with a generation prompt.
    results: Vec<[usize; 2]>,
}

/// A text, the template's own message, or neither if the template fails in another way.
#[derive(Debug, Deserialize)]
struct Expected {
    text: Option<String>,
    refused: Option<String>,
}

impl Expected {
    /// Whether this came out.
    fn is(&self, rendered: &Result<String, Error>) -> bool {
        match (rendered, &self.text, &self.refused) {
            (Ok(text), Some(expected), _) => text == expected,
            (Err(Error::ConversationRefused { message, .. }), _, Some(expected)) => {
                *message == expected.split_whitespace().collect::<Vec<_>>().join(" ")
            }
            (Err(Error::ChatTemplate { .. }), None, None) => true,
            _ => false,
        }
    }
}

fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../assets/goldens")
}

fn golden() -> Golden {
    serde_json::from_str(&fs::read_to_string(goldens().join("chat_templates.json")).unwrap()).unwrap()
}

impl Golden {
    fn template(&self, name: &str) -> ChatTemplate {
        let source =
            fs::read_to_string(goldens().join("chat_templates").join(name).with_extension("jinja")).unwrap();
        let tokens = self.special_tokens.iter().map(|(name, token)| (name.as_str(), token.as_str()));
        ChatTemplate::new(&source, tokens).unwrap().with_date(self.date.parse().unwrap())
    }

    /// Checks what a template writes for every conversation, without and with a generation prompt.
    fn check(&self, name: &str, template: &ChatTemplate, results: &[[usize; 2]]) {
        assert_eq!(results.len(), self.conversations.len(), "{name}");
        for (conversation, places) in self.conversations.iter().zip(results) {
            for (place, add_generation_prompt) in places.iter().zip([false, true]) {
                let expected = &self.texts[*place];
                let rendered = template.render(&conversation.messages, add_generation_prompt);
                assert!(
                    expected.is(&rendered),
                    "{name}, {}: {rendered:?} is not {expected:?}",
                    conversation.name
                );
            }
        }
    }
}

#[test]
fn every_template_writes_what_transformers_writes() {
    let golden = golden();
    assert_eq!((golden.own.len(), golden.conversations.len()), (12, 11));
    for (name, Own { results }) in &golden.own {
        golden.check(name, &golden.template(name), results);
    }
}

#[derive(Deserialize)]
struct Encoded {
    /// Without and with a generation prompt.
    ids: [Vec<u32>; 2],
    /// What the assistant wrote, of the first.
    mask: Option<Vec<u8>>,
}

type Ids = BTreeMap<String, BTreeMap<String, BTreeMap<String, Option<Encoded>>>>;

fn ids() -> Ids {
    serde_json::from_str(&fs::read_to_string(goldens().join("chat_ids.json")).unwrap()).unwrap()
}

fn tokenizer(name: &str) -> PretrainedTokenizer {
    match Tokenizer::from_dir(&goldens().join("chat_tokenizers").join(name)).unwrap() {
        Tokenizer::Pretrained(tokenizer) => tokenizer,
        Tokenizer::Byte(_) => unreachable!("it has a vocabulary"),
    }
}

/// Calls `check` for each conversation that transformers encoded.
fn for_each_encoded(
    mut check: impl FnMut(&PretrainedTokenizer, &ChatTemplate, &Conversation, &Encoded, &str),
) {
    let golden = golden();
    for (tokenizer_name, templates) in ids() {
        let tokenizer = tokenizer(&tokenizer_name);
        for (template_name, conversations) in templates {
            let template = golden.template(&template_name);
            for conversation in &golden.conversations {
                if let Some(Some(encoded)) = conversations.get(&conversation.name) {
                    let place = format!("{tokenizer_name}, {template_name}, {}", conversation.name);
                    check(&tokenizer, &template, conversation, encoded, &place);
                }
            }
        }
    }
}

#[test]
fn ids_are_those_of_transformers_and_messages_spell_no_special_token() {
    let mut n_encoded = 0;
    for_each_encoded(|tokenizer, template, conversation, encoded, place| {
        n_encoded += 1;
        for (expected, add_generation_prompt) in encoded.ids.iter().zip([false, true]) {
            let ids = template.encode(tokenizer, &conversation.messages, add_generation_prompt).unwrap();
            assert_eq!(ids, *expected, "{place}");
        }
    });
    assert_eq!(n_encoded, 2 * (4 * 10 + 8 - 1));
}

/// Transformers takes all of a `generation` block; Temper learns what comes up to the end token, and the end token.
#[test]
fn masks_are_those_of_transformers_up_to_the_end_token() {
    let mut n_masks = 0;
    for_each_encoded(|tokenizer, template, conversation, encoded, place| {
        let Some(mask) = &encoded.mask else { return };
        if !conversation.messages.iter().any(Message::is_of_assistant) {
            return;
        }
        n_masks += 1;
        let rendered =
            template.render_conversation(tokenizer, &conversation.messages, LearnedTurns::All).unwrap();
        assert_eq!(rendered.tokens, encoded.ids[0], "{place}");
        let end = [tokenizer.special().eos, template.turn_end(tokenizer).unwrap().unwrap()];
        let is_end = |idx: usize| end.contains(&rendered.tokens[idx]);
        for (idx, (is_learned, expected)) in rendered.mask.iter().zip(mask).enumerate() {
            if !is_end(idx) {
                assert_eq!(*is_learned, *expected == 1, "{place}, token {idx}");
            }
        }
        let n_turns = conversation.messages.iter().filter(|message| message.is_of_assistant()).count();
        let n_ends = (0..mask.len()).filter(|idx| rendered.mask[*idx] && is_end(*idx)).count();
        assert_eq!(n_ends, n_turns, "{place}");
    });
    assert_eq!(n_masks, 2 * 2 * 8);
}
