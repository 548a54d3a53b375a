//! The files of an adapter: `adapter_config.json` and `adapter_model.safetensors`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use temper_tensor::{ReadError, TensorReader};

use super::Lora;
use crate::Error;
use crate::directory::{LoadOptions, write_json};
use crate::heads::Pooling;

pub(super) const CONFIG: &str = "adapter_config.json";
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";
const NOTES: &str = "temper.json";
/// What PEFT calls a language model.
pub(super) const CAUSAL_TASK: &str = "CAUSAL_LM";
/// What PEFT calls a model that scores.
pub(super) const SCALAR_TASK: &str = "SEQ_CLS";

/// Whether `dir` holds an adapter and no whole model.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(CONFIG).is_file() && !dir.join("config.json").is_file()
}

/// Whether the adapter in `dir` is of a model that scores.
pub(crate) fn is_of_scalar_model(dir: &Path) -> Result<bool, Error> {
    Ok(read_config(dir)?["task_type"] == SCALAR_TASK)
}

/// The adapters from `dir` on, each on the next, and the whole model that the last of them is for. There are none if `dir` is
/// a whole model itself. The base that the `options` name is that of the first.
///
/// # Errors
/// [`Error::NoBaseModel`], and an `adapter_config.json` that cannot be read.
pub fn adapter_chain(dir: &Path, options: &LoadOptions) -> Result<(Vec<PathBuf>, PathBuf), Error> {
    let (mut adapters, mut at, mut given) = (Vec::new(), dir.to_owned(), options.base.clone());
    while is_adapter(&at) {
        let Lora { base, .. } = read_lora(&at)?;
        let next = given.take().unwrap_or_else(|| PathBuf::from(&base));
        adapters.push(at);
        let is_known = adapters.iter().any(|adapter| is_same(adapter, &next));
        if !next.is_dir() || is_known {
            return Err(Error::NoBaseModel { path: adapters.remove(adapters.len() - 1), base: next });
        }
        at = next;
    }
    Ok((adapters, at))
}

fn is_same(a: &Path, b: &Path) -> bool {
    a == b || fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}

/// The whole model under the adapters of `dir`, or `dir` if it is one.
///
/// # Errors
/// As [`adapter_chain`].
pub fn base_of(dir: &Path, options: &LoadOptions) -> Result<PathBuf, Error> {
    Ok(adapter_chain(dir, options)?.1)
}

/// The file `temper.json` of an adapter on a model that scores.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Notes {
    pooling: Pooling,
}

pub(super) fn save_pooling(dir: &Path, pooling: Pooling) -> Result<(), Error> {
    write_json(&dir.join(NOTES), &Notes { pooling })
}

/// Where the head of an adapted model reads, if the adapter is Temper's.
pub(super) fn stored_pooling(dir: &Path) -> Result<Option<Pooling>, Error> {
    let path = dir.join(NOTES);
    let bytes = match fs::read(&path) {
        Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|source| Error::Io { path: path.clone(), source })?,
    };
    let notes: Notes = serde_json::from_slice(&bytes)
        .map_err(|error| Error::Malformed { path, reason: error.to_string() })?;
    Ok(Some(notes.pooling))
}

fn read_config(dir: &Path) -> Result<Value, Error> {
    let path = dir.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    serde_json::from_str(&text).map_err(|error| Error::Malformed { path, reason: error.to_string() })
}

/// How the model in `dir` is adapted, from its `adapter_config.json`.
///
/// # Errors
/// A file that is missing or malformed, and adapters that compute something else than A and B beside a weight.
pub(super) fn read_lora(dir: &Path) -> Result<Lora, Error> {
    let (path, json) = (dir.join(CONFIG), read_config(dir)?);
    let malformed = |reason: String| Error::Malformed { path: path.clone(), reason };
    for (key, value) in json.as_object().into_iter().flatten() {
        if !is_supported(key, value) {
            return Err(Error::UnsupportedAdapter { path, key: key.clone(), value: value.to_string() });
        }
    }
    let rank = json["r"].as_u64().and_then(|rank| usize::try_from(rank).ok()).filter(|rank| *rank > 0);
    let rank = rank.ok_or_else(|| malformed(format!("`r` must be a number above 0, not {}", json["r"])))?;
    let alpha = json["lora_alpha"].as_f64().filter(|alpha| alpha.is_finite());
    let alpha = alpha
        .ok_or_else(|| malformed(format!("`lora_alpha` must be a number, not {}", json["lora_alpha"])))?;
    // rsLoRA (Kalajdzievski 2023) multiplies by α / √rank.
    let alpha = if is_off(&json["use_rslora"]) { alpha } else { alpha * (rank as f64).sqrt() };
    let targets = json["target_modules"].as_array().into_iter().flatten();
    let base = json["base_model_name_or_path"].as_str().unwrap_or_default().to_owned();
    Ok(Lora { rank, alpha, targets: targets.filter_map(Value::as_str).map(str::to_owned).collect(), base })
}

/// Keys that change nothing about what a finished adapter computes, whatever their values.
const WITHOUT_EFFECT: [&str; 22] = [
    "task_type",
    "base_model_name_or_path",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "fan_in_fan_out",
    "inference_mode",
    "use_rslora",
    "auto_mapping",
    "revision",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "loftq_config",
    "eva_config",
    "lora_ga_config",
    "ensure_weight_tying",
    "runtime_config",
];

/// Whether an adapter with this value in its `adapter_config.json` is A and B beside a weight. A key that is not known must be
/// off, because it may change what is computed.
fn is_supported(key: &str, value: &Value) -> bool {
    match key {
        "peft_type" => value == "LORA",
        "bias" => value.is_null() || value == "none",
        "modules_to_save" => value.is_null() || *value == json!(["score"]) || *value == json!([]),
        // Others start from a base weight that they change.
        "init_lora_weights" => {
            value.is_boolean() || ["gaussian", "orthogonal", "eva"].iter().any(|name| value == name)
        }
        key => WITHOUT_EFFECT.contains(&key) || is_off(value),
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// The tensors of an adapter.
pub(super) struct AdapterFile {
    path: PathBuf,
    reader: TensorReader,
    read: Vec<String>,
}

impl AdapterFile {
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(WEIGHTS);
        let reader = TensorReader::open(&path).map_err(|error| match error {
            ReadError::Io(source) => Error::Io { path: path.clone(), source },
            ReadError::Malformed(reason) => Error::Malformed {
                path: path.clone(),
                reason: format!("not a whole safetensors file: {reason}"),
            },
        })?;
        Ok(Self { path, reader, read: Vec::new() })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.reader.dims(name).is_some()
    }

    pub(super) fn read(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, Error> {
        let (path, name) = (self.path.clone(), name.to_owned());
        let Some(found) = self.reader.dims(&name) else { return Err(Error::MissingWeight { path, name }) };
        if found != dims {
            return Err(Error::WrongShape { path, name, found: found.into(), expected: dims.into() });
        }
        let values = self.reader.values(&name).map_err(|source| Error::Io { path: path.clone(), source })?;
        let malformed = |reason: String| Error::Malformed { path: path.clone(), reason };
        let values =
            values.ok_or_else(|| malformed(format!("`{name}` has another type than F32, F16 and BF16")))?;
        if let Some(bad) = values.iter().find(|value| !value.is_finite()) {
            return Err(malformed(format!("`{name}` holds {bad}")));
        }
        self.read.push(name);
        Ok(values)
    }

    /// Refuses a file with tensors that have no place in the model: they would be left out.
    pub(super) fn finish(self) -> Result<(), Error> {
        let mut left: Vec<&str> =
            self.reader.names().filter(|name| !self.read.iter().any(|read| read == name)).collect();
        left.sort_unstable();
        match left.first() {
            None => Ok(()),
            Some(name) => {
                let reason =
                    format!("`{name}` has no place in this model; only linear layers of blocks are adapted");
                Err(Error::Malformed { path: self.path, reason })
            }
        }
    }
}
