//! `temper select`

use std::path::Path;

use anyhow::Result;
use temper_assistant::{Outline, RewardModel};
use temper_eval::{RunModels, Selection};
use temper_sft::SftConfig;
use temper_train::resolve;

use crate::args::SelectArgs;
use crate::commands::{Outcome, print_json, print_line};
use crate::device;
use crate::failure::hinted;
use crate::prompts::PlacedPrompts;
use crate::session::Session;

pub fn run(session: &Session, args: &SelectArgs) -> Result<Outcome> {
    let device = device::open(session.device_name())?;
    check_run(&args.run)?;
    let models = RunModels::find(&args.run)?;
    for error in &models.damaged {
        session.note(&format!("note: passing over a checkpoint: {error}"));
    }
    models.check()?;
    let sampling = args.sampling.of_model(models.whole.first().map_or(&args.run, |model| &model.dir))?;
    let reward_model = RewardModel::load_with(&args.reward, &device, &args.load.options())?;
    let mut prompts = PlacedPrompts::read(session, &args.prompts, args.read())?;
    for model in &models.whole {
        prompts.check(session, &Outline::load(&model.dir)?)?;
    }
    let seed = session.seed.unwrap_or(0);
    let selection = models.select(&reward_model, &prompts.alone(), &sampling, seed, &device)?;
    for fault in &selection.passed_over {
        session.note(&format!("note: passing over a checkpoint: {fault}"));
    }
    selection.save(&args.run, &device)?;
    if args.json {
        print_json(&selection)?;
    } else {
        print_table(&selection)?;
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

fn print_table(selection: &Selection) -> Result<()> {
    let Selection { candidates, selected, .. } = selection;
    let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |x| format!("{x:.digits$}"));
    let width = candidates.iter().map(|candidate| candidate.checkpoint.len()).max().unwrap_or(0).max(10);
    print_line(&format!(
        "{:<width$}  {:>8}  {:>10}  {:>10}  {:>8}",
        "checkpoint", "step", "eval loss", "mean score", "eos rate"
    ))?;
    for candidate in candidates {
        let step = candidate.step.map_or("-".into(), |step| step.to_string());
        let mark = if &candidate.checkpoint == selected { "  selected" } else { "" };
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
