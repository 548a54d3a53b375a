//! What can go wrong in this stage.

/// Errors of the PPO stage.
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
    /// Every prompt is longer than the limit.
    #[error("none of the {rows} prompts leaves room for an answer in {max_seq_len} tokens")]
    NothingFits {
        /// Rows that were given.
        rows: usize,
        /// The limit.
        max_seq_len: usize,
    },
    /// No plain text is left to learn from.
    #[error("none of the {rows} plain texts has a token to learn")]
    NoText {
        /// Rows that were given.
        rows: usize,
    },
    /// The scoring function failed.
    #[error("the scoring function failed in step {step}: {source}")]
    Score {
        /// The step that needed the scores.
        step: usize,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The scoring function gave something that cannot be a list of scores.
    #[error("the scoring function gave {problem} in step {step}")]
    BadScores {
        /// The step that needed the scores.
        step: usize,
        /// What is wrong with them.
        problem: String,
    },
    /// Generalised advantage estimation without values.
    #[error("`advantage.kind` is gae, which needs a critic, and there is none")]
    NoCritic,
    /// A loss became NaN or infinite; nothing was updated with it.
    #[error("the {which} loss of step {step} is {loss}")]
    NonFiniteLoss {
        /// `policy`, `value`, `ptx` or `KL`.
        which: &'static str,
        /// The step that failed.
        step: usize,
        /// What came out.
        loss: f64,
    },
}
