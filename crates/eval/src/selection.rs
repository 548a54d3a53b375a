//! Which checkpoint of a run is the best, by a reward model's scores of its answers.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::Serialize;
use serde_json::{Map, Value};
use temper_assistant::Error::{NonFiniteLogits, NonFiniteScore};
use temper_assistant::{Assistant, Outline, RewardModel, Sampling, eos_rate, is_adapter};
use temper_tokenizer::Prompt;
use temper_train::{STEP_KEY, read_metrics, save_json, step_dirs, verify, write_atomic};

use crate::Error;

/// The directory of the selected model, in the run directory.
const SELECTED_DIR: &str = "selected";
/// The file that says how it was selected, next to the model's own files.
const SELECTION_FILE: &str = "selection.json";

/// A model of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunModel {
    /// Updates that it has had, where that is known.
    pub step: Option<usize>,
    /// Its directory.
    pub dir: PathBuf,
    /// Loss on the evaluation data of the run, where the run was evaluated at that step.
    pub eval_loss: Option<f64>,
}

/// The models of a run.
#[derive(Debug)]
pub struct RunModels {
    /// The run directory.
    pub run: PathBuf,
    /// Undamaged checkpoints and the final model, oldest first.
    pub whole: Vec<RunModel>,
    /// What is wrong with each of the others.
    pub damaged: Vec<temper_train::Error>,
}

impl RunModels {
    /// Looks for the checkpoints and the final model in a run directory.
    ///
    /// # Errors
    /// A directory or a metrics file that cannot be read.
    pub fn find(run: &Path) -> Result<Self, Error> {
        let metrics_file = run.join("metrics.jsonl");
        let metrics = if metrics_file.exists() { read_metrics(&metrics_file)? } else { Vec::new() };
        let steps = step_dirs(run)?.into_iter().map(|(step, dir)| (Some(step), dir));
        // The last line of the metrics belongs to the final model.
        let last_step = metrics.iter().filter_map(step_of).max();
        let final_dir = run.join("final");
        let (mut whole, mut damaged) = (Vec::new(), Vec::new());
        for (step, dir) in steps.chain(final_dir.is_dir().then_some((last_step, final_dir))) {
            match verify(&dir) {
                Ok(()) => {
                    let eval_loss = step.and_then(|step| eval_loss(&metrics, step));
                    whole.push(RunModel { step, dir, eval_loss });
                }
                Err(error) => damaged.push(error),
            }
        }
        Ok(Self { run: run.to_owned(), whole, damaged })
    }

    /// Refuses a run without any undamaged model.
    ///
    /// # Errors
    /// [`Error::NoWholeCheckpoint`].
    pub fn check(&self) -> Result<(), Error> {
        if self.whole.is_empty() { Err(Error::NoWholeCheckpoint { run: self.run.clone() }) } else { Ok(()) }
    }

    /// Lets each model answer the prompts, and selects the one with the highest mean score. Ties keep the earlier model.
    ///
    /// # Errors
    /// Prompts that cannot be answered, answers that the reward model has no room for, [`Error::NoWholeCheckpoint`]. A
    /// model whose output is not finite is passed over; it is an error only if no other model is left.
    pub fn select(
        &self,
        reward_model: &RewardModel,
        prompts: &[Prompt],
        sampling: &Sampling,
        seed: u64,
        device: &Device,
    ) -> Result<Selection, Error> {
        self.check()?;
        // Before the first model answers, so that no time is lost.
        for model in &self.whole {
            let outline = Outline::load(&model.dir)?;
            let needed = outline.longest_row(prompts, sampling.max_new_tokens)?;
            reward_model.check_room(&outline.text, needed)?;
        }
        let mut candidates = Vec::with_capacity(self.whole.len());
        let mut diverged = Vec::new();
        for model in &self.whole {
            let policy = Assistant::load(&model.dir, device)?;
            let answered = policy.answer(prompts, sampling, seed).and_then(|answers| {
                let scores = reward_model.score(&policy.text, &answers)?;
                Ok((answers, scores))
            });
            let (answers, scores) = match answered {
                Ok(answered) => answered,
                Err(error @ (NonFiniteLogits { .. } | NonFiniteScore { .. })) => {
                    diverged.push(error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            candidates.push(Candidate {
                checkpoint: model.dir.strip_prefix(&self.run).unwrap_or(&model.dir).display().to_string(),
                step: model.step,
                eval_loss: model.eval_loss,
                score: scores.iter().sum::<f64>() / scores.len() as f64,
                eos_rate: eos_rate(&answers),
            });
        }
        let passed_over = diverged.iter().map(ToString::to_string).collect();
        let Some(best) = best(&candidates) else {
            return Err(diverged.swap_remove(0).into());
        };
        Ok(Selection {
            passed_over,
            selected: best.checkpoint.clone(),
            step: best.step,
            reward: reward_model.text.dir.clone(),
            prompts: prompts.len(),
            temperature: sampling.temperature,
            greedy: sampling.greedy,
            max_new_tokens: sampling.max_new_tokens,
            seed,
            candidates,
        })
    }
}

/// A model of the run with its figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Its directory, relative to the run directory.
    pub checkpoint: String,
    /// Updates that it has had, where that is known.
    pub step: Option<usize>,
    /// Loss on the evaluation data of the run, where the run was evaluated at that step.
    pub eval_loss: Option<f64>,
    /// Mean score over the prompts.
    pub score: f64,
    /// Share of the answers that ended by themselves.
    pub eos_rate: f64,
}

/// Which model was selected, from which candidates, and how.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Selection {
    /// [`Candidate::checkpoint`] of the selected model.
    pub selected: String,
    /// Updates that it has had, where that is known.
    pub step: Option<usize>,
    /// The directory of the reward model.
    pub reward: PathBuf,
    /// Number of prompts.
    pub prompts: usize,
    /// Sampling temperature.
    pub temperature: f64,
    /// Whether the most probable token was always taken.
    pub greedy: bool,
    /// Longest answer, in tokens.
    pub max_new_tokens: usize,
    /// Seed of the sampling.
    pub seed: u64,
    /// All models that took part, oldest first.
    pub candidates: Vec<Candidate>,
    /// What is wrong with each model whose output is not finite.
    pub passed_over: Vec<String>,
}

impl Selection {
    /// Copies the selected model to `selected/` in the run directory, together with this selection as `selection.json`. An
    /// adapter is folded in.
    /// The directory is complete or absent, whenever the process ends.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn save(&self, run: &Path, device: &Device) -> Result<(), Error> {
        let from = run.join(&self.selected);
        // A checkpoint with adapters needs its base beside it; what is selected is a whole model.
        let adapted = is_adapter(&from).then(|| Assistant::load(&from, device)).transpose()?;
        write_atomic(&run.join(SELECTED_DIR), |dir| {
            if let Some(assistant) = &adapted {
                assistant.save(dir)?;
                return Ok(save_json(&dir.join(SELECTION_FILE), self)?);
            }
            let io = |action, path: &Path| {
                let path = path.to_owned();
                move |source| Error::Io { action, path, source }
            };
            for entry in fs::read_dir(&from).map_err(io("list", &from))? {
                let path = entry.map_err(io("list", &from))?.path();
                if path.is_file() {
                    let name = path.file_name().expect("an entry has a name");
                    fs::copy(&path, dir.join(name)).map_err(io("copy", &path))?;
                }
            }
            Ok(save_json(&dir.join(SELECTION_FILE), self)?)
        })
    }
}

fn step_of(line: &Map<String, Value>) -> Option<usize> {
    line.get(STEP_KEY)?.as_u64()?.try_into().ok()
}

fn eval_loss(metrics: &[Map<String, Value>], step: usize) -> Option<f64> {
    metrics.iter().filter(|line| step_of(line) == Some(step)).find_map(|line| line.get("eval_loss")?.as_f64())
}

/// The candidate with the highest score. Ties keep the one with fewer updates.
fn best(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().reduce(|best, next| if next.score > best.score { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(step: usize, score: f64) -> Candidate {
        let checkpoint = format!("checkpoints/step-{step:06}");
        Candidate { checkpoint, step: Some(step), eval_loss: None, score, eos_rate: 1.0 }
    }

    #[test]
    fn the_highest_score_is_the_best_and_ties_keep_the_earlier_model() {
        let step = |scores: &[f64]| {
            let all: Vec<Candidate> = scores.iter().enumerate().map(|(i, s)| candidate(i, *s)).collect();
            best(&all).and_then(|best| best.step)
        };
        assert_eq!(step(&[-1.0, 0.5, 0.5, 0.25]), Some(1));
        assert_eq!(step(&[]), None);
    }
}
