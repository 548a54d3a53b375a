//! Families of models: whose `config.json` and whose weights a directory holds.
//!
//! A family is one file here and one line in [`FAMILIES`]. It reads and writes `config.json`, and says how its files name
//! and lay out each parameter of our decoder. Nothing outside of this folder knows a parameter name of a family.

mod gpt2;
mod notebook;

use std::fmt::Debug;
use std::path::Path;

use serde_json::Value;
use temper_tensor::NamedTensor;

use crate::Error;
use crate::config::{INIT_STD, Init, ModelConfig};
use crate::init::Start;

pub use gpt2::former_path;

/// Every family; a new model belongs to the first that can describe its shape.
const FAMILIES: [&dyn Family; 2] = [&gpt2::Gpt2, &notebook::Notebook];

/// One kind of model directory.
pub(crate) trait Family: Debug + Send + Sync {
    /// The value of `model_type` in its `config.json`.
    fn model_type(&self) -> &'static str;

    /// The class that `config.json` names for a language model.
    fn causal_class(&self) -> &'static str;

    /// The class that `config.json` names for a model with a scalar head.
    fn scalar_class(&self) -> &'static str;

    /// Whether its `config.json` can describe a decoder of this shape.
    fn describes(&self, config: &ModelConfig) -> bool;

    /// The shape that a `config.json` describes, not yet validated, or why it cannot be used.
    fn read_config(&self, json: &Value) -> Result<ModelConfig, String>;

    /// The `config.json` of a decoder that [`Family::describes`] accepts.
    fn write_config(&self, config: &ModelConfig) -> Value;

    /// How its files store the parameter at a dotted path, whose shape is `dims`.
    fn stored(&self, path: &str, dims: &[usize]) -> Stored;

    /// Another name under which some of its files store the tensor `name`.
    fn other_name<'a>(&self, _name: &'a str) -> Option<&'a str> {
        None
    }

    /// Whether a tensor of its files is not a weight: a mask, or a second copy of a weight.
    fn is_buffer(&self, _name: &str) -> bool {
        false
    }

    /// How a fresh parameter starts.
    fn start(&self, path: &str, dims: &[usize], config: &ModelConfig) -> Start {
        common_start(path, dims).unwrap_or_else(|| match config.init {
            Init::Normal => gpt2::start(path, config),
            Init::Plain if path.ends_with(".bias") => Start::Zeros,
            Init::Plain => Start::Normal(INIT_STD),
            Init::Torch => notebook::start(path, dims, config),
        })
    }

    /// Numbers of the parameter at `path`, in our layout. `read` gives those of a stored tensor of a name and a shape.
    fn read_parameter(
        &self,
        path: &str,
        dims: &[usize],
        read: &mut dyn FnMut(&str, &[usize]) -> Result<Vec<f32>, Error>,
    ) -> Result<Vec<f32>, Error> {
        let stored = self.stored(path, dims);
        let mut pieces = Vec::new();
        for (name, width) in &stored.pieces {
            let dims = with_width(dims, *width);
            pieces.push(match dims[..] {
                [rows, columns] if stored.is_transposed => {
                    transpose(&read(name, &[columns, rows])?, columns, rows)
                }
                _ => read(name, &dims)?,
            });
        }
        if pieces.len() == 1 {
            return Ok(pieces.swap_remove(0));
        }
        let rows = if dims.len() == 2 { dims[0] } else { 1 };
        let widths = stored.pieces.iter().map(|(_, width)| *width);
        let row = |row: usize| {
            pieces
                .iter()
                .zip(widths.clone())
                .flat_map(move |(piece, width)| piece[row * width..][..width].to_vec())
        };
        Ok((0..rows).flat_map(row).collect())
    }

    /// The tensors that store the parameter at `path`, whose numbers in our layout are `values`.
    fn write_parameter(&self, path: &str, dims: &[usize], values: Vec<f32>) -> Vec<NamedTensor> {
        let stored = self.stored(path, dims);
        let total = *dims.last().expect("a parameter has a shape");
        let mut start = 0;
        let piece = |(name, width): (String, usize)| {
            let values: Vec<f32> = if width == total {
                values.clone()
            } else {
                values.chunks(total).flat_map(|row| row[start..start + width].to_vec()).collect()
            };
            start += width;
            let dims = with_width(dims, width);
            match dims[..] {
                [rows, columns] if stored.is_transposed => {
                    let values = transpose(&values, rows, columns);
                    NamedTensor { name, dims: vec![columns, rows], values }
                }
                _ => NamedTensor { name, dims, values },
            }
        };
        stored.pieces.into_iter().map(piece).collect()
    }
}

/// How a file stores one parameter of ours.
pub(crate) struct Stored {
    /// Names of the tensors that hold it, with their widths: together they are its last dimension.
    pub(crate) pieces: Vec<(String, usize)>,
    /// `torch.nn.Linear` keeps `[d_out, d_in]`; ours are `[d_in, d_out]`.
    pub(crate) is_transposed: bool,
}

impl Stored {
    /// One tensor of this name.
    pub(crate) fn whole(name: String, dims: &[usize], is_transposed: bool) -> Self {
        Self { pieces: vec![(name, dims.last().copied().unwrap_or(1))], is_transposed }
    }
}

/// The family that describes a new decoder of this shape.
pub(crate) fn of(config: &ModelConfig) -> &'static dyn Family {
    let family = FAMILIES.into_iter().find(|family| family.describes(config));
    family.expect("the last family describes every shape")
}

/// Reads a `config.json`: the family that it names, and the shape.
///
/// # Errors
/// [`Error::UnsupportedArchitecture`], or a shape that cannot be a model.
pub(crate) fn read_config(json: &Value, path: &Path) -> Result<(&'static dyn Family, ModelConfig), Error> {
    let unsupported = |reason: String| Error::UnsupportedArchitecture { path: path.to_path_buf(), reason };
    let model_type = &json["model_type"];
    let name = match model_type.as_str() {
        Some(name) => name,
        None if model_type.is_null() => return Err(unsupported("it names no model_type".into())),
        None => return Err(unsupported(format!("`model_type` must be a name, not {model_type}"))),
    };
    let Some(family) = FAMILIES.into_iter().find(|family| family.model_type() == name) else {
        let known: Vec<String> = FAMILIES.iter().map(|family| format!("`{}`", family.model_type())).collect();
        return Err(unsupported(format!("model_type `{name}`; known are {}", known.join(" and "))));
    };
    let config = family.read_config(json).map_err(unsupported)?;
    config.validate()?;
    Ok((family, config))
}

/// The starts that do not depend on the family: norms, embeddings, and the scalar head.
fn common_start(path: &str, dims: &[usize]) -> Option<Start> {
    let (owner, kind) = path.rsplit_once('.').unwrap_or(("", path));
    Some(match kind {
        "gamma" => Start::Ones,
        "beta" => Start::Zeros,
        // N(0, 1/√(d+1)), bias 0: the scalar head of Stiennon et al. 2020.
        "bias" if owner.ends_with("score") => Start::Zeros,
        _ if owner.ends_with("score") => Start::Normal(1.0 / (dims[0] as f64 + 1.0).sqrt()),
        _ if owner.ends_with("_embedding") => Start::Normal(INIT_STD),
        _ => return None,
    })
}

/// The shape of a piece of a parameter.
fn with_width(dims: &[usize], width: usize) -> Vec<usize> {
    let mut dims = dims.to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    dims
}

/// `[rows, columns]` to `[columns, rows]`.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PRESETS;
    use serde_json::json;

    fn config_of(json: &Value) -> Result<ModelConfig, Error> {
        read_config(json, Path::new("config.json")).map(|(_, config)| config)
    }

    #[test]
    fn every_preset_is_valid_and_survives_its_config_json() {
        for name in PRESETS {
            let config = ModelConfig::preset(name).unwrap();
            config.validate().unwrap();
            assert_eq!(config_of(&of(&config).write_config(&config)).unwrap(), config, "{name}");
        }
    }

    #[test]
    fn a_count_beyond_32_bits_is_refused() {
        for n in [1 << 31, usize::MAX / 4 + 1, usize::MAX] {
            let json = json!({"model_type": "gpt2", "vocab_size": 4, "n_positions": 4, "n_embd": n, "n_layer": 1,
                              "n_head": 1});
            let error = config_of(&json).unwrap_err();
            assert!(error.to_string().contains("`d_model`"), "{error}");
        }
    }

    /// A field that cannot be read would otherwise be taken for a missing one, and the model would compute something
    /// else.
    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        let config = ModelConfig::preset("gpt2-tiny").unwrap();
        let config = of(&config).write_config(&config);
        for (key, value) in [
            ("layer_norm_epsilon", json!("x")),
            ("activation_function", json!(5)),
            ("tie_word_embeddings", json!("x")),
            ("resid_pdrop", json!("x")),
            ("embd_pdrop", json!([0.1])),
            ("attn_pdrop", json!({})),
            ("scale_attn_weights", json!("no")),
            ("add_cross_attention", json!(1)),
            ("n_layer", json!("two")),
            ("model_type", json!(2)),
        ] {
            let mut json = config.clone();
            json[key] = value.clone();
            let error = config_of(&json).unwrap_err();
            let expected = format!("`{key}` must be");
            assert!(error.to_string().contains(&expected), "{key}: {error}");
            assert!(error.to_string().contains(&value.to_string()), "{key}: {error}");
        }
    }

    #[test]
    fn another_architecture_is_named_in_the_error() {
        let error = config_of(&json!({"model_type": "llama"})).unwrap_err();
        assert!(error.to_string().ends_with("model_type `llama`; known are `gpt2` and `temper`"), "{error}");
    }

    /// A family that keeps a `[2, 3]` matrix as two transposed tensors of 1 and 2 columns.
    #[derive(Debug)]
    struct InPieces;

    impl Family for InPieces {
        fn model_type(&self) -> &'static str {
            "pieces"
        }

        fn causal_class(&self) -> &'static str {
            "Pieces"
        }

        fn scalar_class(&self) -> &'static str {
            "Pieces"
        }

        fn describes(&self, _config: &ModelConfig) -> bool {
            false
        }

        fn read_config(&self, _json: &Value) -> Result<ModelConfig, String> {
            Err("it is never read".into())
        }

        fn write_config(&self, _config: &ModelConfig) -> Value {
            Value::Null
        }

        fn stored(&self, path: &str, _dims: &[usize]) -> Stored {
            Stored { pieces: vec![(format!("{path}.a"), 1), (format!("{path}.b"), 2)], is_transposed: true }
        }
    }

    #[test]
    fn a_parameter_in_transposed_pieces_is_written_and_read() {
        let values = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let tensors = InPieces.write_parameter("w", &[2, 3], values.clone());
        let tensor = |name: &str, dims: [usize; 2], values: &[f32]| NamedTensor {
            name: name.into(),
            dims: dims.into(),
            values: values.into(),
        };
        assert_eq!(
            tensors,
            [tensor("w.a", [1, 2], &[1.0, 4.0]), tensor("w.b", [2, 2], &[2.0, 5.0, 3.0, 6.0])]
        );
        let mut read = |name: &str, dims: &[usize]| {
            let tensor = tensors.iter().find(|tensor| tensor.name == name).unwrap();
            assert_eq!(tensor.dims, dims);
            Ok(tensor.values.clone())
        };
        assert_eq!(InPieces.read_parameter("w", &[2, 3], &mut read).unwrap(), values);
    }
}
