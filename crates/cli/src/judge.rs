//! Who says which of two answers is better, and what is made of that.

mod divergence;
mod length_controlled;
mod win_rate;

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use temper_courtesy::Task;
use temper_model::ScalarModel;
use temper_scorer::{Program, Stop};

use crate::answers::{Answer, BATCH_SIZE, check_room, said, score_answers};
use crate::args::EvalArgs;
use crate::failure::hinted;
use crate::rewards::time_limit;
use crate::text::{TextSide, load_reward_model};

pub use divergence::{answer_logprobs, estimate};
pub use length_controlled::{Duel, length_controlled};
pub use win_rate::win_rate;

/// Gives each answer a score; the better answer is that of the higher one.
pub enum Judge {
    /// The exact rule of the courtesy task.
    Courtesy(Task),
    /// A reward model, not necessarily the one trained against.
    Reward(Box<(ScalarModel, TextSide)>),
    /// A program that is asked as PPO asks it.
    Program(Program),
}

impl Judge {
    /// The judge that the flags name.
    pub fn open(args: &EvalArgs, device: &Device, stop: &Stop) -> Result<Self> {
        if let Some(command) = &args.judge_program {
            let limit = time_limit("--judge-seconds", args.judge_seconds)?;
            return Ok(Self::Program(Program::start(command, limit, stop)?));
        }
        Self::named(args.judge.as_deref().unwrap_or("courtesy"), device)
    }

    /// `courtesy`, or a reward model's directory.
    pub fn named(spec: &str, device: &Device) -> Result<Self> {
        if spec == "courtesy" {
            return Ok(Self::Courtesy(Task::new()));
        }
        let dir = Path::new(spec);
        if !dir.is_dir() {
            return Err(hinted(
                format!("`{spec}` is no judge"),
                "give `courtesy`, the directory of a reward model, or `--judge-program`",
            ));
        }
        Ok(Self::Reward(Box::new(load_reward_model(dir, device)?)))
    }

    /// Notices a judge whose context is too short for what answers of `policy`, with their prompts, can need.
    pub fn check_room(&self, policy: &TextSide, needed: usize) -> Result<()> {
        match self {
            Self::Reward(judge) => check_room(judge.0.config(), &judge.1, policy, needed),
            Self::Courtesy(_) | Self::Program(_) => Ok(()),
        }
    }

    /// One score per answer of a policy.
    pub fn scores(&mut self, policy: &TextSide, prompts: &[String], answers: &[Answer]) -> Result<Vec<f64>> {
        match self {
            Self::Courtesy(task) => prompts
                .iter()
                .zip(answers)
                .map(|(prompt, answer)| {
                    let verdict = task.judge(prompt, &answer.completion, answer.ended);
                    Ok(verdict.ok_or_else(|| not_courtesy(prompt))?.score)
                })
                .collect(),
            Self::Reward(judge) => score_answers(&judge.0, &judge.1, policy, prompts, answers),
            Self::Program(program) => {
                let mut scores = Vec::with_capacity(answers.len());
                // The time limit is for a batch, whatever the number of prompts.
                for batch in said(prompts, answers).chunks(BATCH_SIZE) {
                    let asked: Vec<_> = batch
                        .iter()
                        .map(|said| temper_scorer::Answer {
                            prompt: said.prompt,
                            completion: said.completion,
                            ended: said.ended,
                        })
                        .collect();
                    scores.extend(program.score(&asked)?.into_iter().map(f64::from));
                }
                Ok(scores)
            }
        }
    }
}

fn not_courtesy(prompt: &str) -> anyhow::Error {
    hinted(
        format!("the courtesy judge does not know the prompt `{prompt}`"),
        "`temper recipe courtesy --out DIR` writes prompts that it knows",
    )
}
