//! What can go wrong in a stage.

use std::path::PathBuf;

use temper_train::MemoryLimit;

/// Errors of a stage that trains one model. PPO adds its own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a setting, or the run directory.
    #[error(transparent)]
    Train(#[from] temper_train::Error),
    /// Adapters were asked for on weights that have been drawn at random, and would stay that.
    #[error("`adapter.rank` trains adapters alone, and the weights of this model have learned nothing yet")]
    AdaptersOnFreshWeights,
    /// The run needs more memory than the setting `memory` allows, by its estimate.
    #[error(
        "`memory` is {limit}, and the run needs about {needed_mib} MiB: {state_mib} MiB without the rows of an update, which have \
         up to {row_len} tokens"
    )]
    TooLittleMemory {
        /// What it may need.
        limit: MemoryLimit,
        /// What it needs, in MiB.
        needed_mib: usize,
        /// What it needs beside the rows of an update, in MiB.
        state_mib: usize,
        /// Tokens of a long row.
        row_len: usize,
    },
    /// The model directory.
    #[error(transparent)]
    Model(#[from] temper_model::Error),
    /// A data file cannot be read, or none of its rows fits.
    #[error(transparent)]
    Data(#[from] temper_data::Error),
    /// The tokenizer or the template.
    #[error(transparent)]
    Tokenizer(#[from] temper_tokenizer::Error),
    /// A model and its text side do not fit together, or not to the settings.
    #[error(transparent)]
    Assistant(#[from] temper_assistant::Error),
    /// A fresh model has fewer rows in its embedding than the tokenizer has tokens.
    #[error("`vocab_size` is {vocab_size}, and the tokenizer has {n_tokens} tokens")]
    VocabularyTooSmall {
        /// The size that was asked for.
        vocab_size: usize,
        /// Tokens of the tokenizer.
        n_tokens: usize,
    },
    /// A fresh model is to have the shape of a preset that transformers does not have.
    #[error("the shape of the preset `{preset}` is not one of transformers")]
    NotTransformers {
        /// The preset.
        preset: String,
    },
    /// A setting that GPT-2 does not have.
    #[error("`{setting}` is a setting of Llama models only")]
    OnlyLlama {
        /// The setting.
        setting: &'static str,
    },
    /// A setting that Llama does not have.
    #[error("`{setting}` is a setting of GPT-2 models only")]
    OnlyGpt2 {
        /// The setting.
        setting: &'static str,
    },
    /// A file that the run reads has the place of a file that it writes.
    #[error("the run would overwrite {}, which it was given to read", path.display())]
    WouldOverwrite {
        /// The file.
        path: PathBuf,
    },
}
