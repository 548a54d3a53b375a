//! `temper eval`

use anyhow::Result;
use burn::tensor::Device;
use serde::Serialize;
use temper_assistant::{Assistant, BATCH_SIZE, Error as AssistantError, Outline, RewardModel, context_len};
use temper_data::{Demonstrations, Encoding, Rankings};
use temper_eval::{BestOf, Draws, Judge, JudgeSpec, PolicyComparison, judged_answers};
use temper_model::Error as ModelError;
use temper_reward::{RewardDetails, RewardEvaluation, examine};
use temper_sft::SftEvaluation;
use temper_tokenizer::TextSide;

use crate::args::EvalArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::eval_settings::EvalSettings;
use crate::failure::not_finite;
use crate::prompts::PlacedPrompts;
use crate::session::Session;

pub fn run(session: &Session, args: &EvalArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    match args.judge()? {
        Some(judge) => judge_policies(session, args, &judge, &device)?,
        None => measure_model(session, args, &device)?,
    }
    Ok(Outcome::Done)
}

/// A language model's loss on demonstrations, or a reward model's accuracy on comparisons.
fn measure_model(session: &Session, args: &EvalArgs, device: &Device) -> Result<()> {
    let settings = EvalSettings::of(session, args)?;
    let overflow = settings.overflow;
    let options = args.load.options();
    match Assistant::load_with(&args.model, device, &options) {
        Ok(Assistant { model, text }) => {
            let context = context_len(settings.max_seq_len, model.config())?;
            let encoding = Encoding { overflow, ..Encoding::new(&text, context) };
            let data: Demonstrations = session.evaluation_data(&args.data, &encoding, args.read())?;
            let evaluation = temper_sft::evaluate(&model, &data, BATCH_SIZE);
            check_loss(&text, evaluation.eval_loss)?;
            print_json(&LanguageModelEvaluation { evaluation, eval_rows_dropped: data.report.n_dropped() })
        }
        Err(AssistantError::Model(ModelError::WrongHead { .. })) => {
            let RewardModel { model, text } = RewardModel::load_with(&args.model, device, &options)?;
            let context = context_len(settings.max_seq_len, model.config())?;
            let encoding = Encoding { overflow, ..Encoding::new(&text, context) };
            let data: Rankings = session.evaluation_data(&args.data, &encoding, args.read())?;
            let evaluation = temper_reward::evaluate(&model, &data, BATCH_SIZE);
            check_loss(&text, evaluation.eval_loss)?;
            let details = examine(&data, &evaluation);
            let eval_rows_dropped = data.report.n_dropped();
            print_json(&RewardModelEvaluation { evaluation, details, eval_rows_dropped })
        }
        Err(error) => Err(error.into()),
    }
}

fn check_loss(text: &TextSide, loss: f64) -> Result<()> {
    if loss.is_finite() { Ok(()) } else { Err(not_finite(&text.dir, &format!("has a loss of {loss}"))) }
}

/// What is printed about a language model.
#[derive(Serialize)]
struct LanguageModelEvaluation {
    #[serde(flatten)]
    evaluation: SftEvaluation,
    eval_rows_dropped: usize,
}

/// What is printed about a reward model.
#[derive(Serialize)]
struct RewardModelEvaluation {
    #[serde(flatten)]
    evaluation: RewardEvaluation,
    #[serde(flatten)]
    details: RewardDetails,
    eval_rows_dropped: usize,
}

/// One policy or two answer every prompt, and the judge scores the answers.
fn judge_policies(session: &Session, args: &EvalArgs, spec: &JudgeSpec, device: &Device) -> Result<()> {
    let (sampling, options) = (args.sampling.checked()?, args.load.options());
    let mut prompts = PlacedPrompts::read(session, &args.data, args.read())?;
    let mut judge = Judge::open(spec, &options, device, session.stop())?;
    let picks = args.best_of.reward.as_ref().filter(|_| args.best_of.n > 1);
    let picks = picks.map(|dir| RewardModel::load_with(dir, device, &options)).transpose()?;
    check(session, args, &mut prompts, &judge, picks.as_ref())?;
    let (prompts, seed) = (prompts.prompts, session.seed.unwrap_or(0));

    let policy = Assistant::load_with(&args.model, device, &options)?;
    let best_of = picks.as_ref().map(|reward_model| BestOf { n: args.best_of.n, reward_model });
    let first = judged_answers(&policy, &prompts, &sampling, seed, best_of, &mut judge)?;
    let Some(against) = &args.against else { return print_json(&first.summary()) };
    let draws = Draws::of(&policy, &first.answers, &sampling, first.best_of);
    // Two models need not be in memory at once.
    drop(policy);

    let policy = Assistant::load_with(against, device, &options)?;
    let second = judged_answers(&policy, &prompts, &sampling, seed, None, &mut judge)?;
    let divergence = draws.and_then(|draws| draws.divergence_from(&policy));
    if let Err(obstacle) = &divergence {
        session.note(&format!("note: no `kl`: {obstacle}"));
    }
    print_json(&PolicyComparison::new(&first, &second, divergence.ok()))
}

/// Looks, before anything is answered, for prompts that leave no room for an answer, and for answers that could leave
/// no room in a model that scores them.
fn check(
    session: &Session,
    args: &EvalArgs,
    prompts: &mut PlacedPrompts,
    judge: &Judge,
    picks: Option<&RewardModel>,
) -> Result<()> {
    let dirs = [Some(&args.model), args.against.as_ref()];
    let options = args.load.options();
    let outlines = dirs.into_iter().flatten().map(|dir| Outline::load_with(dir, &options));
    let outlines: Vec<Outline> = outlines.collect::<Result<_, _>>()?;
    for outline in &outlines {
        prompts.check(session, outline)?;
    }
    for (i, outline) in outlines.iter().enumerate() {
        let needed = outline.longest_row(&prompts.prompts, args.sampling.max_new_tokens)?;
        judge.check_room(&outline.text, needed)?;
        if let Some(picks) = picks.filter(|_| i == 0) {
            picks.check_room(&outline.text, needed)?;
        }
    }
    Ok(())
}
