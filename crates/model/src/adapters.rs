//! Low-rank adapters of a whole model (LoRA: Hu et al. 2021), named and stored as PEFT does it.

mod files;

use std::fs;
use std::ops::Range;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use rand::Rng;
use serde_json::{Value, json};
use temper_tensor::{NamedTensor, Trainable, values_of, write_tensors};

use crate::Error;
use crate::decoder::Decoder;
use crate::directory::write_json;
use crate::families::{Stored, read_parameter, write_parameter};
use crate::heads::{CausalLm, ScalarModel};
use crate::layers::linear::Linear;
use files::{
    AdapterFile, CAUSAL_TASK, CONFIG, SCALAR_TASK, WEIGHTS, read_lora, save_pooling, stored_pooling,
};

pub(crate) use files::is_of_scalar_model;
pub use files::{adapter_chain, base_of, is_adapter};

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
    columns: Range<usize>,
}

/// The numbers of the adapter of one linear layer: see [`Linear::with_adapter_of`].
struct Numbers {
    parts: Vec<Range<usize>>,
    a: Vec<f32>,
    b: Vec<Vec<f32>>,
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
    fn adapted(self, lora: &Lora, rng: &mut impl Rng) -> Result<Self, Error> {
        let plain = self.merged();
        let mut names: Vec<String> = Vec::new();
        plain.for_each_linear(|path, layer, decoder| {
            names.extend(decoder.parts(path, layer).into_iter().map(|part| part.name));
        });
        for target in &lora.targets {
            let one = Lora { targets: vec![target.clone()], ..lora.clone() };
            if !names.iter().any(|name| one.includes(name)) {
                let known = ends_of(&names).join(", ");
                return Err(Error::NoSuchLayer { target: target.clone(), known });
            }
        }
        let mut of_layers: Vec<Vec<Range<usize>>> = Vec::new();
        plain.for_each_linear(|path, layer, decoder| {
            let parts = decoder.parts(path, layer).into_iter().filter(|part| lora.includes(&part.name));
            of_layers.push(parts.map(|part| part.columns).collect());
        });
        let mut of_layers = of_layers.into_iter();
        let mut adapted = plain.map_linear(|_, layer| match of_layers.next() {
            Some(parts) if !parts.is_empty() => layer.with_adapter(lora.rank, lora.scale(), parts, rng),
            _ => layer,
        });
        adapted.lora = Some(lora.clone());
        Ok(adapted)
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
                let d_in = a.len() / width;
                // Linear layers of PyTorch keep `[d_out, d_in]`.
                let places = (0..rank).flat_map(|r| (0..d_in).map(move |row| row * width + i * rank + r));
                let values = places.map(|at| a[at]).collect();
                tensors.push(NamedTensor { name: key(&part.name, "A"), dims: vec![rank, d_in], values });
                let b = values_of(adapter.lora_b[i].val().inner());
                let stored = decoder.stored_b(path, part, parts.len() > 1, rank);
                tensors.extend(write_parameter(stored, &[rank, columns.len()], b));
            }
        });
        tensors
    }

    /// How PEFT stores the B of one part of the layer at `path`: with its columns as rows, in the order of the family's
    /// files. `is_one_of_several` says that the layer has other parts.
    fn stored_b(&self, path: &str, part: &Part, is_one_of_several: bool, rank: usize) -> Stored {
        let width = part.columns.len();
        let of_weight = self.family.stored(&weight_path(path), &[rank, width], self.config());
        Stored {
            pieces: vec![(key(&part.name, "B"), width)],
            is_transposed: true,
            order: if is_one_of_several { None } else { of_weight.order },
        }
    }

    /// The decoder with the adapters of PEFT's files in `dir`.
    fn with_stored_adapters(self, dir: &Path) -> Result<(Self, AdapterFile), Error> {
        let (lora, mut file) = (read_lora(dir)?, AdapterFile::open(dir)?);
        let mut adapters = Vec::new();
        self.for_each_linear(|path, layer, decoder| {
            adapters.push(decoder.read_adapter(path, layer, lora.rank, &mut file));
        });
        let adapters = adapters.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut adapters = adapters.into_iter();
        let mut decoder = self.map_linear(|_, layer| match adapters.next() {
            Some(Numbers { parts, a, b }) if !parts.is_empty() => {
                layer.with_adapter_of(lora.rank, lora.scale(), parts, a, b)
            }
            _ => layer,
        });
        decoder.lora = Some(lora);
        decoder.carried = decoder.carried.with_generation_config_of(dir)?;
        Ok((decoder, file))
    }

    /// The adapter of one linear layer; without parts if it has none.
    fn read_adapter(
        &self,
        path: &str,
        layer: &Linear,
        rank: usize,
        file: &mut AdapterFile,
    ) -> Result<Numbers, Error> {
        let [d_in, _] = layer.weight.dims();
        let all = self.parts(path, layer);
        let is_one_of_several = all.len() > 1;
        let parts: Vec<Part> = all.into_iter().filter(|part| file.has(&key(&part.name, "A"))).collect();
        // Read before room is made for them: a rank may be any number in a file.
        let stored_a = parts.iter().map(|part| file.read(&key(&part.name, "A"), &[rank, d_in]));
        let stored_a = stored_a.collect::<Result<Vec<_>, _>>()?;
        let width = parts.len() * rank;
        let mut a = vec![0.0; d_in * width];
        for (i, stored) in stored_a.into_iter().enumerate() {
            for (at, value) in stored.into_iter().enumerate() {
                let (r, row) = (at / d_in, at % d_in);
                a[row * width + i * rank + r] = value;
            }
        }
        let read_b = |part: &Part| {
            let stored = self.stored_b(path, part, is_one_of_several, rank);
            let dims = [rank, part.columns.len()];
            read_parameter(stored, &dims, &mut |name, dims| file.read(name, dims))
        };
        let b = parts.iter().map(read_b).collect::<Result<_, _>>()?;
        Ok(Numbers { parts: parts.into_iter().map(|part| part.columns).collect(), a, b })
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
        save(&self.transformer, Vec::new(), CAUSAL_TASK, dir)
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
        let (device, pooling) = (self.device().inner(), stored_pooling(dir)?.unwrap_or(self.pooling()));
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

    /// [`CausalLm::save_adapters`], with the head, and with where it reads, for which PEFT has no place.
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
        save_pooling(dir, self.pooling())?;
        save(&self.transformer, head, SCALAR_TASK, dir)
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
