//! Killed at any moment and resumed, a run ends as the one that was never stopped: every file of it, byte for byte,
//! but for what the clock says in its metrics.
//!
//! The kills are SIGKILL, which no program can catch, at moments that a seed decides: while the run starts or cuts its
//! metrics, in the middle of a step, and as soon as an unfinished directory is seen, which is while a checkpoint,
//! `best/` or `final/` is written. Half a line is appended to the metrics of some, as a torn write leaves it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::util::{Snapshot, Temper, without_times};

/// A run that has not come so far by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// When the next kill comes.
enum Moment {
    /// This long after the start.
    After(Duration),
    /// This long after the metrics have so many lines.
    InStep(usize, Duration),
    /// When something unfinished is on the disk, once the metrics have so many lines.
    InWrite(usize),
}

/// How runs died.
#[derive(Debug, Default)]
struct Deaths {
    kills: usize,
    /// Those that left an unfinished file or directory.
    half_written: usize,
    /// Those that left lines after the newest checkpoint, which the resume had to cut.
    lines_to_cut: usize,
}

/// Runs `command` into `out` and kills it `kills` times, all along the way that `whole` shows, then lets it come to
/// its end.
fn kill_again_and_again(temper: &Temper, command: &str, whole: &str, out: &str, kills: usize) -> Deaths {
    let (mut dice, mut deaths) = (Dice(5), Deaths::default());
    let dir = temper.path(out);
    let apart = n_lines(&temper.path(whole)) / (kills + 2);
    for kill in 0..kills {
        let resume = if dir.exists() { " --resume" } else { "" };
        let mut child = temper
            .command(&format!("{command} --out {out}{resume}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("temper starts");
        let goal = (kill * apart + dice.below(apart as u64) as usize).max(n_lines(&dir)) + 1;
        let moment = match dice.below(6) {
            0 => Moment::After(Duration::from_millis(dice.below(60))),
            1 | 2 => Moment::InStep(goal, Duration::from_micros(dice.below(8000))),
            _ => Moment::InWrite(goal),
        };
        let status = kill_at(&mut child, &dir, &moment);
        assert_eq!(status.signal(), Some(9), "{out} was over ({status}) before kill {}", deaths.kills + 1);
        deaths.kills += 1;
        deaths.half_written += usize::from(has_unfinished(&dir));
        deaths.lines_to_cut += usize::from(n_lines(&dir) > promised_lines(&dir));
        if dir.join("metrics.jsonl").exists() && dice.below(3) == 0 {
            let mut bytes = fs::read(dir.join("metrics.jsonl")).expect("metrics");
            bytes.extend_from_slice(b"{\"step\":7,\"los");
            fs::write(dir.join("metrics.jsonl"), bytes).expect("metrics");
        }
    }
    temper.run(&format!("{command} --out {out} --resume")).ok();
    deaths
}

fn kill_at(child: &mut Child, dir: &Path, moment: &Moment) -> ExitStatus {
    let began = Instant::now();
    let mut reached = None;
    loop {
        let far = |lines: usize| n_lines(dir) >= lines;
        let now = match moment {
            Moment::After(delay) => began.elapsed() >= *delay,
            Moment::InStep(lines, delay) => {
                if reached.is_none() && far(*lines) {
                    reached = Some(Instant::now());
                }
                reached.is_some_and(|reached: Instant| reached.elapsed() >= *delay)
            }
            Moment::InWrite(lines) => far(*lines) && has_unfinished(dir),
        };
        if now {
            child.kill().expect("a child of ours");
            return child.wait().expect("it was killed");
        }
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        assert!(began.elapsed() < PATIENCE, "temper did not get so far in {PATIENCE:?}");
        std::thread::yield_now();
    }
}

fn n_lines(dir: &Path) -> usize {
    fs::read(dir.join("metrics.jsonl")).map_or(0, |bytes| bytes.iter().filter(|&&b| b == b'\n').count())
}

/// Lines that go with the newest checkpoint.
fn promised_lines(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir.join("checkpoints")) else { return 0 };
    let steps = entries.flatten().map(|entry| entry.path()).filter(|path| !is_unfinished(path));
    let newest = steps.max().and_then(|path| fs::read_to_string(path.join("training/run.json")).ok());
    newest.map_or(0, |text| {
        let mark: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        mark["metrics_lines"].as_u64().expect("a number") as usize
    })
}

fn has_unfinished(dir: &Path) -> bool {
    [dir.to_owned(), dir.join("checkpoints")]
        .iter()
        .any(|dir| fs::read_dir(dir).is_ok_and(|found| found.flatten().any(|e| is_unfinished(&e.path()))))
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".tmp-"))
}

/// The same files with the same bytes; metrics the same but for the clock, keys and order included.
fn assert_same_files(temper: &Temper, whole: &str, cut: &str) {
    let split = |run: &str| {
        let mut files = temper.snapshot(run);
        let metrics = files.remove(Path::new("metrics.jsonl")).flatten().expect("metrics");
        (files, String::from_utf8(metrics).expect("text"))
    };
    let ((whole_files, whole_metrics), (cut_files, cut_metrics)) = (split(whole), split(cut));
    let names = |files: &Snapshot| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&whole_files), names(&cut_files));
    for (path, bytes) in &whole_files {
        assert!(cut_files[path] == *bytes, "{} of {whole} and {cut} differ", path.display());
    }
    let lines = |text| without_times(text).iter().map(ToString::to_string).collect::<Vec<_>>();
    let (whole_lines, cut_lines) = (lines(&whole_metrics), lines(&cut_metrics));
    for (i, (a, b)) in whole_lines.iter().zip(&cut_lines).enumerate() {
        assert_eq!(a, b, "line {} of {whole} and {cut}", i + 1);
    }
    assert_eq!(whole_lines.len(), cut_lines.len());
    assert!(whole_metrics.ends_with('\n') && cut_metrics.ends_with('\n'));
}

/// A model with dropout, so that its random numbers take part.
fn with_dropout() -> Temper {
    let temper = Temper::new();
    temper.run("sft --data demonstrations.jsonl --model gpt2-tiny --out base --set max_steps=1").ok();
    temper.copy("base/final", "start");
    temper.edit_json("start/config.json", |config| {
        for key in ["embd_pdrop", "resid_pdrop", "attn_pdrop"] {
            config[key] = 0.1.into();
        }
    });
    temper
}

const SCHEDULE: &str = "--set schedule.kind=cosine --set schedule.warmup_steps=5 --set eval_every=3";
const PPO: &str = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --set batch_size=3 \
                   --set rollout.max_new_tokens=6 --set update.ppo_epochs=2 --set update.minibatch_size=2 \
                   --set kl.target=2 --set kl.horizon=100 --set checkpoint_every=2";

/// Kills each stage, at least 24 times in all, then compares.
#[test]
fn every_stage_that_is_killed_and_resumed_ends_as_if_it_never_was() {
    let temper = with_dropout();
    let sft = format!(
        "sft --data demonstrations.jsonl --model start --eval-data demonstrations.jsonl --set batch_size=2 \
         --set checkpoint_every=4 --set epochs=60 --set learning_rate=0.03 {SCHEDULE}"
    );
    let reward = format!(
        "reward --data comparisons.jsonl --model sft/final --eval-data comparisons.jsonl --set batch_size=2 \
         --set checkpoint_every=3 --set keep_last=3 --set epochs=80 {SCHEDULE}"
    );
    let ppo = format!("{PPO} --eval-data prompts.jsonl --set epochs=80 {SCHEDULE}");
    // A critic on the policy's own network, and the best policy by the rollouts' scores.
    let head = format!("{PPO} --set epochs=50 --set critic.kind=value_head --set keep_last=1");
    let mut all = Deaths::default();
    for (run, command, kills) in [("sft", sft, 8), ("reward", reward, 8), ("ppo", ppo, 8), ("head", head, 4)]
    {
        temper.run(&format!("{command} --out {run}")).ok();
        let cut = format!("{run}-cut");
        let began = Instant::now();
        let deaths = kill_again_and_again(&temper, &command, run, &cut, kills);
        println!("{run}: {deaths:?} in {:.1} s", began.elapsed().as_secs_f64());
        assert_same_files(&temper, run, &cut);
        for model in ["final", "best"] {
            let use_it = if run == "reward" { "score" } else { "logprobs" };
            temper.run(&format!("{use_it} --data demonstrations.jsonl --model {cut}/{model}")).ok();
        }
        all.kills += deaths.kills;
        all.half_written += deaths.half_written;
        all.lines_to_cut += deaths.lines_to_cut;
    }
    assert!(all.kills >= 24, "{all:?}");
    assert!(all.half_written > 0, "no kill fell into the writing of a checkpoint: {all:?}");
    assert!(all.lines_to_cut > 0, "no kill left lines to cut: {all:?}");
}

/// The samples of a pipeline too, and whichever stage the kill falls into.
#[test]
fn a_pipeline_that_is_killed_ends_as_if_it_never_was() {
    let temper = Temper::new();
    let pipeline = "pipeline --recipe notebook --set sft.max_steps=12 --set sft.checkpoint_every=2 \
                    --set reward.max_steps=4 --set reward.checkpoint_every=1 --set ppo.max_steps=3 \
                    --set ppo.checkpoint_every=1 --set ppo.rollout.max_new_tokens=4 --set ppo.batch_size=2";
    let began = Instant::now();
    temper.run(&format!("{pipeline} --out whole")).ok();
    let took = began.elapsed().as_micros() as u64;
    let mut dice = Dice(3);
    for _ in 0..6 {
        let mut child = temper
            .command(&format!("{pipeline} --out cut"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("temper starts");
        let moment = Moment::After(Duration::from_micros(dice.below(took / 2)));
        kill_at(&mut child, &temper.path("cut"), &moment);
    }
    temper.run(&format!("{pipeline} --out cut")).ok();
    for stage in ["sft", "reward", "ppo"] {
        assert_same_files(&temper, &format!("whole/{stage}"), &format!("cut/{stage}"));
    }
    assert_eq!(temper.read("whole/samples.jsonl"), temper.read("cut/samples.jsonl"));
    assert_eq!(temper.json("whole/summary.json")["judge"], temper.json("cut/summary.json")["judge"]);
    temper.assert_nothing_half_written("cut");
}

/// A limit on the size of files is met in the middle of a weights file, at the same byte every time. The system's signal
/// for it, SIGXFSZ, would kill the run; it gets an error instead, as on a full disk. Then there is space again.
#[test]
fn a_disk_that_fills_up_in_a_checkpoint_and_is_freed_again_changes_nothing() {
    let temper = with_dropout();
    temper.run("sft --data demonstrations.jsonl --model start --out sft --set max_steps=2").ok();
    temper.run("reward --data comparisons.jsonl --model sft/final --out reward --set max_steps=2").ok();
    let each = "--set batch_size=2 --set checkpoint_every=2 --set epochs=40";
    for (stage, command) in [
        ("sft", format!("sft --data demonstrations.jsonl --model start {each}")),
        ("reward", format!("reward --data comparisons.jsonl --model sft/final {each}")),
        ("ppo", format!("{PPO} --set epochs=40")),
    ] {
        let (whole, cut) = (format!("{stage}-whole"), format!("{stage}-cut"));
        temper.run(&format!("{command} --out {whole}")).ok();
        let command = format!("{command} --out {cut}");
        // A checkpoint first, then none.
        let mut child = temper.command(&command).stderr(Stdio::null()).spawn().expect("temper starts");
        let status = kill_at(&mut child, &temper.path(&cut), &Moment::InStep(3, Duration::ZERO));
        assert_eq!(status.signal(), Some(9), "{stage} was over before the kill");
        // Files of at most 60 blocks, which the weights alone exceed.
        let limited = |first| {
            temper.shell_output(&format!("{first}; ulimit -f 60; exec \"$TEMPER\" {command} --resume"))
        };
        for signal in ["trap - XFSZ", "trap '' XFSZ"] {
            let full = limited(signal);
            let said = String::from_utf8_lossy(&full.stderr).into_owned();
            assert_eq!(full.status.code(), Some(1), "{said}");
            assert!(said.contains("safetensors") && said.contains("hint: free some space"), "{said}");
            temper.assert_nothing_half_written(&cut);
        }
        temper.run(&format!("{command} --resume")).ok();
        assert_same_files(&temper, &whole, &cut);
    }
}
