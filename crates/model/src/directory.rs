//! Models as Hugging Face directories: `config.json` and `model.safetensors`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::adapters::{adapter_chain, base_of, is_of_scalar_model};
use crate::carried::Carried;
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::families::{self, Family};
use crate::heads::{CausalLm, Pooling, ScalarModel};
use crate::layers::linear::Linear;
use crate::weights::{load_weights, save_weights};

/// How a model directory is read.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Fields of `config.json` that are ignored, with a warning, where they would be unknown
    /// ([`Error::UnknownFields`]). They are not written again with the model.
    pub ignored_fields: Vec<String>,
    /// The base model of a directory that holds an adapter, in place of the one that its `adapter_config.json` names.
    pub base: Option<PathBuf>,
}

impl LoadOptions {
    /// The same with another base model of an adapter, if one is given.
    #[must_use]
    pub fn on_base(self, base: Option<PathBuf>) -> Self {
        Self { base, ..self }
    }
}

impl ModelConfig {
    /// The shape of the model in a directory, from its `config.json` alone; whatever its head.
    ///
    /// # Errors
    /// A missing or malformed file, or another architecture.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        Self::load_with(dir, &LoadOptions::default())
    }

    /// [`ModelConfig::load`] with options.
    ///
    /// # Errors
    /// As [`ModelConfig::load`].
    pub fn load_with(dir: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let dir = &base_of(dir, options)?;
        let (json, path) = (read_config(dir)?, dir.join("config.json"));
        families::read_config(&json, &path, &options.ignored_fields).map(|(_, config)| config)
    }
}

const CAUSAL_LM: &str = "language model";
const SCALAR_MODEL: &str = "reward model";

impl CausalLm {
    /// Reads `config.json` and the weights: ours, or a directory of Hugging Face of a family that is known.
    ///
    /// # Errors
    /// Missing or malformed files, another architecture, a reward model, missing weights or wrong shapes.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        Self::load_with(dir, device, &LoadOptions::default())
    }

    /// [`CausalLm::load`] with options.
    ///
    /// # Errors
    /// As [`CausalLm::load`].
    pub fn load_with(dir: &Path, device: &Device, options: &LoadOptions) -> Result<Self, Error> {
        let (adapters, base) = adapter_chain(dir, options)?;
        if !adapters.is_empty() {
            if is_of_scalar_model(dir)? {
                return Err(Error::WrongHead { path: dir.into(), found: SCALAR_MODEL, expected: CAUSAL_LM });
            }
            let base = Self::load_with(&base, device, options)?;
            let fold = |model: Self, dir: &PathBuf| Ok(model.with_stored_adapters(dir)?.merged());
            return adapters.iter().rev().try_fold(base, fold);
        }
        let json = read_config(dir)?;
        // First of all: another architecture would not load with another head either.
        let (family, config) =
            families::read_config(&json, &dir.join("config.json"), &options.ignored_fields)?;
        if is_scalar(&json, dir)? {
            return Err(Error::WrongHead { path: dir.into(), found: SCALAR_MODEL, expected: CAUSAL_LM });
        }
        warn_of_ignored(dir, family, &json, options);
        let mut model = load_weights(dir, &config, family, &[], || Self::blank(&config, family, device))?;
        model.transformer.carried =
            Carried::of(dir, &json, &family.write_config(&config), &options.ignored_fields)?;
        Ok(model)
    }

    /// Writes `config.json` and `model.safetensors` into an existing directory, as a checkpoint needs them.
    ///
    /// `eos` goes into `config.json`, so that other tools know where to stop. Adapters are folded into their weights.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NonFiniteWeight`] for a model that could not be loaded again.
    pub fn save(&self, dir: &Path, eos: u32) -> Result<(), Error> {
        let family = self.transformer.family;
        let mut json = family.write_config(self.config());
        json["architectures"] = Value::from(vec![family.causal_class()]);
        self.transformer.carried.save(dir)?;
        write_config(json, &self.transformer, eos, dir)?;
        save_weights(&self.clone().merged(), self.config(), family, &[], dir)
    }

    /// The longest answer that the model is meant to give, in tokens: `max_new_tokens` of its `generation_config.json`.
    pub fn max_new_tokens(&self) -> Option<usize> {
        self.transformer.carried.max_new_tokens()
    }

    /// Says how long the answers are that the model learns. It is stored with the model.
    pub fn set_max_new_tokens(&mut self, max_new_tokens: usize) {
        self.transformer.carried.set_max_new_tokens(max_new_tokens);
    }

    /// [`CausalLm::save`] for a model that is finished: with a `generation_config.json` that names every end token. Adapters
    /// are in the weights, and also by themselves in `adapter/`, for PEFT.
    ///
    /// # Errors
    /// As [`CausalLm::save`].
    pub fn export(&self, dir: &Path, ids: &TokenIds) -> Result<(), Error> {
        self.save(dir, ids.eos)?;
        if self.transformer.lora().is_some() {
            self.save_adapters(&new_dir(dir.join(ADAPTER_DIR))?)?;
        }
        self.transformer.carried.save_generation_config(dir, ids)
    }
}

impl ScalarModel {
    /// A model that scores under its adapters, each on the next. The base may be a language model, because the head is among
    /// the adapters.
    fn load_adapted(
        adapters: &[PathBuf],
        base: &Path,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<Self, Error> {
        let base = if is_scalar(&read_config(base)?, base)? {
            Self::load_with(base, device, options)?
        } else {
            let CausalLm { transformer, .. } = CausalLm::load_with(base, device, options)?;
            let score = Linear::zeros(transformer.config().d_model, 1, true, device);
            Self::from_parts(transformer, score, Pooling::Last)
        };
        let fold = |model: Self, dir: &PathBuf| {
            if is_of_scalar_model(dir)? {
                return Ok(model.with_stored_adapters(dir)?.merged());
            }
            let pooling = model.pooling();
            let lm = CausalLm { transformer: model.transformer, lm_head: None };
            let transformer = lm.with_stored_adapters(dir)?.merged().transformer;
            Ok(Self::from_parts(transformer, model.score, pooling))
        };
        adapters.iter().rev().try_fold(base, fold)
    }

    /// Reads a reward model or a critic: ours, or one of transformers (`…ForSequenceClassification`) with one label, whose
    /// missing bias is 0.
    ///
    /// # Errors
    /// As [`CausalLm::load`]; a directory without a scalar head is refused, never given a fresh one.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        Self::load_with(dir, device, &LoadOptions::default())
    }

    /// [`ScalarModel::load`] with options.
    ///
    /// # Errors
    /// As [`ScalarModel::load`].
    pub fn load_with(dir: &Path, device: &Device, options: &LoadOptions) -> Result<Self, Error> {
        let (adapters, base) = adapter_chain(dir, options)?;
        if !adapters.is_empty() {
            if !is_of_scalar_model(dir)? {
                return Err(Error::WrongHead { path: dir.into(), found: CAUSAL_LM, expected: SCALAR_MODEL });
            }
            return Self::load_adapted(&adapters, &base, device, options);
        }
        let json = read_config(dir)?;
        let path = dir.join("config.json");
        let (family, config) = families::read_config(&json, &path, &options.ignored_fields)?;
        if !is_scalar(&json, dir)? {
            return Err(Error::WrongHead { path: dir.into(), found: CAUSAL_LM, expected: SCALAR_MODEL });
        }
        let (pooling, optional): (_, &[&str]) = match &json["temper_pooling"] {
            // `…ForSequenceClassification` reads the last token through a head without a bias.
            Value::Null => (Pooling::Last, &[SCORE_BIAS]),
            Value::String(name) if name == "mean" => (Pooling::Mean, &[]),
            Value::String(name) if name == "last" => (Pooling::Last, &[]),
            other => {
                let reason = format!("`temper_pooling` must be \"last\" or \"mean\", not {other}");
                return Err(Error::Malformed { path, reason });
            }
        };
        warn_of_ignored(dir, family, &json, options);
        let blank = || Self::blank(&config, family, pooling, device);
        let mut model = load_weights(dir, &config, family, optional, blank)?;
        model.transformer.carried =
            Carried::of(dir, &json, &family.write_config(&config), &options.ignored_fields)?;
        if json["temper_pooling"].is_null()
            && let Some(bias) = ScoreBias::load(dir)?
        {
            model = model.rescaled(1.0, bias);
        }
        Ok(model)
    }

    /// Writes `config.json` and `model.safetensors` into an existing directory, as a checkpoint needs them: the head with
    /// its bias, for which transformers has no place.
    ///
    /// # Errors
    /// As [`CausalLm::save`].
    pub fn save(&self, dir: &Path, eos: u32) -> Result<(), Error> {
        self.transformer.carried.save(dir)?;
        let mut json = self.config_json();
        json["temper_pooling"] = serde_json::to_value(self.pooling()).expect("an enum serialises");
        write_config(json, &self.transformer, eos, dir)?;
        save_weights(&self.clone().merged(), self.config(), self.transformer.family, &[], dir)
    }

    /// Writes a model that is finished, so that transformers opens it as `…ForSequenceClassification` with the same scores,
    /// but for a constant; see [`ScalarModel::has_transformers_form`].
    ///
    /// The bias of the head goes into the final norm where it can ([`ScalarModel::with_bias_in_norm`]), and into
    /// `temper.json` otherwise. A model that transformers cannot compute is written as by [`ScalarModel::save`].
    ///
    /// # Errors
    /// As [`CausalLm::save`].
    pub fn export(&self, dir: &Path, ids: &TokenIds) -> Result<(), Error> {
        self.transformer.carried.save_generation_config(dir, ids)?;
        if self.transformer.lora().is_some() {
            self.save_adapters(&new_dir(dir.join(ADAPTER_DIR))?)?;
        }
        let (mut json, model) = (self.config_json(), self.valid().merged().with_bias_in_norm());
        let left_out: &[&str] = if self.has_transformers_form() {
            ScoreBias::save(dir, model.score_bias())?;
            &[SCORE_BIAS]
        } else {
            json["temper_pooling"] = serde_json::to_value(self.pooling()).expect("an enum serialises");
            &[]
        };
        if let Some(pad) = ids.pad {
            json["pad_token_id"] = Value::from(pad);
        }
        write_config(json, &self.transformer, ids.eos, dir)?;
        save_weights(&model, self.config(), self.transformer.family, left_out, dir)
    }

    /// Whether transformers computes such scores: of a family that it has, read at the last token.
    pub fn has_transformers_form(&self) -> bool {
        self.transformer.family.is_in_transformers() && self.pooling() == Pooling::Last
    }

    fn config_json(&self) -> Value {
        let family = self.transformer.family;
        let mut json = family.write_config(self.config());
        json["architectures"] = Value::from(vec![family.scalar_class()]);
        json["num_labels"] = Value::from(1);
        json
    }
}

/// The path of the bias of a scalar head.
const SCORE_BIAS: &str = "score.bias";

/// Token ids that a finished model names in its files, so that other tools generate and score as Temper does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenIds {
    /// The end token.
    pub eos: u32,
    /// Every id that ends a completion in generation, the end token among them.
    pub end_tokens: Vec<u32>,
    /// The start token.
    pub bos: Option<u32>,
    /// Padding. A reward model needs one that is not an end token: transformers reads the score at the last token that
    /// is not padding.
    pub pad: Option<u32>,
}

/// The file `temper.json` of a reward model: the bias of its head where the files of transformers have no place for it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScoreBias {
    /// What is added to the score that transformers computes.
    score_bias: f32,
}

impl ScoreBias {
    const FILE: &str = "temper.json";

    fn load(dir: &Path) -> Result<Option<f64>, Error> {
        let path = dir.join(Self::FILE);
        let bytes = match fs::read(&path) {
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes.map_err(|source| Error::Io { path: path.clone(), source })?,
        };
        let bias: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Malformed { path: path.clone(), reason: error.to_string() })?;
        if bias.score_bias.is_finite() {
            return Ok(Some(f64::from(bias.score_bias)));
        }
        Err(Error::Malformed { path, reason: "`score_bias` must be a finite number".into() })
    }

    fn save(dir: &Path, score_bias: f32) -> Result<(), Error> {
        if !score_bias.is_finite() {
            return Err(Error::NonFiniteWeight { name: SCORE_BIAS.into(), value: score_bias });
        }
        write_json(&dir.join(Self::FILE), &Self { score_bias })
    }
}

/// Says which fields of a model that is loaded are ignored.
fn warn_of_ignored(dir: &Path, family: &dyn Family, json: &Value, options: &LoadOptions) {
    let fields = families::ignored_fields(family, json, &options.ignored_fields);
    if !fields.is_empty() {
        let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
        let path = dir.join("config.json");
        tracing::warn!("{}: ignoring {}, as asked for", path.display(), fields.join(", "));
    }
}

/// Where the adapter of a finished model is, for PEFT: the model has it in its weights already.
pub const ADAPTER_DIR: &str = "adapter";

fn new_dir(dir: PathBuf) -> Result<PathBuf, Error> {
    match fs::create_dir(&dir) {
        Ok(()) => Ok(dir),
        Err(source) => Err(Error::Io { path: dir, source }),
    }
}

/// Whether the `config.json` in `dir` is that of a model with a scalar head. One that names no class is not.
fn is_scalar(config: &Value, dir: &Path) -> Result<bool, Error> {
    match &config["architectures"] {
        Value::Null => Ok(false),
        Value::Array(names) if names.iter().all(Value::is_string) => {
            let first = names.first().and_then(Value::as_str);
            Ok(first.is_some_and(|name| name.ends_with("ForSequenceClassification")))
        }
        other => {
            let reason = format!("`architectures` must be a list of names, not {other}");
            Err(Error::Malformed { path: dir.join("config.json"), reason })
        }
    }
}

fn read_config(dir: &Path) -> Result<Value, Error> {
    let path = dir.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    serde_json::from_str(&text).map_err(|e| Error::Malformed { path, reason: e.to_string() })
}

fn write_config(mut json: Value, model: &Decoder, eos: u32, dir: &Path) -> Result<(), Error> {
    json["eos_token_id"] = Value::from(eos);
    json["bos_token_id"] = Value::Null; // Or transformers assumes GPT-2's own, which a small vocabulary lacks.
    model.carried.add_to(&mut json, eos);
    write_json(&dir.join("config.json"), &json)
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).expect("plain values serialise");
    fs::write(path, text + "\n").map_err(|source| Error::Io { path: path.into(), source })
}

#[cfg(test)]
mod tests;
