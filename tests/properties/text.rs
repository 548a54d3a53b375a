//! Text in, text out: no string is lost, none becomes a special token, and no example ends where its text does not.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use temper_data::{Comparison, Demonstration, Demonstrations, Encoding, PromptRow, Prompts, Rankings};
use temper_tokenizer::{Overflow, Piece, Template, TextSide, Tokenizer, encode_dialog};

use crate::tiny::cases;

/// Any characters, with what could be mistaken for structure among them.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        any::<String>(),
        "[ -~]{0,8}",
        Just("[EOS]".to_owned()),
        Just("[PAD][BOS][SEP]".to_owned()),
        Just("</s><|endoftext|>".to_owned()),
        Just("\u{feff}\r\n\0".to_owned()),
        Just("Ġ Ċ ▁ ##".to_owned()),
    ];
    prop::collection::vec(pieces, 0..4).prop_map(|pieces| pieces.concat())
}

fn templates() -> impl Strategy<Value = Template> {
    let built_in = prop::sample::select(Template::NAMES.to_vec());
    let built_in = built_in.prop_map(|name| Template::by_name(name).expect("it is built in"));
    let around = || {
        let piece = prop_oneof![Just(Piece::Bos), Just(Piece::Sep), any::<String>().prop_map(Piece::Text)];
        prop::collection::vec(piece, 0..3)
    };
    let own = (around(), around(), around(), any::<bool>()).prop_map(|(before, between, after, ends)| {
        let prompt = [before, vec![Piece::Prompt], between].concat();
        let completion =
            [vec![Piece::Completion], after, if ends { vec![Piece::Eos] } else { vec![] }].concat();
        Template::new("own", prompt, completion).expect("each text is there once")
    });
    prop_oneof![built_in, own]
}

/// Ours as it is saved; and once more with a normalizer that does nothing, which is for the `tokenizers` crate to read.
struct Saved {
    byte: Tokenizer,
    by_crate: Tokenizer,
}

static SAVED: LazyLock<Saved> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    Tokenizer::byte().save(dir.path()).unwrap();
    let byte = Tokenizer::from_dir(dir.path()).unwrap();
    edit(&dir.path().join("tokenizer.json"), |json| {
        json["normalizer"] = json!({"type": "Sequence", "normalizers": []});
    });
    let by_crate = Tokenizer::from_dir(dir.path()).unwrap();
    assert!(matches!(byte, Tokenizer::Byte(_)) && matches!(by_crate, Tokenizer::Pretrained(_)));
    Saved { byte, by_crate }
});

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut json: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn any_text_comes_back_with_the_same_ids_from_every_reading_of_our_file(text in texts()) {
        // As the notebook has it: one id per byte of UTF-8, above the four special ones.
        let expected: Vec<u32> = text.bytes().map(|byte| u32::from(byte) + 4).collect();
        for tokenizer in [&Tokenizer::byte(), &SAVED.byte, &SAVED.by_crate] {
            prop_assert_eq!(&tokenizer.encode(&text), &expected);
            prop_assert_eq!(&tokenizer.decode(&expected), &text);
        }
    }

    #[test]
    fn any_ids_have_a_text(ids in prop::collection::vec(prop_oneof![0u32..270, any::<u32>()], 0..40)) {
        // The bytes among them, and nothing of the others.
        let bytes: Vec<u8> = ids.iter().filter_map(|id| u8::try_from(id.checked_sub(4)?).ok()).collect();
        let expected = String::from_utf8_lossy(&bytes);
        for tokenizer in [&Tokenizer::byte(), &SAVED.by_crate] {
            prop_assert_eq!(tokenizer.decode(&ids), expected.as_ref());
        }
    }

    #[test]
    fn no_example_is_too_long_or_ends_where_its_text_does_not(
        template in templates(), prompt in texts(), completion in texts(), max_len in 0usize..80, cut: bool,
    ) {
        let tokenizer = Tokenizer::byte();
        let eos = tokenizer.special().eos;
        let overflow = if cut { Overflow::TruncatePrompt } else { Overflow::Drop };
        let all = template.encode_answer(&tokenizer, &prompt, &completion, true).unwrap();
        let whole = all.completion().to_vec();
        let ends = template.completion().last() == Some(&Piece::Eos);
        let example = template.encode_example(&tokenizer, &prompt, &completion, max_len, overflow).unwrap();
        if let Some(example) = &example {
            prop_assert!(example.tokens.len() <= max_len);
            prop_assert_eq!(example.completion(), whole.as_slice(), "a completion is never cut");
            let last = example.tokens.len().wrapping_sub(1);
            let stops: Vec<usize> = (0..example.tokens.len()).filter(|&i| example.tokens[i] == eos).collect();
            prop_assert_eq!(stops, if ends { vec![last] } else { vec![] });
            prop_assert!(cut || example.n_cut == 0);
        }
        // What fits as a whole is kept as a whole.
        prop_assert_eq!(all.prompt(), template.encode_prompt(&tokenizer, &prompt).unwrap());
        if all.tokens.len() <= max_len {
            prop_assert_eq!(example, Some(all));
        } else {
            prop_assert!(cut || example.is_none());
        }
    }

    #[test]
    fn a_prompt_that_is_cut_keeps_its_end(template in templates(), prompt in texts(), max_len in 0usize..80) {
        let tokenizer = Tokenizer::byte();
        let whole = template.encode_prompt(&tokenizer, &prompt).unwrap();
        if let Ok(tokens) = template.encode_prompt_truncated(&tokenizer, &prompt, max_len) {
            prop_assert!(tokens.len() <= max_len && tokens.len() <= whole.len());
            let at = template.prompt().iter().position(|piece| *piece == Piece::Prompt).expect("it has one");
            let end = Template::new("end", template.prompt()[at..].to_vec(), vec![Piece::Completion]);
            let after_prompt = end.expect("its prompt is in it").encode_prompt(&tokenizer, "").unwrap();
            prop_assert!(tokens.ends_with(&after_prompt));
            prop_assert_eq!(tokens.len(), whole.len().min(max_len));
        }
    }

    #[test]
    fn the_notebooks_arrays_have_the_length_that_was_asked_for(
        prompt in texts(), completion in texts(), max_len in 0usize..80,
    ) {
        let dialog = encode_dialog(&prompt, &completion, max_len);
        prop_assert_eq!(dialog.input_ids.len(), max_len);
        prop_assert_eq!(dialog.attention_mask.len(), max_len);
        prop_assert_eq!(dialog.labels.len(), max_len);
    }
}

/// A word tokenizer has no id for what it does not know; such a row would be a mean over nothing, or no row at all.
#[test]
fn texts_without_tokens_are_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let words = json!({"added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"hi": 0, "yes": 1, "no": 2, "</s>": 3}, "unk_token": "<unk>"}});
    fs::write(dir.path().join("tokenizer.json"), words.to_string()).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    let [known, unknown] = ["hi", "zzz"].map(str::to_owned);
    for overflow in [Overflow::Drop, Overflow::TruncatePrompt] {
        for (template, kept) in [(Template::plain(), 1), (Template::plain_eos(), 2)] {
            let row = |prompt: &String, completion: &str| Demonstration {
                prompt: prompt.as_str().into(),
                completion: completion.into(),
            };
            // With an end token, the end of an unknown answer to a known prompt is something to learn.
            let rows = [row(&known, "yes"), row(&known, "zzz"), row(&unknown, "zzz")];
            let text = TextSide::new(tokenizer.clone(), template.clone());
            let data = Demonstrations::new(&rows, &Encoding { overflow, ..Encoding::new(&text, 8) }).unwrap();
            assert_eq!(
                (data.len(), data.report.without_tokens.len()),
                (kept, 3 - kept),
                "{}",
                template.name()
            );

            let prompts = [&known, &unknown].map(|prompt| PromptRow::new(prompt.as_str()));
            let data = Prompts::new(&prompts, &Encoding { overflow, ..Encoding::new(&text, 8) }).unwrap();
            assert_eq!((data.prompts.len(), data.report.n_dropped()), (1, 1), "{}", template.name());
        }
        let text = TextSide::new(tokenizer.clone(), Template::plain());
        let error = Demonstrations::new(
            &[Demonstration { prompt: known.as_str().into(), completion: "zzz".into() }],
            &Encoding { overflow, ..Encoding::new(&text, 8) },
        );
        assert_eq!(error.unwrap_err().to_string(), "none of the 1 examples has a token to learn from");
        let row = |prompt: &String| Comparison::pair(prompt.as_str(), "yes", "zzz");
        let rows = [row(&known), row(&unknown)];
        let data = Rankings::new(&rows, &Encoding { overflow, ..Encoding::new(&text, 8) }).unwrap();
        assert_eq!((data.len(), data.report.without_tokens.len()), (1, 1), "an empty side has no last token");
    }
}
