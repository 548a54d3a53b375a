//! `temper eval`

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use serde::Serialize;
use temper_assistant::{
    Answer, Assistant, BATCH_SIZE, Error as AssistantError, Outline, RewardModel, context_len,
};
use temper_data::{Demonstrations, Encoding, Rankings};
use temper_eval::{BestOf, Draws, Judge, JudgeSpec, JudgedAnswers, PolicyComparison, judged_answers};
use temper_model::Error as ModelError;
use temper_reward::{RewardDetails, RewardEvaluation, examine};
use temper_sft::SftEvaluation;
use temper_tokenizer::{Prompt, TextSide};

use crate::args::EvalArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::eval_settings::EvalSettings;
use crate::failure::{hinted, not_finite};
use crate::prompts::PlacedPrompts;
use crate::session::Session;

pub fn run(session: &Session, args: &EvalArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    if let Some(out) = &args.out {
        refuse_existing(out)?;
    }
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
            let nats = evaluation.eval_loss * evaluation.eval_n_targets as f64;
            let eval_loss_per_byte = nats / data.n_bytes(&text.tokenizer) as f64;
            let eval_rows_dropped = data.report.n_dropped();
            if let Some(out) = &args.out {
                answer_prompts(session, args, &Assistant { model, text }, out)?;
            }
            print_json(&LanguageModelEvaluation { evaluation, eval_loss_per_byte, eval_rows_dropped })
        }
        Err(AssistantError::Model(ModelError::WrongHead { .. })) => {
            if args.out.is_some() {
                return Err(hinted(
                    "`--out` saves answers, and a reward model gives none",
                    "`temper score` prints its score of each row",
                ));
            }
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
    /// In nats: comparable among models with different tokenizers.
    eval_loss_per_byte: f64,
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
    let (sampling, options) = (args.sampling.of_model(&args.model)?, args.load.options());
    let mut prompts = PlacedPrompts::read(session, &args.data, args.read())?;
    let mut judge = Judge::open(spec, &options, device, session.stop())?;
    let picks = args.best_of.reward.as_ref().filter(|_| args.best_of.n > 1);
    let picks = picks.map(|dir| RewardModel::load_with(dir, device, &options)).transpose()?;
    check(session, args, &mut prompts, sampling.max_new_tokens, &judge, picks.as_ref())?;
    let (prompts, seed) = (prompts.prompts, session.seed.unwrap_or(0));

    let policy = Assistant::load_with(&args.model, device, &options)?;
    let best_of = picks.as_ref().map(|reward_model| BestOf { n: args.best_of.n, reward_model });
    let first = judged_answers(&policy, &prompts, &sampling, seed, best_of, &mut judge)?;
    let Some(against) = &args.against else {
        save_answers(session, args.out.as_deref(), &rows_of(&first, None))?;
        return print_json(&first.summary());
    };
    let draws = Draws::of(&policy, &first.answers, &sampling, first.best_of);
    // Two models need not be in memory at once.
    drop(policy);

    let policy = Assistant::load_with(against, device, &options)?;
    let second = judged_answers(&policy, &prompts, &sampling, seed, None, &mut judge)?;
    let divergence = draws.and_then(|draws| draws.divergence_from(&policy));
    if let Err(obstacle) = &divergence {
        session.note(&format!("note: no `kl`: {obstacle}"));
    }
    save_answers(session, args.out.as_deref(), &rows_of(&first, Some(&second)))?;
    print_json(&PolicyComparison::new(&first, &second, divergence.ok()))
}

/// Answers that are shown on standard error.
const SHOWN: usize = 3;
/// Characters of a shown text.
const SHOWN_CHARACTERS: usize = 160;

/// One line of `--out`. Its prompt, answer and end are what `temper score --data` reads.
#[derive(Serialize)]
struct AnswerRow<'a> {
    prompt: &'a Prompt,
    answer: &'a str,
    ended: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    against: Option<OtherAnswer<'a>>,
}

/// The answer of the second policy.
#[derive(Serialize)]
struct OtherAnswer<'a> {
    answer_against: &'a str,
    ended_against: bool,
    score_against: f64,
}

/// The answers of one policy, or of two, as rows.
fn rows_of<'a>(first: &'a JudgedAnswers, second: Option<&'a JudgedAnswers>) -> Vec<AnswerRow<'a>> {
    let row = |(i, answer): (usize, &'a Answer)| AnswerRow {
        score: Some(first.scores[i]),
        against: second.map(|second| OtherAnswer {
            answer_against: &second.answers[i].completion,
            ended_against: second.answers[i].ended,
            score_against: second.scores[i],
        }),
        ..AnswerRow::of(answer)
    };
    first.answers.iter().enumerate().map(row).collect()
}

impl<'a> AnswerRow<'a> {
    fn of(answer: &'a Answer) -> Self {
        let Answer { prompt, completion, ended, .. } = answer;
        Self { prompt, answer: completion, ended: *ended, score: None, against: None }
    }

    /// One line for people.
    fn shown(&self) -> String {
        let answer = |text: &str, ended: bool, score: Option<f64>| {
            let score = score.map_or(String::new(), |score| format!(" (score {score:.3})"));
            format!("{}{}{score}", cut(text), if ended { "" } else { " …" })
        };
        let mut line = format!(
            "{}\n  answer:  {}",
            cut(&self.prompt.to_string()),
            answer(self.answer, self.ended, self.score)
        );
        if let Some(other) = &self.against {
            let said = answer(other.answer_against, other.ended_against, Some(other.score_against));
            line.push_str(&format!("\n  against: {said}"));
        }
        line
    }
}

/// The start of a text on one line.
fn cut(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let start: String = words.chars().take(SHOWN_CHARACTERS).collect();
    if start.len() < words.len() { format!("{start}…") } else { start }
}

/// Lets a language model answer the prompts of the rows, without a judge.
fn answer_prompts(session: &Session, args: &EvalArgs, assistant: &Assistant, out: &Path) -> Result<()> {
    let sampling = args.sampling.of_model(&args.model)?;
    let mut prompts = PlacedPrompts::read(session, &args.data, args.read())?;
    prompts.check(session, &Outline::load_with(&args.model, &args.load.options())?)?;
    let answers = assistant.answer(&prompts.prompts, &sampling, session.seed.unwrap_or(0))?;
    save_answers(session, Some(out), &answers.iter().map(AnswerRow::of).collect::<Vec<_>>())
}

/// Shows the first answers, and saves all of them if a file is named.
fn save_answers(session: &Session, out: Option<&Path>, rows: &[AnswerRow<'_>]) -> Result<()> {
    for (i, row) in rows.iter().take(SHOWN).enumerate() {
        session.note_lines(&format!("prompt {} of {}: {}", i + 1, rows.len(), row.shown()));
    }
    let Some(out) = out else { return Ok(()) };
    let mut bytes = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut bytes, row)?;
        bytes.push(b'\n');
    }
    // Nothing that is there by now is overwritten either.
    let mut file =
        std::fs::File::create_new(out).with_context(|| format!("cannot write {}", out.display()))?;
    file.write_all(&bytes).with_context(|| format!("cannot write {}", out.display()))?;
    session.note(&format!("note: {} answers are in {}", rows.len(), out.display()));
    Ok(())
}

/// Before anything is answered: whether the file can be a new one.
fn refuse_existing(out: &Path) -> Result<()> {
    if std::fs::symlink_metadata(out).is_ok() {
        return Err(hinted(
            format!("`--out {}` is there already", out.display()),
            "choose another name, or remove it",
        ));
    }
    let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !dir.is_dir() {
        return Err(hinted(
            format!("`--out` needs the directory {}, which does not exist", dir.display()),
            "make it first",
        ));
    }
    Ok(())
}

/// Looks, before anything is answered, for prompts that leave no room for an answer, and for answers that could leave
/// no room in a model that scores them.
fn check(
    session: &Session,
    args: &EvalArgs,
    prompts: &mut PlacedPrompts,
    max_new_tokens: usize,
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
        let needed = outline.longest_row(&prompts.prompts, max_new_tokens)?;
        judge.check_room(&outline.text, needed)?;
        if let Some(picks) = picks.filter(|_| i == 0) {
            picks.check_room(&outline.text, needed)?;
        }
    }
    Ok(())
}
