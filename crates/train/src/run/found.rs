//! What a directory says about the run in it, while nobody has it open.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CONFIG_FILE, FINAL_DIR, INPUTS_FILE, METRICS_FILE, Run};
use crate::checkpoint::{step_dirs, verify};
use crate::error::Error;
use crate::files::read_regular;
use crate::settings::StartSettings;

impl Run {
    /// Whether the run in `dir` has a whole `final/`.
    pub fn is_finished(dir: &Path) -> bool {
        verify(&dir.join(FINAL_DIR)).is_ok()
    }

    /// Whether a run has come as far as a step, a checkpoint or its end in `dir`.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be read.
    pub fn has_started(dir: &Path) -> Result<bool, Error> {
        let logged = fs::metadata(dir.join(METRICS_FILE)).is_ok_and(|file| file.len() > 0);
        Ok(logged || dir.join(FINAL_DIR).exists() || !step_dirs(dir)?.is_empty())
    }

    /// The settings that the run in `dir` was started with. None if it has not begun.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::TomlSyntax`] of its `config.toml`.
    pub fn settings_at_its_start(dir: &Path) -> Result<Option<StartSettings>, Error> {
        if !Run::has_started(dir)? {
            return Ok(None);
        }
        let text = read_regular(&dir.join(CONFIG_FILE))?;
        StartSettings::of(&String::from_utf8_lossy(&text)).map(Some)
    }

    /// The files that a new run in `dir` writes at once, in place of those that an earlier one may have left.
    pub fn files_written_at_the_start(dir: &Path) -> [PathBuf; 3] {
        [CONFIG_FILE, INPUTS_FILE, METRICS_FILE].map(|name| dir.join(name))
    }
}
