//! What a run reports while it trains.

use std::path::Path;

use serde_json::{Map, Value};

/// What a run tells its observer, for progress bars and logs.
#[derive(Debug)]
pub enum Event<'a> {
    /// Information for the user. A problem is a [`Event::Warning`].
    Note {
        /// One line.
        message: &'a str,
    },
    /// The run directory is open: from now on an interrupt ends in a checkpoint.
    Opened {
        /// `sft`, `reward`, `dpo` or `ppo`.
        stage: &'a str,
        /// The run directory.
        dir: &'a Path,
        /// The checkpoint that is resumed.
        checkpoint: Option<&'a Path>,
    },
    /// The loop begins.
    Started {
        /// `sft`, `reward`, `dpo` or `ppo`.
        stage: &'a str,
        /// Updates that are done already: 0, or the step of the checkpoint that is resumed.
        first_step: usize,
        /// Updates of the whole run.
        total_steps: usize,
    },
    /// An update is done and logged.
    Step {
        /// Updates done, this one included.
        step: usize,
        /// Updates of the whole run.
        total_steps: usize,
        /// The line as it is in the metrics file.
        metrics: &'a Map<String, Value>,
    },
    /// An evaluation is done and logged.
    Evaluated {
        /// Updates done before it.
        step: usize,
        /// The line as it is in the metrics file.
        metrics: &'a Map<String, Value>,
    },
    /// A checkpoint is complete.
    Checkpoint {
        /// Updates done before it.
        step: usize,
        /// Its directory.
        path: &'a Path,
    },
    /// Something is worth a look but stops nothing.
    Warning {
        /// One line.
        message: &'a str,
    },
}
