//! Going back to an earlier checkpoint.

use std::path::PathBuf;

use super::mark::Mark;
use super::{METRICS_FILE, Run, SAMPLES_FILE};
use crate::checkpoint::{self, step_dirs, verify};
use crate::error::Error;
use crate::metrics::MetricsWriter;

impl Run {
    /// Keeps the newest checkpoint of step `good` or before until another step is named, however many are to stay: the run
    /// may have to go back to it.
    pub fn keep_for_rewind(&mut self, good: usize) {
        self.good_step = Some(good);
    }

    /// Goes back to the newest whole checkpoint of step `good` or before, or if there is none, to the oldest one. Later
    /// checkpoints go, and so do the lines of metrics and samples that were logged after it. Returns its step and place.
    ///
    /// `best/` stays: it is the best model that the run has seen.
    ///
    /// # Errors
    ///
    /// [`Error::NothingToRewindTo`], [`Error::Io`], [`Error::MetricsLost`], and those of [`Run::save_checkpoint`].
    pub fn rewind(&mut self, good: usize) -> Result<(usize, PathBuf), Error> {
        self.check_place()?;
        let whole: Vec<_> =
            step_dirs(&self.dir)?.into_iter().filter(|(_, path)| verify(path).is_ok()).collect();
        let chosen = whole.iter().rfind(|(step, _)| *step <= good).or(whole.first());
        let (step, path) = chosen.ok_or_else(|| Error::NothingToRewindTo { dir: self.dir.clone() })?.clone();
        let mark = Mark::load(&path, &self.stage, step)?;
        self.metrics.sync()?;
        self.samples.sync_if_there()?;
        (self.metrics, _) = MetricsWriter::resume_after(&self.dir.join(METRICS_FILE), mark.metrics_lines)?;
        (self.samples, _) = MetricsWriter::resume_after(&self.dir.join(SAMPLES_FILE), mark.samples_lines)?;
        // The newest first: a run that is killed in between continues from one that is still there.
        for (_, later) in step_dirs(&self.dir)?.into_iter().rev().filter(|(later, _)| *later > step) {
            checkpoint::remove(&later)?;
        }
        Ok((step, path))
    }
}
