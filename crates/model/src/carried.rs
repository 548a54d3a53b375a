//! What a Hugging Face directory says of a model besides its shape: kept, and written again with every checkpoint.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;
use crate::config::INIT_STD;

const GENERATION_CONFIG: &str = "generation_config.json";

/// Keys of `config.json` that depend on what is written: the shape, the kind of head, and the type of the numbers.
const OWN_KEYS: [&str; 22] = [
    "model_type",
    "architectures",
    "vocab_size",
    "n_positions",
    "n_ctx",
    "n_embd",
    "n_layer",
    "n_head",
    "n_inner",
    "activation_function",
    "layer_norm_epsilon",
    "embd_pdrop",
    "resid_pdrop",
    "attn_pdrop",
    "tie_word_embeddings",
    "torch_dtype",
    "dtype",
    "temper",
    "temper_pooling",
    "num_labels",
    "eos_token_id",
    "bos_token_id",
];

/// The keys of a `config.json` that Temper does not use, and its `generation_config.json` as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Carried {
    config: Map<String, Value>,
    generation_config: Option<Vec<u8>>,
}

impl Carried {
    /// What `config`, the `config.json` of `dir`, and its neighbours say.
    pub(crate) fn of(dir: &Path, config: &Value) -> Result<Self, Error> {
        let keep = |(key, value): &(&String, &Value)| match key.as_str() {
            "bos_token_id" => !value.is_null(),
            // One id is that of the tokenizer, which is written anyway.
            "eos_token_id" => value.is_array(),
            "initializer_range" => value.as_f64() != Some(INIT_STD),
            key => !OWN_KEYS.contains(&key),
        };
        let keys = config.as_object().into_iter().flatten().filter(keep);
        let path = dir.join(GENERATION_CONFIG);
        let generation_config = match fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(Error::Io { path, source }),
        };
        Ok(Self {
            config: keys.map(|(key, value)| (key.clone(), value.clone())).collect(),
            generation_config,
        })
    }

    /// Adds the keys to a `config.json` that is to be written. A list of end tokens stays if `eos` is in it.
    pub(crate) fn add_to(&self, config: &mut Value, eos: u32) {
        for (key, value) in &self.config {
            let ends_otherwise = |list: &Vec<Value>| !list.contains(&Value::from(eos));
            if key == "eos_token_id" && value.as_array().is_some_and(ends_otherwise) {
                continue;
            }
            config[key.as_str()] = value.clone();
        }
    }

    /// Writes the files that go with `config.json`.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), Error> {
        let Some(bytes) = &self.generation_config else { return Ok(()) };
        let path = dir.join(GENERATION_CONFIG);
        fs::write(&path, bytes).map_err(|source| Error::Io { path, source })
    }
}
