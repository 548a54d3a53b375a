//! `temper select`

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use serde::Serialize;
use serde_json::{Map, Value};
use temper_model::ScalarModel;
use temper_sft::SftConfig;
use temper_train::{STEP_KEY, read_metrics, resolve, save_json, step_dirs, verify, write_atomic};

use crate::answers::{Answer, PlacedPrompts, answer, check_room, eos_rate, score_answers};
use crate::args::SelectArgs;
use crate::commands::{Outcome, print_json, print_line};
use crate::device;
use crate::failure::hinted;
use crate::session::Session;
use crate::text::{TextSide, load_policy, load_reward_model};

/// Where the chosen model is put.
const SELECTED_DIR: &str = "selected";
/// What is said about it, beside its files.
const SELECTION_FILE: &str = "selection.json";

/// A model of the run, and how it does.
#[derive(Clone, Debug, Serialize)]
struct Candidate {
    /// Below the run directory.
    checkpoint: String,
    /// Updates that it has had, where that is known.
    step: Option<usize>,
    /// On the evaluation data of the run, where it was evaluated at that step.
    eval_loss: Option<f64>,
    /// Mean over the prompts.
    score: f64,
    /// Share of the answers that ended by themselves.
    eos_rate: f64,
}

/// What is printed and stored.
#[derive(Debug, Serialize)]
struct Selection {
    selected: String,
    step: Option<usize>,
    reward: PathBuf,
    prompts: usize,
    temperature: f64,
    greedy: bool,
    max_new_tokens: usize,
    seed: u64,
    candidates: Vec<Candidate>,
}

pub fn run(session: &Session, args: &SelectArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    check_run(&args.run)?;
    let metrics = metrics(&args.run)?;
    let found = models(session, &args.run, &metrics)?;
    let reward = load_reward_model(&args.reward, &device)?;
    let mut prompts = PlacedPrompts::read(session, &args.prompts, args.skip_bad_rows)?;
    let mut candidates = Vec::new();
    for (step, dir) in found {
        let (answers, scores) = scored(session, args, &dir, &reward, &mut prompts, &device)?;
        let eval_loss = step.and_then(|step| eval_loss(&metrics, step));
        let checkpoint = dir.strip_prefix(&args.run).unwrap_or(&dir).display().to_string();
        let score = scores.iter().sum::<f64>() / scores.len() as f64;
        candidates.push(Candidate { checkpoint, step, eval_loss, score, eos_rate: eos_rate(&answers) });
    }
    let best = best(&candidates).context("no checkpoint has a score that is a number")?;
    let selection = Selection {
        selected: best.checkpoint.clone(),
        step: best.step,
        reward: args.reward.clone(),
        prompts: prompts.prompts.len(),
        temperature: args.sampling.temperature,
        greedy: args.sampling.greedy,
        max_new_tokens: args.sampling.max_new_tokens,
        seed: session.seed.unwrap_or(0),
        candidates: candidates.clone(),
    };
    keep(&args.run, &selection)?;
    if args.json {
        print_json(&selection)?;
    } else {
        print_table(&candidates, best)?;
    }
    Ok(Outcome::Done)
}

fn check_run(run: &Path) -> Result<()> {
    let config = run.join("config.toml");
    if !config.is_file() {
        return Err(hinted(
            format!("{} is not a run directory: it has no config.toml", run.display()),
            "give what was `--out` of `temper sft`",
        ));
    }
    match resolve::<SftConfig>(None, Some(&config), &[]) {
        Ok(_) => Ok(()),
        Err(temper_train::Error::UnknownKey { key, .. }) => Err(hinted(
            format!("{} is not the run of an SFT stage: its config.toml has `{key}`", run.display()),
            "give what was `--out` of `temper sft`",
        )),
        Err(error) => Err(error.into()),
    }
}

/// The lines of the run's metrics, if it has any.
fn metrics(run: &Path) -> Result<Vec<Map<String, Value>>> {
    let path = run.join("metrics.jsonl");
    if path.exists() { Ok(read_metrics(&path)?) } else { Ok(Vec::new()) }
}

fn step_of(line: &Map<String, Value>) -> Option<usize> {
    line.get(STEP_KEY)?.as_u64()?.try_into().ok()
}

fn eval_loss(metrics: &[Map<String, Value>], step: usize) -> Option<f64> {
    metrics.iter().filter(|line| step_of(line) == Some(step)).find_map(|line| line.get("eval_loss")?.as_f64())
}

/// The whole checkpoints and the final model, oldest first, with their steps.
fn models(
    session: &Session,
    run: &Path,
    metrics: &[Map<String, Value>],
) -> Result<Vec<(Option<usize>, PathBuf)>> {
    let steps = step_dirs(run)?.into_iter().map(|(step, dir)| (Some(step), dir));
    // The last line is that of the final model.
    let last = metrics.iter().filter_map(step_of).max();
    let fin = run.join("final");
    let all = steps.chain(fin.is_dir().then_some((last, fin)));
    let mut whole = Vec::new();
    for (step, dir) in all {
        match verify(&dir) {
            Ok(()) => whole.push((step, dir)),
            Err(error) => session.note(&format!("note: passing over a checkpoint: {error}")),
        }
    }
    if whole.is_empty() {
        return Err(hinted(
            format!("{} has no whole checkpoint", run.display()),
            "let the run get on; `checkpoint_every` and `keep_last` say how many it keeps",
        ));
    }
    Ok(whole)
}

/// A model's answers and the reward model's scores of them.
fn scored(
    session: &Session,
    args: &SelectArgs,
    dir: &Path,
    (reward, reward_text): &(ScalarModel, TextSide),
    prompts: &mut PlacedPrompts,
    device: &Device,
) -> Result<(Vec<Answer>, Vec<f64>)> {
    let (model, text) = load_policy(dir, device)?;
    let context = model.config().max_seq_len;
    prompts.check(session, &text, context)?;
    let needed = prompts.longest(&text, context, args.sampling.max_new_tokens);
    check_room(reward.config(), reward_text, &text, needed)?;
    let answers = answer(&model, &text, &prompts.prompts, &args.sampling, session.seed.unwrap_or(0))?;
    let scores = score_answers(reward, reward_text, &text, &prompts.prompts, &answers)?;
    Ok((answers, scores))
}

/// The highest score; of equals the one with fewer updates.
fn best(candidates: &[Candidate]) -> Option<&Candidate> {
    let finite = candidates.iter().filter(|candidate| candidate.score.is_finite());
    finite.reduce(|best, next| if next.score > best.score { next } else { best })
}

/// Copies the chosen model to `selected/`, which is whole or not there.
fn keep(run: &Path, selection: &Selection) -> Result<()> {
    let from = run.join(&selection.selected);
    write_atomic(&run.join(SELECTED_DIR), |dir| {
        let entries = fs::read_dir(&from).with_context(|| format!("cannot list {}", from.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", from.display()))?.path();
            if path.is_file() {
                let name = path.file_name().expect("an entry has a name");
                fs::copy(&path, dir.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
            }
        }
        Ok::<(), anyhow::Error>(save_json(&dir.join(SELECTION_FILE), selection)?)
    })
}

fn print_table(candidates: &[Candidate], best: &Candidate) -> Result<()> {
    let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |x| format!("{x:.digits$}"));
    let width = candidates.iter().map(|candidate| candidate.checkpoint.len()).max().unwrap_or(0).max(10);
    print_line(&format!(
        "{:<width$}  {:>8}  {:>10}  {:>10}  {:>8}",
        "checkpoint", "step", "eval loss", "mean score", "eos rate"
    ))?;
    for candidate in candidates {
        let step = candidate.step.map_or("-".into(), |step| step.to_string());
        let mark = if candidate.checkpoint == best.checkpoint { "  selected" } else { "" };
        print_line(&format!(
            "{:<width$}  {step:>8}  {:>10}  {:>10}  {:>8}{mark}",
            candidate.checkpoint,
            number(candidate.eval_loss, 4),
            number(Some(candidate.score), 4),
            number(Some(candidate.eos_rate), 3),
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(step: usize, score: f64) -> Candidate {
        let checkpoint = format!("checkpoints/step-{step:06}");
        Candidate { checkpoint, step: Some(step), eval_loss: None, score, eos_rate: 1.0 }
    }

    #[test]
    fn the_highest_score_is_the_best_and_of_equals_the_earlier() {
        let step = |scores: &[f64]| {
            let all: Vec<Candidate> = scores.iter().enumerate().map(|(i, s)| candidate(i, *s)).collect();
            best(&all).and_then(|best| best.step)
        };
        assert_eq!(step(&[-1.0, 0.5, 0.5, 0.25]), Some(1));
        assert_eq!(step(&[f64::NAN, -3.0]), Some(1));
        assert_eq!(step(&[f64::NAN, f64::NEG_INFINITY]), None);
    }
}
