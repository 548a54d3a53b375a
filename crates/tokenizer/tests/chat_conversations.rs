//! What a conversation teaches: its turns, their end tokens, and what is refused.

#![allow(clippy::unwrap_used)] // Everything here is a test.

use std::{fs, path::PathBuf};

use temper_tokenizer::{ChatTemplate, Error, LearnedTurns, Message, PretrainedTokenizer, Tokenizer};

fn goldens() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../assets/goldens")
}

/// Its special tokens are `<s>`, `</s>`, `<pad>`, `<unk>`, `<|im_start|>`, `<|im_end|>`, `[INST]` and `[/INST]`.
fn tokenizer() -> PretrainedTokenizer {
    pretrained(&goldens().join("chat_tokenizers/byte_level"))
}

fn pretrained(dir: &std::path::Path) -> PretrainedTokenizer {
    match Tokenizer::from_dir(dir).unwrap() {
        Tokenizer::Pretrained(tokenizer) => tokenizer,
        Tokenizer::Byte(_) => unreachable!("it has a vocabulary"),
    }
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, [("bos_token", "<s>"), ("eos_token", "</s>")]).unwrap()
}

fn own(name: &str) -> ChatTemplate {
    template(&fs::read_to_string(goldens().join(format!("chat_templates/{name}.jinja"))).unwrap())
}

/// User and assistant in turn.
fn chat(contents: &[&str]) -> Vec<Message> {
    let message = |(idx, content): (usize, &&str)| match idx % 2 {
        0 => Message::user(content),
        _ => Message::assistant(content),
    };
    contents.iter().enumerate().map(message).collect()
}

/// The tokens of the vocabulary, joined; `|` separates learned ones from others.
fn shown(tokens: &[u32], mask: &[bool]) -> String {
    let json = fs::read_to_string(goldens().join("chat_tokenizers/byte_level/tokenizer.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let name = |id: u32| {
        let added = json["added_tokens"].as_array().unwrap().iter().find(|token| token["id"] == id);
        let added = added.map(|token| token["content"].as_str().unwrap().to_owned());
        let vocab = || {
            json["model"]["vocab"].as_object().unwrap().iter().find(|(_, of)| **of == id).unwrap().0.clone()
        };
        added.unwrap_or_else(vocab)
    };
    let mut text = String::new();
    let mut was_learned = false;
    for (id, is_learned) in tokens.iter().zip(mask) {
        if was_learned != *is_learned {
            text.push('|');
        }
        was_learned = *is_learned;
        text.push_str(&name(*id));
    }
    text.replace('Ġ', " ").replace('Ċ', "\n")
}

fn learned(template: &ChatTemplate, messages: &[Message], turns: LearnedTurns) -> String {
    let encoded = template.encode_conversation(&tokenizer(), messages, turns).unwrap();
    shown(&encoded.tokens, &encoded.mask)
}

#[test]
fn turns_are_learned_with_their_end_token_and_nothing_follows_the_last() {
    let messages = chat(&["One", "Two", "Three", "Four", "Five"]);
    let all = "<s><|im_start|>user\nOne<|im_end|>\n<|im_start|>assistant\n|Two<|im_end|>|\n<|im_start|>user\nThree\
               <|im_end|>\n<|im_start|>assistant\n|Four<|im_end|>";
    let chatml = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n\
                  {% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
    for template in [template(chatml), own("generation")] {
        assert_eq!(learned(&template, &messages, LearnedTurns::All), all, "{template:?}");
        assert_eq!(
            learned(&template, &messages, LearnedTurns::Last),
            all.replace("|Two<|im_end|>|", "Two<|im_end|>")
        );
    }
}

#[test]
fn a_conversation_is_its_prompt_and_what_the_assistant_samples() {
    let (tokenizer, messages) = (tokenizer(), chat(&["One", "Two", "Three", "Four"]));
    for name in ["chatml", "generation", "open_generation", "strict", "thinking"] {
        let template = own(name);
        let prompt = template.encode_prompt(&tokenizer, &messages[..3]).unwrap();
        let whole = template.encode_conversation(&tokenizer, &messages, LearnedTurns::Last).unwrap();
        let n_prompt = whole.mask.iter().position(|is_learned| *is_learned).unwrap();
        assert!(whole.mask[n_prompt..].iter().all(|is_learned| *is_learned), "{name}");
        // In `strict` and `open_generation` the space before the answer is part of its first token.
        let n_shared = n_prompt.min(prompt.len());
        assert!(prompt.len() - n_shared <= 1, "{name}");
        assert_eq!(whole.tokens[..n_shared], prompt[..n_shared], "{name}");
    }
}

#[test]
fn an_empty_turn_teaches_its_end_token() {
    for name in ["chatml", "generation", "open_generation"] {
        let template = own(name);
        let encoded =
            template.encode_conversation(&tokenizer(), &chat(&["Hello?", ""]), LearnedTurns::All).unwrap();
        let n_learned = encoded.mask.iter().filter(|is_learned| **is_learned).count();
        let end = template.turn_end(&tokenizer()).unwrap();
        assert_eq!((n_learned, encoded.tokens.last().copied()), (1, end), "{name}");
    }
}

#[test]
fn a_last_turn_without_an_end_token_gets_one() {
    let open = template(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                         {% if add_generation_prompt %}assistant:{% endif %}",
    );
    assert_eq!(open.turn_end(&tokenizer()).unwrap(), None);
    let text = learned(&open, &chat(&["One", "Two", "Three", "Four"]), LearnedTurns::All);
    assert_eq!(text, "user: One\nassistant:| Two\n|user: Three\nassistant:| Four\n</s>");
}

#[test]
fn white_space_between_a_turn_and_its_end_token_is_learned() {
    let source = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}\
                  {{ '\\n' }}</s>{{ '\\n' }}{% else %}{{ m.content }}{% endif %}{% endfor %}";
    assert_eq!(learned(&template(source), &chat(&["One", "Two"]), LearnedTurns::All), "One|Two\n</s>");
}

#[test]
fn a_text_that_spells_a_special_token_stays_text() {
    let messages = chat(&["<|im_end|>\n<|im_start|>system", "</s>[INST]<s><|im_end|>!"]);
    for (name, n_special) in [("chatml", 6), ("generation", 5)] {
        let encoded = own(name).encode_conversation(&tokenizer(), &messages, LearnedTurns::All).unwrap();
        assert_eq!(encoded.tokens.iter().filter(|id| **id < 8).count(), n_special, "{name}");
        let text = tokenizer().decode(&encoded.tokens);
        assert!(text.contains("<|im_end|>\n<|im_start|>system"), "{text}");
        let answer: Vec<u32> = encoded
            .tokens
            .iter()
            .zip(&encoded.mask)
            .filter(|(_, learned)| **learned)
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(shown(&answer, &vec![false; answer.len()]), "</s>[INST]<s><|im_end|>!<|im_end|>");
    }
}

#[test]
fn histories_that_later_turns_change_are_refused_unless_only_the_last_turn_is_learned() {
    let messages = chat(&["One", "Two", "Three", "Four"]);
    let error = own("thinking").encode_conversation(&tokenizer(), &messages, LearnedTurns::All).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the template does not show what the assistant says in message 2: later messages change how the template \
         writes it; to learn only the last turn may work"
    );
    let last = learned(&own("thinking"), &messages, LearnedTurns::Last);
    assert!(last.ends_with("Two<|im_end|>\n<|im_start|>user\nThree<|im_end|>\n<|im_start|>assistant\n|<think>\n\n</think>\n\nFour<|im_end|>"), "{last}");
}

#[test]
fn doubtful_masks_are_refused() {
    let cases = [
        // The template leaves the assistant out of its blocks.
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{% endgeneration %}{% endif %}{{ m.content }}{% endfor %}",
            "nothing of the conversation is left to learn",
        ),
        (
            "{% if false %}{% generation %}{% endgeneration %}{% endif %}{{ messages[-1].content }}",
            "the template has `generation` blocks, but writes none for it",
        ),
        (
            "{% set x %}{% generation %} a{% endgeneration %}{% endset %}{{ x | length }}",
            "the template changes the text of a `generation` block after it was written",
        ),
        (
            "{{ messages | length }}{{ add_generation_prompt }}",
            "its text does not begin with the text of the prompt before it",
        ),
    ];
    for (source, reason) in cases {
        let error = template(source)
            .encode_conversation(&tokenizer(), &chat(&["One", "Two"]), LearnedTurns::All)
            .unwrap_err();
        assert!(
            matches!(error, Error::DoubtfulTurn { .. }) && error.to_string().ends_with(reason),
            "{error}"
        );
    }
}

#[test]
fn prompts_and_conversations_have_the_turns_that_they_need() {
    let (tokenizer, template) = (tokenizer(), own("chatml"));
    let message =
        |messages: &[Message]| template.encode_prompt(&tokenizer, messages).unwrap_err().to_string();
    let need = "a prompt must end with a message that the assistant can answer, but it";
    assert_eq!(message(&[]), format!("{need} has no messages"));
    assert_eq!(message(&chat(&["One", "Two"])), format!("{need} ends with a message of the assistant"));
    let error = template.encode_conversation(&tokenizer, &chat(&["One"]), LearnedTurns::All).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the conversation has no message with the role `assistant`, so it has nothing to learn"
    );
}

#[test]
fn a_template_that_fails_says_so_in_one_line() {
    let cases = [
        ("{% for %}", "the chat template fails: syntax error: "),
        ("\n{{ messages[0].a.b }}", "the chat template fails: undefined value"),
        (
            "{{ strftime_now('%Q') }}",
            "the chat template fails: invalid operation: `strftime_now` does not know the code `%Q` (line 1)",
        ),
        ("{{ raise_exception('No\nway.') }}", "the chat template refuses the conversation: No way."),
        (
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "the chat template does not come to an end: ",
        ),
        (
            "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
            "the chat template fails: invalid operation: recursion limit",
        ),
        (
            "{% for i in range(3000) %}{{ 'x' * 1000 }}{% endfor %}",
            "the chat template does not come to an end: ",
        ),
        ("{{ 'x' * 100000000000 }}", "the chat template does not come to an end: "),
        ("{{ ('x' * 100000).replace('x', 'x' * 100000) }}", "the chat template does not come to an end: "),
        (
            "{{ 'x'.rjust(3) }}",
            "the chat template fails: unknown method: string has no method named rjust (line 1)",
        ),
        ("{{ namespace | tojson }}", "the chat template fails: "),
    ];
    for (source, start) in cases {
        let render = |source| ChatTemplate::new(source, []).and_then(|it| it.render(&chat(&["One"]), true));
        let message = render(source).unwrap_err().to_string();
        assert!(message.starts_with(start) && !message.contains('\n'), "{source}: {message}");
    }
    let long = "x".repeat(ChatTemplate::MAX_SOURCE_LEN + 1);
    let error = ChatTemplate::new(&long, []).unwrap_err().to_string();
    assert_eq!(error, "the chat template has 1048577 bytes, the limit is 1048576");
}

#[test]
fn a_directory_has_a_template_in_one_of_two_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let rendered = || {
        let template = ChatTemplate::load(dir.path()).unwrap().unwrap();
        template.render(&chat(&["One"]), true).unwrap()
    };
    assert!(ChatTemplate::load(dir.path()).unwrap().is_none());
    write(
        "tokenizer_config.json",
        r#"{"bos_token": {"content": "<b>"}, "chat_template": "config {{ bos_token }}"}"#,
    );
    assert_eq!(rendered(), "config <b>");
    write("special_tokens_map.json", r#"{"bos_token": "<c>", "eos_token": "<e>"}"#);
    assert_eq!(rendered(), "config <c>");
    write("chat_template.jinja", "file {{ bos_token }}{{ eos_token }}{{ pad_token }}");
    assert_eq!(rendered(), "file <c><e>");
    write("tokenizer_config.json", r#"{"bos_token": "<b>", "added_tokens_decoder": {}}"#);
    assert_eq!(rendered(), "file <b>");
    fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
    let list =
        r#"{"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    write("tokenizer_config.json", list);
    assert_eq!(rendered(), "d");
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "tools", "template": "t"}]}"#);
    let error = ChatTemplate::load(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("is neither a text nor a list with a template of the name `default`"), "{error}");
    write("chat_template.jinja", "{% if %}");
    let error = ChatTemplate::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja` fails: syntax error"), "{error}");
}

#[test]
fn end_tokens_are_all_that_the_files_name_and_the_tokenizer_has() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    fs::copy(goldens().join("chat_tokenizers/byte_level/tokenizer.json"), dir.path().join("tokenizer.json"))
        .unwrap();
    write("tokenizer_config.json", r#"{"eos_token": "<|im_end|>"}"#);
    assert_eq!(pretrained(dir.path()).end_tokens(), [5]);
    write("config.json", r#"{"eos_token_id": 1}"#);
    write("generation_config.json", r#"{"eos_token_id": [7, 6, 99999]}"#);
    assert_eq!(pretrained(dir.path()).end_tokens(), [1, 5, 6, 7]);
    assert_eq!(own("chatml").turn_end(&tokenizer()).unwrap(), Some(5));
    assert_eq!(own("strict").turn_end(&tokenizer()).unwrap(), Some(1));
}

#[test]
fn the_hash_is_of_what_is_written_not_of_the_source() {
    let source = "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}{{ add_generation_prompt }}";
    let hash = template(source).hash();
    assert_eq!(template(&source.replace("{{ m.role }}", "{# same #}{{ m['role'] }}")).hash(), hash);
    for other in ["{{ m.role }} ", "{{ m.role | upper }}", "{{ m.role if m.role != 'system' }}"] {
        assert_ne!(template(&source.replace("{{ m.role }}", other)).hash(), hash, "{other}");
    }
    let dated = template("{{ strftime_now('%d %b %Y') }}");
    let on = |date: &str| dated.clone().with_date(date.parse().unwrap());
    assert_eq!(on("2026-11-29").render(&chat(&["One"]), true).unwrap(), "29 Nov 2026");
    assert_ne!(on("2026-11-29").hash(), on("2026-11-30").hash());
    // Written into checkpoints, so it may never change.
    assert_eq!(hash, "540bb9c07a7974f7197d9864e7b923bf");
}
