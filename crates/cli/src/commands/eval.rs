//! `temper eval`

use std::fs;
use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use serde::Serialize;
use serde_json::json;
use temper_data::{Demonstrations, Rankings};
use temper_model::{CausalLm, Error as ModelError, ModelConfig, ScalarModel};
use temper_reward::{RewardDetails, RewardEvaluation, examine};
use temper_sft::SftEvaluation;
use temper_tokenizer::Overflow;
use temper_train::{resolve, resolve_known, settings};

use crate::answers::{Answer, BATCH_SIZE, PlacedPrompts, answer, check_room, eos_rate, not_a_number};
use crate::args::EvalArgs;
use crate::best_of::{best_answer, kl_bound};
use crate::commands::{Outcome, print_json};
use crate::data_rows::EVALUATION;
use crate::device;
use crate::judge::{Duel, Judge, answer_logprobs, estimate, length_controlled, win_rate};
use crate::session::Session;
use crate::text::{TextSide, context_len, load_config, load_policy, load_reward_model};

pub fn run(session: &Session, args: &EvalArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    if args.judge.is_some() || args.judge_program.is_some() {
        return judged(session, args, &device);
    }
    let settings = EvalSettings::of(session, args)?;
    let (overflow, skip) = (settings.overflow, args.skip_bad_rows);
    match load_policy(&args.model, &device) {
        Ok((model, text)) => {
            let context = context_len(settings.max_seq_len, model.config())?;
            let data =
                session.dataset::<Demonstrations>(&args.data, EVALUATION, &text, context, overflow, skip)?;
            let evaluation = temper_sft::evaluate(&model, &data, BATCH_SIZE);
            check_number(&text, evaluation.eval_loss)?;
            print_json(&ExaminedPolicy { evaluation, eval_rows_dropped: data.report.n_dropped() })?;
        }
        Err(error) if is_reward_model(&error) => {
            let (model, text) = load_reward_model(&args.model, &device)?;
            let context = context_len(settings.max_seq_len, model.config())?;
            let data = session.dataset::<Rankings>(&args.data, EVALUATION, &text, context, overflow, skip)?;
            let evaluation = temper_reward::evaluate(&model, &data, BATCH_SIZE);
            check_number(&text, evaluation.eval_loss)?;
            let details = examine(&data, &evaluation);
            let eval_rows_dropped = data.report.n_dropped();
            print_json(&ExaminedRewardModel { evaluation, details, eval_rows_dropped })?;
        }
        Err(error) => return Err(error),
    }
    Ok(Outcome::Done)
}

fn is_reward_model(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<ModelError>(), Some(ModelError::WrongHead { .. }))
}

fn check_number(text: &TextSide, loss: f64) -> Result<()> {
    if loss.is_finite() { Ok(()) } else { Err(not_a_number(text, &format!("has a loss of {loss}"))) }
}

/// What is printed of a language model.
#[derive(Serialize)]
struct ExaminedPolicy {
    #[serde(flatten)]
    evaluation: SftEvaluation,
    eval_rows_dropped: usize,
}

/// What is printed of a reward model.
#[derive(Serialize)]
struct ExaminedRewardModel {
    #[serde(flatten)]
    evaluation: RewardEvaluation,
    #[serde(flatten)]
    details: RewardDetails,
    eval_rows_dropped: usize,
}

settings! {
    /// What decides which rows take part in an evaluation, and what is left of them.
    pub struct EvalSettings {
        /// Longest row in tokens; 0: the model's context.
        pub max_seq_len: usize = 0, in ZeroOr(2..),
        /// What happens to a longer row: drop | truncate_prompt.
        pub overflow: Overflow = Overflow::Drop,
    }
}

impl EvalSettings {
    /// Those of the run that the model is of, so that its evaluation is repeated; then those of `--set`.
    fn of(session: &Session, args: &EvalArgs) -> Result<Self> {
        let of_run = of_run(&args.model)?;
        if let Some(of_run) = of_run.as_deref().filter(|_| args.sets.is_empty()) {
            let settings: Self = resolve(Some(of_run), None, &[])?;
            if settings != Self::default() {
                let settings = of_run.trim_end().replace('\n', ", ");
                session.note(&format!("note: as in the run of this model: {settings}"));
            }
        }
        let settings: Self = resolve(of_run.as_deref(), None, &args.sets)?;
        settings.validate()?;
        Ok(settings)
    }
}

/// The settings of [`EvalSettings`] as TOML, if the model is in the directory of a run.
fn of_run(model: &Path) -> Result<Option<String>> {
    // A link or `.` has parents of its own; what is not there is reported when the model is loaded.
    let Ok(model) = fs::canonicalize(model) else { return Ok(None) };
    let is_run = |dir: &&Path| dir.join("config.toml").is_file() && dir.join("metrics.jsonl").is_file();
    // RUN/final and RUN/checkpoints/step-000123.
    let Some(run) = model.ancestors().skip(1).take(2).find(is_run) else { return Ok(None) };
    let path = run.join("config.toml");
    Ok(Some(toml::to_string(&resolve_known::<EvalSettings>(&path)?)?))
}

/// One policy or two answer every prompt, and the judge scores the answers.
fn judged(session: &Session, args: &EvalArgs, device: &Device) -> Result<Outcome> {
    let mut prompts = PlacedPrompts::read(session, &args.data, args.skip_bad_rows)?;
    let mut judge = Judge::open(args, device, session.stop())?;
    let picks = args.best_of.reward.as_ref().filter(|_| args.best_of.n > 1);
    let picks = picks.map(|dir| load_reward_model(dir, device)).transpose()?;
    check(session, args, &mut prompts, &judge, picks.as_ref())?;
    let prompts = prompts.prompts;
    let seed = session.seed.unwrap_or(0);

    let (model, text) = load_policy(&args.model, device)?;
    let best_of = picks.as_ref().map(|picks| (args.best_of.n, picks));
    let first = best_answer(&model, &text, &prompts, &args.sampling, seed, best_of)?;
    let first_scores = judge.scores(&text, &prompts, &first)?;
    let Some(against) = &args.against else { return print_scores(args, &first, &first_scores) };
    let reader = Reader::new(&first, args);
    let first_logprobs = reader.as_ref().ok().map(|reader| reader.logprobs(&model));
    let first_vocab = model.config().vocab_size;
    drop(model);

    let (model, other_text) = load_policy(against, device)?;
    let second = answer(&model, &other_text, &prompts, &args.sampling, seed)?;
    let second_scores = judge.scores(&other_text, &prompts, &second)?;
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

/// Looks, before anything is answered, for prompts that leave no room for an answer, and for answers that could leave
/// no room in a model that scores them.
fn check(
    session: &Session,
    args: &EvalArgs,
    prompts: &mut PlacedPrompts,
    judge: &Judge,
    picks: Option<&(ScalarModel, TextSide)>,
) -> Result<()> {
    let dirs = [Some(&args.model), args.against.as_ref()];
    let policies: Vec<(ModelConfig, TextSide)> = dirs
        .iter()
        .flatten()
        .map(|dir| Ok((load_config(dir)?, TextSide::load(dir)?)))
        .collect::<Result<_>>()?;
    for (config, text) in &policies {
        prompts.check(session, text, config.max_seq_len)?;
    }
    for (i, (config, text)) in policies.iter().enumerate() {
        let needed = prompts.longest(text, config.max_seq_len, args.sampling.max_new_tokens);
        judge.check_room(text, needed)?;
        if let Some((picks, picks_text)) = picks.filter(|_| i == 0) {
            check_room(picks.config(), picks_text, text, needed)?;
        }
    }
    Ok(())
}

/// How one policy does by itself.
fn print_scores(args: &EvalArgs, answers: &[Answer], scores: &[f64]) -> Result<Outcome> {
    let n = answers.len() as f64;
    let mean = |value: &dyn Fn(usize) -> f64| (0..answers.len()).map(value).sum::<f64>() / n;
    let score = mean(&|i| scores[i]);
    let variance = scores.iter().map(|each| (each - score).powi(2)).sum::<f64>() / (n - 1.0);
    print_json(&json!({
        "score": score,
        "score_standard_error": (answers.len() > 1).then(|| (variance / n).sqrt()),
        "prompts": answers.len(),
        "eos_rate": eos_rate(answers),
        "length": mean(&|i| answers[i].completion.chars().count() as f64),
        "tokens": mean(&|i| answers[i].tokens.len() as f64),
        "best_of": args.best_of.n,
        "best_of_kl_bound": kl_bound(args.best_of.n),
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
    fn new(answers: &'a [Answer], args: &EvalArgs) -> Result<Self, &'static str> {
        let sampling = &args.sampling;
        if args.best_of.n > 1 {
            return Err("the best of several answers is not a draw from the model");
        }
        if sampling.greedy || sampling.top_k > 0 || sampling.top_p < 1.0 {
            return Err("greedy, top-k and top-p answers are not drawn from the model's whole distribution");
        }
        Ok(Self {
            prompts: answers.iter().map(|answer| answer.prompt_tokens.clone()).collect(),
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
