//! What can go wrong while a policy is judged or a checkpoint selected.

use std::path::PathBuf;

/// Everything this crate can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model cannot be loaded, answer or score.
    #[error(transparent)]
    Assistant(#[from] temper_assistant::Error),
    /// A program that judges cannot be started or asked.
    #[error(transparent)]
    Scorer(#[from] temper_scorer::Error),
    /// A run directory cannot be read or written.
    #[error(transparent)]
    Train(#[from] temper_train::Error),
    /// A judge has a name that is neither a rule nor a directory.
    #[error("`{name}` is not a judge")]
    UnknownJudge {
        /// What was asked for.
        name: String,
    },
    /// The courtesy rule judges only the prompts of its own task.
    #[error("the courtesy judge does not know the prompt `{prompt}`")]
    NotCourtesy {
        /// The prompt.
        prompt: String,
    },
    /// A run has no undamaged model to select.
    #[error("{} has no whole checkpoint", run.display())]
    NoWholeCheckpoint {
        /// The run directory.
        run: PathBuf,
    },
    /// A file of the selected model cannot be copied.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `copy` or `list`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
