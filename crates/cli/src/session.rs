//! What every stage command does around its loop: settings, the run directory, Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use temper_scorer::Stop;
use temper_stage::Launch;
use temper_train::{AutoKeys, Event, TrainingConfig, keys_with_source, resolve_with_auto};

use crate::args::{self, Cli, RunArgs, Settings, Stage};
use crate::commands::Outcome;
use crate::ending::{Command, Ending};
use crate::{device, progress, recipe, signals, terminal};

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
    /// The same interrupt for scorers.
    stop: Stop,
    /// What the last run has reported.
    ending: Arc<Mutex<Ending>>,
    /// The command that was typed.
    command: Command,
}

impl Session {
    /// Listens for Ctrl-C: in a run the first one ends the step and writes a checkpoint, the second ends at once;
    /// without a run the first one does.
    pub fn new(cli: &Cli) -> Result<Self> {
        let common = &cli.common;
        let interrupt = Arc::new(AtomicBool::new(false));
        let in_run = Arc::new(AtomicBool::new(false));
        let stop = Stop::when(Arc::clone(&interrupt));
        let (flag, wait, scorers) = (Arc::clone(&interrupt), Arc::clone(&in_run), stop.clone());
        let quiet = common.quiet;
        let mut first: Option<Instant> = None;
        signals::listen(move || {
            // A group and its leader may be signalled both: two signals at once are one.
            let again = first.is_some_and(|first| first.elapsed() > SECOND_SIGNAL);
            flag.store(true, Ordering::SeqCst);
            if again || !wait.load(Ordering::SeqCst) {
                scorers.kill_programs();
                #[allow(clippy::exit)] // Asked for twice, or there is nothing to save: now.
                std::process::exit(130);
            }
            if first.is_none() && !quiet {
                // On another thread: the next signal must be heard even if nobody reads standard error.
                let note = "note: this step is being finished and a checkpoint written; a second Ctrl-C ends at once";
                _ = std::thread::Builder::new().spawn(move || terminal::say(note));
            }
            first.get_or_insert_with(Instant::now);
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(Self {
            quiet,
            device: common.device.clone(),
            seed: common.seed,
            interrupt,
            in_run,
            stop,
            ending: Arc::default(),
            command: Command::of_process(matches!(cli.command, args::Command::Pipeline(_))),
        })
    }

    /// What makes scorers end with the run.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Whether Ctrl-C was pressed.
    pub fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::SeqCst)
    }

    /// The device that the flag asks for, or `auto`.
    pub fn device_name(&self) -> &str {
        self.device.as_deref().unwrap_or("auto")
    }

    /// Defaults < preset < file < `--set` < flags; in range, each and together. With the settings that are left to Temper.
    pub fn settings<T: temper_train::Settings>(
        &self,
        stage: Stage,
        settings: &Settings,
    ) -> Result<(T, AutoKeys)> {
        let preset =
            settings.preset.as_deref().map(|name| recipe::stage_settings(name, stage)).transpose()?;
        if let Some(seed) = self.seed.filter(|&seed| i64::try_from(seed).is_err()) {
            bail!("`--seed` must be at most {}, got {seed}", i64::MAX);
        }
        let mut sets = settings.sets.clone();
        sets.extend(settings.memory.map(|limit| format!("memory={limit}")));
        sets.extend(self.seed.map(|seed| format!("seed={seed}")));
        sets.extend(self.device.as_ref().map(|device| format!("device={device}")));
        let (config, auto): (T, _) = resolve_with_auto(preset, settings.config.as_deref(), &sets)?;
        let (config, _) = auto.fill(&config, config.first_choices(&auto))?;
        if let Some(name) = serde_json::to_value(&config)?.get("device").and_then(|name| name.as_str()) {
            device::check(name)?;
        }
        config.check("")?;
        Ok((config, auto))
    }

    /// How a stage is launched: on its device, in its run directory, with progress and Ctrl-C connected.
    pub fn launch(
        &self,
        stage: Stage,
        training: &TrainingConfig,
        args: &RunArgs,
        settings: &Settings,
    ) -> Result<Launch> {
        let (device, backend) = device::open_named(&training.device)?;
        let preset =
            settings.preset.as_deref().map(|name| recipe::stage_settings(name, stage)).transpose()?;
        let mut asked_for = preset.map(keys_with_source).transpose()?.unwrap_or_default();
        let given = settings.sets.iter().filter_map(|set| set.split_once('='));
        asked_for.extend(given.filter(|(_, value)| *value != "auto").map(|(key, _)| key.trim().to_owned()));
        let mut show = progress::observer(self.quiet);
        let (ending, in_run) = (Arc::clone(&self.ending), Arc::clone(&self.in_run));
        let observer = move |event: Event<'_>| {
            if matches!(event, Event::Opened { .. }) {
                in_run.store(true, Ordering::SeqCst);
            }
            ending.lock().unwrap_or_else(PoisonError::into_inner).watch(&event);
            show(event);
        };
        let launch = Launch::new(&device, &args.out).backend(backend).resume(args.resume);
        let launch = launch
            .skip_bad_rows(args.skip_bad_rows)
            .columns(args.columns.clone().unwrap_or_default())
            .separator(args.texts.separator())
            .selection(args.selection.selection())
            .load_options(args.load.options())
            .files_read(settings.config.as_slice());
        Ok(launch.settings_asked_for(asked_for).observer(observer).stop(self.stop.clone()))
    }

    fn ending(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a run ended that met no error, after telling the user so. Without a run the next Ctrl-C ends at once.
    pub fn outcome(&self) -> Outcome {
        self.in_run.store(false, Ordering::SeqCst);
        let lines = self.ending().lines(self.interrupted(), &self.command);
        lines.iter().for_each(|line| self.note(line));
        if self.interrupted() { Outcome::Interrupted } else { Outcome::Done }
    }

    /// Some lines for people, unless they want none.
    pub fn note_lines(&self, text: &str) {
        if !self.quiet {
            terminal::say_lines(text);
        }
    }

    /// A line for people, unless they want none.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            terminal::say(text);
        }
    }
}
