//! A model directory with a chat template, as the stages use it.

use std::fs;

use serde_json::json;
use temper_tokenizer::{Date, Error, LearnedTurns, Message, Overflow, TextSide};

const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}\
                        {% if add_generation_prompt %}<|assistant|> {% endif %}";
const DATED: &str = "{% for m in messages %}<|{{ m.role }}|> {{ strftime_now('%d') }} {{ m.content }} <|end|> {% endfor %}\
                     {% if add_generation_prompt %}<|assistant|> {{ strftime_now('%d') }} {% endif %}";

const WORDS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "01", "02", "<unk>", "2", "03", "04"];
const SPECIAL: [&str; 5] = ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<eos>"];
const USER: u32 = 12;
const ASSISTANT: u32 = 13;
const SYSTEM: u32 = 14;
const END: u32 = 15;
const EOS: u32 = 16;

/// A tokenizer of words, whose end token is not the end of a turn.
fn directory(template: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let words = WORDS.iter().chain(&SPECIAL).zip(0..);
    let vocab: serde_json::Map<_, _> = words.map(|(word, id)| (word.to_string(), json!(id))).collect();
    let added: Vec<_> = SPECIAL
        .iter()
        .zip(USER..)
        .map(|(token, id)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let tokenizer = json!({"version": "1.0", "added_tokens": added, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}});
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).expect("a file");
    fs::write(dir.path().join("config.json"), json!({"eos_token_id": EOS}).to_string()).expect("a file");
    fs::write(dir.path().join("chat_template.jinja"), template).expect("a file");
    dir
}

fn load(dir: &tempfile::TempDir) -> TextSide {
    TextSide::load(dir.path()).expect("a text side")
}

fn conversation() -> Vec<Message> {
    vec![
        Message::new("system", "f"),
        Message::user("a"),
        Message::assistant("b"),
        Message::user("c d"),
        Message::assistant("e"),
    ]
}

#[test]
fn a_text_is_one_message_of_the_user_and_an_answer_ends_with_the_end_of_a_turn() {
    let dir = directory(TEMPLATE);
    let text = load(&dir);
    assert!(text.has_template);
    assert_eq!((text.eos(), text.end_tokens()), (END, vec![END, EOS]));
    assert_eq!(text.encode_prompt("a").unwrap(), [USER, 0, END, ASSISTANT]);
    let ended = text.encode_answer("a", "b c", true).unwrap();
    assert_eq!((ended.prompt(), ended.completion()), (&[USER, 0, END, ASSISTANT][..], &[1, 2, END][..]));
    assert_eq!(text.encode_answer("a", "b c", false).unwrap().completion(), [1, 2]);
    // What a policy samples, with either end, is what a reward model learned.
    for end in [END, EOS] {
        assert_eq!(text.example_of_ids(ended.prompt(), &[1, 2, end], true), ended);
    }
}

/// With its first turn cut too, if it is too long. Other texts keep the blanks around them.
#[test]
fn a_transcript_of_hh_rlhf_is_the_conversation_in_it() {
    let dir = directory(TEMPLATE);
    let text = load(&dir);
    let transcript = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c d\n\nAssistant:";
    let messages = [Message::user("a"), Message::assistant("b"), Message::user("c d")];
    let prompt = [USER, 0, END, ASSISTANT, 1, END, USER, 2, 3, END, ASSISTANT];
    assert_eq!(text.encode_prompt(transcript).unwrap(), prompt);
    let answered = text.encode_answer(&messages[..], "e", true).unwrap();
    assert_eq!(text.encode_answer(transcript, " e", true).unwrap(), answered);
    let cut = text.template.encode_example(&text.tokenizer, transcript, " e", 9, Overflow::TruncatePrompt);
    let cut = cut.unwrap().unwrap();
    assert_eq!((cut.n_cut, cut.tokens), (6, vec![USER, 2, 3, END, ASSISTANT, 4, END]));
    assert_eq!(text.encode_prompt("Human: a").unwrap(), [USER, 8, 0, END, ASSISTANT]);
}

#[test]
fn every_answer_of_a_conversation_is_learned_or_the_last_one() {
    let dir = directory(TEMPLATE);
    let text = load(&dir);
    let encode =
        |learned| text.encode_conversation(&conversation(), learned, 99, Overflow::Drop).unwrap().unwrap();
    let tokens = [SYSTEM, 5, END, USER, 0, END, ASSISTANT, 1, END, USER, 2, 3, END, ASSISTANT, 4, END];
    let all = encode(LearnedTurns::All);
    assert_eq!((all.tokens.as_slice(), all.prompt_len), (&tokens[..], 7));
    assert_eq!((all.between.len(), all.between[0].clone()), (1, 9..14));
    let last = encode(LearnedTurns::Last);
    assert_eq!((last.tokens.as_slice(), last.prompt_len, last.between), (&tokens[..], 14, vec![]));
}

#[test]
fn what_is_too_long_loses_its_first_turns_and_then_the_left_of_its_question() {
    let dir = directory(TEMPLATE);
    let text = load(&dir);
    let chat = conversation();
    let cut = |max_len| text.encode_prompt_truncated(&chat[..4], max_len).unwrap();
    let short = [SYSTEM, 5, END, USER, 2, 3, END, ASSISTANT];
    assert_eq!(cut(14), [&[SYSTEM, 5, END, USER, 0, END, ASSISTANT, 1, END][..], &short[3..]].concat());
    assert_eq!(cut(13), short);
    assert_eq!(cut(7), [SYSTEM, 5, END, USER, 3, END, ASSISTANT]);
    assert!(matches!(
        text.encode_prompt_truncated(&chat[..4], 6),
        Err(Error::PromptTooLong { needed: 7, .. })
    ));
    let fit = |max_len| {
        let learned = LearnedTurns::All;
        text.encode_conversation(&chat, learned, max_len, Overflow::TruncatePrompt).unwrap()
    };
    assert_eq!(fit(15).unwrap().tokens, [&short[..], &[4, END]].concat());
    assert_eq!(fit(9), None);
}

#[test]
fn the_date_is_frozen_and_stored_and_two_dates_are_two_templates() {
    let dir = directory(DATED);
    let (first, second): (Date, Date) = ("2026-11-01".parse().unwrap(), "2026-11-02".parse().unwrap());
    let at = |date| {
        let mut text = load(&dir);
        text.freeze_date(date);
        text
    };
    assert_eq!(at(first).encode_prompt("a").unwrap(), [USER, 6, 0, END, ASSISTANT, 6]);
    assert_eq!(at(first).difference(&at(second)), Some("template"));
    assert!(at(first).same_as(&at(first)));

    let saved = tempfile::tempdir().unwrap();
    at(first).save(saved.path()).unwrap();
    let stored = fs::read_to_string(saved.path().join("template.json")).unwrap();
    let expected = json!({"name": "chat", "date": "2026-11-01"});
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stored).unwrap(), expected);
    // A stored date is final, and another model of the same template takes it over.
    let mut text = load(&saved);
    text.freeze_date(second);
    assert_eq!(text.date(), Some(first));
    let mut policy = at(second);
    assert!(policy.adopt(&text) && policy.same_as(&text));
    assert!(!text.adopt(&at(second)));

    fs::remove_file(saved.path().join("chat_template.jinja")).unwrap();
    let error = TextSide::load(saved.path()).unwrap_err().to_string();
    assert!(error.contains("names a chat template, and the directory has none"), "{error}");
}

#[test]
fn a_rendered_conversation_has_the_text_after_the_last_turn_too() {
    let dir = directory(TEMPLATE);
    let text = load(&dir);
    let rendered = text.render(&conversation()[1..3], false).unwrap();
    assert_eq!(rendered.text, "<|user|> a <|end|> <|assistant|> b <|end|> ");
    assert_eq!(rendered.tokens, [USER, 0, END, ASSISTANT, 1, END]);
    assert_eq!(rendered.mask, [false, false, false, false, true, true]);
    let prompt = text.render(&conversation()[1..2], true).unwrap();
    assert_eq!(
        (prompt.tokens.as_slice(), prompt.mask.contains(&true)),
        (&[USER, 0, END, ASSISTANT][..], false)
    );
}
