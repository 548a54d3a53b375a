//! Families of models: whose `config.json` and whose weights a directory holds.
//!
//! A family is one file here and one line in [`FAMILIES`]. It reads and writes `config.json`, and says how its files name
//! and lay out each parameter of our decoder. Nothing outside of this folder knows a parameter name of a family.

mod fields;
mod gpt2;
mod gpt_neox;
mod llama;
mod notebook;
mod qwen2;
mod qwen3;
mod rope;

use std::fmt::Debug;
use std::path::Path;

use serde_json::Value;
use temper_tensor::NamedTensor;

use crate::Error;
use crate::config::{INIT_STD, Init, ModelConfig};
use crate::families::fields::Fields;
use crate::init::Start;

pub use gpt2::former_path;

/// Every family; a new model belongs to the first that can describe its shape.
const FAMILIES: &[&dyn Family] = &[
    &gpt2::Gpt2,
    &gpt_neox::GptNeoX,
    &llama::Llama,
    &qwen2::Qwen2,
    &qwen3::Qwen3,
    &notebook::Notebook, // Last: it describes every shape.
];

/// One kind of model directory.
pub(crate) trait Family: Debug + Send + Sync {
    /// The value of `model_type` in its `config.json`.
    fn model_type(&self) -> &'static str;

    /// Another value of `model_type` whose models compute the same; they are written under the family's own.
    fn other_model_type(&self) -> Option<&'static str> {
        None
    }

    /// The class that `config.json` names for a language model.
    fn causal_class(&self) -> &'static str;

    /// The class that `config.json` names for a model with a scalar head.
    fn scalar_class(&self) -> &'static str;

    /// Whether transformers has these models too, so that it can open what is written.
    fn is_in_transformers(&self) -> bool {
        true
    }

    /// Whether its `config.json` can describe a decoder of this shape.
    fn describes(&self, config: &ModelConfig) -> bool;

    /// The shape that a `config.json` describes, not yet validated, or why it cannot be used.
    ///
    /// A field that it does not ask for is an error afterwards, unless [`Fields`] knows that it changes nothing.
    fn read_config(&self, fields: &Fields<'_>) -> Result<ModelConfig, String>;

    /// The `config.json` of a decoder that [`Family::describes`] accepts.
    fn write_config(&self, config: &ModelConfig) -> Value;

    /// How its files store the parameter at a dotted path, whose shape is `dims`.
    fn stored(&self, path: &str, dims: &[usize], config: &ModelConfig) -> Stored;

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
}

/// Numbers of the parameter at `path`, in our layout. `read` gives those of a stored tensor of a name and a shape.
pub(crate) fn read_parameter(
    stored: Stored,
    dims: &[usize],
    read: &mut dyn FnMut(&str, &[usize]) -> Result<Vec<f32>, Error>,
) -> Result<Vec<f32>, Error> {
    let is_transposed = stored.is_transposed && dims.len() == 2;
    if let ([(name, _)], false, None) = (&stored.pieces[..], is_transposed, &stored.order) {
        return read(name, dims);
    }
    let (rows, total) = rows_and_columns(dims);
    let mut values = vec![0.0; rows * total];
    let mut start = 0;
    for (name, width) in &stored.pieces {
        let piece = read(name, &piece_dims(dims, *width, is_transposed))?;
        each_place(rows, *width, |row, column| {
            let at = if is_transposed { column * rows + row } else { row * width + column };
            values[row * total + stored.our_column(start + column)] = piece[at];
        });
        start += width;
    }
    Ok(values)
}

/// The tensors that store a parameter, whose numbers in our layout are `values`.
pub(crate) fn write_parameter(stored: Stored, dims: &[usize], values: Vec<f32>) -> Vec<NamedTensor> {
    let is_transposed = stored.is_transposed && dims.len() == 2;
    if let ([(name, _)], false, None) = (&stored.pieces[..], is_transposed, &stored.order) {
        return vec![NamedTensor { name: name.clone(), dims: dims.to_vec(), values }];
    }
    let (rows, total) = rows_and_columns(dims);
    let mut start = 0;
    let mut tensors = Vec::new();
    for (name, width) in &stored.pieces {
        let mut piece = vec![0.0; rows * width];
        each_place(rows, *width, |row, column| {
            let at = if is_transposed { column * rows + row } else { row * width + column };
            piece[at] = values[row * total + stored.our_column(start + column)];
        });
        let dims = piece_dims(dims, *width, is_transposed);
        tensors.push(NamedTensor { name: name.clone(), dims, values: piece });
        start += width;
    }
    tensors
}

/// How a file stores one parameter of ours.
pub(crate) struct Stored {
    /// Names of the tensors that hold it, with their widths: together they are its last dimension.
    pub(crate) pieces: Vec<(String, usize)>,
    /// `torch.nn.Linear` keeps `[d_out, d_in]`; ours are `[d_in, d_out]`.
    pub(crate) is_transposed: bool,
    /// Where each stored column is in our last dimension; `None` for the same place.
    pub(crate) order: Option<Vec<usize>>,
}

impl Stored {
    /// One tensor of this name.
    pub(crate) fn whole(name: String, dims: &[usize], is_transposed: bool) -> Self {
        Self { pieces: vec![(name, dims.last().copied().unwrap_or(1))], is_transposed, order: None }
    }

    /// Names and shapes of the tensors that store a parameter of this shape, in the order of [`write_parameter`].
    pub(crate) fn tensors(&self, dims: &[usize]) -> Vec<(String, Vec<usize>)> {
        let is_transposed = self.is_transposed && dims.len() == 2;
        let tensor =
            |(name, width): &(String, usize)| (name.clone(), piece_dims(dims, *width, is_transposed));
        self.pieces.iter().map(tensor).collect()
    }

    fn our_column(&self, stored: usize) -> usize {
        self.order.as_ref().map_or(stored, |order| order[stored])
    }
}

/// Visits every row and column in squares, so that neither side of a transposition jumps through memory.
fn each_place(rows: usize, columns: usize, mut visit: impl FnMut(usize, usize)) {
    const SIDE: usize = 32;
    for first_row in (0..rows).step_by(SIDE) {
        for first_column in (0..columns).step_by(SIDE) {
            for row in first_row..rows.min(first_row + SIDE) {
                for column in first_column..columns.min(first_column + SIDE) {
                    visit(row, column);
                }
            }
        }
    }
}

fn rows_and_columns(dims: &[usize]) -> (usize, usize) {
    let (columns, rows) = dims.split_last().expect("a parameter has a shape");
    (rows.iter().product(), *columns)
}

/// The stored shape of a piece of a parameter.
fn piece_dims(dims: &[usize], width: usize, is_transposed: bool) -> Vec<usize> {
    let mut dims = dims.to_vec();
    *dims.last_mut().expect("a parameter has a shape") = width;
    if is_transposed {
        dims.reverse();
    }
    dims
}

/// The family that describes a new decoder of this shape.
pub(crate) fn of(config: &ModelConfig) -> &'static dyn Family {
    let family = FAMILIES.iter().find(|family| family.describes(config));
    *family.expect("the last family describes every shape")
}

/// Reads a `config.json`: the family that it names, and the shape. Unknown fields are accepted if they are `ignored`.
///
/// # Errors
/// [`Error::UnsupportedArchitecture`], [`Error::UnknownFields`], or a shape that cannot be a model.
pub(crate) fn read_config(
    json: &Value,
    path: &Path,
    ignored: &[String],
) -> Result<(&'static dyn Family, ModelConfig), Error> {
    let unsupported = |reason: String| Error::UnsupportedArchitecture { path: path.to_path_buf(), reason };
    let model_type = &json["model_type"];
    let name = match model_type.as_str() {
        Some(name) => name,
        None if model_type.is_null() => return Err(unsupported("it names no model_type".into())),
        None => return Err(unsupported(format!("`model_type` must be a name, not {model_type}"))),
    };
    let is_meant =
        |family: &&&dyn Family| family.model_type() == name || family.other_model_type() == Some(name);
    let Some(family) = FAMILIES.iter().find(is_meant) else {
        return Err(unsupported(format!("model_type `{name}`; known are {}", known_model_types())));
    };
    let fields = Fields::new(json);
    let config = family.read_config(&fields).map_err(unsupported)?;
    config.validate()?;
    let unknown: Vec<String> =
        fields.unknown().into_iter().filter(|field| !ignored.contains(field)).collect();
    if !unknown.is_empty() {
        return Err(Error::UnknownFields { path: path.to_path_buf(), fields: unknown });
    }
    Ok((*family, config))
}

/// Those of the unknown fields of a usable `config.json` that are `ignored`, in order.
pub(crate) fn ignored_fields(family: &dyn Family, json: &Value, ignored: &[String]) -> Vec<String> {
    let fields = Fields::new(json);
    let is_usable = family.read_config(&fields).is_ok();
    fields.unknown().into_iter().filter(|field| is_usable && ignored.contains(field)).collect()
}

/// Every `model_type` that is read, for messages.
fn known_model_types() -> String {
    let names = |family: &&dyn Family| [Some(family.model_type()), family.other_model_type()];
    let names: Vec<String> =
        FAMILIES.iter().flat_map(names).flatten().map(|name| format!("`{name}`")).collect();
    match &names[..] {
        [names @ .., last] => format!("{} and {last}", names.join(", ")),
        [] => String::new(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PRESETS;
    use serde_json::json;

    fn config_of(json: &Value) -> Result<ModelConfig, Error> {
        read_config(json, Path::new("config.json"), &[]).map(|(_, config)| config)
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
        let error = config_of(&json!({"model_type": "mamba"})).unwrap_err().to_string();
        assert!(error.contains("model_type `mamba`; known are `gpt2`"), "{error}");
        assert!(error.ends_with(" and `temper`"), "{error}");
    }

    /// Such a field may change what the model computes.
    #[test]
    fn fields_that_nobody_knows_are_named_unless_they_are_ignored() {
        let config = ModelConfig::preset("gpt2-tiny").unwrap();
        let mut json = of(&config).write_config(&config);
        for (key, value) in
            [("use_cache", json!(true)), ("summary_type", json!("mean")), ("pruned_heads", json!({}))]
        {
            json[key] = value;
        }
        assert_eq!(config_of(&json).unwrap(), config);
        json["logit_softcap"] = json!(15.0);
        json["quantization_config"] = json!({"bits": 4});
        let error = config_of(&json).unwrap_err().to_string();
        assert!(error.contains("`logit_softcap`, `quantization_config`"), "{error}");
        let ignored = ["logit_softcap".to_owned(), "quantization_config".to_owned()];
        assert_eq!(read_config(&json, Path::new("config.json"), &ignored).unwrap().1, config);
    }

    /// A `[2, 3]` matrix as two transposed tensors of 1 and 2 columns.
    #[test]
    fn a_parameter_in_transposed_pieces_is_written_and_read() {
        let pieces = || Stored {
            pieces: vec![("w.a".into(), 1), ("w.b".into(), 2)],
            is_transposed: true,
            order: None,
        };
        let values = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let tensors = write_parameter(pieces(), &[2, 3], values.clone());
        let tensor = |name: &str, dims: [usize; 2], values: &[f32]| NamedTensor {
            name: name.into(),
            dims: dims.into(),
            values: values.into(),
        };
        assert_eq!(
            tensors,
            [tensor("w.a", [1, 2], &[1.0, 4.0]), tensor("w.b", [2, 2], &[2.0, 5.0, 3.0, 6.0])]
        );
        assert_eq!(pieces().tensors(&[2, 3]), [("w.a".into(), vec![1, 2]), ("w.b".into(), vec![2, 2])]);
        let mut read = |name: &str, dims: &[usize]| {
            let tensor = tensors.iter().find(|tensor| tensor.name == name).unwrap();
            assert_eq!(tensor.dims, dims);
            Ok(tensor.values.clone())
        };
        assert_eq!(read_parameter(pieces(), &[2, 3], &mut read).unwrap(), values);
    }

    /// The stored columns c, a, b of a `[2, 3]` matrix and of its bias; more rows and columns than one square.
    #[test]
    fn columns_in_another_order_are_written_and_read() {
        let order = |n: usize| (0..n).map(|column| (column + n - 1) % n).collect();
        for (dims, is_transposed) in
            [(vec![2, 3], false), (vec![2, 3], true), (vec![3], true), (vec![40, 70], true)]
        {
            let n = *dims.last().unwrap();
            let stored =
                || Stored { order: Some(order(n)), ..Stored::whole("w".into(), &dims, is_transposed) };
            let values: Vec<f32> = (0..dims.iter().product()).map(|i| i as f32).collect();
            let tensors = write_parameter(stored(), &dims, values.clone());
            if dims == [2, 3] {
                let expected = if is_transposed {
                    [2.0, 5.0, 0.0, 3.0, 1.0, 4.0]
                } else {
                    [2.0, 0.0, 1.0, 5.0, 3.0, 4.0]
                };
                assert_eq!(tensors[0].values, expected);
            }
            let mut read = |_: &str, dims: &[usize]| {
                assert_eq!(tensors[0].dims, dims);
                Ok(tensors[0].values.clone())
            };
            assert_eq!(read_parameter(stored(), &dims, &mut read).unwrap(), values);
        }
    }
}
