//! What a Hugging Face directory holds in addition to a model's shape: it is kept, and written again with every
//! checkpoint.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;
use crate::adapters::base_of;
use crate::config::INIT_STD;
use crate::directory::{LoadOptions, TokenIds, write_json};

const GENERATION_CONFIG: &str = "generation_config.json";
const MAX_NEW_TOKENS: &str = "max_new_tokens";

/// Keys of `config.json` that Temper writes whatever the family: the kind of head, the end token, the type of numbers.
const OWN_KEYS: [&str; 6] =
    ["architectures", "dtype", "temper_pooling", "num_labels", "eos_token_id", "bos_token_id"];

/// The keys of a `config.json` that Temper does not use, and its `generation_config.json` as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Carried {
    config: Map<String, Value>,
    generation_config: Option<Vec<u8>>,
}

impl Carried {
    /// What `config`, the `config.json` of `dir`, and its neighbours hold besides the keys that the family `written`.
    /// Fields that were `ignored` are not kept.
    pub(crate) fn of(dir: &Path, config: &Value, written: &Value, ignored: &[String]) -> Result<Self, Error> {
        let keep = |(key, value): &(&String, &Value)| match key.as_str() {
            _ if ignored.contains(key) => false,
            "bos_token_id" => !value.is_null(),
            // One id is that of the tokenizer, which is written anyway.
            "eos_token_id" => value.is_array(),
            "initializer_range" => value.as_f64() != Some(INIT_STD),
            key => !OWN_KEYS.contains(&key) && written.get(key).is_none() && key != "temper",
        };
        let keys = config.as_object().into_iter().flatten().filter(keep);
        Ok(Self {
            config: keys.map(|(key, value)| (key.clone(), value.clone())).collect(),
            generation_config: read_generation_config(dir)?,
        })
    }

    /// Adds the keys to a `config.json` that is to be written. A list of end tokens stays if `eos` is in it.
    pub(crate) fn add_to(&self, config: &mut Value, eos: u32) {
        for (key, value) in &self.config {
            let ends_otherwise = |list: &Vec<Value>| !list.contains(&Value::from(eos));
            // The padding of a reward model is chosen when it is written.
            let is_chosen = key == "pad_token_id" && config.get(key).is_some();
            if is_chosen || key == "eos_token_id" && value.as_array().is_some_and(ends_otherwise) {
                continue;
            }
            config[key.as_str()] = value.clone();
        }
    }

    /// Writes the `generation_config.json` of a finished model: as it was if it names the end tokens, and with them
    /// otherwise.
    pub(crate) fn save_generation_config(&self, dir: &Path, ids: &TokenIds) -> Result<(), Error> {
        let carried = self.generation_config.as_deref().map(serde_json::from_slice::<Map<String, Value>>);
        let mut json = match carried {
            Some(Ok(json))
                if names_all(json.get("eos_token_id").unwrap_or(&Value::Null), &ids.end_tokens) =>
            {
                return self.save(dir);
            }
            Some(Ok(json)) => json,
            _ => Map::new(),
        };
        json.insert("eos_token_id".into(), one_or_all(&ids.end_tokens));
        for (key, id) in [("bos_token_id", ids.bos), ("pad_token_id", ids.pad)] {
            if let Some(id) = id {
                json.entry(key).or_insert(id.into());
            }
        }
        write_json(&dir.join(GENERATION_CONFIG), &json)
    }

    /// The same with the `generation_config.json` of another directory, if that has one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn with_generation_config_of(self, dir: &Path) -> Result<Self, Error> {
        let generation_config = read_generation_config(dir)?.or(self.generation_config);
        Ok(Self { generation_config, ..self })
    }

    /// `max_new_tokens` of the `generation_config.json`.
    pub(crate) fn max_new_tokens(&self) -> Option<usize> {
        max_new_tokens_in(self.generation_config.as_deref()?)
    }

    /// Sets `max_new_tokens` of the `generation_config.json`, and leaves the rest of it.
    pub(crate) fn set_max_new_tokens(&mut self, max_new_tokens: usize) {
        let carried = self.generation_config.as_deref().map(serde_json::from_slice::<Map<String, Value>>);
        let mut json = carried.and_then(Result::ok).unwrap_or_default();
        json.insert(MAX_NEW_TOKENS.into(), max_new_tokens.into());
        let mut text = format!("{:#}", Value::from(json));
        text.push('\n');
        self.generation_config = Some(text.into_bytes());
    }

    /// Writes the files that go with `config.json`.
    pub(crate) fn save(&self, dir: &Path) -> Result<(), Error> {
        let Some(bytes) = &self.generation_config else { return Ok(()) };
        let path = dir.join(GENERATION_CONFIG);
        fs::write(&path, bytes).map_err(|source| Error::Io { path, source })
    }
}

fn read_generation_config(dir: &Path) -> Result<Option<Vec<u8>>, Error> {
    let path = dir.join(GENERATION_CONFIG);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path, source }),
    }
}

/// The longest answer that the model in a directory is meant to give, in tokens: `max_new_tokens` of its
/// `generation_config.json`, if there is one that can be read; or of its base, if it is an adapter.
pub fn max_new_tokens(dir: &Path) -> Option<usize> {
    let in_dir = |dir: &Path| max_new_tokens_in(&fs::read(dir.join(GENERATION_CONFIG)).ok()?);
    in_dir(dir).or_else(|| in_dir(&base_of(dir, &LoadOptions::default()).ok()?))
}

fn max_new_tokens_in(generation_config: &[u8]) -> Option<usize> {
    let json: Map<String, Value> = serde_json::from_slice(generation_config).ok()?;
    usize::try_from(json.get(MAX_NEW_TOKENS)?.as_u64()?).ok()
}

/// Whether an `eos_token_id`, one id or a list, has all of them.
fn names_all(value: &Value, ids: &[u32]) -> bool {
    let named = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    ids.iter().all(|id| named.contains(&Value::from(*id)))
}

/// One id as a number and several as a list, as transformers writes them.
fn one_or_all(ids: &[u32]) -> Value {
    match ids {
        [id] => Value::from(*id),
        ids => Value::from(ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CausalLm, ModelConfig, Pooling, ScalarModel};
    use burn::tensor::Device;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use serde_json::json;

    #[test]
    fn the_longest_answer_is_set_and_read_and_the_rest_stays() {
        let mut carried = Carried::default();
        assert_eq!(carried.max_new_tokens(), None);
        carried.set_max_new_tokens(40);
        assert_eq!(carried.max_new_tokens(), Some(40));
        carried.generation_config = Some(b"{\"temperature\": 0.7, \"max_new_tokens\": 8}".to_vec());
        assert_eq!(carried.max_new_tokens(), Some(8));
        carried.set_max_new_tokens(9);
        let json: Value = serde_json::from_slice(carried.generation_config.as_deref().unwrap()).unwrap();
        assert_eq!(json, json!({"temperature": 0.7, "max_new_tokens": 9}));
    }

    #[test]
    fn what_a_hugging_face_directory_says_besides_its_shape_is_saved_with_the_model() {
        let [from, to] = ["from", "to"].map(|name| {
            let name = format!("temper-model-{}-carried-{name}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            fs::create_dir_all(&dir).unwrap();
            dir
        });
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let config = ModelConfig::preset("gpt2-tiny").unwrap();
        CausalLm::new(&config, &mut rng, &Device::flex()).save(&from, 3).unwrap();
        let said = json!({"pad_token_id": 0, "bos_token_id": 1, "initializer_range": 0.15, "eos_token_id": [3, 7],
                          "task_specific_params": {"text-generation": {"max_length": 50}}});
        let written = |dir: &Path| -> Value {
            serde_json::from_str(&fs::read_to_string(dir.join("config.json")).unwrap()).unwrap()
        };
        let mut json = written(&from);
        json["dtype"] = "bfloat16".into();
        json.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        fs::write(from.join("config.json"), json.to_string()).unwrap();
        let generation = "{\n  \"eos_token_id\": [3, 7], \"temperature\": 0.7}";
        fs::write(from.join("generation_config.json"), generation).unwrap();

        let model = CausalLm::load(&from, &Device::flex()).unwrap();
        let check = |dir: &Path| {
            let json = written(dir);
            for (key, value) in said.as_object().unwrap() {
                assert_eq!(&json[key], value, "{key}");
            }
            assert_eq!(json["dtype"], Value::Null, "the numbers are written as float32");
            assert_eq!(fs::read_to_string(dir.join("generation_config.json")).unwrap(), generation);
        };
        model.save(&to, 3).unwrap();
        check(&to);
        // A reward model starts from its backbone.
        ScalarModel::new(model.transformer.clone(), Pooling::Last, &mut rng).save(&to, 3).unwrap();
        check(&to);
        assert_eq!(written(&to)["architectures"][0], "GPT2ForSequenceClassification");
        // A tokenizer that ends otherwise has the last word.
        model.save(&to, 5).unwrap();
        assert_eq!(written(&to)["eos_token_id"], 5);
        fs::remove_dir_all(from).unwrap();
        fs::remove_dir_all(to).unwrap();
    }
}
