//! `temper eval`

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::tensor::Device;
use serde::Serialize;
use serde_json::json;
use temper_courtesy::Task;
use temper_model::{CausalLm, Error as ModelError, Finish, ScalarModel};
use temper_tokenizer::{Example, Overflow};
use temper_train::Prompt;

use crate::args::EvalArgs;
use crate::commands::generate::{complete, options};
use crate::commands::{Outcome, print_json, reward, sft};
use crate::device;
use crate::failure::hinted;
use crate::judge::win_rate;
use crate::session::Session;
use crate::text::{TextSide, load_policy, load_reward_model};

/// Rows that are evaluated together.
const BATCH_SIZE: usize = 64;

pub fn run(session: &Session, args: &EvalArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    if let (Some(against), Some(judge)) = (&args.against, &args.judge) {
        return duel(session, args, against, judge, &device);
    }
    match load_policy(&args.model, &device) {
        Ok((model, text)) => {
            let context = model.config().max_seq_len;
            let data = sft::dataset(session, &args.data, &text, context, Overflow::Drop, args.skip_bad_rows)?;
            print_json(&temper_sft::evaluate(&model, &data, BATCH_SIZE))?;
        }
        Err(error) if is_reward_model(&error) => {
            let (model, text) = load_reward_model(&args.model, &device)?;
            let context = model.config().max_seq_len;
            let data =
                reward::dataset(session, &args.data, &text, context, Overflow::Drop, args.skip_bad_rows)?;
            print_json(&temper_reward::evaluate(&model, &data, BATCH_SIZE))?;
        }
        Err(error) => return Err(error),
    }
    Ok(Outcome::Done)
}

fn is_reward_model(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<ModelError>(), Some(ModelError::WrongHead { .. }))
}

/// Both policies answer every prompt; the judge scores both answers.
fn duel(session: &Session, args: &EvalArgs, against: &Path, judge: &str, device: &Device) -> Result<Outcome> {
    let prompts = prompts(session, &args.data, args.skip_bad_rows)?;
    let mut judge = Judge::open(judge, device)?;
    let mut scores = Vec::new();
    let mut ended = Vec::new();
    for dir in [args.model.as_path(), against] {
        let (model, text) = load_policy(dir, device)?;
        let answers = answer(&model, &text, &prompts, &args.sampling, session.seed.unwrap_or(0))?;
        ended.push(answers.iter().filter(|answer| answer.ended).count() as f64 / answers.len() as f64);
        scores.push(judge.scores(&prompts, &answers)?);
    }
    let found = win_rate(scores[0].iter().copied().zip(scores[1].iter().copied()));
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
    print_json(&json!({
        "win_rate": found.win_rate,
        "win_rate_ci95": found.win_rate_ci95,
        "prompts": prompts.len(),
        "score": mean(&scores[0]),
        "score_against": mean(&scores[1]),
        "eos_rate": ended[0],
        "eos_rate_against": ended[1],
    }))?;
    Ok(Outcome::Done)
}

/// Reads prompts.
pub fn prompts(session: &Session, paths: &[PathBuf], skip_bad_rows: bool) -> Result<Vec<String>> {
    let rows: Vec<Prompt> = session.rows(paths, skip_bad_rows)?;
    Ok(rows.into_iter().map(|row| row.prompt).collect())
}

/// One answer to one prompt.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    pub completion: String,
    pub tokens: Vec<u32>,
    pub ended: bool,
}

/// Samples one answer per prompt.
pub fn answer(
    model: &CausalLm,
    text: &TextSide,
    prompts: &[String],
    sampling: &crate::args::SamplingArgs,
    seed: u64,
) -> Result<Vec<Answer>> {
    let mut answers = Vec::with_capacity(prompts.len());
    for (i, part) in prompts.chunks(BATCH_SIZE).enumerate() {
        let options = options(sampling, seed.wrapping_add((i as u64) << 32))?;
        answers.extend(complete(model, text, part, &options)?.into_iter().map(|completion| Answer {
            completion: text.tokenizer.decode(&completion.tokens),
            tokens: completion.tokens,
            ended: completion.finish == Finish::Stop,
        }));
    }
    Ok(answers)
}

/// Who says which answer is better.
pub enum Judge {
    /// The exact rule of the courtesy task.
    Courtesy(Task),
    /// A reward model, not necessarily the one trained against.
    Reward(Box<(ScalarModel, TextSide)>, PathBuf),
}

impl Judge {
    /// `courtesy`, or a reward model's directory.
    pub fn open(spec: &str, device: &Device) -> Result<Self> {
        if spec == "courtesy" {
            return Ok(Self::Courtesy(Task::new()));
        }
        let dir = Path::new(spec);
        if !dir.is_dir() {
            return Err(hinted(
                format!("`{spec}` is no judge"),
                "give `courtesy` or the directory of a reward model",
            ));
        }
        Ok(Self::Reward(Box::new(load_reward_model(dir, device)?), dir.to_owned()))
    }

    /// One score per answer.
    pub fn scores(&mut self, prompts: &[String], answers: &[Answer]) -> Result<Vec<f64>> {
        match self {
            Self::Courtesy(task) => prompts
                .iter()
                .zip(answers)
                .map(|(prompt, answer)| {
                    let verdict = task.judge(prompt, &answer.completion, answer.ended);
                    Ok(verdict.ok_or_else(|| not_courtesy(prompt))?.score)
                })
                .collect(),
            Self::Reward(model, dir) => {
                let (model, text) = model.as_ref();
                score_answers(model, text, dir, prompts, answers)
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

/// A reward model's scores of answers, encoded as it learned them.
pub fn score_answers(
    model: &ScalarModel,
    text: &TextSide,
    dir: &Path,
    prompts: &[String],
    answers: &[Answer],
) -> Result<Vec<f64>> {
    let context = model.config().max_seq_len;
    let mut examples: Vec<Example> = Vec::with_capacity(prompts.len());
    for (prompt, answer) in prompts.iter().zip(answers) {
        let mut prompt_tokens = text.template.encode_prompt(&text.tokenizer, prompt);
        let prompt_len = prompt_tokens.len();
        // An answer that did not end gets no end token here either.
        let mut completion = text.tokenizer.encode(&answer.completion);
        completion.extend(answer.ended.then_some(text.tokenizer.special().eos));
        prompt_tokens.extend(completion);
        if prompt_tokens.len() > context {
            return Err(hinted(
                format!("an answer does not fit into the {context} tokens of {}", dir.display()),
                "lower `--max-new-tokens`",
            ));
        }
        examples.push(Example { tokens: prompt_tokens, prompt_len, n_cut: 0 });
    }
    let scores = temper_reward::score(model, &examples.iter().collect::<Vec<_>>(), BATCH_SIZE);
    Ok(scores.into_iter().map(f64::from).collect())
}
