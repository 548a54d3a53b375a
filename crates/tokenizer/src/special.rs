//! The ids that stand for structure, not for text.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// The ids of the special tokens that a tokenizer has. Every tokenizer here has an end token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialTokens {
    /// Padding; masks say what is padding, so training needs none.
    pub pad: Option<u32>,
    /// The start of a sequence.
    pub bos: Option<u32>,
    /// Between a prompt and its completion.
    pub sep: Option<u32>,
    /// The end of a completion.
    pub eos: u32,
}

impl SpecialTokens {
    /// Whether `id` is one of them.
    pub fn contains(&self, id: u32) -> bool {
        id == self.eos || [self.pad, self.bos, self.sep].contains(&Some(id))
    }

    /// Reads the ids from the files of a Hugging Face directory; the first file that names one wins.
    pub(crate) fn resolve(tokenizer_path: &Path, tokenizer: &tokenizers::Tokenizer) -> Result<Self, Error> {
        let dir = tokenizer_path.parent().unwrap_or(Path::new(""));
        let sources: Vec<Value> = SOURCES
            .iter()
            .map(|name| {
                let path = dir.join(name);
                let json = read_json(&path)?.unwrap_or_default();
                check_ids(&json).map_err(|source| Error::BadJson { path, source })?;
                Ok(json)
            })
            .collect::<Result<_, Error>>()?;
        let find = |role: &str, well_known: &[&str]| {
            sources
                .iter()
                .find_map(|json| id_in(json, role, tokenizer))
                .or_else(|| well_known.iter().find_map(|name| tokenizer.token_to_id(name)))
        };
        let Some(eos) = find("eos", &EOS_NAMES) else {
            return Err(Error::NoEos { path: tokenizer_path.to_owned() });
        };
        Ok(Self {
            pad: find("pad", &PAD_NAMES),
            bos: find("bos", &BOS_NAMES),
            sep: find("sep", &SEP_NAMES),
            eos,
        })
    }
}

/// Every id that ends an answer: the union of what the files say, and `eos`.
///
/// What this tokenizer does not have does not count.
pub(crate) fn end_tokens(
    tokenizer_path: &Path,
    tokenizer: &tokenizers::Tokenizer,
    eos: u32,
) -> Result<Vec<u32>, Error> {
    let dir = tokenizer_path.parent().unwrap_or(Path::new(""));
    let mut ids = vec![eos];
    for name in ["config.json", "generation_config.json", "tokenizer_config.json"] {
        let json = read_json(&dir.join(name))?.unwrap_or_default();
        let listed = match &json["eos_token_id"] {
            Value::Array(ids) => ids.as_slice(),
            id => std::slice::from_ref(id),
        };
        let known = |id: &Value| {
            let id = u32::try_from(id.as_u64()?).ok()?;
            tokenizer.id_to_token(id).map(|_| id)
        };
        ids.extend(listed.iter().filter_map(known));
        let token = &json["eos_token"];
        let token = token.get("content").unwrap_or(token).as_str();
        ids.extend(token.and_then(|token| tokenizer.token_to_id(token)));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

const SOURCES: [&str; 4] =
    ["config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"];

const EOS_NAMES: [&str; 7] =
    ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[EOS]", "<|im_end|>", "<|eos|>"];
const BOS_NAMES: [&str; 5] = ["<s>", "<|begin_of_text|>", "<bos>", "[BOS]", "<|bos|>"];
const PAD_NAMES: [&str; 4] = ["[PAD]", "<pad>", "<|pad|>", "<|padding|>"];
const SEP_NAMES: [&str; 3] = ["[SEP]", "<sep>", "<|sep|>"];

/// `None` where there is no such file.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, Error> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::BadJson { path: path.to_owned(), source }),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::read(path, source)),
    }
}

/// A field of the wrong type is not one that is missing: the next file would name another token.
fn check_ids(json: &Value) -> Result<(), serde_json::Error> {
    for role in ["eos", "bos", "sep", "pad"] {
        let key = format!("{role}_token_id");
        let is_id = match &json[&key] {
            Value::Array(ids) => ids.iter().all(Value::is_number),
            value => value.is_null() || value.is_number(),
        };
        if !is_id {
            let message = format!("`{key}` must be an id or a list of ids, not {}", json[&key]);
            return Err(serde::de::Error::custom(message));
        }
    }
    Ok(())
}

/// `eos_token_id` as one id or as a list (its first), else `eos_token` as a name or an object around it.
/// What this tokenizer does not have does not count: configs outlive a change of tokenizer.
pub(crate) fn id_in(json: &Value, role: &str, tokenizer: &tokenizers::Tokenizer) -> Option<u32> {
    let by_id = || {
        let value = json.get(format!("{role}_token_id"))?;
        let id = u32::try_from(value.get(0).unwrap_or(value).as_u64()?).ok()?;
        tokenizer.id_to_token(id).map(|_| id)
    };
    let by_name = || {
        let value = json.get(format!("{role}_token"))?;
        tokenizer.token_to_id(value.get("content").unwrap_or(value).as_str()?)
    };
    by_id().or_else(by_name)
}
