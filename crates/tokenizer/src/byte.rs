//! The notebook's byte tokenizer.

use serde_json::{Map, Value, json};

use crate::{Piece, SpecialTokens, Template};

/// UTF-8 bytes moved up by four, below them four special tokens: 260 ids in all.
///
/// Source: the notebook's `SimpleTokenizer`. As a `tokenizer.json` it is a byte-level BPE without
/// merges, which the `tokenizers` crate and transformers read with the same ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteTokenizer;

static SPECIAL: SpecialTokens = SpecialTokens {
    pad: Some(ByteTokenizer::PAD),
    bos: Some(ByteTokenizer::BOS),
    sep: Some(ByteTokenizer::SEP),
    eos: ByteTokenizer::EOS,
};

/// How `tokenizer.json` spells ids 0 to 3.
const SPECIAL_NAMES: [&str; 4] = ["[PAD]", "[BOS]", "[SEP]", "[EOS]"];

impl ByteTokenizer {
    /// Padding.
    pub const PAD: u32 = 0;
    /// The start of a sequence.
    pub const BOS: u32 = 1;
    /// The end of a prompt.
    pub const SEP: u32 = 2;
    /// The end of a completion.
    pub const EOS: u32 = 3;
    /// The id of byte 0.
    pub const OFFSET: u32 = 4;
    /// 256 bytes and the four special tokens.
    pub const VOCAB_SIZE: usize = 260;

    /// One id per UTF-8 byte.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        text.bytes().map(|byte| u32::from(byte) + Self::OFFSET).collect()
    }

    /// The text of the bytes among `ids`; special and unknown ids are skipped, broken UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().filter_map(|id| u8::try_from(id.checked_sub(Self::OFFSET)?).ok()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ids 0 to 3.
    pub fn special(&self) -> &'static SpecialTokens {
        &SPECIAL
    }

    /// The name of a special token; bytes have none.
    pub(crate) fn token(&self, id: u32) -> Option<String> {
        SPECIAL_NAMES.get(id as usize).map(|name| (*name).to_owned())
    }

    /// This tokenizer as a `tokenizer.json`.
    pub fn to_json(&self) -> Value {
        let added: Vec<Value> = SPECIAL_NAMES
            .iter()
            .enumerate()
            .map(|(id, name)| {
                json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": true})
            })
            .collect();
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                      "ignore_merges": false, "vocab": vocab(), "merges": []},
        })
    }

    /// The `tokenizer_config.json` next to it.
    ///
    /// Without a template it makes transformers leave `[EOS]` in a text alone, as Temper does. A chat template puts text
    /// and special tokens into one string, so with one their names must be read as tokens; it refuses messages that
    /// have such a name in them.
    pub(crate) fn config_json(&self, template: Option<&Template>) -> Value {
        let [pad, bos, sep, eos] = SPECIAL_NAMES;
        let chat_template = template.and_then(chat_template);
        let mut config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": pad, "bos_token": bos,
               "sep_token": sep, "eos_token": eos, "split_special_tokens": chat_template.is_none(),
               "clean_up_tokenization_spaces": false});
        if let Some(chat_template) = chat_template {
            config["chat_template"] = chat_template.into();
        }
        config
    }

    /// Whether a `tokenizer.json` is this tokenizer, by what it does: other tools write the file anew.
    pub(crate) fn is_described_by(json: &Value) -> bool {
        let model = &json["model"];
        let no_merges = model["merges"].as_array().is_some_and(Vec::is_empty);
        let only_ours = json["added_tokens"].as_array().is_some_and(|added| {
            added.iter().all(|token| token["content"].as_str().is_some_and(|t| SPECIAL_NAMES.contains(&t)))
        });
        let before = &json["pre_tokenizer"];
        let plain_bytes = before["type"] == "ByteLevel" && before["add_prefix_space"] == false;
        // Merges are what makes a split of the text matter, so `use_regex` is free.
        no_merges
            && only_ours
            && plain_bytes
            && json["normalizer"].is_null()
            && model["vocab"].as_object() == Some(&vocab())
    }
}

/// The template in Jinja, as transformers and other tools apply it to one question, or to one question and its answer.
///
/// `None` where a text of the template has a bracket, which could become a part of a special token's name.
fn chat_template(template: &Template) -> Option<String> {
    let [_, bos, sep, eos] = SPECIAL_NAMES;
    let expression = |pieces: &[Piece], message: usize| {
        let mut parts = Vec::new();
        for piece in pieces {
            parts.push(match piece {
                Piece::Text(text) if text.contains(['[', ']']) => return None,
                Piece::Text(text) => jinja_string(text),
                Piece::Bos => jinja_string(bos),
                Piece::Sep => jinja_string(sep),
                Piece::Eos => jinja_string(eos),
                Piece::Prompt | Piece::Completion => format!("messages[{message}]['content']"),
            });
        }
        Some(parts.join(" + "))
    };
    let prompt = expression(template.prompt(), 0)?;
    let completion = expression(template.completion(), 1)?;
    let names = SPECIAL_NAMES.map(jinja_string).join(", ");
    Some(format!(
        "{{%- if messages | map(attribute='role') | join(' ') not in ['user', 'user assistant'] -%}}\
         {{{{- raise_exception('this model knows one user message and at most one answer to it') -}}}}\
         {{%- endif -%}}\
         {{%- for message in messages -%}}\
         {{%- for name in [{names}] -%}}\
         {{%- if name in message['content'] -%}}\
         {{{{- raise_exception('a message must not have the name of a special token in it') -}}}}\
         {{%- endif -%}}\
         {{%- endfor -%}}\
         {{%- endfor -%}}\
         {{{{- {prompt} -}}}}\
         {{%- if messages | length == 2 -%}}\
         {{{{- {completion} -}}}}\
         {{%- endif -%}}"
    ))
}

/// A text as a string of Jinja, which has the escapes of Python.
fn jinja_string(text: &str) -> String {
    let mut quoted = String::from("'");
    for char in text.chars() {
        match char {
            '\\' => quoted.push_str("\\\\"),
            '\'' => quoted.push_str("\\'"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            char => quoted.push(char),
        }
    }
    quoted.push('\'');
    quoted
}

fn vocab() -> Map<String, Value> {
    let special = SPECIAL_NAMES.iter().map(ToString::to_string);
    let bytes = (0..=u8::MAX).map(|byte| printable(byte).to_string());
    special.chain(bytes).zip(0u32..).map(|(token, id)| (token, id.into())).collect()
}

/// GPT-2's name of a byte (`bytes_to_unicode` in its `encoder.py`): itself where Latin-1 prints it,
/// else the next character from U+0100 on.
pub(crate) fn printable(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if prints(byte) {
        return char::from(byte);
    }
    let n_before = (0..byte).filter(|&other| !prints(other)).count() as u32;
    char::from_u32(0x100 + n_before).expect("U+0100 to U+0143 are characters")
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use proptest::prelude::*;

    use super::*;

    fn in_tokenizers_crate() -> tokenizers::Tokenizer {
        tokenizers::Tokenizer::from_str(&ByteTokenizer.to_json().to_string()).expect("it reads our file")
    }

    fn check_against_tokenizers(theirs: &tokenizers::Tokenizer, text: &str) {
        let ids = ByteTokenizer.encode(text);
        assert_eq!(theirs.encode(text, true).expect("it encodes").get_ids(), ids, "{text:?}");
        assert_eq!(theirs.decode(&ids, true).expect("it decodes"), text);
        assert_eq!(ByteTokenizer.decode(&ids), text);
    }

    #[test]
    fn tokenizer_json_gives_the_same_ids_in_the_tokenizers_crate() {
        let theirs = in_tokenizers_crate();
        let every_byte: Vec<u8> = (0..=u8::MAX).chain((0..=u8::MAX).rev()).collect();
        let lossy = String::from_utf8_lossy(&every_byte).into_owned();
        let all_chars: String = ('\0'..='\u{2fff}').collect();
        for text in [
            "",
            " ",
            "  a  b ",
            "\t\r\n\0",
            "What is AI?",
            "1+1 等于几?",
            "你好,很高兴见到你!",
            "🧪👩🏽‍🚀",
            "e\u{301} n\u{303}",
            "\u{feff}BOM",
            "العربية",
            "don't 'll",
            &lossy,
            &all_chars,
        ] {
            check_against_tokenizers(&theirs, text);
        }
        assert_eq!(theirs.get_vocab_size(true), ByteTokenizer::VOCAB_SIZE);
        for (name, id) in SPECIAL_NAMES.iter().zip(0..) {
            assert_eq!(theirs.token_to_id(name), Some(id));
        }
    }

    /// What `split_special_tokens` of our `tokenizer_config.json` switches on in transformers.
    #[test]
    fn names_of_special_tokens_are_text_in_the_tokenizers_crate_too() {
        let mut theirs = in_tokenizers_crate();
        theirs.set_encode_special_tokens(true);
        check_against_tokenizers(&theirs, "[BOS]Instruct: ignore this[SEP]sure[EOS][PAD]");
    }

    /// Put into Jinja by hand. `assets/peers/transformers_check.py` has transformers apply it.
    #[test]
    fn the_chat_template_is_the_template_in_jinja() {
        let rendered = chat_template(&Template::notebook()).unwrap();
        let refusals = "{%- if messages | map(attribute='role') | join(' ') not in ['user', 'user assistant'] -%}\
                        {{- raise_exception('this model knows one user message and at most one answer to it') -}}\
                        {%- endif -%}{%- for message in messages -%}\
                        {%- for name in ['[PAD]', '[BOS]', '[SEP]', '[EOS]'] -%}{%- if name in message['content'] -%}\
                        {{- raise_exception('a message must not have the name of a special token in it') -}}\
                        {%- endif -%}{%- endfor -%}{%- endfor -%}";
        let pieces = "{{- '[BOS]' + 'Instruct:' + messages[0]['content'] + '[SEP]' -}}\
                      {%- if messages | length == 2 -%}{{- messages[1]['content'] + '[EOS]' -}}{%- endif -%}";
        assert_eq!(rendered, format!("{refusals}{pieces}"));

        let own = |text: &str| {
            let prompt = vec![Piece::Text(text.to_owned()), Piece::Prompt];
            chat_template(&Template::new("own", prompt, vec![Piece::Completion]).unwrap())
        };
        let rendered = own("it's a \\ in\ntwo lines: ").unwrap();
        let expected = "{{- 'it\\'s a \\\\ in\\ntwo lines: ' + messages[0]['content'] -}}";
        assert!(rendered.contains(expected), "{rendered}");
        assert_eq!((own("[INST]"), own("EOS]")), (None, None), "it could become a special token");
    }

    /// What the chat template renders, read as transformers reads it, is what the template encodes.
    #[test]
    fn names_of_special_tokens_in_a_rendered_chat_are_those_tokens() {
        let theirs = in_tokenizers_crate();
        let rendered = "[BOS]Instruct:What is 你?[SEP]It is.[EOS]";
        let tokenizer = crate::Tokenizer::byte();
        let template = Template::notebook();
        let expected = template.encode_answer(&tokenizer, "What is 你?", "It is.", true).unwrap();
        assert_eq!(theirs.encode(rendered, false).unwrap().get_ids(), expected.tokens);
        let config = ByteTokenizer.config_json(Some(&template));
        assert_eq!(config["split_special_tokens"], false);
        let without = ByteTokenizer.config_json(None);
        assert_eq!(
            (&without["split_special_tokens"], &without["chat_template"]),
            (&true.into(), &Value::Null)
        );
    }

    #[test]
    fn d12_special_and_unknown_ids_are_skipped_and_broken_utf8_is_replaced() {
        let h = u32::from(b'h') + 4;
        assert_eq!(ByteTokenizer.decode(&[1, h, 3, 2, 0, h, 260, 99_999, u32::MAX]), "hh");
        assert_eq!(ByteTokenizer.decode(&[0xE4 + 4, 0xBD + 4, h]), "\u{fffd}h");
        assert_eq!(ByteTokenizer.decode(&[]), "");
    }

    #[test]
    fn it_recognises_itself_and_nothing_else() {
        let json = ByteTokenizer.to_json();
        assert!(ByteTokenizer::is_described_by(&json));
        let mut swapped = json.clone();
        swapped["model"]["vocab"]["a"] = json["model"]["vocab"]["b"].clone();
        let mut merged = json.clone();
        merged["model"]["merges"] = json!(["a b"]);
        let mut lowered = json.clone();
        lowered["normalizer"] = json!({"type": "Lowercase"});
        for other in [swapped, merged, lowered, json!({}), json!(null), json!([1])] {
            assert!(!ByteTokenizer::is_described_by(&other));
        }
    }

    proptest! {
        #[test]
        fn any_string_comes_back_and_agrees_with_the_tokenizers_crate(text in "\\PC*|.*|[\\x00-\\x7f]*") {
            prop_assert_eq!(ByteTokenizer.decode(&ByteTokenizer.encode(&text)), text.as_str());
            let mut theirs = in_tokenizers_crate();
            theirs.set_encode_special_tokens(true);
            check_against_tokenizers(&theirs, &text);
        }

        #[test]
        fn d12_decode_takes_any_ids(ids in prop::collection::vec(prop_oneof![0u32..300, any::<u32>()], 0..64)) {
            ByteTokenizer.decode(&ids);
        }
    }
}
