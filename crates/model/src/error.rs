//! What can be wrong with a model directory or a request.

use std::path::PathBuf;

/// Errors of this crate. Wrong shapes inside the code are bugs and panic; wrong files are errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No preset has this name.
    #[error("no model preset is called `{name}`")]
    UnknownPreset {
        /// What was asked for.
        name: String,
    },
    /// A field of the model's configuration cannot be used.
    #[error("model configuration: `{field}`: {reason}")]
    Config {
        /// Which field.
        field: &'static str,
        /// Why not.
        reason: String,
    },
    /// A `config.json` describes something else than this decoder.
    #[error("{}: unsupported model: {reason}", path.display())]
    UnsupportedArchitecture {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        reason: String,
    },
    /// A `config.json` has fields that are neither read nor known to change nothing.
    #[error(
        "{}: unknown fields {}: they may change what the model computes",
        path.display(),
        fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ")
    )]
    UnknownFields {
        /// The file.
        path: PathBuf,
        /// Their names, in order.
        fields: Vec<String>,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight is missing from a checkpoint.
    #[error("{}: the weight `{name}` is missing", path.display())]
    MissingWeight {
        /// The file.
        path: PathBuf,
        /// The weight's name in the file.
        name: String,
    },
    /// A weight has another shape than the configuration says.
    #[error("{}: `{name}` has shape {found:?}, the configuration says {expected:?}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The weight's name in the file.
        name: String,
        /// Shape in the file.
        found: Box<[usize]>,
        /// Shape from the configuration.
        expected: Box<[usize]>,
    },
    /// A weight is NaN or infinite; such a model is not saved.
    #[error("the weight `{name}` is {value}")]
    NonFiniteWeight {
        /// The weight's name in the file.
        name: String,
        /// What it has become.
        value: f32,
    },
    /// A model computes NaN or infinities from tokens that it was given; such a model is not saved as a
    /// result.
    #[error("the model computes numbers that are not finite, though its weights are")]
    NonFiniteOutput,
    /// A checkpoint holds another kind of model than the one asked for.
    #[error("{}: this is a {found}, a {expected} is needed", path.display())]
    WrongHead {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        found: &'static str,
        /// What was needed.
        expected: &'static str,
    },
    /// An adapter is meant for layers that the model does not have.
    #[error("no linear layer of the model is called `{target}`; there are {known}")]
    NoSuchLayer {
        /// What was asked for.
        target: String,
        /// The ends of the names of the linear layers.
        known: String,
    },
    /// An adapter's base model is not where its `adapter_config.json` says, or is the adapter itself.
    #[error("{}: its base model {} is not the directory of another model", path.display(), base.display())]
    NoBaseModel {
        /// The directory of the adapter.
        path: PathBuf,
        /// What `base_model_name_or_path` says.
        base: PathBuf,
    },
    /// An adapter computes something else than two matrices beside a weight.
    #[error("{}: `{key}: {value}` is not supported", path.display())]
    UnsupportedAdapter {
        /// Its `adapter_config.json`.
        path: PathBuf,
        /// Which key says so.
        key: String,
        /// Its value.
        value: String,
    },
    /// A prompt leaves no room for an answer.
    #[error(
        "prompt {index} has {prompt_len} tokens, the model's context {max_seq_len}: no room for an answer"
    )]
    PromptTooLong {
        /// Which prompt of the batch, from 0.
        index: usize,
        /// Its tokens.
        prompt_len: usize,
        /// The model's context, or the setting where that is shorter.
        max_seq_len: usize,
    },
}
