//! A tokenizer of our own, trained on text: byte-level BPE with special tokens and a chat template.

mod merges;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use serde_json::{Map, Value, json};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, pre_tokenizers::byte_level::ByteLevel,
};

use crate::{Error, byte::printable, tokenizer::write_all};
use merges::merges;

/// The special tokens of a tokenizer that is trained here; they have the first ids.
const SPECIAL: [&str; 6] = [PAD, BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>"];
const PAD: &str = "<|pad|>";
const BEGIN: &str = "<|begin|>";
/// The end of a text, and of every turn of a conversation.
const END: &str = "<|end|>";

/// The chat template of a tokenizer that is trained here.
const CHAT_TEMPLATE: &str = include_str!("train/chat_template.jinja");

/// Text is split into words in parts of about this many bytes, because splitting takes many times the memory of a part.
const PART_LEN: usize = 1 << 16;

/// Learns a byte-level BPE tokenizer (Sennrich et al. 2016, on bytes as GPT-2 does).
///
/// The words of GPT-2's pattern are counted, and then the most frequent pair of neighbouring tokens becomes a token, until
/// there are enough or no pair occurs twice. The `tokenizers` crate splits the words; the merges are found here, because
/// those of the crate may depend on the order of a hash map. The same text gives the same bytes.
///
/// ```
/// use temper_tokenizer::{TextSide, TokenizerTrainer};
///
/// let mut trainer = TokenizerTrainer::default();
/// trainer.add("low lower lowest, low lower lowest");
/// let trained = trainer.train(TokenizerTrainer::MIN_VOCAB_SIZE + 3)?;
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path();
/// trained.save(dir)?;
/// let text = TextSide::load(dir)?;
/// let ids = text.tokenizer.encode("lower");
/// assert!(ids.len() < 5);
/// assert_eq!(text.tokenizer.decode(&ids), "lower");
/// # Ok::<(), temper_tokenizer::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TokenizerTrainer {
    /// How often each word occurs; its characters stand for bytes.
    words: HashMap<String, u64>,
    n_bytes: u64,
}

/// A tokenizer with its special tokens and its chat template, as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainedTokenizer {
    /// All tokens: special ones, bytes and merges.
    pub vocab_size: usize,
    /// Bytes of the text that it was trained on.
    pub n_bytes: u64,
    /// Tokens that this text has.
    pub n_tokens: u64,
    tokenizer: String,
}

impl TokenizerTrainer {
    /// The smallest vocabulary: the special tokens and the 256 bytes.
    pub const MIN_VOCAB_SIZE: usize = SPECIAL.len() + 256;

    /// Adds a text to learn from.
    pub fn add(&mut self, text: &str) {
        self.n_bytes += text.len() as u64;
        parts(text, PART_LEN, |part| self.count_words(part));
    }

    fn count_words(&mut self, text: &str) {
        let mut split = PreTokenizedString::from(text);
        let byte_level = ByteLevel::new(false, false, true);
        byte_level
            .pre_tokenize(&mut split)
            .expect("the pattern is constant, and any text can be split by it");
        for (word, _, _) in split.get_splits(OffsetReferential::Original, OffsetType::None) {
            match self.words.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(self.words.insert(word.to_owned(), 1)),
            }
        }
    }

    /// Learns a vocabulary of at most `vocab_size` tokens; fewer where the text has no pair left that occurs twice.
    ///
    /// # Errors
    /// [`Error::VocabularyTooSmall`]; [`Error::NoTrainingText`] if no text was added.
    pub fn train(self, vocab_size: usize) -> Result<TrainedTokenizer, Error> {
        if vocab_size < Self::MIN_VOCAB_SIZE {
            return Err(Error::VocabularyTooSmall { vocab_size, least: Self::MIN_VOCAB_SIZE });
        }
        if self.words.is_empty() {
            return Err(Error::NoTrainingText);
        }
        // Sorted, so that nothing depends on the order of the hash map.
        let words: BTreeMap<&str, u64> = self.words.iter().map(|(word, &n)| (word.as_str(), n)).collect();
        let alphabet = (0..=u8::MAX).map(|byte| printable(byte).to_string());
        let mut tokens: Vec<String> = SPECIAL.iter().map(ToString::to_string).chain(alphabet).collect();
        let (merges, n_tokens) = merges(&words, &mut tokens, SPECIAL.len() as u32, vocab_size);
        let vocab: Map<String, Value> = tokens.iter().cloned().zip((0u32..).map(Value::from)).collect();
        Ok(TrainedTokenizer {
            vocab_size: vocab.len(),
            n_bytes: self.n_bytes,
            n_tokens,
            tokenizer: tokenizer_json(&vocab, &merges),
        })
    }
}

impl TrainedTokenizer {
    /// Writes `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` into `dir`.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": PAD, "bos_token": BEGIN,
                            "eos_token": END, "clean_up_tokenization_spaces": false});
        let config = format!("{config:#}\n");
        let files = [
            ("tokenizer.json", self.tokenizer.as_bytes()),
            ("tokenizer_config.json", config.as_bytes()),
            ("chat_template.jinja", CHAT_TEMPLATE.as_bytes()),
        ];
        write_all(dir, &files)
    }
}

/// The tokenizer as a `tokenizer.json`.
fn tokenizer_json(vocab: &Map<String, Value>, merges: &[String]) -> String {
    let added = SPECIAL.iter().zip(0u32..).map(|(name, id)| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    });
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": false, "vocab": vocab, "merges": merges},
    });
    format!("{json:#}\n")
}

/// Cuts a text into parts of at least `len` bytes, only where a word of GPT-2's pattern begins: before a single space or
/// line end that a visible ASCII character follows.
fn parts(text: &str, len: usize, mut take: impl FnMut(&str)) {
    let bytes = text.as_bytes();
    let is_cut = |at: usize| matches!(bytes[at], b' ' | b'\n') && bytes[at + 1].is_ascii_graphic();
    let mut start = 0;
    while let Some(end) = (start + len.max(1)..bytes.len().saturating_sub(1)).find(|&at| is_cut(at)) {
        take(&text[start..end]);
        start = end;
    }
    if start < text.len() {
        take(&text[start..]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::{Message, TextSide, Tokenizer};

    const MIN: usize = TokenizerTrainer::MIN_VOCAB_SIZE;

    fn trained(texts: &[&str], vocab_size: usize) -> (tempfile::TempDir, TextSide) {
        let mut trainer = TokenizerTrainer::default();
        texts.iter().for_each(|text| trainer.add(text));
        let dir = tempfile::tempdir().unwrap();
        trainer.train(vocab_size).unwrap().save(dir.path()).unwrap();
        let text = TextSide::load(dir.path()).unwrap();
        (dir, text)
    }

    /// By hand: `ug` occurs 20 times and is first, then `un` with 16, then `hug` with 15.
    /// (The example of the course of Hugging Face, chapter 6: "hug" 10, "pug" 5, "pun" 12, "bun" 4, "hugs" 5.)
    #[test]
    fn the_most_frequent_pair_is_merged_first() {
        let words = [("hug", 10), ("pug", 5), ("pun", 12), ("bun", 4), ("hugs", 5)];
        let lines: Vec<String> = words.iter().map(|(word, n)| format!("{word}\n").repeat(*n)).collect();
        let (dir, text) = trained(&[&lines.concat()], MIN + 3);
        let json = std::fs::read_to_string(dir.path().join("tokenizer.json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["model"]["merges"], json!(["u g", "u n", "h ug"]));
        let [b, p] = [b'b', b'p'].map(|byte| text.tokenizer.encode(&char::from(byte).to_string())[0]);
        let (ug, un, hug) = (MIN as u32, MIN as u32 + 1, MIN as u32 + 2);
        assert_eq!(text.tokenizer.encode("hug"), [hug]);
        assert_eq!(text.tokenizer.encode("bug"), [b, ug]);
        assert_eq!(text.tokenizer.encode("pun"), [p, un]);
    }

    #[test]
    fn no_more_tokens_are_made_than_pairs_that_occur_twice() {
        let mut trainer = TokenizerTrainer::default();
        trainer.add("abab");
        // Only `ab` occurs twice.
        let trained = trainer.train(5000).unwrap();
        assert_eq!((trained.vocab_size, trained.n_bytes, trained.n_tokens), (MIN + 1, 4, 2));
    }

    #[test]
    fn too_small_a_vocabulary_and_no_text_are_refused() {
        let mut trainer = TokenizerTrainer::default();
        let error = trainer.clone().train(MIN).unwrap_err();
        assert!(error.to_string().contains("no text"), "{error}");
        trainer.add("a");
        let error = trainer.train(261).unwrap_err().to_string();
        assert!(error.contains("261") && error.contains("262"), "{error}");
    }

    #[test]
    fn special_tokens_have_the_first_ids_and_no_text_spells_them() {
        let (_dir, text) = trained(&["<|end|> <|end|> <|end|>"], MIN + 20);
        let special = text.tokenizer.special();
        assert_eq!((special.pad, special.bos, special.eos, special.sep), (Some(0), Some(1), 2, None));
        let ids = text.tokenizer.encode("<|end|><|pad|>");
        assert!(ids.iter().all(|&id| id >= SPECIAL.len() as u32), "{ids:?}");
        assert_eq!(text.tokenizer.decode(&ids), "<|end|><|pad|>");
    }

    #[test]
    fn the_chat_template_ends_every_turn_and_shows_what_the_assistant_says() {
        let (_dir, text) = trained(&["Hi Yo"], MIN);
        let messages = [Message::new("system", "S"), Message::user("Hi"), Message::assistant("Yo")];
        let rendered = text.render(&messages, false).unwrap();
        assert_eq!(rendered.text, "<|begin|><|system|>S<|end|><|user|>Hi<|end|><|assistant|>Yo<|end|>");
        let byte = |byte: u8| text.tokenizer.encode(&char::from(byte).to_string())[0];
        let (s, h, i, y, o) = (byte(b'S'), byte(b'H'), byte(b'i'), byte(b'Y'), byte(b'o'));
        assert_eq!(rendered.tokens, [1, 3, s, 2, 4, h, i, 2, 5, y, o, 2]);
        let learned = rendered.tokens.iter().zip(&rendered.mask).filter(|(_, learned)| **learned);
        assert_eq!(learned.map(|(id, _)| *id).collect::<Vec<_>>(), [y, o, 2]);
        assert_eq!(text.encode_prompt("Hi").unwrap(), [1, 4, h, i, 2, 5]);
        assert_eq!((text.eos(), text.end_tokens()), (2, vec![2]));
        let other = text.render(&[Message::new("tool", "x"), Message::user("Hi")], false).unwrap_err();
        assert!(other.to_string().contains("system, user and assistant"), "{other}");
    }

    #[test]
    fn the_same_texts_give_the_same_bytes() {
        // The names of this crate in many orders: there are many ties between pairs.
        let texts: Vec<&str> = include_str!("train.rs").lines().collect();
        let json = |texts: &[&str]| {
            let mut trainer = TokenizerTrainer::default();
            texts.iter().for_each(|text| trainer.add(text));
            trainer.train(700).unwrap()
        };
        let first = json(&texts);
        let backwards: Vec<&str> = texts.iter().rev().copied().collect();
        assert_eq!(first, json(&texts));
        assert_eq!(first, json(&backwards), "the order of the texts does not matter");
    }

    /// The words of a text, by the crate.
    fn words(text: &str) -> HashMap<String, u64> {
        let mut trainer = TokenizerTrainer::default();
        trainer.count_words(text);
        trainer.words
    }

    proptest! {
        #[test]
        fn parts_of_a_text_have_the_words_of_the_whole(text in "([ab1'.\u{3000}é]|  ?|\n\n?|\t){0,60}", len in 1usize..9) {
            let mut by_parts = TokenizerTrainer::default();
            let mut joined = String::new();
            parts(&text, len, |part| {
                joined += part;
                by_parts.count_words(part);
            });
            prop_assert_eq!(joined, text.as_str());
            prop_assert_eq!(by_parts.words, words(&text));
        }

        #[test]
        fn any_text_comes_back(text in "\\PC*|.*|[\\x00-\\x7f]*") {
            // Trained once, not for every text.
            static SIDE: LazyLock<TextSide> =
                LazyLock::new(|| trained(&["some words, some more words"], MIN + 9).1);
            let side = &*SIDE;
            prop_assert!(matches!(side.tokenizer, Tokenizer::Pretrained(_)));
            prop_assert_eq!(side.tokenizer.decode(&side.tokenizer.encode(&text)), text);
        }
    }
}
