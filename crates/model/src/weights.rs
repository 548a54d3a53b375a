//! The weights of a model directory: one safetensors file, or several with an index.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use serde_json::Value;
use temper_tensor::{ReadError, TensorReader, TensorSource, map, save_tensors, values_of, visit};

use crate::Error;
use crate::config::ModelConfig;
use crate::families::{self, Family};

const ONE_FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The files that hold the weights of a directory. A tensor is read when it is asked for, so that a model is in memory
/// once while it is loaded.
struct WeightFiles {
    /// The file that an error names if a weight is missing: the only one, or the index.
    path: PathBuf,
    files: Vec<(PathBuf, TensorReader)>,
    /// Which of the files holds a tensor.
    file_of: HashMap<String, usize>,
}

/// The names of the files in `dir` that hold the weights of its model: `model.safetensors`, or without it those that
/// `model.safetensors.index.json` names, in order.
///
/// # Errors
/// An index that cannot be read.
pub fn weight_files(dir: &Path) -> Result<Vec<String>, Error> {
    let index = dir.join(INDEX);
    if dir.join(ONE_FILE).exists() || !index.exists() {
        return Ok(vec![ONE_FILE.to_owned()]);
    }
    let files: BTreeSet<String> = read_index(&index)?.into_values().collect();
    Ok(files.into_iter().collect())
}

impl WeightFiles {
    fn open(dir: &Path) -> Result<Self, Error> {
        let names = weight_files(dir)?;
        let path = dir.join(if names == [ONE_FILE] { ONE_FILE } else { INDEX });
        let (mut files, mut file_of) = (Vec::new(), HashMap::new());
        for name in names {
            let path = dir.join(name);
            let file = open(&path)?;
            for tensor in file.names() {
                if file_of.insert(tensor.to_owned(), files.len()).is_some() {
                    let reason = format!("`{tensor}` is in another file too");
                    return Err(Error::Malformed { path, reason });
                }
            }
            files.push((path, file));
        }
        if path.ends_with(INDEX) {
            for (tensor, file) in read_index(&path)? {
                let is_there = file_of.get(&tensor).is_some_and(|&i| files[i].0.ends_with(&file));
                if !is_there {
                    let reason = format!("it has `{tensor}` in {file}, which does not have it");
                    return Err(Error::Malformed { path, reason });
                }
            }
        }
        Ok(Self { path, files, file_of })
    }

    fn n_bytes(&self) -> u64 {
        self.files.iter().map(|(_, file)| file.file_len()).sum()
    }

    /// The numbers of one stored tensor, whose shape must be `dims`.
    fn read(&self, family: &dyn Family, name: &str, dims: &[usize]) -> Result<Vec<f32>, Error> {
        let names = [Some(name), family.other_name(name)];
        let stored = names.into_iter().flatten().find_map(|name| Some((name, *self.file_of.get(name)?)));
        let missing = || Error::MissingWeight { path: self.path.clone(), name: name.to_owned() };
        let (stored, file) = stored.ok_or_else(missing)?;
        let (path, file) = &self.files[file];
        let stored_dims = file.dims(stored).ok_or_else(missing)?;
        if stored_dims != dims {
            return Err(Error::WrongShape {
                path: path.clone(),
                name: name.to_owned(),
                found: stored_dims.into(),
                expected: dims.into(),
            });
        }
        let malformed = |reason: String| Error::Malformed { path: path.clone(), reason };
        let values = file.values(stored).map_err(|source| Error::Io { path: path.clone(), source })?;
        let values = values.ok_or_else(|| {
            let kind = file.type_name(stored).unwrap_or_default();
            malformed(format!("`{name}` has the type {kind}; known are F32, F16 and BF16"))
        })?;
        match values.iter().find(|value| !value.is_finite()) {
            Some(bad) => Err(malformed(format!("`{name}` holds {bad}"))),
            None => Ok(values),
        }
    }
}

fn open(path: &Path) -> Result<TensorReader, Error> {
    TensorReader::open(path).map_err(|error| match error {
        ReadError::Io(source) => Error::Io { path: path.to_path_buf(), source },
        ReadError::Malformed(reason) => Error::Malformed {
            path: path.to_path_buf(),
            reason: format!("not a whole safetensors file: {reason}"),
        },
    })
}

/// The file that an index names for each tensor: all of them in its own directory.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let malformed = |reason: String| Error::Malformed { path: path.into(), reason };
    let json: Value = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| malformed("it has no `weight_map`".into()))?;
    let entry = |(tensor, value): (&String, &Value)| {
        let name =
            value.as_str().filter(|name| Path::new(name).file_name().is_some_and(|file| file == *name));
        let bad = || malformed(format!("{value} is not the name of a file next to it"));
        Ok((tensor.clone(), name.ok_or_else(bad)?.to_owned()))
    };
    map.iter().map(entry).collect()
}

/// Fills every parameter of a blank module from the weights in `dir`; those of `optional` are 0 where it has none.
pub(crate) fn load_weights<M: Module>(
    dir: &Path,
    config: &ModelConfig,
    family: &dyn Family,
    optional: &[&str],
    blank: impl FnOnce() -> M,
) -> Result<M, Error> {
    let files = WeightFiles::open(dir)?;
    let n_bytes = usize::try_from(files.n_bytes()).unwrap_or(usize::MAX);
    // Refuse a config.json far larger than the files before allocating; smaller mismatches are reported by shape.
    // Layers are counted separately: a million tiny ones are few numbers and many objects.
    let too_large = config.n_matrix_params().is_none_or(|n| n > n_bytes.saturating_mul(16));
    if too_large || config.n_layers > files.file_of.len() {
        let reason = "config.json describes a larger model than this file holds".to_owned();
        return Err(Error::Malformed { path: files.path, reason });
    }
    let (mut read, mut error) = (HashSet::new(), None);
    let module = map(blank(), |parameter| {
        let n = parameter.value.dims()[0];
        if error.is_some() {
            return parameter.value;
        }
        let device = parameter.value.device();
        drop(parameter.value); // The new value takes its place in memory.
        let mut read_tensor = |name: &str, dims: &[usize]| {
            let values = files.read(family, name, dims)?;
            read.insert(canonical(family, name));
            Ok(values)
        };
        let stored = family.stored(parameter.path, parameter.dims, config);
        match families::read_parameter(stored, parameter.dims, &mut read_tensor) {
            Ok(values) => Tensor::from_data(TensorData::new(values, [n]), &device),
            Err(Error::MissingWeight { .. }) if optional.contains(&parameter.path) => {
                Tensor::zeros([n], &device)
            }
            Err(wrong) => {
                error = Some(wrong);
                Tensor::zeros([n], &device)
            }
        }
    });
    let names: Vec<&str> = files.file_of.keys().map(String::as_str).collect();
    let unread = unread(&names, &read, family);
    if let (None, Some((first, more))) = (&error, unread.split_first()) {
        // More layers than config.json says, or another kind of model: it loads, and is not what was saved.
        let others = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        tracing::warn!("{}: the weight `{first}`{others} has no place in this model", files.path.display());
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

/// Writes the weights of `module` into `dir/model.safetensors`, one tensor at a time. Parameters of the paths `left_out`
/// are not written.
pub(crate) fn save_weights<M: Module>(
    module: &M,
    config: &ModelConfig,
    family: &'static dyn Family,
    left_out: &[&str],
    dir: &Path,
) -> Result<(), Error> {
    let not_finite = RefCell::new(None);
    let mut tensors = Vec::new();
    visit(module, |parameter| {
        if left_out.contains(&parameter.path) {
            return;
        }
        let (path, our_dims) = (parameter.path.to_owned(), parameter.dims.to_vec());
        let stored = family.stored(&path, &our_dims, config).tensors(&our_dims);
        for (piece, (name, dims)) in stored.into_iter().enumerate() {
            let (path, our_dims, value) = (path.clone(), our_dims.clone(), parameter.value.clone());
            let (of, not_finite) = (name.clone(), &not_finite);
            let values = Box::new(move || {
                let stored = family.stored(&path, &our_dims, config);
                let mut pieces = families::write_parameter(stored, &our_dims, values_of(value.clone()));
                let values = pieces.swap_remove(piece).values;
                if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                    not_finite.borrow_mut().get_or_insert((of.clone(), *value));
                }
                values
            });
            tensors.push(TensorSource { name, dims, values });
        }
    });
    let path = dir.join(ONE_FILE);
    let io = |source| Error::Io { path: path.clone(), source };
    save_tensors(&path, tensors, ("format", "pt")).map_err(io)?;
    match not_finite.into_inner() {
        None => Ok(()),
        Some((name, value)) => {
            fs::remove_file(&path).map_err(io)?;
            Err(Error::NonFiniteWeight { name, value })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CausalLm;
    use burn::tensor::Device;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use safetensors::tensor::{SafeTensors, TensorView};
    use serde_json::json;

    fn saved(name: &str) -> (PathBuf, ModelConfig) {
        let dir = std::env::temp_dir().join(format!("temper-weights-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let config = ModelConfig::preset("tiny").unwrap();
        CausalLm::new(&config, &mut ChaCha8Rng::seed_from_u64(3), &Device::flex()).save(&dir, 3).unwrap();
        (dir, config)
    }

    fn values(dir: &Path) -> Vec<f32> {
        let mut all = Vec::new();
        visit(&CausalLm::load(dir, &Device::flex()).unwrap(), |parameter| {
            all.extend(values_of(parameter.value))
        });
        all
    }

    fn load_error(dir: &Path) -> Error {
        CausalLm::load(dir, &Device::flex()).unwrap_err()
    }

    /// Every third tensor in the second file, as `save_pretrained` cuts large models.
    #[test]
    fn weights_in_several_files_are_read_by_their_index() {
        let (dir, _) = saved("shards");
        let whole = values(&dir);
        let bytes = std::fs::read(dir.join(ONE_FILE)).unwrap();
        std::fs::remove_file(dir.join(ONE_FILE)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut map = serde_json::Map::new();
        let mut parts: [Vec<(String, TensorView<'_>)>; 2] = Default::default();
        let mut tensors = file.tensors();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        for (i, (name, tensor)) in tensors.into_iter().enumerate() {
            let part = usize::from(i % 3 == 0);
            map.insert(name.clone(), json!(format!("model-{}-of-2.safetensors", part + 1)));
            parts[part].push((name, tensor));
        }
        for (i, part) in parts.into_iter().enumerate() {
            let path = dir.join(format!("model-{}-of-2.safetensors", i + 1));
            std::fs::write(path, safetensors::serialize(part, None).unwrap()).unwrap();
        }
        let write_index = |map: &Value| {
            std::fs::write(dir.join(INDEX), json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
        };
        write_index(&Value::Object(map.clone()));
        assert_eq!(values(&dir), whole);
        assert_eq!(weight_files(&dir).unwrap(), ["model-1-of-2.safetensors", "model-2-of-2.safetensors"]);

        std::fs::rename(dir.join("model-2-of-2.safetensors"), dir.join("kept")).unwrap();
        let error = load_error(&dir).to_string();
        assert!(error.contains("model-2-of-2.safetensors"), "{error}");
        for elsewhere in [json!("../kept"), json!("/kept"), json!(".."), json!(5)] {
            write_index(&json!({"a": elsewhere}));
            let error = load_error(&dir).to_string();
            assert!(error.contains("is not the name of a file next to it"), "{error}");
        }
        std::fs::rename(dir.join("kept"), dir.join("model-2-of-2.safetensors")).unwrap();
        let mut swapped = map.clone();
        let (tensor, file) = map.iter().next().unwrap();
        let other = if file == "model-1-of-2.safetensors" { 2 } else { 1 };
        swapped[tensor] = json!(format!("model-{other}-of-2.safetensors"));
        write_index(&Value::Object(swapped));
        let error = load_error(&dir).to_string();
        assert!(
            error.contains(&format!("it has `{tensor}` in model-{other}-of-2.safetensors, which")),
            "{error}"
        );
        // A file that the index does not name is not read.
        map.retain(|_, file| file == "model-1-of-2.safetensors");
        write_index(&Value::Object(map));
        let error = load_error(&dir);
        assert!(matches!(&error, Error::MissingWeight { path, .. } if path.ends_with(INDEX)), "{error}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// The weights of a saved model, written again but for those that `keep` leaves out.
    fn rewrite(dir: &Path, keep: impl Fn(&str) -> bool) {
        let path = dir.join(ONE_FILE);
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let kept = file.tensors().into_iter().filter(|(name, _)| keep(name));
        std::fs::write(path, safetensors::serialize(kept, None).unwrap()).unwrap();
    }

    #[test]
    fn a_missing_weight_is_named_and_one_without_a_place_is_reported() {
        let (dir, config) = saved("missing");
        let bytes = std::fs::read(dir.join(ONE_FILE)).unwrap();
        let names: Vec<String> =
            SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect();
        rewrite(&dir, |name| !name.ends_with("h.1.mlp.c_fc.bias"));
        let error = load_error(&dir);
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
    fn a_model_that_could_not_be_loaded_again_is_not_saved() {
        let (dir, config) = saved("infinite");
        std::fs::remove_file(dir.join(ONE_FILE)).unwrap();
        let mut model = CausalLm::new(&config, &mut ChaCha8Rng::seed_from_u64(3), &Device::flex());
        model.transformer.token_embedding.weight =
            model.transformer.token_embedding.weight.map(|weight| weight.mul_scalar(f32::INFINITY));
        let error = model.save(&dir, 3).unwrap_err().to_string();
        assert!(error.contains("`transformer.wte.weight`"), "{error}");
        assert!(!dir.join(ONE_FILE).exists());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
