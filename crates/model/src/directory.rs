//! Models as Hugging Face directories: `config.json` and `model.safetensors`.

use std::collections::HashSet;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use temper_tensor::{TensorFile, map, values_of, visit, write_tensors};

use crate::Error;
use crate::carried::Carried;
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::families::{self, Family};
use crate::heads::{CausalLm, Pooling, ScalarModel};

impl ModelConfig {
    /// The shape of the model in a directory, from its `config.json` alone; whatever its head.
    ///
    /// # Errors
    /// A missing or malformed file, or another architecture.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        families::read_config(&read_config(dir)?, &dir.join("config.json")).map(|(_, config)| config)
    }
}

const CAUSAL_LM: &str = "language model";
const SCALAR_MODEL: &str = "reward model";

impl CausalLm {
    /// Reads `config.json` and `model.safetensors`: ours, or any GPT-2 directory of Hugging Face.
    ///
    /// # Errors
    /// Missing or malformed files, another architecture, a reward model, missing weights or wrong shapes.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        let json = read_config(dir)?;
        // First of all: another architecture would not load with another head either.
        let (family, config) = families::read_config(&json, &dir.join("config.json"))?;
        if is_scalar(&json, dir)? {
            return Err(Error::WrongHead { path: dir.into(), found: SCALAR_MODEL, expected: CAUSAL_LM });
        }
        let mut model = load_weights(dir, &config, family, &[], || Self::blank(&config, family, device))?;
        model.transformer.carried = Carried::of(dir, &json, &family.write_config(&config))?;
        Ok(model)
    }

    /// Writes `config.json` and `model.safetensors` into an existing directory.
    ///
    /// `eos` goes into `config.json`, so that other tools know where to stop. Adapters are folded into their weights.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NonFiniteWeight`] for a model that could not be loaded again.
    pub fn save(&self, dir: &Path, eos: u32) -> Result<(), Error> {
        let family = self.transformer.family;
        let mut json = family.write_config(self.config());
        json["architectures"] = Value::from(vec![family.causal_class()]);
        write_config(json, &self.transformer, eos, dir)?;
        save_weights(&self.clone().merged(), family, dir)
    }
}

impl ScalarModel {
    /// Reads a reward model or a critic: ours, or a `GPT2ForSequenceClassification` with one label, whose missing bias
    /// is 0.
    ///
    /// # Errors
    /// As [`CausalLm::load`]; a directory without a scalar head is refused, never given a fresh one.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        let json = read_config(dir)?;
        let path = dir.join("config.json");
        let (family, config) = families::read_config(&json, &path)?;
        if !is_scalar(&json, dir)? {
            return Err(Error::WrongHead { path: dir.into(), found: CAUSAL_LM, expected: SCALAR_MODEL });
        }
        let (pooling, optional): (_, &[&str]) = match &json["temper_pooling"] {
            // `GPT2ForSequenceClassification` reads the last token through a head without a bias.
            Value::Null => (Pooling::Last, &["score.bias"]),
            Value::String(name) if name == "mean" => (Pooling::Mean, &[]),
            Value::String(name) if name == "last" => (Pooling::Last, &[]),
            other => {
                let reason = format!("`temper_pooling` must be \"last\" or \"mean\", not {other}");
                return Err(Error::Malformed { path, reason });
            }
        };
        let blank = || Self::blank(&config, family, pooling, device);
        let mut model = load_weights(dir, &config, family, optional, blank)?;
        model.transformer.carried = Carried::of(dir, &json, &family.write_config(&config))?;
        Ok(model)
    }

    /// Writes `config.json` and `model.safetensors` into an existing directory.
    ///
    /// # Errors
    /// As [`CausalLm::save`].
    pub fn save(&self, dir: &Path, eos: u32) -> Result<(), Error> {
        let family = self.transformer.family;
        let mut json = family.write_config(self.config());
        json["architectures"] = Value::from(vec![family.scalar_class()]);
        json["num_labels"] = Value::from(1);
        json["temper_pooling"] = serde_json::to_value(self.pooling()).expect("an enum serialises");
        write_config(json, &self.transformer, eos, dir)?;
        save_weights(&self.clone().merged(), family, dir)
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
    model.carried.save(dir)?;
    let path = dir.join("config.json");
    let text = serde_json::to_string_pretty(&json).expect("JSON values serialise");
    std::fs::write(&path, text + "\n").map_err(|source| Error::Io { path, source })
}

/// Fills every parameter of a blank module from `dir/model.safetensors`; those of `optional` are 0 where it has none.
fn load_weights<M: Module>(
    dir: &Path,
    config: &ModelConfig,
    family: &dyn Family,
    optional: &[&str],
    blank: impl FnOnce() -> M,
) -> Result<M, Error> {
    let path = dir.join("model.safetensors");
    let bytes = std::fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    let file = TensorFile::parse(&bytes).map_err(|e| Error::Malformed {
        path: path.clone(),
        reason: format!("not a whole safetensors file: {e}"),
    })?;
    let names = file.names();
    // Refuse a config.json far larger than the file before allocating; smaller mismatches are reported by shape.
    // Layers are counted separately: a million tiny ones are few numbers and many objects.
    let too_large = config.n_matrix_params().is_none_or(|n| n > bytes.len().saturating_mul(16));
    if too_large || config.n_layers > names.len() {
        let reason = "config.json describes a larger model than this file holds".to_owned();
        return Err(Error::Malformed { path, reason });
    }
    let (mut read, mut error) = (HashSet::new(), None);
    let module = map(blank(), |parameter| {
        let n = parameter.value.dims()[0];
        if error.is_some() {
            return parameter.value;
        }
        let mut read_tensor = |name: &str, dims: &[usize]| {
            let values = read_weight(&file, family, &path, name, dims)?;
            read.insert(canonical(family, name));
            Ok(values)
        };
        match family.read_parameter(parameter.path, parameter.dims, &mut read_tensor) {
            Err(Error::MissingWeight { .. }) if optional.contains(&parameter.path) => {
                Tensor::zeros([n], &parameter.value.device())
            }
            Ok(values) => Tensor::from_data(TensorData::new(values, [n]), &parameter.value.device()),
            Err(wrong) => {
                error = Some(wrong);
                parameter.value
            }
        }
    });
    let unread = unread(&names, &read, family);
    if let (None, Some((first, more))) = (&error, unread.split_first()) {
        // More layers than config.json says, or another kind of model: it loads, and is not what was saved.
        let others = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        tracing::warn!("{}: the weight `{first}`{others} has no place in this model", path.display());
    }
    error.map_or(Ok(module), Err)
}

/// One name for a tensor that some files of a family store under another.
fn canonical(family: &dyn Family, name: &str) -> String {
    family.other_name(name).unwrap_or(name).to_owned()
}

/// Weights of a file that were not read, in order, without the buffers of the family.
fn unread<'a>(names: &[&'a str], read: &HashSet<String>, family: &dyn Family) -> Vec<&'a str> {
    let is_left = |name: &&str| !family.is_buffer(name) && !read.contains(&canonical(family, name));
    let mut left: Vec<&str> = names.iter().copied().filter(is_left).collect();
    left.sort_unstable();
    left
}

/// The numbers of one stored tensor, whose shape must be `dims`.
fn read_weight(
    file: &TensorFile<'_>,
    family: &dyn Family,
    path: &Path,
    name: &str,
    dims: &[usize],
) -> Result<Vec<f32>, Error> {
    let stored = file.tensor(name).or_else(|| file.tensor(family.other_name(name)?));
    let stored =
        stored.ok_or_else(|| Error::MissingWeight { path: path.to_owned(), name: name.to_owned() })?;
    if stored.dims() != dims {
        return Err(Error::WrongShape {
            path: path.to_owned(),
            name: name.to_owned(),
            found: stored.dims().to_vec(),
            expected: dims.to_vec(),
        });
    }
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    let values = stored.values().ok_or_else(|| {
        malformed(format!("`{name}` has the type {}; known are F32, F16 and BF16", stored.type_name()))
    })?;
    match values.iter().find(|value| !value.is_finite()) {
        Some(bad) => Err(malformed(format!("`{name}` holds {bad}"))),
        None => Ok(values),
    }
}

fn save_weights<M: Module>(module: &M, family: &dyn Family, dir: &Path) -> Result<(), Error> {
    let (mut tensors, mut not_finite) = (Vec::new(), None);
    visit(module, |parameter| {
        for tensor in family.write_parameter(parameter.path, parameter.dims, values_of(parameter.value)) {
            if let Some(value) = tensor.values.iter().find(|value| !value.is_finite()) {
                not_finite.get_or_insert((tensor.name.clone(), *value));
            }
            tensors.push(tensor);
        }
    });
    if let Some((name, value)) = not_finite {
        return Err(Error::NonFiniteWeight { name, value });
    }
    let path = dir.join("model.safetensors");
    let bytes = write_tensors(&tensors, ("format", "pt"));
    std::fs::write(&path, bytes).map_err(|source| Error::Io { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dropout, TokenBatch};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use safetensors::tensor::SafeTensors;
    use serde_json::json;
    use std::path::PathBuf;

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(3)
    }

    fn batch() -> TokenBatch {
        TokenBatch::right_padded(&[vec![1, 50, 60, 2, 70], vec![1, 2, 3]], &Device::flex())
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("temper-model-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_saved_model_computes_the_same() {
        for preset in ["notebook", "gpt2-tiny", "tiny"] {
            for tie_head in [true, false] {
                let dir = scratch(&format!("lm-{preset}-{tie_head}"));
                let config = ModelConfig { tie_head, ..ModelConfig::preset(preset).unwrap() };
                let model = CausalLm::new(&config, &mut rng(), &Device::flex());
                model.save(&dir, 3).unwrap();
                let back = CausalLm::load(&dir, &Device::flex()).unwrap();
                assert_eq!(back.config(), &config);
                let difference: f32 = (model.forward(&batch(), &mut Dropout::off())
                    - back.forward(&batch(), &mut Dropout::off()))
                .abs()
                .max()
                .into_scalar();
                assert_eq!(difference, 0.0);
                std::fs::remove_dir_all(dir).unwrap();
            }
        }
    }

    #[test]
    fn a_saved_reward_model_scores_the_same_and_is_not_a_language_model() {
        for (preset, pooling) in [("notebook", Pooling::Mean), ("gpt2-tiny", Pooling::Last)] {
            let dir = scratch(&format!("rm-{preset}"));
            let config = ModelConfig::preset(preset).unwrap();
            let lm = CausalLm::new(&config, &mut rng(), &Device::flex());
            let model = ScalarModel::new(lm.transformer.clone(), pooling, &mut rng());
            model.save(&dir, 3).unwrap();
            let back = ScalarModel::load(&dir, &Device::flex()).unwrap();
            let score = |m: &ScalarModel| m.scores(&batch(), &[4, 2], &mut Dropout::off()).into_data();
            assert_eq!(score(&model), score(&back));
            assert_eq!(back.pooling(), pooling);
            assert!(matches!(CausalLm::load(&dir, &Device::flex()), Err(Error::WrongHead { .. })));
            lm.save(&dir, 3).unwrap();
            assert!(matches!(ScalarModel::load(&dir, &Device::flex()), Err(Error::WrongHead { .. })));
            std::fs::remove_dir_all(dir).unwrap();
        }
    }

    /// As `GPT2ForSequenceClassification` writes it: no bias, and no word of pooling.
    #[test]
    fn a_reward_model_of_hugging_face_has_no_bias_and_may_be_normalised_and_saved() {
        let dir = scratch("hugging-face-rm");
        let config = ModelConfig::preset("gpt2-tiny").unwrap();
        let lm = CausalLm::new(&config, &mut rng(), &Device::flex());
        let model = ScalarModel::new(lm.transformer, Pooling::Last, &mut rng()).rescaled(1.0, 0.5);
        model.save(&dir, 3).unwrap();
        rewrite(&dir, |name| name != "score.bias");
        let error = ScalarModel::load(&dir, &Device::flex()).unwrap_err();
        assert!(
            matches!(&error, Error::MissingWeight { name, .. } if name == "score.bias"),
            "ours is damaged: {error}"
        );
        edit_config(&dir, |json| _ = json.as_object_mut().unwrap().remove("temper_pooling"));
        let scores = |model: &ScalarModel| {
            let data = model.scores(&batch(), &[4, 2], &mut Dropout::off()).into_data();
            data.as_slice::<f32>().unwrap().to_vec()
        };
        let loaded = ScalarModel::load(&dir, &Device::flex()).unwrap();
        let close = |found: &[f32], expected: &[f32], shift: f32| {
            found.iter().zip(expected).all(|(found, expected)| (found - expected - shift).abs() < 1e-6)
        };
        assert!(close(&scores(&model), &scores(&loaded), 0.5), "its bias is 0");
        let shifted = loaded.rescaled(1.0, -2.0);
        shifted.save(&dir, 3).unwrap();
        let back = ScalarModel::load(&dir, &Device::flex()).unwrap();
        assert_eq!(scores(&back), scores(&shifted), "the shift is saved");
        assert!(close(&scores(&model), &scores(&back), 2.5));
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn edit_config(dir: &Path, edit: impl FnOnce(&mut Value)) {
        let path = dir.join("config.json");
        let mut json = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        edit(&mut json);
        std::fs::write(path, json.to_string()).unwrap();
    }

    /// A reward model whose class cannot be read must not be taken for a language model.
    #[test]
    fn classes_that_are_not_a_list_of_names_are_an_error() {
        let dir = scratch("classes");
        let config = ModelConfig::preset("gpt2-tiny").unwrap();
        let lm = CausalLm::new(&config, &mut rng(), &Device::flex());
        ScalarModel::new(lm.transformer, Pooling::Last, &mut rng()).save(&dir, 3).unwrap();
        for classes in [json!("GPT2ForSequenceClassification"), json!([5])] {
            edit_config(&dir, |json| json["architectures"] = classes.clone());
            let error = CausalLm::load(&dir, &Device::flex()).unwrap_err().to_string();
            assert!(error.contains("`architectures` must be a list of names"), "{error}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_reward_model_of_another_architecture_is_unsupported_and_not_called_a_reward_model() {
        let dir = scratch("llama-rm");
        let json = json!({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]});
        std::fs::write(dir.join("config.json"), json.to_string()).unwrap();
        for error in [
            CausalLm::load(&dir, &Device::flex()).unwrap_err(),
            ScalarModel::load(&dir, &Device::flex()).unwrap_err(),
        ] {
            assert!(matches!(error, Error::UnsupportedArchitecture { .. }), "{error}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_truncated_file_and_a_wrong_shape_are_named() {
        let dir = scratch("broken");
        let config = ModelConfig::preset("tiny").unwrap();
        CausalLm::new(&config, &mut rng(), &Device::flex()).save(&dir, 3).unwrap();
        let other = ModelConfig { d_ff: 32, ..config };
        let json = std::fs::read_to_string(dir.join("config.json")).unwrap();
        std::fs::write(dir.join("config.json"), families::of(&other).write_config(&other).to_string())
            .unwrap();
        let error = CausalLm::load(&dir, &Device::flex()).unwrap_err();
        assert!(error.to_string().contains("c_fc.weight"), "{error}");
        std::fs::write(dir.join("config.json"), json).unwrap();
        let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        std::fs::write(dir.join("model.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
        let error = CausalLm::load(&dir, &Device::flex()).unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// The weights of a saved model, written again but for those that `keep` leaves out.
    fn rewrite(dir: &Path, keep: impl Fn(&str) -> bool) {
        let path = dir.join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let kept = file.tensors().into_iter().filter(|(name, _)| keep(name));
        std::fs::write(path, safetensors::serialize(kept, None).unwrap()).unwrap();
    }

    #[test]
    fn a_missing_weight_is_named_and_one_without_a_place_is_reported() {
        let dir = scratch("missing");
        let config = ModelConfig::preset("tiny").unwrap();
        CausalLm::new(&config, &mut rng(), &Device::flex()).save(&dir, 3).unwrap();
        let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
        let names: Vec<String> =
            SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect();
        rewrite(&dir, |name| !name.ends_with("h.1.mlp.c_fc.bias"));
        let error = CausalLm::load(&dir, &Device::flex()).unwrap_err();
        assert!(
            matches!(&error, Error::MissingWeight { name, .. } if name.contains("h.1.mlp.c_fc.bias")),
            "{error}"
        );
        std::fs::remove_dir_all(dir).unwrap();

        let family = families::of(&config);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let all: HashSet<String> = names.iter().map(|name| canonical(family, name)).collect();
        assert_eq!(unread(&names, &all, family), Vec::<&str>::new());
        let fewer = all.iter().filter(|name| !name.contains("ln_f.weight")).cloned().collect();
        let left = unread(&names, &fewer, family);
        assert!(left.len() == 1 && left[0].ends_with("ln_f.weight"), "{left:?}");
        // As the hub's own file has them.
        let hub =
            ["h.0.attn.bias", "h.0.attn.masked_bias", "lm_head.weight", "h.0.ln_1.bias", "h.7.ln_1.bias"];
        let read = HashSet::from([canonical(family, "transformer.h.0.ln_1.bias")]);
        assert_eq!(unread(&hub, &read, family), ["h.7.ln_1.bias"]);
    }

    #[test]
    fn a_config_of_a_million_tiny_layers_is_refused_before_they_are_made() {
        let dir = scratch("layers");
        let config = ModelConfig { d_model: 1, n_heads: 1, d_ff: 1, ..ModelConfig::preset("tiny").unwrap() };
        CausalLm::new(&config, &mut rng(), &Device::flex()).save(&dir, 3).unwrap();
        let deep = ModelConfig { n_layers: 10_000, ..config };
        let bytes = std::fs::metadata(dir.join("model.safetensors")).unwrap().len() as usize;
        assert!(deep.n_matrix_params().unwrap() < 16 * bytes, "the numbers alone would be believed");
        std::fs::write(dir.join("config.json"), families::of(&deep).write_config(&deep).to_string()).unwrap();
        let error = CausalLm::load(&dir, &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("config.json describes a larger model"), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_model_that_could_not_be_loaded_again_is_not_saved() {
        let dir = scratch("infinite");
        let config = ModelConfig::preset("tiny").unwrap();
        let mut model = CausalLm::new(&config, &mut rng(), &Device::flex());
        model.transformer.token_embedding.weight =
            model.transformer.token_embedding.weight.map(|weight| weight.mul_scalar(f32::INFINITY));
        let error = model.save(&dir, 3).unwrap_err().to_string();
        assert!(error.contains("`transformer.wte.weight`"), "{error}");
        assert!(!dir.join("model.safetensors").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
