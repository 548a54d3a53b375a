use std::fs;

use super::mark::STATE_FILE;
use super::*;
use crate::checkpoint::{latest, step_dirs};
use crate::read_metrics;
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

fn open(dir: &Path, config: &str, resume: bool) -> Result<Run, Error> {
    Run::open(dir, "sft", config, &Inputs::default(), resume)
}

fn lines_without_time(dir: &Path) -> Vec<Map<String, Value>> {
    let mut rows = read_metrics(&dir.join(METRICS_FILE)).unwrap();
    for row in &mut rows {
        assert!(row[ELAPSED_KEY].is_f64());
        row.retain(|key, _| !crate::is_timing(key));
    }
    rows
}

#[test]
fn a_resumed_run_logs_what_an_uninterrupted_one_does() {
    let temp = tempfile::tempdir().unwrap();
    let [whole, cut] = ["whole", "cut"].map(|name| temp.path().join(name));
    train(&mut open(&whole, CONFIG, false).unwrap(), 1..=9);
    train(&mut open(&cut, CONFIG, false).unwrap(), 1..=8);
    fs::create_dir(cut.join("checkpoints/.tmp-0-0-step-000009")).unwrap();
    fs::create_dir(cut.join(".tmp-0-1-final")).unwrap();
    fs::write(cut.join(".tmp-mine"), "a user's file").unwrap();
    let mut resumed = open(&cut, CONFIG, true).unwrap();
    assert_eq!(resumed.resume_from(), Some((6, cut.join("checkpoints/step-000006").as_path())));
    train(&mut resumed, 7..=9);
    assert_eq!(lines_without_time(&whole), lines_without_time(&cut));
    assert_eq!(lines_without_time(&cut).len(), 9);
    let steps = |dir| step_dirs(dir).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
    assert_eq!((steps(&whole), steps(&cut)), (vec![6, 9], vec![6, 9]));
    assert_eq!(fs::read_dir(cut.join("checkpoints")).unwrap().count(), 2);
    assert!(cut.join(".tmp-mine").exists() && !cut.join(".tmp-0-1-final").exists());
}

#[test]
fn a_directory_with_a_run_is_refused_unless_resumed() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("a/run");
    drop(open(&dir, "epochs = 1", false).unwrap());
    // Failed before its first step: other settings may try again.
    let mut run = open(&dir, CONFIG, false).unwrap();
    assert_eq!(fs::read_to_string(dir.join(CONFIG_FILE)).unwrap(), CONFIG);
    run.log(1, 9, &json!({})).unwrap();
    drop(run);
    let error = open(&dir, CONFIG, false).err().unwrap();
    assert!(error.to_string().ends_with("run holds a run already"), "{error}");
    assert!(error.hint().unwrap().contains("--resume"));
    let resumed = open(&dir, CONFIG, true).unwrap();
    assert_eq!(resumed.resume_from(), None);
    assert!(lines_without_time(&dir).is_empty());
}

#[test]
fn a_resume_with_other_settings_names_the_first_that_differs() {
    let temp = tempfile::tempdir().unwrap();
    train(&mut open(temp.path(), CONFIG, false).unwrap(), 1..=3);
    let check = |config: &str, expected: &str| {
        let message = open(temp.path(), config, true).err().unwrap().to_string();
        assert!(message.contains(expected), "{message:?}, expected {expected:?}");
    };
    check("epochs = 3\nkl.coef = 0.2", "`kl.coef` was `0.1` when the run started and is `0.2` now");
    check("epochs = 3", "`kl.coef` was `0.1` when the run started and is not set now");
    check("epochs = 3\nseed = 1\nkl.coef = 0.1", "`seed` was not set when");
    check("epochs = = 3", "config.toml:1: not valid TOML");
    assert!(open(temp.path(), "# a comment\nepochs = 3\nkl.coef = 0.1", true).is_ok());
    assert_eq!(lines_without_time(temp.path()).len(), 3);
}

/// A run of an earlier version: a section had another name, and a setting did not exist.
#[test]
fn a_run_with_old_settings_is_resumed_unless_they_differ() {
    crate::settings! {
        /// Settings of today.
        pub struct Today {
            /// Passes over the data.
            pub epochs: usize = 3,
            /// New.
            pub by_length: bool = true,
            /// What was `[ppo]`.
            section kl: Kl, renamed_from "penalty",
        }
    }
    crate::settings! {
        /// The penalty.
        pub struct Kl {
            /// Its weight.
            pub coef: f64 = 0.5,
        }
    }
    let temp = tempfile::tempdir().unwrap();
    train(&mut open(temp.path(), "epochs = 3\npenalty.coef = 0.1", false).unwrap(), 1..=3);
    let stored = fs::read(temp.path().join(CONFIG_FILE)).unwrap();
    let resume = |epochs, by_length, coef| {
        let settings = Today { epochs, by_length, kl: Kl { coef } };
        let run = Run::open_with(temp.path(), "sft", &settings, &[], &Inputs::default(), true);
        run.map(|run| run.resume_from().map(|(step, _)| step)).map_err(|error| error.to_string())
    };
    let error = resume(3, true, 0.2).unwrap_err();
    assert!(error.ends_with("`kl.coef` was `0.1` when the run started and is `0.2` now"), "{error}");
    let error = resume(3, false, 0.1).unwrap_err();
    assert!(error.ends_with("`by_length` was `true` when the run started and is `false` now"), "{error}");
    assert!(resume(3, true, 0.1).unwrap().is_some());
    assert_eq!(fs::read(temp.path().join(CONFIG_FILE)).unwrap(), stored);
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
fn the_observer_hears_everything() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let mut run = Run::ephemeral().unwrap().with_observer(move |event| {
        sink.lock().unwrap().push(match event {
            Event::Note { .. } | Event::Opened { .. } => return,
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
    assert_eq!(*seen.lock().unwrap(), ["ephemeral 0/4", "1/4 0.5", "evaluated 1 2", "saved 1 true", "hot"]);
}

#[test]
fn the_best_model_stays_across_a_resume() {
    let temp = tempfile::tempdir().unwrap();
    let loss = |step, value| Candidate { step, metric: "eval_loss", value, lower_is_better: true };
    let model = |text: &'static str| {
        move |dir: &Path| fs::write(dir.join("model"), text).map_err(Error::io("write", dir))
    };
    let mut run = open(temp.path(), CONFIG, false).unwrap();
    assert!(run.save_best(&loss(1, 0.3), model("first")).unwrap());
    assert!(!run.save_best(&loss(2, 0.4), model("worse")).unwrap());
    run.save_checkpoint(2, fill).unwrap();
    drop(run);
    let mut run = open(temp.path(), CONFIG, true).unwrap();
    assert!(!run.save_best(&loss(3, 0.3), model("as good")).unwrap());
    let best = || fs::read_to_string(temp.path().join("best/model")).unwrap();
    assert_eq!(best(), "first");
    assert!(run.save_best(&loss(4, 0.2), model("better")).unwrap());
    assert_eq!(best(), "better");
    drop(run);
    // A best model that is no longer whole is not forgotten in silence.
    fs::write(temp.path().join("best/model"), "bitter").unwrap();
    let error = open(temp.path(), CONFIG, true).err().unwrap();
    assert!(matches!(error, Error::DamagedCheckpoint { .. }), "{error}");
}

#[test]
fn what_a_kill_before_the_pruning_left_goes_when_the_loop_begins() {
    let temp = tempfile::tempdir().unwrap();
    let mut run = open(temp.path(), CONFIG, false).unwrap().with_keep_last(9);
    (1..=4).for_each(|step| drop(run.save_checkpoint(step, fill).unwrap()));
    drop(run);
    open(temp.path(), CONFIG, true).unwrap().started(9);
    let steps: Vec<_> = step_dirs(temp.path()).unwrap().into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [3, 4]);
}

#[test]
fn a_run_is_open_once() {
    let temp = tempfile::tempdir().unwrap();
    let run = open(temp.path(), CONFIG, false).unwrap();
    let error = open(temp.path(), CONFIG, false).err().unwrap();
    assert!(matches!(error, Error::RunInUse { .. }) || cfg!(not(unix)), "{error}");
    drop(run);
    open(temp.path(), CONFIG, false).unwrap();
}

#[test]
fn a_checkpoint_in_another_place_or_without_its_lines_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    train(&mut open(temp.path(), CONFIG, false).unwrap(), 1..=6);
    let refused = || open(temp.path(), CONFIG, true).err().unwrap().to_string();
    let metrics = temp.path().join(METRICS_FILE);
    let whole = fs::read_to_string(&metrics).unwrap();
    let lost = &whole[..whole.len() / 2];
    fs::write(&metrics, lost).unwrap();
    assert!(refused().contains("metrics.jsonl has 3 whole lines, its checkpoint was saved with 6"));
    assert_eq!(fs::read_to_string(&metrics).unwrap(), lost, "nothing is cut by a run that is refused");
    fs::write(&metrics, whole).unwrap();
    fs::rename(step_dir(temp.path(), 6), step_dir(temp.path(), 60)).unwrap();
    assert!(refused().contains("run.json: it is of sft step 6, not of sft step 60"), "{}", refused());
    fs::rename(step_dir(temp.path(), 60), step_dir(temp.path(), 6)).unwrap();
    let error = Run::open(temp.path(), "reward", CONFIG, &Inputs::default(), true).err().unwrap();
    assert!(error.to_string().contains("not of reward step 6"), "{error}");
    assert_eq!(open(temp.path(), CONFIG, true).unwrap().resume_from().unwrap().0, 6);
}

#[test]
fn a_finished_run_stays_as_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let mut run = open(temp.path(), CONFIG, false).unwrap();
    train(&mut run, 1..=4);
    run.save_final(fill).unwrap();
    drop(run);
    let run = open(temp.path(), CONFIG, true).unwrap();
    assert_eq!(run.finished(), Some(temp.path().join(FINAL_DIR)));
    assert_eq!(run.resume_from(), None);
    assert_eq!(lines_without_time(temp.path()).len(), 4);
    drop(run);
    // One byte of the final model flipped: then it is not finished, and resumes from its last checkpoint.
    fs::write(temp.path().join("final/model"), "weightz").unwrap();
    let run = open(temp.path(), CONFIG, true).unwrap();
    assert_eq!((run.finished(), run.resume_from().unwrap().0), (None, 3));
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
    fs::write(path.join("model"), "weightz").unwrap();
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
        let error = open(&dir, CONFIG, false).err().unwrap();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
    }
}

/// Everything in a directory, and what it holds.
fn files(dir: &Path) -> Vec<(PathBuf, Option<String>)> {
    let mut contents: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read_to_string(path).ok()))
        .collect();
    contents.sort();
    contents
}

#[test]
fn what_temper_did_not_write_is_never_overwritten() {
    for (name, content) in [
        ("config.toml", "# notes of a week\nepochs = 2\n"),
        ("inputs.json", "{\"prompt\": \"a\", \"completion\": \"b\"}\n"),
        ("metrics.jsonl", ""),
        ("metrics.jsonl", "{\"step\": 1}\n"),
        ("checkpoints", "a file"),
        ("best", "a file"),
        ("final", "a file"),
    ] {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(name), content).unwrap();
        let before = files(temp.path());
        let error = open(temp.path(), CONFIG, false).err().unwrap();
        assert!(matches!(error, Error::NotARun { .. }), "{name}: {error}");
        assert!(error.to_string().contains(&format!("{name} exists, and ")), "{error}");
        assert_eq!(error.hint().unwrap(), "move it away, or choose another `--out`");
        assert!(open(temp.path(), CONFIG, true).is_err());
        assert_eq!(files(temp.path()), before, "{name}");
    }
    // Directories, and links to anything.
    for name in ["best", "final", "checkpoints"] {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join(name)).unwrap();
        fs::write(temp.path().join(name).join("mine.txt"), "mine").unwrap();
        assert!(matches!(open(temp.path(), CONFIG, false), Err(Error::NotARun { .. })), "{name}");
    }
    #[cfg(unix)]
    {
        let temp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", temp.path().join(METRICS_FILE)).unwrap();
        assert!(matches!(open(temp.path(), CONFIG, false), Err(Error::NotARun { .. })));
    }
}

#[test]
fn a_directory_with_other_files_may_become_a_run() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("notes.txt"), "mine").unwrap();
    fs::write(temp.path().join("config.json"), "{}").unwrap();
    train(&mut open(temp.path(), CONFIG, false).unwrap(), 1..=3);
    assert_eq!(fs::read_to_string(temp.path().join("notes.txt")).unwrap(), "mine");
    // A start that was killed between its first two files is begun again.
    let temp = tempfile::tempdir().unwrap();
    drop(open(temp.path(), CONFIG, false).unwrap());
    fs::remove_file(temp.path().join(CONFIG_FILE)).unwrap();
    fs::remove_file(temp.path().join(METRICS_FILE)).unwrap();
    drop(open(temp.path(), CONFIG, false).unwrap());
}

/// A file, or a directory of other things, called `final` or `best` in a run that can continue.
#[test]
fn what_is_in_the_place_of_the_results_is_noticed_before_the_training() {
    for name in ["final", "best"] {
        for is_file in [true, false] {
            let temp = tempfile::tempdir().unwrap();
            train(&mut open(temp.path(), CONFIG, false).unwrap(), 1..=4);
            let path = temp.path().join(name);
            if is_file {
                fs::write(&path, "mine").unwrap();
            } else {
                fs::create_dir(&path).unwrap();
                fs::write(path.join("mine.txt"), "mine").unwrap();
            }
            let metrics = fs::read(temp.path().join(METRICS_FILE)).unwrap();
            let error = open(temp.path(), CONFIG, true).err().unwrap();
            assert!(error.to_string().contains(name), "{error}");
            assert_eq!(fs::read(temp.path().join(METRICS_FILE)).unwrap(), metrics);
        }
    }
}

const SCHEDULED: &str = "checkpoint_every = 2\n";

#[test]
fn a_checkpoint_of_an_interrupt_leaves_no_trace_in_the_end() {
    let temp = tempfile::tempdir().unwrap();
    let steps = |dir: &Path| step_dirs(dir).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
    let go = |dir: &Path, resume: bool, saved: &[usize]| {
        let mut run = open(dir, SCHEDULED, resume).unwrap();
        run.started(8);
        for &step in saved {
            run.log(step, 8, &json!({})).unwrap();
            run.save_checkpoint(step, fill).unwrap();
        }
        run
    };
    let [whole, cut] = ["whole", "cut"].map(|name| temp.path().join(name));
    go(&whole, false, &[2, 4, 6]).save_final(fill).unwrap();
    drop(go(&cut, false, &[2, 3]));
    drop(go(&cut, true, &[4, 6, 7]));
    assert_eq!(steps(&cut), [4, 6, 7]);
    let mut run = go(&cut, true, &[]);
    assert_eq!(run.resume_from().unwrap().0, 7);
    // A final model that could not be written may leave a checkpoint of the last step.
    run.save_checkpoint(8, fill).unwrap();
    run.save_final(fill).unwrap();
    assert_eq!((steps(&whole), steps(&cut)), (vec![4, 6], vec![4, 6]));
}

#[test]
fn a_run_that_is_refused_after_it_was_opened_is_left_as_it_was() {
    let temp = tempfile::tempdir().unwrap();
    train(&mut open(temp.path(), CONFIG, false).unwrap(), 1..=5);
    let metrics = fs::read(temp.path().join(METRICS_FILE)).unwrap();
    // The stage finds an optimizer state that it cannot load, and gives up.
    drop(open(temp.path(), CONFIG, true).unwrap());
    assert_eq!(fs::read(temp.path().join(METRICS_FILE)).unwrap(), metrics);
}

#[test]
fn a_state_of_another_step_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let mut run = open(temp.path(), CONFIG, false).unwrap();
    let state = |step: u64| {
        move |dir: &Path| save_json(&dir.join(STATE_FILE), &json!({"step": step, "kl_coef": "0.1"}))
    };
    run.save_checkpoint(2, state(2)).unwrap();
    drop(run);
    let mut run = open(temp.path(), CONFIG, true).unwrap();
    run.save_checkpoint(3, state(1_000_000)).unwrap();
    drop(run);
    let error = open(temp.path(), CONFIG, true).err().unwrap().to_string();
    assert!(error.ends_with("state.json: it is of step 1000000, not of step 3"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_directory_that_is_removed_or_replaced_ends_the_run() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("run");
    for replaced in [false, true] {
        let mut run = open(&dir, CONFIG, false).unwrap();
        run.log(1, 9, &json!({})).unwrap();
        fs::rename(&dir, temp.path().join(format!("away-{replaced}"))).unwrap();
        if replaced {
            fs::create_dir(&dir).unwrap();
        }
        let gone = |result: Result<(), Error>| assert!(matches!(result, Err(Error::RunRemoved { .. })));
        gone(run.log(2, 9, &json!({})));
        gone(run.save_checkpoint(2, fill).map(drop));
        gone(run.save_final(fill).map(drop));
        let candidate = Candidate { step: 2, metric: "m", value: 1.0, lower_is_better: true };
        gone(run.save_best(&candidate, fill).map(drop));
        assert_eq!(dir.exists(), replaced, "nothing is made anew");
        let _ = fs::remove_dir(&dir);
    }
    // Its own directory under another number is not a reason to end.
    let mut run = open(&dir, CONFIG, false).unwrap();
    run.log(1, 9, &json!({})).unwrap();
    run.place.id.1 += 1;
    run.log(2, 9, &json!({})).unwrap();
}

#[test]
fn a_metrics_file_that_is_removed_comes_back_with_a_warning() {
    let temp = tempfile::tempdir().unwrap();
    let warned = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&warned);
    let observer = move |event: Event<'_>| {
        if matches!(event, Event::Warning { .. }) {
            flag.store(true, Ordering::Relaxed);
        }
    };
    let mut run = open(temp.path(), CONFIG, false).unwrap().with_observer(observer);
    train(&mut run, 1..=4);
    fs::remove_file(temp.path().join(METRICS_FILE)).unwrap();
    train(&mut run, 5..=6);
    assert!(warned.load(Ordering::Relaxed));
    assert_eq!(lines_without_time(temp.path()).len(), 6);
    drop(run);
    assert_eq!(open(temp.path(), CONFIG, true).unwrap().resume_from().unwrap().0, 6);
}

/// A file called like an old checkpoint: it can be renamed, and not removed as a directory.
#[test]
fn an_old_checkpoint_that_cannot_be_removed_is_a_warning() {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&warnings);
    let mut run = Run::ephemeral().unwrap().with_keep_last(1).with_observer(move |event| {
        if let Event::Warning { message } = event {
            sink.lock().unwrap().push(message.to_owned());
        }
    });
    run.save_checkpoint(2, fill).unwrap();
    fs::write(step_dir(run.dir(), 1), "not a directory").unwrap();
    run.save_checkpoint(3, fill).unwrap();
    assert!(warnings.lock().unwrap()[0].contains("step-000001"), "{warnings:?}");
    assert_eq!(latest(run.dir()).unwrap().unwrap().0, 3);
}
