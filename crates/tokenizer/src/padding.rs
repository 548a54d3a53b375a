//! Padding for a reward model: transformers reads its score at the last token that is not padding.

use crate::{PretrainedTokenizer, Tokenizer};

/// Names of tokens for a byte that no UTF-8 text contains, in byte-level vocabularies and in those with a byte fallback.
const NO_TEXT: [&str; 2] = ["ÿ", "<0xFF>"];

/// How suitable the name of a special token is, best first.
fn rank(name: &str) -> usize {
    let name = name.to_lowercase();
    match () {
        () if name.contains("pad") => 0,
        () if name.contains("reserved") || name.contains("unused") => 1,
        () if name.contains("unk") => 3,
        () => 2,
    }
}

impl Tokenizer {
    /// The id that pads the rows of a reward model whose embedding has `n_rows` rows. It never ends a text, unlike the
    /// padding of many tokenizers, which is their end token.
    ///
    /// It is the first of these that exists and is not an end token:
    ///
    /// - the padding token of the tokenizer;
    /// - another special token, which is neither the start token, nor the separator, nor part of the chat template;
    /// - the token of the byte 0xFF, which no text contains;
    /// - a row of the embedding without a token.
    pub fn score_padding(&self, n_rows: usize) -> Option<u32> {
        match self {
            Self::Byte(_) => self.special().pad,
            Self::Pretrained(tokenizer) => tokenizer.score_padding(n_rows),
        }
    }

    /// The text of one token as the vocabulary has it, special tokens included.
    pub fn token(&self, id: u32) -> Option<String> {
        match self {
            Self::Byte(tokenizer) => tokenizer.token(id),
            Self::Pretrained(tokenizer) => tokenizer.inner().id_to_token(id),
        }
    }
}

impl PretrainedTokenizer {
    fn score_padding(&self, n_rows: usize) -> Option<u32> {
        let (inner, special) = (self.inner(), self.special());
        let may_pad = |id: &u32| !self.end_tokens().contains(id) && (*id as usize) < n_rows;
        if let Some(pad) = special.pad.filter(may_pad) {
            return Some(pad);
        }
        let template = self.chat_template_text();
        let is_free = |id: &u32, name: &str| {
            may_pad(id) && ![special.bos, special.sep].contains(&Some(*id)) && !template.contains(name)
        };
        let added = inner.get_added_tokens_decoder();
        let specials = added.iter().filter(|(id, token)| token.special && is_free(id, &token.content));
        let named = specials.map(|(id, token)| (rank(&token.content), *id)).min().map(|(_, id)| id);
        let byte = || {
            let ids = NO_TEXT.iter().filter_map(|name| inner.token_to_id(name));
            ids.filter(may_pad).find(|id| self.decode(&[*id]) == "\u{fffd}")
        };
        let unused = || {
            let gap = self.missing_ids().first().copied();
            gap.or(u32::try_from(self.vocab_size()).ok()).filter(may_pad)
        };
        named.or_else(byte).or_else(unused)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;

    /// A tokenizer of words with `<eos>` 1 as its end token, these special tokens from 2 on, and these words after them.
    fn tokenizer(specials: &[&str], words: &[&str], config: Value) -> (tempfile::TempDir, Tokenizer) {
        let dir = tempfile::tempdir().unwrap();
        let all = ["a", "<eos>"].into_iter().chain(specials.iter().copied()).chain(words.iter().copied());
        let vocab: serde_json::Map<String, Value> =
            all.enumerate().map(|(id, name)| (name.to_owned(), json!(id))).collect();
        let added = specials.iter().enumerate().map(|(i, name)| {
            json!({"id": i + 2, "content": name, "special": true, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false})
        });
        let json = json!({"version": "1.0", "added_tokens": added.collect::<Vec<_>>(),
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}});
        fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        (dir, tokenizer)
    }

    fn padding(specials: &[&str], words: &[&str], config: Value, n_rows: usize) -> Option<u32> {
        tokenizer(specials, words, config).1.score_padding(n_rows)
    }

    #[test]
    fn a_padding_token_of_its_own_comes_first_and_an_end_token_never() {
        let config = json!({"eos_token": "<eos>", "pad_token": "<x>"});
        assert_eq!(padding(&["<y>", "<x>"], &[], config.clone(), 4), Some(3));
        // As SmolLM2-Instruct, whose padding is its end token.
        let config = json!({"eos_token": "<eos>", "pad_token": "<eos>"});
        assert_eq!(padding(&["<y>", "<x>"], &[], config, 4), Some(2));
        assert_eq!(Tokenizer::byte().score_padding(260), Some(0));
    }

    #[test]
    fn special_tokens_are_taken_by_their_names_and_not_from_the_chat_template() {
        let config =
            json!({"eos_token": "<eos>", "bos_token": "<pad-or-bos>", "chat_template": "{{ '<turn>' }}"});
        let of = |specials: &[&str]| padding(specials, &[], config.clone(), 9);
        assert_eq!(of(&["<turn>", "<unk>", "<x>"]), Some(4));
        assert_eq!(of(&["<turn>", "<unk>", "<x>", "<reserved_0>"]), Some(5));
        assert_eq!(of(&["<x>", "<reserved_0>", "<|right_pad|>"]), Some(4));
        assert_eq!(of(&["<pad-or-bos>", "<turn>", "<unk>"]), Some(4));
    }

    #[test]
    fn without_special_tokens_a_byte_that_no_text_has_or_an_unused_row_pads() {
        let config = json!({"eos_token": "<eos>"});
        // GPT-2 has 50,257 tokens in as many rows; its `ÿ` is the byte 0xFF.
        assert_eq!(padding(&[], &["b", "ÿ"], config.clone(), 4), Some(3));
        assert_eq!(padding(&[], &["b"], config.clone(), 4), Some(3));
        assert_eq!(padding(&[], &["b"], config, 3), None);
    }

    #[test]
    fn the_saved_tokenizer_pads_as_the_model_does() {
        let (dir, tokenizer) = tokenizer(&["<x>"], &[], json!({"eos_token": "<eos>", "pad_token": "<eos>"}));
        let map = json!({"eos_token": "<eos>", "pad_token": {"content": "<eos>"}}).to_string();
        fs::write(dir.path().join("special_tokens_map.json"), map).unwrap();
        let again = Tokenizer::from_dir(dir.path()).unwrap();
        let out = tempfile::tempdir().unwrap();
        let pad_of = |name: &str| -> Value {
            let text = fs::read_to_string(out.path().join(name)).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()["pad_token"].clone()
        };
        again.save_for_scores(out.path(), None, Some(2)).unwrap();
        assert_eq!(pad_of("tokenizer_config.json"), "<x>");
        assert_eq!(pad_of("special_tokens_map.json"), "<x>");
        // An id without a token: the tokenizer must not pad with its end token.
        tokenizer.save_for_scores(out.path(), None, Some(3)).unwrap();
        assert_eq!(pad_of("tokenizer_config.json"), Value::Null);
    }
}
