//! Judges: what gives an answer its score.

use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::tensor::Device;
use temper_assistant::{Answer, BATCH_SIZE, LoadOptions, RewardModel};
use temper_courtesy::Task;
use temper_scorer::{Program, Stop};
use temper_tokenizer::TextSide;

use crate::Error;

/// Which judge to open.
#[derive(Clone, Debug, PartialEq)]
pub enum JudgeSpec {
    /// The exact rule of the courtesy task.
    Courtesy,
    /// A reward model, which need not be the one that was trained against.
    RewardModel(PathBuf),
    /// A program that is asked over its standard input and output: see [`Program`].
    Program {
        /// The command, as in a shell.
        command: String,
        /// How long it may take for 64 answers.
        time_limit: Duration,
    },
}

impl JudgeSpec {
    /// `courtesy`, or the directory of a reward model.
    ///
    /// # Errors
    /// [`Error::UnknownJudge`].
    pub fn named(name: &str) -> Result<Self, Error> {
        match name {
            "courtesy" => Ok(Self::Courtesy),
            dir if Path::new(dir).is_dir() => Ok(Self::RewardModel(dir.into())),
            _ => Err(Error::UnknownJudge { name: name.to_owned() }),
        }
    }
}

/// Gives each answer a score. Of two answers, the one with the higher score is better.
pub enum Judge {
    /// See [`JudgeSpec::Courtesy`].
    Courtesy(Task),
    /// See [`JudgeSpec::RewardModel`].
    RewardModel(Box<RewardModel>),
    /// See [`JudgeSpec::Program`].
    Program(Program),
}

impl Judge {
    /// Loads the reward model, as `options` say, or starts the program. Calls of a program end early when `stop` says so.
    ///
    /// # Errors
    /// A directory that cannot be loaded, and a program that cannot be started.
    pub fn open(
        spec: &JudgeSpec,
        options: &LoadOptions,
        device: &Device,
        stop: &Stop,
    ) -> Result<Self, Error> {
        Ok(match spec {
            JudgeSpec::Courtesy => Self::Courtesy(Task::new()),
            JudgeSpec::RewardModel(dir) => {
                Self::RewardModel(Box::new(RewardModel::load_with(dir, device, options)?))
            }
            JudgeSpec::Program { command, time_limit } => {
                Self::Program(Program::start(command, *time_limit, stop)?)
            }
        })
    }

    /// Looks, before anything is answered, whether the judge has room for answers of `policy` that have up to `needed`
    /// tokens with their prompts: see [`RewardModel::check_room`].
    ///
    /// # Errors
    /// A reward model that reads ids, with too short a context.
    pub fn check_room(&self, policy: &TextSide, needed: usize) -> Result<(), Error> {
        match self {
            Self::RewardModel(model) => Ok(model.check_room(policy, needed)?),
            Self::Courtesy(_) | Self::Program(_) => Ok(()),
        }
    }

    /// One score for each answer of the policy with the text side `policy`.
    ///
    /// # Errors
    /// [`Error::NotCourtesy`], a score that is not a number, and a program that fails.
    pub fn scores(&mut self, policy: &TextSide, answers: &[Answer]) -> Result<Vec<f64>, Error> {
        match self {
            Self::Courtesy(task) => answers.iter().map(|answer| courtesy_score(task, answer)).collect(),
            Self::RewardModel(model) => Ok(model.score(policy, answers)?),
            Self::Program(program) => {
                let mut scores = Vec::with_capacity(answers.len());
                // The time limit holds for a batch, whatever the number of prompts.
                for batch in answers.chunks(BATCH_SIZE) {
                    let texts: Vec<temper_scorer::Answer<'_>> = batch.iter().map(Answer::as_text).collect();
                    scores.extend(program.score(&texts)?.into_iter().map(f64::from));
                }
                Ok(scores)
            }
        }
    }
}

fn courtesy_score(task: &Task, answer: &Answer) -> Result<f64, Error> {
    let prompt = answer.prompt.to_string();
    let verdict = task.judge(&prompt, &answer.completion, answer.ended);
    Ok(verdict.ok_or(Error::NotCourtesy { prompt })?.score)
}
