//! A run directory: `config.toml`, `metrics.jsonl`, `checkpoints/step-000123/` and `final/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml::Table;

use crate::checkpoint::{
    self, is_complete, latest, prune, remove_leftovers, step_dir, step_dirs, write_atomic,
};
use crate::documented::flatten_until;
use crate::error::{Error, Origin, one_line};
use crate::event::Event;
use crate::files::{load_json, save_json, write_file};
use crate::metrics::{MetricsWriter, STEP_KEY, read_metrics};

const CONFIG_FILE: &str = "config.toml";
const METRICS_FILE: &str = "metrics.jsonl";
const BEST_FILE: &str = "checkpoints/best.json";
const FINAL_DIR: &str = "final";
const ELAPSED_KEY: &str = "time/elapsed_seconds";
/// How many step checkpoints a run keeps beside the best one.
const KEEP_LAST: usize = 2;

type Observer = Box<dyn FnMut(Event<'_>) + Send>;

/// An open run directory.
///
/// Steps count finished updates: the line of step `s` tells of the update that led to it, a checkpoint of
/// step `s` holds the state after it. So a resumed run goes on with `s + 1`, and lines up to `s` stay. Log
/// what belongs to a step before its checkpoint is saved. Only `time/*` and `tokens_per_second` may then
/// differ from a run without an interruption.
pub struct Run {
    dir: PathBuf,
    stage: String,
    metrics: MetricsWriter,
    resume_from: Option<(usize, PathBuf)>,
    best: Option<PathBuf>,
    keep_last: usize,
    observer: Option<Observer>,
    interrupt: Option<Arc<AtomicBool>>,
    opened: Instant,
    /// Seconds that the run had taken before it was resumed.
    elapsed_before: f64,
    /// Removes the directory of an ephemeral run.
    _temp: Option<tempfile::TempDir>,
}

/// The content of `checkpoints/best.json`.
#[derive(Serialize, Deserialize)]
struct Best {
    step: usize,
}

impl Run {
    /// Opens `dir` for a new run and writes `config_toml` (the resolved settings) into it; or, with `resume`,
    /// for the rest of the run that it holds. Resuming a run without a checkpoint, or none at all, starts
    /// from step 0.
    ///
    /// # Errors
    ///
    /// [`Error::RunExists`] if there is a run already and `resume` is false (one that failed before its first
    /// step does not count), [`Error::ConfigDiffers`] if it has other settings, [`Error::TomlSyntax`] if
    /// either settings are not TOML, [`Error::Io`] if the directory cannot be read or written.
    pub fn open(dir: &Path, stage: &str, config_toml: &str, resume: bool) -> Result<Run, Error> {
        let config_path = dir.join(CONFIG_FILE);
        let metrics_path = dir.join(METRICS_FILE);
        let given = parse_config(config_toml, &config_path)?;
        let started = has_started(dir)?;
        if started && !resume {
            return Err(Error::RunExists { dir: dir.to_owned() });
        }
        let mut resume_from = None;
        if started {
            let stored = fs::read(&config_path).map_err(Error::io("read", &config_path))?;
            let stored = parse_config(&String::from_utf8_lossy(&stored), &config_path)?;
            compare_configs(&stored, &given, &config_path)?;
            remove_leftovers(dir);
            resume_from = latest(dir)?;
        } else {
            fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
            write_file(&config_path, config_toml.as_bytes())?;
        }
        let metrics = match &resume_from {
            Some((step, _)) => MetricsWriter::append_after(&metrics_path, *step)?,
            None => MetricsWriter::create(&metrics_path)?,
        };
        let elapsed = read_metrics(&metrics_path)?.last().and_then(|row| row.get(ELAPSED_KEY)?.as_f64());
        Ok(Run {
            dir: dir.to_owned(),
            stage: stage.to_owned(),
            metrics,
            best: stored_best(dir),
            resume_from,
            keep_last: KEEP_LAST,
            observer: None,
            interrupt: None,
            opened: Instant::now(),
            elapsed_before: elapsed.unwrap_or(0.0),
            _temp: None,
        })
    }

    /// A run in a temporary directory that goes away with it, for tests and examples.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the temporary directory cannot be made.
    pub fn ephemeral() -> Result<Run, Error> {
        let temp = tempfile::tempdir().map_err(Error::io("create", &std::env::temp_dir()))?;
        let run = Run::open(temp.path(), "ephemeral", "", false)?;
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

    /// Keeps this many of the newest step checkpoints (2 unless said otherwise), beside the best one.
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

    /// Says that the loop begins.
    pub fn started(&mut self, total_steps: usize) {
        let first_step = self.resume_from.as_ref().map_or(0, |(step, _)| *step);
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

    /// Passes a one-line warning on to the observer and the log.
    pub fn warn(&mut self, message: &str) {
        tracing::warn!("{message}");
        self.notify(Event::Warning { message });
    }

    /// Whether the user has asked to stop: finish the step, save a checkpoint, return.
    pub fn interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Saves `checkpoints/step-…`, filled by `fill`, and removes older ones: the newest 2 and the best stay.
    ///
    /// # Errors
    ///
    /// What `fill` returns, and [`Error::Io`]; then there is no new checkpoint and the older ones are all
    /// there.
    pub fn save_checkpoint<E: From<Error>>(
        &mut self,
        step: usize,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        // A checkpoint promises the lines up to its step.
        self.metrics.sync()?;
        let path = step_dir(&self.dir, step);
        if path.exists() && !is_complete(&path) {
            checkpoint::remove(&path)?;
        }
        write_atomic(&path, fill)?;
        prune(&self.dir, self.keep_last, self.best.as_deref())?;
        self.notify(Event::Checkpoint { step, path: &path });
        Ok(path)
    }

    /// Keeps the checkpoint of `step` from being removed, instead of the one that was the best so far. The
    /// mark survives a resume.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the mark cannot be written: without any checkpoint there is no place for it.
    pub fn mark_best(&mut self, step: usize) -> Result<(), Error> {
        save_json(&self.dir.join(BEST_FILE), &Best { step })?;
        self.best = Some(step_dir(&self.dir, step));
        Ok(())
    }

    /// The checkpoint marked by [`Run::mark_best`], if it is there.
    pub fn best(&self) -> Option<&Path> {
        self.best.as_deref().filter(|path| is_complete(path))
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
        self.metrics.sync()?;
        let path = self.dir.join(FINAL_DIR);
        write_atomic(&path, fill)?;
        Ok(path)
    }

    /// Whether the run in `dir` has a complete `final/`.
    pub fn is_finished(dir: &Path) -> bool {
        is_complete(&dir.join(FINAL_DIR))
    }

    fn append(&mut self, step: usize, metrics: &impl Serialize) -> Result<Map<String, Value>, Error> {
        let bad = |message: String| Error::BadMetrics { step, message: one_line(&message) };
        // By way of text, which keeps `f32` values short.
        let text = serde_json::to_string(metrics).map_err(|error| bad(error.to_string()))?;
        let metrics: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let mut line = Map::new();
        line.insert(STEP_KEY.to_owned(), step.into());
        line.extend(metrics.into_iter().filter(|(key, _)| key != STEP_KEY));
        let elapsed = self.elapsed_before + self.opened.elapsed().as_secs_f64();
        line.insert(ELAPSED_KEY.to_owned(), ((elapsed * 1e3).round() / 1e3).into());
        self.metrics.append(&line)?;
        Ok(line)
    }

    fn notify(&mut self, event: Event<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(event);
        }
    }
}

/// Whether a run has come as far as a step, a checkpoint or its end in `dir`.
fn has_started(dir: &Path) -> Result<bool, Error> {
    let logged = fs::metadata(dir.join(METRICS_FILE)).is_ok_and(|file| file.len() > 0);
    Ok(logged || dir.join(FINAL_DIR).exists() || !step_dirs(dir)?.is_empty())
}

fn stored_best(dir: &Path) -> Option<PathBuf> {
    let best: Best = load_json(&dir.join(BEST_FILE)).ok()?;
    Some(step_dir(dir, best.step))
}

fn parse_config(text: &str, path: &Path) -> Result<Table, Error> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start).min(text.len());
        let line = 1 + text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count();
        let origin = Origin::File { path: path.to_owned(), line };
        Error::TomlSyntax { origin, message: one_line(error.message()) }
    })
}

/// Fails with the first key, in the order of the settings given now, that differs.
fn compare_configs(stored: &Table, given: &Table, path: &Path) -> Result<(), Error> {
    let [stored, given] = [stored, given].map(|table| flatten_until(table, &|_| false));
    let find = |values: &[(String, toml::Value)], key: &str| {
        values
            .iter()
            .find(|(other, _)| other == key)
            .map_or_else(|| "not set".to_owned(), |(_, value)| format!("`{value}`"))
    };
    for (key, _) in given.iter().chain(&stored) {
        let (stored, given) = (find(&stored, key), find(&given, key));
        if stored != given {
            return Err(Error::ConfigDiffers { path: path.to_owned(), key: key.clone(), stored, given });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::Mutex;

    const CONFIG: &str = "epochs = 3\n[kl]\ncoef = 0.1\n";

    fn fill(dir: &Path) -> Result<(), Error> {
        fs::write(dir.join("model"), "weights").map_err(Error::io("write", dir))
    }

    fn train(run: &mut Run, steps: std::ops::RangeInclusive<usize>) {
        for step in steps {
            run.log(step, 9, &json!({"loss": 1.0 / step as f64})).unwrap();
            if step % 3 == 0 {
                run.save_checkpoint(step, fill).unwrap();
            }
        }
    }

    fn lines_without_time(dir: &Path) -> Vec<Map<String, Value>> {
        let mut rows = read_metrics(&dir.join(METRICS_FILE)).unwrap();
        rows.iter_mut().for_each(|row| assert!(row.remove(ELAPSED_KEY).unwrap().is_f64()));
        rows
    }

    #[test]
    fn a_resumed_run_logs_what_an_uninterrupted_one_does() {
        let temp = tempfile::tempdir().unwrap();
        let [whole, cut] = ["whole", "cut"].map(|name| temp.path().join(name));
        train(&mut Run::open(&whole, "sft", CONFIG, false).unwrap(), 1..=9);
        train(&mut Run::open(&cut, "sft", CONFIG, false).unwrap(), 1..=8);
        fs::create_dir(cut.join("checkpoints/.tmp-0-0-step-000009")).unwrap();
        let mut resumed = Run::open(&cut, "sft", CONFIG, true).unwrap();
        assert_eq!(resumed.resume_from(), Some((6, cut.join("checkpoints/step-000006").as_path())));
        train(&mut resumed, 7..=9);
        assert_eq!(lines_without_time(&whole), lines_without_time(&cut));
        assert_eq!(lines_without_time(&cut).len(), 9);
        let steps = |dir| step_dirs(dir).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
        assert_eq!((steps(&whole), steps(&cut)), (vec![6, 9], vec![6, 9]));
        assert_eq!(fs::read_dir(cut.join("checkpoints")).unwrap().count(), 2);
    }

    #[test]
    fn a_directory_with_a_run_is_refused_unless_resumed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a/run");
        drop(Run::open(&dir, "sft", "epochs = 1", false).unwrap());
        // Failed before its first step: other settings may try again.
        let mut run = Run::open(&dir, "sft", CONFIG, false).unwrap();
        assert_eq!(fs::read_to_string(dir.join(CONFIG_FILE)).unwrap(), CONFIG);
        run.log(1, 9, &json!({})).unwrap();
        let error = Run::open(&dir, "sft", CONFIG, false).err().unwrap();
        assert!(error.to_string().ends_with("run holds a run already"), "{error}");
        assert!(error.hint().unwrap().contains("--resume"));
        let resumed = Run::open(&dir, "sft", CONFIG, true).unwrap();
        assert_eq!(resumed.resume_from(), None);
        assert!(lines_without_time(&dir).is_empty());
    }

    #[test]
    fn a_resume_with_other_settings_names_the_first_that_differs() {
        let temp = tempfile::tempdir().unwrap();
        train(&mut Run::open(temp.path(), "sft", CONFIG, false).unwrap(), 1..=3);
        let check = |config: &str, expected: &str| {
            let message = Run::open(temp.path(), "sft", config, true).err().unwrap().to_string();
            assert!(message.contains(expected), "{message:?}, expected {expected:?}");
        };
        check("epochs = 3\nkl.coef = 0.2", "`kl.coef` was `0.1` when the run started and is `0.2` now");
        check("epochs = 3", "`kl.coef` was `0.1` when the run started and is not set now");
        check("epochs = 3\nseed = 1\nkl.coef = 0.1", "`seed` was not set when");
        check("epochs = = 3", "config.toml:1: not valid TOML");
        assert!(Run::open(temp.path(), "sft", "# a comment\nepochs = 3\nkl.coef = 0.1", true).is_ok());
        assert_eq!(lines_without_time(temp.path()).len(), 3);
    }

    #[test]
    fn lines_hold_the_step_first_and_null_for_what_is_not_finite() {
        #[derive(Serialize)]
        struct Metrics {
            loss: f32,
            lr: f32,
        }
        let mut run = Run::ephemeral().unwrap();
        run.log(1, 2, &Metrics { loss: f32::NAN, lr: 0.1 }).unwrap();
        run.log_evaluation(1, &json!({"eval/loss": f64::INFINITY, "step": 7})).unwrap();
        let text = fs::read_to_string(run.dir().join(METRICS_FILE)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with(r#"{"step":1,"loss":null,"lr":0.1,"time/elapsed_seconds":"#), "{text}");
        assert!(lines[1].starts_with(r#"{"step":1,"eval/loss":null,"time/elapsed_seconds":"#), "{text}");
        assert!(matches!(run.log(2, 2, &[1, 2]), Err(Error::BadMetrics { step: 2, .. })));
        let dir = run.dir().to_owned();
        drop(run);
        assert!(!dir.exists());
    }

    #[test]
    fn the_observer_is_told_everything() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let mut run = Run::ephemeral().unwrap().with_observer(move |event| {
            sink.lock().unwrap().push(match event {
                Event::Started { stage, first_step, total_steps } => {
                    format!("{stage} {first_step}/{total_steps}")
                }
                Event::Step { step, total_steps, metrics } => {
                    format!("{step}/{total_steps} {}", metrics["loss"])
                }
                Event::Evaluated { step, metrics } => format!("evaluated {step} {}", metrics["x"]),
                Event::Checkpoint { step, path } => format!("saved {step} {}", path.ends_with("step-000001")),
                Event::Warning { message } => message.to_owned(),
            });
        });
        run.started(4);
        run.log(1, 4, &json!({"loss": 0.5})).unwrap();
        run.log_evaluation(1, &json!({"x": 2})).unwrap();
        run.save_checkpoint(1, fill).unwrap();
        run.warn("hot");
        assert_eq!(
            *seen.lock().unwrap(),
            ["ephemeral 0/4", "1/4 0.5", "evaluated 1 2", "saved 1 true", "hot"]
        );
    }

    #[test]
    fn the_best_checkpoint_stays_across_a_resume() {
        let temp = tempfile::tempdir().unwrap();
        let mut run = Run::open(temp.path(), "sft", CONFIG, false).unwrap();
        run.save_checkpoint(1, fill).unwrap();
        run.mark_best(1).unwrap();
        run.save_checkpoint(2, fill).unwrap();
        let mut run = Run::open(temp.path(), "sft", CONFIG, true).unwrap().with_keep_last(1);
        run.save_checkpoint(3, fill).unwrap();
        assert_eq!(run.best(), Some(step_dir(temp.path(), 1).as_path()));
        let steps: Vec<_> = step_dirs(temp.path()).unwrap().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [1, 3]);
    }

    #[test]
    fn a_failed_checkpoint_keeps_the_older_ones() {
        let mut run = Run::ephemeral().unwrap();
        run.save_checkpoint(1, fill).unwrap();
        let failed = run.save_checkpoint(2, |_| Err(Error::BadSet { text: "any error".into() }));
        assert!(failed.is_err());
        assert_eq!(latest(run.dir()).unwrap().unwrap().0, 1);
        fs::create_dir(step_dir(run.dir(), 3)).unwrap();
        fs::write(step_dir(run.dir(), 3).join("half"), "x").unwrap();
        run.save_checkpoint(3, fill).unwrap();
        assert_eq!(latest(run.dir()).unwrap().unwrap().0, 3);
    }

    #[test]
    fn a_run_is_finished_when_its_final_model_is_complete() {
        let mut run = Run::ephemeral().unwrap();
        assert!(!Run::is_finished(run.dir()));
        let path = run.save_final(fill).unwrap();
        assert!(Run::is_finished(run.dir()));
        fs::write(path.join("model"), "w").unwrap();
        assert!(!Run::is_finished(run.dir()));
    }

    #[test]
    fn an_interrupt_is_seen() {
        let flag = Arc::new(AtomicBool::new(false));
        let run = Run::ephemeral().unwrap().with_interrupt(flag.clone());
        assert!(!run.interrupted());
        flag.store(true, Ordering::Relaxed);
        assert!(run.interrupted());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "").unwrap();
        for dir in [file.clone(), file.join("run")] {
            let error = Run::open(&dir, "sft", CONFIG, false).err().unwrap();
            assert!(matches!(error, Error::Io { .. }), "{error}");
            assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
        }
    }
}
