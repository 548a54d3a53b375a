//! What can go wrong in this stage.

/// Errors of the DPO stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a setting, or the run directory.
    #[error(transparent)]
    Train(#[from] temper_train::Error),
    /// The model directory.
    #[error(transparent)]
    Model(#[from] temper_model::Error),
    /// A data file cannot be read, or none of its rows fits.
    #[error(transparent)]
    Data(#[from] temper_data::Error),
    /// The tokenizer or the template.
    #[error(transparent)]
    Tokenizer(#[from] temper_tokenizer::Error),
}
