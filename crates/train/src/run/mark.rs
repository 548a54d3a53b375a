//! What a step checkpoint says of its run.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Fault};
use crate::files::{load_json, save_json};
use crate::metrics::STEP_KEY;

const MARK_FILE: &str = "training/run.json";
/// Where a stage puts what it resumes from.
pub(super) const STATE_FILE: &str = "training/state.json";

/// The content of a step checkpoint's `training/run.json`: that it is this run's, of this step, and how much of the
/// metrics and samples goes with it.
#[derive(Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) stage: String,
    pub(super) step: usize,
    pub(super) metrics_lines: usize,
    /// A run of an earlier version has no samples.
    #[serde(default)]
    pub(super) samples_lines: usize,
}

impl Mark {
    /// Writes it into a checkpoint.
    pub(super) fn save(&self, checkpoint: &Path) -> Result<(), Error> {
        save_json(&checkpoint.join(MARK_FILE), self)
    }

    /// Reads it, after a look at whether the checkpoint is what its place says.
    pub(super) fn load(checkpoint: &Path, stage: &str, step: usize) -> Result<Self, Error> {
        let path = checkpoint.join(MARK_FILE);
        if !path.exists() {
            let (path, file) = (checkpoint.to_owned(), MARK_FILE.to_owned());
            return Err(Error::DamagedCheckpoint { path, file, fault: Fault::Missing });
        }
        let mark: Self = load_json(&path)?;
        if mark.stage != stage || mark.step != step {
            let message = format!("it is of {} step {}, not of {stage} step {step}", mark.stage, mark.step);
            return Err(Error::BadState { path, message });
        }
        // The state of the stage must be of the same step. The stage itself checks the rest of it.
        let path = checkpoint.join(STATE_FILE);
        let state = load_json::<Value>(&path).ok();
        let other = state.as_ref().and_then(|state| state.get(STEP_KEY)?.as_u64());
        if let Some(other) = other.filter(|&other| other != step as u64) {
            return Err(Error::BadState {
                path,
                message: format!("it is of step {other}, not of step {step}"),
            });
        }
        Ok(mark)
    }
}
