//! What every stage command does around its loop: settings, the run directory, Ctrl-C.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use temper_train::{BadRows, Documented, Run, resolve, to_commented_toml};

use crate::args::{Common, Settings, Stage};
use crate::failure::hinted;
use crate::{progress, recipe};

/// Flags that hold for the whole process.
pub struct Session {
    /// No progress.
    pub quiet: bool,
    /// `--device`, if given.
    pub device: Option<String>,
    /// `--seed`, if given.
    pub seed: Option<u64>,
    interrupt: Arc<AtomicBool>,
}

impl Session {
    /// Listens for Ctrl-C: the first one ends the step and writes a checkpoint, the second ends at once.
    pub fn new(common: &Common) -> Result<Self> {
        let interrupt = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupt);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                #[allow(clippy::exit)] // Asked for twice: now.
                std::process::exit(130);
            }
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(Self { quiet: common.quiet, device: common.device.clone(), seed: common.seed, interrupt })
    }

    /// Whether Ctrl-C was pressed.
    pub fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::SeqCst)
    }

    /// The device that the flag asks for, or `auto`.
    pub fn device_name(&self) -> &str {
        self.device.as_deref().unwrap_or("auto")
    }

    /// Defaults < preset < file < `--set` < flags.
    pub fn settings<T>(&self, stage: Stage, settings: &Settings) -> Result<T>
    where
        T: Serialize + DeserializeOwned + Default + Documented,
    {
        let preset = match &settings.preset {
            Some(name) => Some(recipe::stage_settings(name, stage).ok_or_else(|| {
                hinted(
                    format!("no preset is called `{name}`"),
                    format!("presets: {}", recipe::NAMES.join(", ")),
                )
            })?),
            None => None,
        };
        let mut sets = settings.sets.clone();
        sets.extend(self.seed.map(|seed| format!("seed={seed}")));
        sets.extend(self.device.as_ref().map(|device| format!("device={device}")));
        Ok(resolve(preset, settings.config.as_deref(), &sets)?)
    }

    /// Opens the run directory, with progress and Ctrl-C connected.
    pub fn run<T: Serialize + Documented>(
        &self,
        dir: &Path,
        stage: &str,
        config: &T,
        resume: bool,
    ) -> Result<Run> {
        let run = Run::open(dir, stage, &to_commented_toml(config)?, resume)?;
        Ok(run.with_observer(progress::observer(self.quiet)).with_interrupt(Arc::clone(&self.interrupt)))
    }

    /// A line for people, unless they want none.
    #[allow(clippy::print_stderr)] // The one place for notes.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// A count of rows that were left out, if any.
    pub fn note_count(&self, n: usize, what: &str) {
        if n > 0 {
            self.note(&format!("note: {n} {what}"));
        }
    }
}

/// What `--skip-bad-rows` means.
pub fn bad_rows(skip: bool) -> BadRows {
    if skip { BadRows::Skip } else { BadRows::Refuse }
}
