//! Low-rank adapters of a whole model (LoRA: Hu et al. 2021), named and stored as PEFT does it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use rand::Rng;
use serde_json::{Value, json};
use temper_tensor::{NamedTensor, ReadError, TensorReader, Trainable, values_of, write_tensors};

use crate::Error;
use crate::decoder::Decoder;
use crate::directory::write_json;
use crate::families::{read_parameter, write_parameter};
use crate::heads::{CausalLm, ScalarModel};
use crate::layers::linear::Linear;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// Before the name of a layer in the files of PEFT.
const PREFIX: &str = "base_model.model.";

/// How a model is adapted.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Rows of A and columns of B.
    pub rank: usize,
    /// The product of A and B is multiplied by α / rank.
    pub alpha: f64,
    /// The layers that are adapted, by the ends of their names in the files of the family, such as `q_proj` or
    /// `mlp.c_fc`; none for every linear layer of the blocks, which PEFT calls `all-linear`.
    pub targets: Vec<String>,
    /// The model without the adapter: where it is, or its name on the hub.
    pub base: String,
}

impl Lora {
    fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    fn includes(&self, layer: &str) -> bool {
        let ends = |target: &String| layer == target || layer.ends_with(&format!(".{target}"));
        self.targets.is_empty() || self.targets.iter().any(ends)
    }
}

/// A layer of the family's files, which is a part of a linear layer of ours.
struct Part {
    name: String,
    /// Its columns of the output.
    columns: std::ops::Range<usize>,
}

impl Decoder {
    /// The layers of the family's files that the linear layer at `path` is made of.
    fn parts(&self, path: &str, layer: &Linear) -> Vec<Part> {
        let stored = self.family.stored(&weight_path(path), &layer.weight.dims(), self.config());
        let mut end = 0;
        let part = |(name, width): (String, usize)| {
            let columns = end..end + width;
            end += width;
            Part { name: name.strip_suffix(".weight").unwrap_or(&name).to_owned(), columns }
        };
        stored.pieces.into_iter().map(part).collect()
    }

    /// The decoder with fresh adapters, and nothing else. A former adapter is folded in.
    fn adapted(mut self, lora: &Lora, rng: &mut impl Rng) -> Result<Self, Error> {
        let mut names: Vec<String> = Vec::new();
        self.for_each_linear(|path, layer, decoder| {
            names.extend(decoder.parts(path, layer).into_iter().map(|part| part.name));
        });
        for target in &lora.targets {
            let one = Lora { targets: vec![target.clone()], ..lora.clone() };
            if !names.iter().any(|name| one.includes(name)) {
                let known = ends_of(&names).join(", ");
                return Err(Error::NoSuchLayer { target: target.clone(), known });
            }
        }
        let of_layer: Vec<Vec<std::ops::Range<usize>>> = {
            let mut all = Vec::new();
            self.for_each_linear(|path, layer, decoder| {
                let parts = decoder.parts(path, layer).into_iter().filter(|part| lora.includes(&part.name));
                all.push(parts.map(|part| part.columns).collect());
            });
            all
        };
        let mut of_layer = of_layer.into_iter();
        self = self.map_linear(|_, layer| match of_layer.next() {
            Some(parts) if !parts.is_empty() => layer.with_adapter(lora.rank, lora.scale(), parts, rng),
            _ => layer,
        });
        self.lora = Some(lora.clone());
        Ok(self)
    }

    /// Visits every linear layer of the blocks, in the order of [`Decoder::map_linear`].
    fn for_each_linear(&self, mut visit: impl FnMut(&str, &Linear, &Self)) {
        self.clone().map_linear(|path, layer| {
            visit(path, &layer, self);
            layer
        });
    }

    /// A and B of every adapted layer.
    fn adapter_tensors(&self) -> Vec<NamedTensor> {
        let mut tensors = Vec::new();
        self.for_each_linear(|path, layer, decoder| {
            let Some(adapter) = &layer.adapter else { return };
            let rank = adapter.rank();
            let a = values_of(adapter.lora_a.val().inner());
            let width = adapter.parts().len() * rank;
            let parts = decoder.parts(path, layer);
            for (i, columns) in adapter.parts().iter().enumerate() {
                let part = parts.iter().find(|part| part.columns == *columns).expect("an adapted part");
                let (d_in, name) = (a.len() / width, &part.name);
                // Linear layers of PyTorch keep `[d_out, d_in]`.
                let values = (0..rank).flat_map(|r| (0..d_in).map(move |row| row * width + i * rank + r));
                let values = values.map(|at| a[at]).collect();
                tensors.push(NamedTensor { name: key(name, "A"), dims: vec![rank, d_in], values });
                let b = values_of(adapter.lora_b[i].val().inner());
                tensors.push(decoder.stored_b(path, name, rank, &parts, columns.len(), b));
            }
        });
        tensors
    }

    /// The B of one part as a tensor of PEFT: `[width, rank]`, its rows in the order of the family's files.
    fn stored_b(
        &self,
        path: &str,
        name: &str,
        rank: usize,
        parts: &[Part],
        width: usize,
        b: Vec<f32>,
    ) -> NamedTensor {
        let dims = [rank, width];
        let mut stored = self.family.stored(&weight_path(path), &dims, self.config());
        if parts.len() > 1 {
            stored.order = None;
        }
        stored.pieces = vec![(key(name, "B"), width)];
        stored.is_transposed = true;
        write_parameter(stored, &dims, b).remove(0)
    }

    /// The decoder with the adapters of PEFT's files in `dir`.
    fn with_stored_adapters(self, dir: &Path) -> Result<(Self, AdapterFile), Error> {
        let (lora, mut file) = (read_lora(dir)?, AdapterFile::open(dir)?);
        let (mut error, family, config) = (None, self.family, self.config().clone());
        let parts_of = |path: &str, layer: &Linear| -> Vec<Part> { self.parts(path, layer) };
        let mut adapters = Vec::new();
        self.for_each_linear(|path, layer, _| {
            let mut read = || -> Result<_, Error> {
                let [d_in, _] = layer.weight.dims();
                let all = parts_of(path, layer);
                let parts: Vec<&Part> = all.iter().filter(|part| file.has(&key(&part.name, "A"))).collect();
                let (n, rank) = (parts.len(), lora.rank);
                let mut a = vec![0.0; d_in * n * rank];
                let mut b = Vec::new();
                for (i, part) in parts.iter().enumerate() {
                    let stored = file.read(&key(&part.name, "A"), &[rank, d_in])?;
                    for (at, value) in stored.into_iter().enumerate() {
                        let (r, row) = (at / d_in, at % d_in);
                        a[row * n * rank + i * rank + r] = value;
                    }
                    let dims = [rank, part.columns.len()];
                    let mut stored = family.stored(&weight_path(path), &dims, &config);
                    if all.len() > 1 {
                        stored.order = None;
                    }
                    stored.pieces = vec![(key(&part.name, "B"), dims[1])];
                    stored.is_transposed = true;
                    b.push(read_parameter(stored, &dims, &mut |name, dims| file.read(name, dims))?);
                }
                Ok((parts.iter().map(|part| part.columns.clone()).collect::<Vec<_>>(), a, b))
            };
            match read() {
                Ok(adapter) => adapters.push(adapter),
                Err(wrong) => {
                    error.get_or_insert(wrong);
                    adapters.push((Vec::new(), Vec::new(), Vec::new()));
                }
            }
        });
        if let Some(error) = error {
            return Err(error);
        }
        let mut adapters = adapters.into_iter();
        let mut decoder = self.map_linear(|_, layer| match adapters.next() {
            Some((parts, a, b)) if !parts.is_empty() => {
                layer.with_adapter_of(lora.rank, lora.scale(), parts, a, b)
            }
            _ => layer,
        });
        decoder.lora = Some(lora);
        decoder.carried = decoder.carried.with_generation_config_of(dir)?;
        Ok((decoder, file))
    }

    /// The decoder without its adapters, which are left out and not folded in.
    fn without_adapters(self) -> Self {
        let mut plain = self.map_linear(|_, layer| Linear { adapter: None, ..layer });
        plain.lora = None;
        plain
    }

    /// How this decoder is adapted, if it is.
    pub fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }
}

impl CausalLm {
    /// The same model with fresh adapters, which change nothing yet; only these are trained. A former adapter is folded in.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`] for a target that no layer is called.
    pub fn with_adapters(self, lora: &Lora, rng: &mut impl Rng) -> Result<Self, Error> {
        Ok(mark(Self { transformer: self.transformer.adapted(lora, rng)?, ..self }))
    }

    /// The same model with the adapters that PEFT or [`CausalLm::save_adapters`] has written into `dir` in place of its own;
    /// only these are trained.
    ///
    /// # Errors
    /// Files that are missing or damaged, adapters of another model, and kinds of adapters that are not supported.
    pub fn with_stored_adapters(self, dir: &Path) -> Result<Self, Error> {
        let (transformer, file) = self.transformer.without_adapters().with_stored_adapters(dir)?;
        file.finish()?;
        Ok(mark(Self { transformer, ..self }))
    }

    /// The same model without its adapters: the base.
    #[must_use]
    pub fn without_adapters(self) -> Self {
        Self { transformer: self.transformer.without_adapters(), ..self }
    }

    /// Writes `adapter_config.json` and `adapter_model.safetensors` into an existing directory, as PEFT reads them, and the
    /// `generation_config.json` of the model.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NonFiniteWeight`] for an adapter that could not be loaded again.
    ///
    /// # Panics
    /// If the model has no adapters.
    pub fn save_adapters(&self, dir: &Path) -> Result<(), Error> {
        save(&self.transformer, Vec::new(), "CAUSAL_LM", dir)
    }
}

const SCORE: [&str; 2] = ["base_model.model.score.weight", "base_model.model.score.bias"];

impl ScalarModel {
    /// The same model with fresh adapters, which change nothing yet; these are trained, and the head as well. A former
    /// adapter is folded in.
    ///
    /// # Errors
    /// As [`CausalLm::with_adapters`].
    pub fn with_adapters(self, lora: &Lora, rng: &mut impl Rng) -> Result<Self, Error> {
        let pooling = self.pooling();
        Ok(mark(Self::from_parts(self.transformer.adapted(lora, rng)?, self.score, pooling)))
    }

    /// The same model with the adapters and the head that [`ScalarModel::save_adapters`] or PEFT has written into `dir`; a
    /// missing bias of the head is 0.
    ///
    /// # Errors
    /// As [`CausalLm::with_stored_adapters`].
    pub fn with_stored_adapters(self, dir: &Path) -> Result<Self, Error> {
        let (device, pooling) = (self.device().inner(), self.pooling());
        let (transformer, mut file) = self.transformer.without_adapters().with_stored_adapters(dir)?;
        let mut score = self.score;
        let d_model = transformer.config().d_model;
        let weight = file.read(SCORE[0], &[1, d_model])?;
        let weight = Tensor::from_data(TensorData::new(weight, [d_model, 1]), &device);
        let bias = if file.has(SCORE[1]) { file.read(SCORE[1], &[1])? } else { vec![0.0] };
        score.weight = Param::from_tensor(weight);
        score.bias = Some(Param::from_tensor(Tensor::from_data(TensorData::new(bias, [1]), &device)));
        file.finish()?;
        Ok(mark(Self::from_parts(transformer, score, pooling)))
    }

    /// [`CausalLm::save_adapters`], with the head.
    ///
    /// # Errors
    /// As [`CausalLm::save_adapters`].
    ///
    /// # Panics
    /// If the model has no adapters.
    pub fn save_adapters(&self, dir: &Path) -> Result<(), Error> {
        let weight = values_of(self.score.weight.val().inner());
        let head = vec![
            NamedTensor { name: SCORE[0].into(), dims: vec![1, weight.len()], values: weight },
            NamedTensor { name: SCORE[1].into(), dims: vec![1], values: vec![self.score_bias()] },
        ];
        save(&self.transformer, head, "SEQ_CLS", dir)
    }
}

/// Adapters are trained, and the head of a model that scores; nothing else.
fn mark<M: Module>(model: M) -> M {
    Trainable::only(|path| path.contains(".adapter.lora_") || path.starts_with("score.")).mark(model)
}

fn weight_path(path: &str) -> String {
    format!("transformer.{path}.weight")
}

fn key(layer: &str, matrix: &str) -> String {
    format!("{PREFIX}{layer}.lora_{matrix}.weight")
}

/// The last parts of names, each once: `q_proj` of `model.layers.0.self_attn.q_proj`.
fn ends_of(names: &[String]) -> Vec<String> {
    let mut ends: Vec<String> = Vec::new();
    for name in names {
        let end = name.rsplit('.').next().unwrap_or(name).to_owned();
        if !ends.contains(&end) {
            ends.push(end);
        }
    }
    ends
}

fn save(decoder: &Decoder, head: Vec<NamedTensor>, task: &str, dir: &Path) -> Result<(), Error> {
    let lora = decoder.lora().expect("a model with adapters");
    let mut tensors = decoder.adapter_tensors();
    let names: Vec<String> = tensors
        .iter()
        .filter_map(|tensor| {
            tensor.name.strip_prefix(PREFIX)?.strip_suffix(".lora_A.weight").map(str::to_owned)
        })
        .collect();
    let has_head = !head.is_empty();
    tensors.extend(head);
    for tensor in &tensors {
        if let Some(value) = tensor.values.iter().find(|value| !value.is_finite()) {
            return Err(Error::NonFiniteWeight { name: tensor.name.clone(), value: *value });
        }
    }
    let targets = if lora.targets.is_empty() { ends_of(&names) } else { lora.targets.clone() };
    let config = json!({
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": lora.base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": decoder.family.model_type() == "gpt2",
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": if has_head { json!(["score"]) } else { Value::Null },
        "use_rslora": false,
        "use_dora": false,
    });
    write_json(&dir.join(CONFIG), &config)?;
    decoder.carried.save(dir)?;
    let path = dir.join(WEIGHTS);
    fs::write(&path, write_tensors(&tensors, ("format", "pt"))).map_err(|source| Error::Io { path, source })
}

/// Whether `dir` holds an adapter and no whole model.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(CONFIG).is_file() && !dir.join("config.json").is_file()
}

/// Whether the adapter in `dir` is of a model that scores.
///
/// # Errors
/// An `adapter_config.json` that is missing or malformed.
pub fn scores(dir: &Path) -> Result<bool, Error> {
    Ok(read_config(dir)?["task_type"] == "SEQ_CLS")
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
pub fn read_lora(dir: &Path) -> Result<Lora, Error> {
    let (path, json) = (dir.join(CONFIG), read_config(dir)?);
    let malformed = |reason: String| Error::Malformed { path: path.clone(), reason };
    if json["peft_type"] != "LORA" {
        return Err(malformed(format!("`peft_type` is {}; only \"LORA\" is supported", json["peft_type"])));
    }
    let is_off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    // What would compute something else. Variants of LoRA are called `use_…`.
    let others = [
        "alpha_pattern",
        "layer_replication",
        "lora_bias",
        "rank_pattern",
        "target_parameters",
        "trainable_token_indices",
    ];
    for (key, value) in json.as_object().into_iter().flatten() {
        let is_variant = key.starts_with("use_") && key != "use_rslora";
        if (is_variant || others.contains(&key.as_str())) && !is_off(value) {
            return Err(malformed(format!("`{key}: {value}` is not supported")));
        }
    }
    if !matches!(json["bias"].as_str(), None | Some("none")) {
        return Err(malformed(format!("`bias: {}` is not supported", json["bias"])));
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

/// The tensors of an adapter.
struct AdapterFile {
    path: PathBuf,
    reader: TensorReader,
    read: Vec<String>,
}

impl AdapterFile {
    fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(WEIGHTS);
        let reader = TensorReader::open(&path).map_err(|error| match error {
            ReadError::Io(source) if source.kind() == ErrorKind::NotFound && dir.join("adapter_model.bin").exists() => {
                let reason = "it is not there, and adapter_model.bin is not read: save it with safe_serialization=True";
                Error::Malformed { path: path.clone(), reason: reason.into() }
            }
            ReadError::Io(source) => Error::Io { path: path.clone(), source },
            ReadError::Malformed(reason) => Error::Malformed {
                path: path.clone(),
                reason: format!("not a whole safetensors file: {reason}"),
            },
        })?;
        Ok(Self { path, reader, read: Vec::new() })
    }

    fn has(&self, name: &str) -> bool {
        self.reader.dims(name).is_some()
    }

    fn read(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, Error> {
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
    fn finish(self) -> Result<(), Error> {
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
