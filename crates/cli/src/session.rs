//! What every stage command does around its loop: settings, the run directory, Ctrl-C.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use temper_train::{BadRows, Documented, Inputs, Run, resolve, to_commented_toml};

use crate::args::{Common, RunArgs, Settings, Stage};
use crate::commands::Outcome;
use crate::failure::hinted;
use crate::{progress, recipe};

/// A signal this long after the first one is a second one.
const SECOND_SIGNAL: Duration = Duration::from_millis(300);

/// Flags that hold for the whole process.
pub struct Session {
    /// No progress.
    pub quiet: bool,
    /// `--device`, if given.
    pub device: Option<String>,
    /// `--seed`, if given.
    pub seed: Option<u64>,
    interrupt: Arc<AtomicBool>,
    /// Whether a run is open, which wants to write a checkpoint before the end.
    in_run: Arc<AtomicBool>,
}

impl Session {
    /// Listens for Ctrl-C: in a run the first one ends the step and writes a checkpoint, the second ends at once;
    /// without a run the first one does.
    pub fn new(common: &Common) -> Result<Self> {
        let interrupt = Arc::new(AtomicBool::new(false));
        let in_run = Arc::new(AtomicBool::new(false));
        let (flag, wait) = (Arc::clone(&interrupt), Arc::clone(&in_run));
        let mut first: Option<Instant> = None;
        ctrlc::set_handler(move || {
            // A group and its leader may be signalled both: two signals at once are one.
            let again = first.get_or_insert_with(Instant::now).elapsed() > SECOND_SIGNAL;
            flag.store(true, Ordering::SeqCst);
            if again || !wait.load(Ordering::SeqCst) {
                #[allow(clippy::exit)] // Asked for twice, or there is nothing to save: now.
                std::process::exit(130);
            }
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(Self { quiet: common.quiet, device: common.device.clone(), seed: common.seed, interrupt, in_run })
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
        let preset =
            settings.preset.as_deref().map(|name| recipe::stage_settings(name, stage)).transpose()?;
        if let Some(seed) = self.seed.filter(|&seed| i64::try_from(seed).is_err()) {
            return Err(hinted(format!("`--seed` is {seed}"), format!("it must be at most {}", i64::MAX)));
        }
        let mut sets = settings.sets.clone();
        sets.extend(self.seed.map(|seed| format!("seed={seed}")));
        sets.extend(self.device.as_ref().map(|device| format!("device={device}")));
        Ok(resolve(preset, settings.config.as_deref(), &sets)?)
    }

    /// Opens the run directory, with progress and Ctrl-C connected.
    pub fn run<T: Serialize + Documented>(
        &self,
        args: &RunArgs,
        stage: &str,
        config: &T,
        inputs: &Inputs,
    ) -> Result<Run> {
        if args.resume && !args.out.exists() {
            self.note(&format!("note: {} holds no run yet, this one starts it", args.out.display()));
        }
        let run = Run::open(&args.out, stage, &to_commented_toml(config)?, inputs, args.resume)?;
        if run.finished().is_some() {
            self.note(&format!("note: {} is finished, there is nothing left to do", args.out.display()));
        }
        self.in_run.store(true, Ordering::SeqCst);
        Ok(run.with_observer(progress::observer(self.quiet)).with_interrupt(Arc::clone(&self.interrupt)))
    }

    /// The rows of some data files alone, and a note of those that were skipped; see [`Session::data_rows`].
    pub fn rows<T: DeserializeOwned>(&self, paths: &[PathBuf], skip_bad_rows: bool) -> Result<Vec<T>> {
        Ok(self.data_rows(paths, "", skip_bad_rows)?.rows)
    }

    /// How a run ended that met no error.
    pub fn outcome(&self) -> Outcome {
        if self.interrupted() { Outcome::Interrupted } else { Outcome::Done }
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
