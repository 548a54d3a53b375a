//! Any `tokenizer.json`, by the `tokenizers` crate.

use std::{fmt, path::Path, str::FromStr, sync::Arc};

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::ModelWrapper;

use crate::{
    Error, SpecialTokens,
    guard::guarded,
    special::{id_in, read_json},
};

/// A tokenizer that somebody trained, as its `tokenizer.json` has it. Clones share one vocabulary.
///
/// Padding, truncation and BPE dropout of the file are left out: the same text always gives the same
/// ids, and all of them.
#[derive(Clone)]
pub struct PretrainedTokenizer {
    shared: Arc<Shared>,
}

struct Shared {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    vocab_size: usize,
    /// The file as it was read: saving it changes nothing for other tools.
    raw: String,
    /// The `tokenizer_config.json` beside it, or null.
    config: Value,
}

impl PretrainedTokenizer {
    /// Takes the text of the `tokenizer.json` at `path`; the files beside it name the special tokens.
    pub(crate) fn from_json(raw: String, path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::BadTokenizer { path: path.to_owned(), reason };
        let bad = |reason: tokenizers::Error| refuse(reason.to_string());
        if let Some(merge) = merge_without_prefix(&raw) {
            return Err(refuse(format!("the merge {merge} does not begin with `continuing_subword_prefix`")));
        }
        let panicked = || refuse("the `tokenizers` crate panics on it".to_owned());
        let parsed = guarded(|| tokenizers::Tokenizer::from_str(&raw)).ok_or_else(panicked)?;
        let mut inner = parsed.map_err(bad)?;
        inner.with_truncation(None).map_err(bad)?.with_padding(None);
        // Without this, `</s>` typed by a user would end the sequence.
        inner.set_encode_special_tokens(true);
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some()
        {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            inner.with_model(bpe);
        }
        // Better here, with the path, than at some text.
        let probe = || inner.encode_fast(PROBE, false).map(|encoding| inner.decode(encoding.get_ids(), true));
        guarded(probe).ok_or_else(panicked)?.ok();
        let special = SpecialTokens::resolve(path, &inner)?;
        let config = read_json(&path.with_file_name("tokenizer_config.json"))?.unwrap_or_default();
        // The largest id, not the count: some vocabularies have gaps.
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        Ok(Self { shared: Arc::new(Shared { inner, special, vocab_size, raw, config }) })
    }

    /// The ids of a text, without any special token, whatever the text spells.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let Shared { inner, special, .. } = &*self.shared;
        let encode = |text: &str| {
            let encoding = guarded(|| inner.encode_fast(text, false))?.ok()?;
            Some(encoding.get_ids().to_vec())
        };
        // A word model without an unknown token fails on what it does not know; the rest still counts.
        let mut ids = encode(text)
            .unwrap_or_else(|| text.chars().filter_map(|char| encode(&char.to_string())).flatten().collect());
        // Word models look up whole words, and `[SEP]` may be one.
        ids.retain(|&id| !special.contains(id));
        ids
    }

    /// The text of `ids`; special and unknown ids are skipped, broken UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let Shared { inner, special, .. } = &*self.shared;
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| !special.contains(id)).collect();
        let decode = |ids: &[u32]| guarded(|| inner.decode(ids, true))?.ok();
        decode(&ids).unwrap_or_else(|| ids.iter().filter_map(|&id| decode(&[id])).collect())
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.shared.vocab_size
    }

    /// The special tokens, by id.
    pub fn special(&self) -> &SpecialTokens {
        &self.shared.special
    }

    pub(crate) fn raw_json(&self) -> &str {
        &self.shared.raw
    }

    /// The `tokenizer_config.json` that was there, with the special tokens in it that are in use here:
    /// they may have come from a `config.json` that is not copied along.
    pub(crate) fn config_json(&self) -> Value {
        let Shared { inner, special, config, .. } = &*self.shared;
        let mut config = if config.is_object() {
            config.clone()
        } else {
            json!({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false})
        };
        let roles =
            [("eos", Some(special.eos)), ("bos", special.bos), ("sep", special.sep), ("pad", special.pad)];
        for (role, id) in roles {
            if let Some(id) = id
                && id_in(&config, role, inner) != Some(id)
            {
                config[format!("{role}_token")] = inner.id_to_token(id).into();
            }
        }
        config
    }
}

/// A text with words, digits, signs and two bytes in a character.
const PROBE: &str = "Wie spät? 12:30, \n ok";

/// A BPE merge whose right side lacks the prefix that continues a word.
///
/// The `tokenizers` crate cuts off as many bytes unseen, out of bounds or in the middle of a character.
fn merge_without_prefix(raw: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        continuing_subword_prefix: Option<String>,
    }
    // Most files have none, and reading megabytes into values takes as long as the tokenizer itself.
    if serde_json::from_str::<File>(raw).is_ok_and(|file| file.model.continuing_subword_prefix.is_none()) {
        return None;
    }
    let file = serde_json::from_str::<Value>(raw).ok()?;
    let model = &file["model"];
    let prefix = model["continuing_subword_prefix"].as_str()?;
    let lacks_it = |merge: &&Value| match merge {
        Value::String(pair) => !pair.split(' ').nth(1).unwrap_or_default().starts_with(prefix),
        pair => !pair[1].as_str().unwrap_or_default().starts_with(prefix),
    };
    model["merges"].as_array()?.iter().find(lacks_it).map(Value::to_string)
}

impl fmt::Debug for PretrainedTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PretrainedTokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("special", self.special())
            .finish_non_exhaustive()
    }
}
