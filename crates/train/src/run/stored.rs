//! What a run directory holds when it is opened.

use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

use super::extension::extension;
use super::place::is_ours;
use super::{CONFIG_FILE, FINAL_DIR, INPUTS_FILE, METRICS_FILE, OWN_NAMES, Run};
use crate::best::Best;
use crate::checkpoint::latest;
use crate::error::Error;
use crate::files::{load_json, read_regular};
use crate::inputs::{Inputs, parse_config};
use crate::metrics::{STEP_KEY, read_metrics};
use crate::settings::{Catalogue, update_stored};

/// What a run that is resumed has left in its directory.
#[derive(Default)]
pub(super) struct StoredRun {
    pub(super) resume_from: Option<(usize, PathBuf)>,
    pub(super) best: Option<Best>,
    pub(super) finished: bool,
    /// How the settings make the run longer than it was.
    pub(super) extension: Option<String>,
}

/// The settings of a run, as they were declared and as they are.
pub(super) struct GivenSettings {
    /// The resolved settings as TOML, with their comments.
    pub(super) toml: String,
    /// The declarations and the defaults; none for settings that nobody has declared.
    pub(super) declared: Option<(Catalogue, Table)>,
}

impl StoredRun {
    /// Reads it, and changes nothing.
    pub(super) fn of(
        dir: &Path,
        config: &Table,
        settings: &GivenSettings,
        inputs: &Inputs,
    ) -> Result<Self, Error> {
        let config_path = dir.join(CONFIG_FILE);
        let text = read_regular(&config_path)?;
        let mut stored = parse_config(&String::from_utf8_lossy(&text), &config_path)?;
        let mut notes = Vec::new();
        if let Some((catalogue, defaults)) = &settings.declared {
            (stored, notes) = update_stored(&stored, catalogue, defaults, &config_path);
        }
        let extension = extension(&stored, config, &config_path)?;
        let other_machine = inputs.compare(&load_json(&dir.join(INPUTS_FILE))?, dir)?;
        if Run::is_finished(dir) && extension.is_none() {
            return Ok(Self { finished: true, ..Self::default() });
        }
        notes.iter().for_each(|note| tracing::warn!("{note}"));
        let (resume_from, best) = (latest(dir)?, Best::load(dir)?);
        let run = Self { resume_from, best, finished: false, extension };
        if run.resume_from.is_none() {
            tracing::warn!("{} has no checkpoint yet and begins again", dir.display());
        }
        other_machine.iter().for_each(|difference| tracing::warn!("{difference}"));
        Ok(run)
    }
}

/// Keeps the model of a finished run that becomes longer, under the name of its last step.
pub(super) fn set_final_aside(dir: &Path) -> Result<(), Error> {
    let path = dir.join(FINAL_DIR);
    if !path.exists() {
        return Ok(());
    }
    let step =
        read_metrics(&dir.join(METRICS_FILE))?.iter().filter_map(|row| row.get(STEP_KEY)?.as_u64()).max();
    let aside = dir.join(format!("{FINAL_DIR}-{:06}", step.unwrap_or(0)));
    fs::rename(&path, &aside).map_err(Error::io("move", &path))
}

/// Refuses a directory in which something has a name that a run writes, unless a run of Temper wrote it.
pub(super) fn refuse_foreign_names(dir: &Path) -> Result<(), Error> {
    if is_ours(dir) {
        return Ok(());
    }
    let in_the_way = OWN_NAMES.map(|name| dir.join(name)).into_iter();
    match in_the_way.into_iter().find(|path| fs::symlink_metadata(path).is_ok()) {
        Some(path) => Err(Error::NotARun { dir: dir.to_owned(), path }),
        None => Ok(()),
    }
}
