//! Any `tokenizer.json`, by the `tokenizers` crate.

use std::{fmt, path::Path, str::FromStr, sync::Arc};

use serde_json::{Value, json};
use tokenizers::ModelWrapper;

use crate::{
    Error, SpecialTokens,
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
        let bad = |reason: tokenizers::Error| Error::BadTokenizer {
            path: path.to_owned(),
            reason: reason.to_string(),
        };
        let mut inner = tokenizers::Tokenizer::from_str(&raw).map_err(bad)?;
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
        let special = SpecialTokens::resolve(path, &inner)?;
        let config = read_json(&path.with_file_name("tokenizer_config.json"))?.unwrap_or_default();
        // The largest id, not the count: some vocabularies have gaps.
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        Ok(Self { shared: Arc::new(Shared { inner, special, vocab_size, raw, config }) })
    }

    /// The ids of a text, without any special token, whatever the text spells.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let Shared { inner, special, .. } = &*self.shared;
        let encode = |text: &str| inner.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec());
        // A word model without an unknown token fails on what it does not know; the rest still counts.
        let mut ids = encode(text).unwrap_or_else(|_| {
            text.chars().filter_map(|char| encode(&char.to_string()).ok()).flatten().collect()
        });
        // Word models look up whole words, and `[SEP]` may be one.
        ids.retain(|&id| !special.contains(id));
        ids
    }

    /// The text of `ids`; special and unknown ids are skipped, broken UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let Shared { inner, special, .. } = &*self.shared;
        let ids: Vec<u32> = ids.iter().copied().filter(|&id| !special.contains(id)).collect();
        inner
            .decode(&ids, true)
            .unwrap_or_else(|_| ids.iter().filter_map(|&id| inner.decode(&[id], true).ok()).collect())
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

impl fmt::Debug for PretrainedTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PretrainedTokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("special", self.special())
            .finish_non_exhaustive()
    }
}
