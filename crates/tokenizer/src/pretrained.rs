//! Any `tokenizer.json`, by the `tokenizers` crate.

use std::{
    collections::HashSet,
    fmt, fs, io,
    path::Path,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::ModelWrapper;

use crate::{
    Error, SpecialTokens,
    chat::encoder::ChatEncoder,
    guard::guarded,
    special::{self, id_in, read_json},
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
    /// See [`Tokenizer::end_tokens`](crate::Tokenizer::end_tokens).
    end_tokens: Vec<u32>,
    vocab_size: usize,
    /// Ids below `vocab_size` without a token, once somebody has asked for them: a damaged file may name an id of billions.
    missing_ids: OnceLock<Vec<u32>>,
    /// The file as it was read: saving it changes nothing for other tools.
    raw: String,
    /// The `tokenizer_config.json` next to it, or null; and its text, if there is one.
    config: Value,
    raw_config: Option<String>,
    /// The names and contents of [`SIDE_FILES`] that are there, as they are.
    side_files: Vec<(&'static str, Vec<u8>)>,
    /// Made when a conversation needs it: it holds the vocabulary again.
    chat_encoder: OnceLock<ChatEncoder>,
}

/// What other tools keep next to a `tokenizer.json` and Temper does not use, or only the special tokens of.
const SIDE_FILES: [&str; 3] = [SPECIAL_TOKENS_MAP, "added_tokens.json", "chat_template.jinja"];

const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";

impl PretrainedTokenizer {
    /// Takes the text of the `tokenizer.json` at `path`; the files next to it name the special tokens.
    pub(crate) fn from_json(raw: String, path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::BadTokenizer { path: path.to_owned(), reason };
        let bad = |reason: tokenizers::Error| refuse(reason.to_string());
        if let Some(merge) = merge_without_prefix(&raw) {
            return Err(refuse(format!("the merge {merge} does not begin with `continuing_subword_prefix`")));
        }
        if let Some(reason) = hostile_charsmap(&raw) {
            return Err(refuse(reason));
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
        let config_path = path.with_file_name("tokenizer_config.json");
        let config = read_json(&config_path)?.unwrap_or_default();
        let raw_config = read(&config_path)?.and_then(|bytes| String::from_utf8(bytes).ok());
        let mut side_files = Vec::new();
        for name in SIDE_FILES {
            side_files.extend(read(&path.with_file_name(name))?.map(|bytes| (name, bytes)));
        }
        // The largest id, not the count: some vocabularies have gaps.
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |&id| id as usize + 1);
        let end_tokens = special::end_tokens(path, &inner, special.eos)?;
        Ok(Self {
            shared: Arc::new(Shared {
                inner,
                special,
                end_tokens,
                vocab_size,
                missing_ids: OnceLock::new(),
                raw,
                config,
                raw_config,
                side_files,
                chat_encoder: OnceLock::new(),
            }),
        })
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
        let Shared { inner, special, end_tokens, .. } = &*self.shared;
        let is_text = |id: &u32| !special.contains(*id) && !end_tokens.contains(id);
        let ids: Vec<u32> = ids.iter().copied().filter(is_text).collect();
        let decode = |ids: &[u32]| guarded(|| inner.decode(ids, true))?.ok();
        decode(&ids).unwrap_or_else(|| ids.iter().filter_map(|&id| decode(&[id])).collect())
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.shared.vocab_size
    }

    /// The ids that end a completion, the end token of [`SpecialTokens`] among them, in order.
    pub fn end_tokens(&self) -> &[u32] {
        &self.shared.end_tokens
    }

    /// Ids below the size of the vocabulary that stand for no token.
    pub(crate) fn missing_ids(&self) -> &[u32] {
        let Shared { inner, vocab_size, missing_ids, .. } = &*self.shared;
        missing_ids.get_or_init(|| {
            let ids: HashSet<u32> = inner.get_vocab(true).into_values().collect();
            (0..*vocab_size as u32).filter(|id| !ids.contains(id)).collect()
        })
    }

    /// The special tokens, by id.
    pub fn special(&self) -> &SpecialTokens {
        &self.shared.special
    }

    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.shared.inner
    }

    /// Every chat template that came with the tokenizer, as one text; empty without any.
    pub(crate) fn chat_template_text(&self) -> String {
        let Shared { config, side_files, .. } = &*self.shared;
        let files = side_files.iter().filter(|(name, _)| name.ends_with(".jinja"));
        let files = files.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned());
        config["chat_template"].as_str().map(str::to_owned).into_iter().chain(files).collect()
    }

    /// The files that name special tokens, changed so that the tokenizer pads with `pad`; without a padding token if that
    /// id has no name.
    pub(crate) fn files_with_padding(&self, pad: Option<u32>) -> Vec<(&'static str, Vec<u8>)> {
        let name = pad.and_then(|pad| self.shared.inner.id_to_token(pad));
        let padded = |mut json: Value| {
            if let Some(fields) = json.as_object_mut() {
                match &name {
                    Some(name) => fields.insert("pad_token".into(), name.as_str().into()),
                    None => fields.remove("pad_token"),
                };
            }
            format!("{json:#}\n").into_bytes()
        };
        let map = self.shared.side_files.iter().find(|(name, _)| *name == SPECIAL_TOKENS_MAP);
        let map = map.and_then(|(name, bytes)| Some((*name, padded(serde_json::from_slice(bytes).ok()?))));
        map.into_iter().chain([("tokenizer_config.json", padded(self.config_json()))]).collect()
    }

    pub(crate) fn chat_encoder(&self) -> &ChatEncoder {
        self.shared.chat_encoder.get_or_init(|| ChatEncoder::new(&self.shared.inner))
    }

    pub(crate) fn raw_json(&self) -> &str {
        &self.shared.raw
    }

    /// Files that go with the tokenizer, by name, as they were read.
    pub(crate) fn side_files(&self) -> &[(&'static str, Vec<u8>)] {
        &self.shared.side_files
    }

    /// The text of the `tokenizer_config.json` that was there, if it needs no change; see
    /// [`PretrainedTokenizer::config_json`].
    pub(crate) fn raw_config(&self) -> Option<&str> {
        self.shared.raw_config.as_deref().filter(|_| self.config_json() == self.shared.config)
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

/// `None` where there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::read(path, source)),
    }
}

/// Why a `precompiled_charsmap` must not be parsed: it begins with the size of a table, and a dependency of
/// `tokenizers` reserves memory for it before it looks whether the table is there.
fn hostile_charsmap(raw: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        normalizer: Value,
    }
    fn charsmap(normalizer: &Value) -> Option<&str> {
        match normalizer {
            Value::Object(fields) => fields
                .get("precompiled_charsmap")
                .and_then(Value::as_str)
                .filter(|map| table_size(map).is_some_and(|size| size > n_bytes(map)))
                .or_else(|| fields.values().find_map(charsmap)),
            Value::Array(all) => all.iter().find_map(charsmap),
            _ => None,
        }
    }
    // Deserialising skips the vocabulary, which is most of the file.
    let file = serde_json::from_str::<File>(raw).ok()?;
    let map = charsmap(&file.normalizer)?;
    let size = table_size(map)?;
    Some(format!("its `precompiled_charsmap` names a table of {size} bytes, and has {}", n_bytes(map)))
}

/// Number of bytes that a text of base64 encodes.
fn n_bytes(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

/// The number in the first four bytes, little-endian; `None` if this is not base64.
fn table_size(base64: &str) -> Option<usize> {
    let six_bits = |byte: u8| {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        Some(u64::from(value))
    };
    let first = base64.as_bytes().get(..6)?;
    let bits = first.iter().try_fold(0, |bits, &byte| Some(bits << 6 | six_bits(byte)?))?;
    Some(((bits >> 4) as u32).swap_bytes() as usize)
}

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
