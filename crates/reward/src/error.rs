//! What can go wrong in this stage.

/// Errors of the reward-model stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a setting, or the run directory.
    #[error(transparent)]
    Train(#[from] temper_train::Error),
    /// The model directory.
    #[error(transparent)]
    Model(#[from] temper_model::Error),
    /// The tokenizer or the template.
    #[error(transparent)]
    Tokenizer(#[from] temper_tokenizer::Error),
    /// Every comparison is longer than the limit.
    #[error("none of the {rows} comparisons fits into {max_seq_len} tokens")]
    NothingFits {
        /// Rows that were given.
        rows: usize,
        /// The limit.
        max_seq_len: usize,
    },
    /// The loss became NaN or infinite; nothing was updated with it.
    #[error("the loss of step {step} is {loss}")]
    NonFiniteLoss {
        /// The step that failed.
        step: usize,
        /// What came out.
        loss: f64,
    },
}
