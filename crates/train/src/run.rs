//! A run directory: `config.toml`, `inputs.json`, `metrics.jsonl`, `samples.jsonl`, `checkpoints/step-000123/`, `best/` and `final/`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::best::{BEST_DIR, BEST_FILE, Best, Candidate, best_dir};
use crate::checkpoint::{
    self, CHECKPOINTS_DIR, TRAINING_DIR, is_complete, prune_scheduled, refuse_foreign, remove_leftovers,
    remove_unscheduled, step_dir, write_atomic,
};
use crate::error::Error;
use crate::event::Event;
use crate::files::{check_regular, create_dir, save_json, sync_dir, write_file};
use crate::inputs::{Inputs, parse_config};
use crate::metrics::{InPlace, MetricsWriter, last_values, line_of, read_metrics};
use crate::plan::is_due;
use crate::settings::{AutoKeys, Catalogue, Chosen, Settings, to_annotated_toml, to_table};

mod extension;
mod found;
mod mark;
mod place;
mod rewind;
mod stored;

use extension::can_be_extended;
pub(crate) use extension::lengthened_settings;
use mark::Mark;
use place::{Place, is_ours, lock};
use stored::{GivenSettings, StoredRun, refuse_foreign_names, set_final_aside};

const CONFIG_FILE: &str = "config.toml";
pub(crate) const INPUTS_FILE: &str = "inputs.json";
const METRICS_FILE: &str = "metrics.jsonl";
const SAMPLES_FILE: &str = "samples.jsonl";
const EVALUATION_FILE: &str = "evaluation.json";
const FINAL_DIR: &str = "final";
/// What a run writes into its directory. Of these `inputs.json` says that they are a run's.
const OWN_NAMES: [&str; 8] = [
    CONFIG_FILE,
    INPUTS_FILE,
    METRICS_FILE,
    SAMPLES_FILE,
    EVALUATION_FILE,
    CHECKPOINTS_DIR,
    BEST_DIR,
    FINAL_DIR,
];
/// The setting by which a run knows which checkpoints are of its schedule.
const SCHEDULE_KEY: &str = "checkpoint_every";
const ELAPSED_KEY: &str = "time/elapsed_seconds";
/// How many step checkpoints a run keeps unless it is told otherwise.
const KEEP_LAST: usize = 2;

type Observer = Box<dyn FnMut(Event<'_>) + Send>;

/// What is added to a filled `final/`, given its place and the last value of each metric.
type Finish = Box<dyn Fn(&Path, &BTreeMap<String, f64>) -> Result<(), Error> + Send>;

/// An open run directory.
///
/// Steps count finished updates: the line of step `s` describes the update that led to it, and a checkpoint of
/// step `s` holds the state after it. So a resumed run continues with `s + 1`, and lines up to `s` stay. Log
/// what belongs to a step before its checkpoint is saved. Only the keys of [`crate::is_timing`] then differ from a run
/// without an interruption.
///
/// On Unix the directory is locked while it is open, so that no second process writes into it.
pub struct Run {
    dir: PathBuf,
    stage: String,
    metrics: MetricsWriter,
    samples: MetricsWriter,
    resume_from: Option<(usize, PathBuf)>,
    best: Option<Best>,
    finished: bool,
    keep_last: usize,
    /// The newest checkpoint of this step or before stays.
    good_step: Option<usize>,
    /// Updates between checkpoints, where the settings say so: 0 for none but the last.
    checkpoint_every: Option<usize>,
    /// Updates of the whole run, once the loop has begun.
    total_steps: Option<usize>,
    /// How the settings make the run longer than it was when it was started.
    extension: Option<String>,
    /// Whether the run keeps what it would need to become longer later.
    can_be_extended: bool,
    observer: Option<Observer>,
    finish: Option<Finish>,
    interrupt: Option<Arc<AtomicBool>>,
    opened: Instant,
    /// Seconds that the run had taken before it was resumed.
    elapsed_before: f64,
    /// Removes the directory of an ephemeral run.
    _temp: Option<tempfile::TempDir>,
    /// What makes the directory this one, and no other of its name.
    place: Place,
    /// Held until the end of the process, however it comes.
    _lock: Option<File>,
}

impl Run {
    /// Opens `dir` for a run with these settings, as [`Run::open`] does, and writes them with their comments. Of the values
    /// that were `chosen` for the user it writes the reasons, too.
    ///
    /// With `resume` the stored settings may be those of an earlier version: a setting that was renamed is the same
    /// setting, and one that is newer than the run counts as its default, with a warning.
    ///
    /// # Errors
    ///
    /// Those of [`Run::open`], and [`Error::Unresolvable`] if TOML cannot express a setting.
    pub fn open_with<T: Settings>(
        dir: &Path,
        stage: &str,
        settings: &T,
        chosen: &[Chosen],
        inputs: &Inputs,
        resume: bool,
    ) -> Result<Run, Error> {
        let declared = Some((Catalogue::of::<T>(), to_table(&T::default())?));
        let settings =
            GivenSettings { toml: to_annotated_toml(settings, &AutoKeys::default(), chosen)?, declared };
        Self::open_directory(dir, stage, &settings, inputs, resume)
    }

    /// Opens `dir` for a new run and writes `config_toml` (the resolved settings) and `inputs` into it; or, with
    /// `resume`, for the rest of the run that it holds. A run that was stopped before its first checkpoint, or none
    /// at all, starts from step 0, the former with a warning; of a finished one nothing is left to do.
    ///
    /// Other files in the directory stay as they are. What has a name that the run would write was written by an
    /// earlier run of Temper, or is refused.
    ///
    /// # Errors
    ///
    /// [`Error::NotARun`] and [`Error::NotACheckpoint`] if something else has a name that the run would write;
    /// [`Error::RunExists`] if there is a run already and `resume` is false (one that failed before its first
    /// step does not count), [`Error::ConfigDiffers`] and [`Error::InputDiffers`] if it was started with something
    /// else, [`Error::RunInUse`] if another process has it open, [`Error::NoWholeCheckpoint`] and others if what it
    /// holds does not fit together, [`Error::TomlSyntax`] if either settings are not TOML, [`Error::Io`] if the
    /// directory cannot be read or written. A run that is refused is left as it was.
    pub fn open(
        dir: &Path,
        stage: &str,
        config_toml: &str,
        inputs: &Inputs,
        resume: bool,
    ) -> Result<Run, Error> {
        let settings = GivenSettings { toml: config_toml.to_owned(), declared: None };
        Self::open_directory(dir, stage, &settings, inputs, resume)
    }

    fn open_directory(
        dir: &Path,
        stage: &str,
        settings: &GivenSettings,
        inputs: &Inputs,
        resume: bool,
    ) -> Result<Run, Error> {
        let config_path = dir.join(CONFIG_FILE);
        let metrics_path = dir.join(METRICS_FILE);
        let given = parse_config(&settings.toml, &config_path)?;
        create_dir(dir)?;
        let lock = lock(dir)?;
        check_regular(&metrics_path)?;
        check_regular(&dir.join(SAMPLES_FILE))?;
        if !resume {
            refuse_foreign_names(dir)?;
        }
        let started = Run::has_started(dir)?;
        if resume && !started {
            refuse_foreign_names(dir)?;
        }
        if started && !resume {
            return Err(Error::RunExists { dir: dir.to_owned() });
        }
        let stored =
            if started { StoredRun::of(dir, &given, settings, inputs)? } else { StoredRun::default() };
        if !stored.finished {
            // An error here comes before the training, not after it.
            refuse_foreign(&dir.join(FINAL_DIR))?;
            refuse_foreign(&best_dir(dir))?;
        }
        if stored.extension.is_some() {
            // The model first: a run that is killed in between is extended again.
            set_final_aside(dir)?;
            write_file(&config_path, settings.toml.as_bytes())?;
        }
        if !started {
            // First what says that the rest is ours, so that a kill in between leaves nothing that looks like a
            // user's.
            save_json(&dir.join(INPUTS_FILE), inputs)?;
            write_file(&config_path, settings.toml.as_bytes())?;
        }
        let mut elapsed = None;
        let samples_path = dir.join(SAMPLES_FILE);
        let (metrics, samples) = if let Some((step, path)) = &stored.resume_from {
            let mark = Mark::load(path, stage, *step)?;
            let (metrics, last) = MetricsWriter::resume_after(&metrics_path, mark.metrics_lines)?;
            elapsed = last.and_then(|row| row.get(ELAPSED_KEY)?.as_f64());
            let (samples, _) = MetricsWriter::resume_after(&samples_path, mark.samples_lines)?;
            (metrics, samples)
        } else if stored.finished {
            (MetricsWriter::at_the_end(&metrics_path), MetricsWriter::at_the_end(&samples_path))
        } else {
            (MetricsWriter::create(&metrics_path)?, MetricsWriter::create_later(&samples_path))
        };
        sync_dir(dir)?;
        remove_leftovers(dir);
        let checkpoint_every = given.get(SCHEDULE_KEY).and_then(toml::Value::as_integer);
        Ok(Run {
            place: Place::of(dir)?,
            checkpoint_every: checkpoint_every.and_then(|every| usize::try_from(every).ok()),
            total_steps: None,
            extension: stored.extension,
            can_be_extended: can_be_extended(&given),
            dir: dir.to_owned(),
            stage: stage.to_owned(),
            metrics,
            samples,
            resume_from: stored.resume_from,
            best: stored.best,
            finished: stored.finished,
            keep_last: KEEP_LAST,
            good_step: None,
            observer: None,
            finish: None,
            interrupt: None,
            opened: Instant::now(),
            elapsed_before: elapsed.unwrap_or(0.0),
            _temp: None,
            _lock: lock,
        })
    }

    /// A run in a temporary directory that goes away with it, for tests and examples.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the temporary directory cannot be made.
    pub fn ephemeral() -> Result<Run, Error> {
        let temp = tempfile::tempdir().map_err(Error::io("create", &std::env::temp_dir()))?;
        let run = Run::open(temp.path(), "ephemeral", "", &Inputs::default(), false)?;
        Ok(Run { _temp: Some(temp), ..run })
    }

    /// Tells `observer` of everything that happens.
    pub fn with_observer(self, observer: impl FnMut(Event<'_>) + Send + 'static) -> Self {
        Run { observer: Some(Box::new(observer)), ..self }
    }

    /// Lets [`Run::interrupted`] answer by this flag.
    pub fn with_interrupt(self, flag: Arc<AtomicBool>) -> Self {
        Run { interrupt: Some(flag), ..self }
    }

    /// Adds something to `final/` before it is sealed. `finish` gets the directory that has been filled, and the last value
    /// of each metric: the same in a run that was stopped and resumed and in one that was not.
    pub fn with_finish(
        self,
        finish: impl Fn(&Path, &BTreeMap<String, f64>) -> Result<(), Error> + Send + 'static,
    ) -> Self {
        Run { finish: Some(Box::new(finish)), ..self }
    }

    /// Keeps this many of the newest step checkpoints of the schedule; 2 unless said otherwise.
    pub fn with_keep_last(self, keep_last: usize) -> Self {
        Run { keep_last: keep_last.max(1), ..self }
    }

    /// The run directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The step and directory of the checkpoint to load, if the run is resumed from one.
    pub fn resume_from(&self) -> Option<(usize, &Path)> {
        self.resume_from.as_ref().map(|(step, path)| (*step, path.as_path()))
    }

    /// The final model's directory, if this run was finished when it was opened: load it and return.
    pub fn finished(&self) -> Option<PathBuf> {
        self.finished.then(|| self.dir.join(FINAL_DIR))
    }

    /// How the settings make a resumed run longer than it was when it was started, in words.
    pub fn extension(&self) -> Option<&str> {
        self.extension.as_deref()
    }

    /// Says that the loop begins.
    pub fn started(&mut self, total_steps: usize) {
        self.total_steps = Some(total_steps);
        let first_step = self.resume_from.as_ref().map_or(0, |(step, _)| *step);
        if let Some(how) = self.extension.as_ref().filter(|_| first_step >= total_steps) {
            self.warn(&format!(
                "although {how}, the run has no step more than the {first_step} that it has made"
            ));
        }
        // A run that was killed between saving a checkpoint and removing an older one still has that.
        self.prune(first_step);
        let stage = self.stage.clone();
        self.notify(Event::Started { stage: &stage, first_step, total_steps });
    }

    /// Logs update number `step` of `total_steps`: one line with `step` and `time/elapsed_seconds` added. A
    /// float that is not finite becomes null.
    ///
    /// # Errors
    ///
    /// [`Error::BadMetrics`] if `metrics` is not a struct or map; [`Error::Io`] if the line cannot be
    /// written.
    pub fn log(&mut self, step: usize, total_steps: usize, metrics: &impl Serialize) -> Result<(), Error> {
        let line = self.append(step, metrics)?;
        self.notify(Event::Step { step, total_steps, metrics: &line });
        Ok(())
    }

    /// Logs an evaluation after update number `step`, on a line of its own; its keys should begin with
    /// `eval`.
    ///
    /// # Errors
    ///
    /// Those of [`Run::log`].
    pub fn log_evaluation(&mut self, step: usize, metrics: &impl Serialize) -> Result<(), Error> {
        let line = self.append(step, metrics)?;
        self.notify(Event::Evaluated { step, metrics: &line });
        Ok(())
    }

    /// Appends an answer after update number `step`, 0 for none yet, to `samples.jsonl`.
    ///
    /// Do this before the checkpoint of the same step, as with [`Run::log`]: a resumed run keeps what its checkpoint
    /// promises, and no more.
    ///
    /// # Errors
    ///
    /// Those of [`Run::log`].
    pub fn log_sample(&mut self, step: usize, sample: &impl Serialize) -> Result<(), Error> {
        let line = line_of(step, sample)?;
        self.check_place()?;
        self.samples.append(&line)
    }

    /// Writes the details of an evaluation to `evaluation.json`, in place of those of an earlier one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if they cannot be written, and those of [`Run::save_checkpoint`].
    pub fn save_evaluation(&mut self, details: &impl Serialize) -> Result<(), Error> {
        self.check_place()?;
        save_json(&self.dir.join(EVALUATION_FILE), details)
    }

    /// Passes one line of information on to the observer. For problems, use [`Run::warn`].
    pub fn note(&mut self, message: &str) {
        self.notify(Event::Note { message });
    }

    /// Passes a one-line warning on to the observer, or to the log where there is none: not twice to one reader.
    pub fn warn(&mut self, message: &str) {
        match &self.observer {
            Some(_) => self.notify(Event::Warning { message }),
            None => tracing::warn!("{message}"),
        }
    }

    /// Whether the user has asked to stop: finish the step, save a checkpoint, return.
    pub fn interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Saves `checkpoints/step-…`, filled by `fill`, and removes older ones but the newest.
    ///
    /// Where the settings have a `checkpoint_every`, a checkpoint of another step (of an interrupt, say) does not
    /// count among the newest and goes when a later one is there or the run is finished: in the end a run that was
    /// stopped has the same checkpoints as one that was not. An older one that cannot be removed is a warning.
    ///
    /// # Errors
    ///
    /// What `fill` returns, [`Error::Io`], and [`Error::RunRemoved`] or [`Error::MetricsReplaced`] if somebody has
    /// moved the directory or the metrics away; then there is no new checkpoint and the older ones are all there.
    pub fn save_checkpoint<E: From<Error>>(
        &mut self,
        step: usize,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        self.check_place()?;
        // A checkpoint promises the lines up to its step.
        self.metrics.sync()?;
        self.samples.sync_if_there()?;
        let path = step_dir(&self.dir, step);
        if path.exists() && !is_complete(&path) {
            checkpoint::remove(&path)?;
        }
        let mark = Mark {
            stage: self.stage.clone(),
            step,
            metrics_lines: self.metrics.lines(),
            samples_lines: self.samples.lines(),
        };
        write_atomic(&path, |dir| {
            fill(dir)?;
            Ok::<(), E>(mark.save(dir)?)
        })?;
        self.prune(step);
        self.notify(Event::Checkpoint { step, path: &path });
        Ok(path)
    }

    /// Saves `best/`, filled by `fill`, if `candidate` is better than all before it; says whether it is.
    ///
    /// Do this before the checkpoint of the same step: a run that is resumed from there then has its best model.
    ///
    /// # Errors
    ///
    /// What `fill` returns, and [`Error::Io`].
    pub fn save_best<E: From<Error>>(
        &mut self,
        candidate: &Candidate<'_>,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<bool, E> {
        if !candidate.beats(self.best.as_ref()) {
            return Ok(false);
        }
        self.check_place()?;
        let best = Best::of(candidate);
        write_atomic(&best_dir(&self.dir), |dir| {
            fill(dir)?;
            Ok::<(), E>(save_json(&dir.join(TRAINING_DIR).join(BEST_FILE), &best)?)
        })?;
        self.best = Some(best);
        Ok(true)
    }

    /// Saves `final/`, which makes the run finished.
    ///
    /// # Errors
    ///
    /// What `fill` returns, and [`Error::Io`].
    pub fn save_final<E: From<Error>>(
        &mut self,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        self.check_place()?;
        self.metrics.sync()?;
        self.samples.sync_if_there()?;
        let path = self.dir.join(FINAL_DIR);
        write_atomic(&path, |dir| {
            fill(dir)?;
            if let Some(finish) = &self.finish {
                finish(dir, &last_values(&read_metrics(&self.dir.join(METRICS_FILE))?))?;
            }
            Ok::<(), E>(())
        })?;
        if let Err(error) = remove_unscheduled(&self.dir, |step| self.is_scheduled(step)) {
            self.warn(&error.to_string());
        }
        Ok(path)
    }

    /// Saves a checkpoint of the last step, filled by `fill`, if the run can become longer later.
    ///
    /// # Errors
    ///
    /// Those of [`Run::save_checkpoint`].
    pub fn save_last_checkpoint<E: From<Error>>(
        &mut self,
        step: usize,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_new = self.resume_from().is_none_or(|(resumed, _)| resumed != step);
        if self.can_be_extended && is_new { self.save_checkpoint(step, fill).map(drop) } else { Ok(()) }
    }

    /// Saves `final/`, filled by `fill`. If that fails, saves a checkpoint of the last step, filled by `checkpoint`: the user
    /// can remove the obstacle, and a resume then trains nothing again.
    ///
    /// # Errors
    ///
    /// Those of [`Run::save_final`]; one of the checkpoint is not told.
    pub fn save_final_or_checkpoint<E: From<Error>>(
        &mut self,
        step: usize,
        fill: impl FnOnce(&Path) -> Result<(), E>,
        checkpoint: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let saved = self.save_final(fill);
        if saved.is_err() && !self.can_be_extended {
            _ = self.save_checkpoint(step, checkpoint);
        }
        saved
    }

    fn is_scheduled(&self, step: usize) -> bool {
        match self.checkpoint_every {
            None => true,
            Some(_) if Some(step) == self.total_steps => self.can_be_extended,
            Some(every) => is_due(step, every),
        }
    }

    /// Removes older checkpoints. The newest one is safe whether that works or not.
    fn prune(&mut self, newest: usize) {
        let is_scheduled = |step| self.is_scheduled(step);
        let pruned = prune_scheduled(&self.dir, newest, self.keep_last, self.good_step, is_scheduled);
        if let Err(error) = pruned {
            self.warn(&error.to_string());
        }
    }

    /// Looks whether directory and metrics are still those that were opened.
    fn check_place(&mut self) -> Result<(), Error> {
        match Place::of(&self.dir) {
            Ok(place) if place == self.place => {}
            // Some file systems give a directory another number, an overlay at the first write for one.
            Ok(place) if is_ours(&self.dir) => self.place = place,
            _ => return Err(Error::RunRemoved { dir: self.dir.clone() }),
        }
        let restored = [
            (METRICS_FILE, self.metrics.restore_if_removed()?),
            (SAMPLES_FILE, self.samples.restore_if_removed()?),
        ];
        for (name, _) in restored.into_iter().filter(|(_, place)| *place == InPlace::Restored) {
            let path = self.dir.join(name);
            self.warn(&format!("{} was removed during the run, and was written again", path.display()));
        }
        Ok(())
    }

    fn append(&mut self, step: usize, metrics: &impl Serialize) -> Result<Map<String, Value>, Error> {
        let mut line = line_of(step, metrics)?;
        let elapsed = self.elapsed_before + self.opened.elapsed().as_secs_f64();
        line.insert(ELAPSED_KEY.to_owned(), ((elapsed * 1e3).round() / 1e3).into());
        self.check_place()?;
        self.metrics.append(&line)?;
        Ok(line)
    }

    fn notify(&mut self, event: Event<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(event);
        }
    }
}

#[cfg(test)]
mod tests;
