//! `temper eval`

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use serde::Serialize;
use serde_json::json;
use temper_model::{CausalLm, Error as ModelError};
use temper_reward::{RewardDetails, RewardEvaluation, examine};
use temper_tokenizer::Overflow;

use crate::answers::{Answer, BATCH_SIZE, answer, eos_rate, prompts};
use crate::args::EvalArgs;
use crate::best_of::{best_answer, kl_bound};
use crate::commands::{Outcome, print_json, reward, sft};
use crate::device;
use crate::judge::{Duel, Judge, answer_logprobs, estimate, length_controlled, win_rate};
use crate::session::Session;
use crate::text::{TextSide, load_policy, load_reward_model};

pub fn run(session: &Session, args: &EvalArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    if let Some(against) = &args.against {
        return duel(session, args, against, &device);
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
            let evaluation = temper_reward::evaluate(&model, &data, BATCH_SIZE);
            let details = examine(&data, &evaluation);
            print_json(&Examined { evaluation, details })?;
        }
        Err(error) => return Err(error),
    }
    Ok(Outcome::Done)
}

fn is_reward_model(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<ModelError>(), Some(ModelError::WrongHead { .. }))
}

/// What is printed of a reward model.
#[derive(Serialize)]
struct Examined {
    #[serde(flatten)]
    evaluation: RewardEvaluation,
    #[serde(flatten)]
    details: RewardDetails,
}

/// Both policies answer every prompt; the judge scores both answers.
fn duel(session: &Session, args: &EvalArgs, against: &Path, device: &Device) -> Result<Outcome> {
    let prompts = prompts(session, &args.data, args.skip_bad_rows)?;
    let mut judge = Judge::open(args, device, session.stop())?;
    let seed = session.seed.unwrap_or(0);

    let (model, text) = load_policy(&args.model, device)?;
    let first = best_answer(&model, &text, &prompts, &args.sampling, seed, &args.best_of, device)?;
    let first_scores = judge.scores(&prompts, &first)?;
    let reader = Reader::new(&text, &prompts, &first, args);
    let first_logprobs = reader.as_ref().ok().map(|reader| reader.logprobs(&model));
    let first_vocab = model.config().vocab_size;
    drop(model);

    let (model, other_text) = load_policy(against, device)?;
    let second = answer(&model, &other_text, &prompts, &args.sampling, seed)?;
    let second_scores = judge.scores(&prompts, &second)?;
    let obstacle = match &reader {
        Err(obstacle) => Some(*obstacle),
        Ok(_) if !text.same_as(&other_text) || model.config().vocab_size != first_vocab => {
            Some("the models put texts together differently")
        }
        Ok(reader) if reader.longest() > model.config().max_seq_len => {
            Some("an answer is longer than the other model's context")
        }
        Ok(_) => None,
    };
    let kl = match (obstacle, &reader, first_logprobs) {
        (None, Ok(reader), Some(logprobs)) => Some(estimate(&logprobs, &reader.logprobs(&model))),
        (obstacle, ..) => {
            session.note(&format!("note: no `kl`: {}", obstacle.unwrap_or_default()));
            None
        }
    };

    let duels: Vec<Duel> = (0..prompts.len())
        .map(|i| Duel {
            scores: [first_scores[i], second_scores[i]],
            lens: [&first[i], &second[i]].map(|answer| answer.completion.chars().count()),
        })
        .collect();
    let raw = win_rate(first_scores.iter().copied().zip(second_scores.iter().copied()));
    let controlled = length_controlled(&duels);
    let mean =
        |value: &dyn Fn(usize) -> f64| (0..prompts.len()).map(value).sum::<f64>() / prompts.len() as f64;
    print_json(&json!({
        "win_rate": raw.win_rate,
        "win_rate_ci95": raw.win_rate_ci95,
        "length_controlled_win_rate": controlled.map(|found| found.win_rate),
        "length_controlled_win_rate_ci95": controlled.map(|found| found.win_rate_ci95),
        "prompts": prompts.len(),
        "score": mean(&|i| first_scores[i]),
        "score_against": mean(&|i| second_scores[i]),
        "eos_rate": eos_rate(&first),
        "eos_rate_against": eos_rate(&second),
        "length": mean(&|i| duels[i].lens[0] as f64),
        "length_against": mean(&|i| duels[i].lens[1] as f64),
        "tokens": mean(&|i| first[i].tokens.len() as f64),
        "tokens_against": mean(&|i| second[i].tokens.len() as f64),
        "best_of": args.best_of.n,
        "best_of_kl_bound": kl_bound(args.best_of.n),
        "kl": kl.map(|(kl, _)| kl),
        "kl_standard_error": kl.and_then(|(_, error)| error),
    }))?;
    Ok(Outcome::Done)
}

/// The first policy's answers as ids, for both policies to read.
struct Reader<'a> {
    prompts: Vec<Vec<u32>>,
    answers: Vec<&'a [u32]>,
    temperature: f64,
}

impl<'a> Reader<'a> {
    /// Or why there is no use in reading: the mean of log π_A − log π_B is a KL only over answers that are drawn from
    /// π_A itself.
    fn new(
        text: &TextSide,
        prompts: &[String],
        answers: &'a [Answer],
        args: &EvalArgs,
    ) -> Result<Self, &'static str> {
        let sampling = &args.sampling;
        if args.best_of.n > 1 {
            return Err("the best of several answers is not a draw from the model");
        }
        if sampling.greedy || sampling.top_k > 0 || sampling.top_p < 1.0 {
            return Err("greedy, top-k and top-p answers are not drawn from the model's whole distribution");
        }
        Ok(Self {
            prompts: prompts.iter().map(|p| text.template.encode_prompt(&text.tokenizer, p)).collect(),
            answers: answers.iter().map(|answer| answer.tokens.as_slice()).collect(),
            temperature: sampling.temperature,
        })
    }

    fn longest(&self) -> usize {
        self.prompts
            .iter()
            .zip(&self.answers)
            .map(|(prompt, answer)| prompt.len() + answer.len())
            .max()
            .unwrap_or(0)
    }

    fn logprobs(&self, model: &CausalLm) -> Vec<f64> {
        answer_logprobs(model, &self.prompts, &self.answers, self.temperature)
    }
}
