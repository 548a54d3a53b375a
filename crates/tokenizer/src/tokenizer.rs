//! One tokenizer, whichever it is.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

use crate::{ByteTokenizer, Error, PretrainedTokenizer, SpecialTokens, Template, hash::stable_hash};

/// Text to ids and back, either by bytes or by somebody's vocabulary.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// The notebook's bytes.
    Byte(ByteTokenizer),
    /// Anything else that has a `tokenizer.json`.
    Pretrained(PretrainedTokenizer),
}

impl Tokenizer {
    /// The notebook's byte tokenizer.
    pub fn byte() -> Self {
        Self::Byte(ByteTokenizer)
    }

    /// Reads a `tokenizer.json`; the files next to it name the special tokens.
    ///
    /// # Errors
    ///
    /// If the file is missing or is not a tokenizer, or if no end token is named anywhere.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let raw = fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NoTokenizer { path: path.to_owned() },
            _ => Error::read(path, source),
        })?;
        // Ours is a few kilobytes; there is no need to parse megabytes twice.
        if raw.len() < MAX_BYTE_JSON_LEN {
            let json: Value = serde_json::from_str(&raw)
                .map_err(|source| Error::BadJson { path: path.to_owned(), source })?;
            if ByteTokenizer::is_described_by(&json) {
                return Ok(Self::byte());
            }
        }
        PretrainedTokenizer::from_json(raw, path).map(Self::Pretrained)
    }

    /// Reads the tokenizer of a Hugging Face model directory.
    ///
    /// The special ids are those of the byte tokenizer, or else what the first of `config.json`,
    /// `generation_config.json`, `tokenizer_config.json`, `special_tokens_map.json` says, or else a
    /// well-known name such as `<|endoftext|>`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::from_file`].
    pub fn from_dir(dir: &Path) -> Result<Self, Error> {
        Self::from_file(&dir.join("tokenizer.json"))
    }

    /// The ids of a text. No special token is added, and text that looks like one stays text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match self {
            Self::Byte(tokenizer) => tokenizer.encode(text),
            Self::Pretrained(tokenizer) => tokenizer.encode(text),
        }
    }

    /// The text of `ids`. It never fails: special ids and ids outside the vocabulary are skipped, and
    /// broken UTF-8 becomes U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        match self {
            Self::Byte(tokenizer) => tokenizer.decode(ids),
            Self::Pretrained(tokenizer) => tokenizer.decode(ids),
        }
    }

    /// What to show for one id: its text, or the name of a special token, which has none.
    pub fn name_of(&self, id: u32) -> String {
        let text = self.decode(&[id]);
        if text.is_empty() { self.token(id).unwrap_or_default() } else { text }
    }

    /// As [`Tokenizer::decode`], with the names of special tokens in their places: text to look at.
    pub fn decode_with_special(&self, ids: &[u32]) -> String {
        let is_special = |id: u32| self.decode(&[id]).is_empty();
        let runs = ids.chunk_by(|a, b| is_special(*a) == is_special(*b));
        let text = |run: &[u32]| match is_special(run[0]) {
            true => run.iter().map(|id| self.name_of(*id)).collect(),
            false => self.decode(run),
        };
        runs.map(text).collect()
    }

    /// One more than the largest id; a model may have more rows than that, never fewer.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Byte(_) => ByteTokenizer::VOCAB_SIZE,
            Self::Pretrained(tokenizer) => tokenizer.vocab_size(),
        }
    }

    /// The ids of the special tokens.
    pub fn special(&self) -> &SpecialTokens {
        match self {
            Self::Byte(tokenizer) => tokenizer.special(),
            Self::Pretrained(tokenizer) => tokenizer.special(),
        }
    }

    /// The ids that end a completion in generation, in order: the end token, and those that `config.json` and
    /// `generation_config.json` name in addition to it.
    pub fn end_tokens(&self) -> Vec<u32> {
        match self {
            Self::Byte(_) => vec![ByteTokenizer::EOS],
            Self::Pretrained(tokenizer) => tokenizer.end_tokens().to_vec(),
        }
    }

    /// Ids below [`Tokenizer::vocab_size`] that stand for no token, in order: some vocabularies have gaps.
    pub fn missing_ids(&self) -> Vec<u32> {
        match self {
            Self::Byte(_) => Vec::new(),
            Self::Pretrained(tokenizer) => tokenizer.missing_ids().to_vec(),
        }
    }

    /// A hash of what each id stands for, the same however the file is laid out. Two stages whose
    /// fingerprints agree may exchange ids, if the special ids that they use agree too: those are not in it,
    /// see [`Tokenizer::special`].
    pub fn fingerprint(&self) -> String {
        let json = match self {
            Self::Byte(tokenizer) => tokenizer.to_json(),
            Self::Pretrained(tokenizer) => serde_json::from_str(tokenizer.raw_json()).unwrap_or_default(),
        };
        stable_hash(canonical(json).to_string().as_bytes())
    }

    /// Writes `tokenizer.json`, the `tokenizer_config.json` that transformers wants, and the files that were next to a
    /// pretrained one, into `dir`.
    ///
    /// # Errors
    ///
    /// If the directory or a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        self.save_for(dir, None)
    }

    /// As [`Tokenizer::save`]; with a template, the byte tokenizer gets a chat template that puts text together alike.
    pub(crate) fn save_for(&self, dir: &Path, template: Option<&Template>) -> Result<(), Error> {
        let (tokenizer, config) = match self {
            Self::Byte(byte) => (pretty(&byte.to_json()), pretty(&byte.config_json(template))),
            Self::Pretrained(pretrained) => {
                let config = pretrained.raw_config().map(str::to_owned);
                let config = config.unwrap_or_else(|| pretty(&pretrained.config_json()));
                (pretrained.raw_json().to_owned(), config)
            }
        };
        let mut files =
            vec![("tokenizer.json", tokenizer.as_bytes()), ("tokenizer_config.json", config.as_bytes())];
        if let Self::Pretrained(pretrained) = self {
            files.extend(pretrained.side_files().iter().map(|(name, bytes)| (*name, bytes.as_slice())));
        }
        write_all(dir, &files)
    }

    /// As [`Tokenizer::save_for`], for a reward model that pads with `pad`: see [`Tokenizer::score_padding`].
    pub(crate) fn save_for_scores(
        &self,
        dir: &Path,
        template: Option<&Template>,
        pad: Option<u32>,
    ) -> Result<(), Error> {
        self.save_for(dir, template)?;
        match self {
            Self::Pretrained(tokenizer) if pad != tokenizer.special().pad => {
                let files = tokenizer.files_with_padding(pad);
                write_all(dir, &files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect::<Vec<_>>())
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn write_all(dir: &Path, files: &[(&str, &[u8])]) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|source| Error::write(dir, source))?;
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::write(&path, bytes).map_err(|source| Error::write(&path, source))?;
    }
    Ok(())
}

const MAX_BYTE_JSON_LEN: usize = 256 * 1024;

fn pretty(json: &Value) -> String {
    format!("{json:#}\n")
}

/// Sorted keys, one spelling of merges, and nothing that [`Tokenizer::encode`] does not use.
fn canonical(mut json: Value) -> Value {
    if let Some(file) = json.as_object_mut() {
        for unused in ["version", "truncation", "padding", "post_processor"] {
            file.remove(unused);
        }
    }
    if let Some(merges) = json.pointer_mut("/model/merges").and_then(Value::as_array_mut) {
        for merge in merges {
            if let Some([Value::String(left), Value::String(right)]) = merge.as_array().map(Vec::as_slice) {
                *merge = json!(format!("{left} {right}"));
            }
        }
    }
    json.sort_all_objects();
    json
}

#[cfg(test)]
mod tests;
