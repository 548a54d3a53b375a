//! `temper reward`

use std::path::PathBuf;

use anyhow::Result;
use temper_assistant::{Assistant, context_len};
use temper_data::{Demonstration, Rankings};
use temper_model::ScalarModel;
use temper_reward::{Normalize, RewardConfig};
use temper_train::{Seed, resolve};

use crate::args::{ComparisonArgs, RewardArgs, Settings, Stage};
use crate::commands::Outcome;
use crate::data_rows::{EVALUATION, TRAINING};
use crate::device;
use crate::failure::hinted;
use crate::inputs::{inputs, model_fingerprint};
use crate::session::Session;
use crate::without_effect::{self, Given};

pub fn run(session: &Session, args: &RewardArgs) -> Result<Outcome> {
    let RewardArgs { comparisons: args, normalize_data } = args;
    let config: RewardConfig = session.settings(Stage::Reward, &args.settings)?;
    if normalize_data.is_empty() && config.normalize != Normalize::None {
        nothing_to_normalize_on(session, args, &config)?;
    }
    let (device, backend) = device::open_named(&config.training.device)?;
    let Assistant { model: sft, text } =
        Assistant::load_to_train(&args.model, &config.encoding.template, &device)?;
    let max_seq_len = context_len(config.training.max_seq_len, sft.config())?;
    let load = |paths: &[PathBuf], purpose: &'static str| {
        session.dataset::<Rankings>(
            paths,
            purpose,
            &text,
            max_seq_len,
            config.encoding.overflow,
            args.run.skip_bad_rows,
        )
    };
    let mut data = load(&args.data, TRAINING)?;
    if !normalize_data.is_empty() {
        let purpose = "demonstrations to normalise on";
        let rows = session.rows::<Demonstration>(normalize_data, purpose, args.run.skip_bad_rows)?;
        let (tokenizer, template) = (&text.tokenizer, &text.template);
        data = data.with_demonstrations(
            &rows.records,
            tokenizer,
            template,
            max_seq_len,
            config.encoding.overflow,
        )?;
        session.note_rows(data.notes_of_demonstrations(&rows, max_seq_len));
    }
    let eval_data = if args.eval_data.is_empty() { None } else { Some(load(&args.eval_data, EVALUATION)?) };

    let mut head = Seed(config.training.seed).stream("reward_head");
    let model = ScalarModel::new(sft.transformer, config.pooling, &mut head);
    let inputs = inputs(
        backend,
        [
            ("--model", Some(model_fingerprint(&args.model)?)),
            ("--data", Some(data.fingerprint())),
            ("--eval-data", eval_data.as_ref().map(Rankings::fingerprint)),
        ],
    );
    let normalize = !normalize_data.is_empty();
    let given = Given { template: text.has_template, normalize_data: normalize, ..Given::default() };
    without_effect::note(session, &args.settings, &config, given)?;
    let run = session.run(&args.run, "reward", &config, &inputs)?;
    let mut run = run.with_keep_last(config.training.keep_last);
    temper_reward::train(&config, model, &text, &data, eval_data.as_ref(), &mut run)?;
    Ok(session.outcome())
}

/// Refuses a `normalize` that was asked for without demonstrations to go by, and otherwise says that it does nothing.
fn nothing_to_normalize_on(session: &Session, args: &ComparisonArgs, config: &RewardConfig) -> Result<()> {
    let how = config.normalize;
    let Settings { config: file, sets, .. } = &args.settings;
    let is_set = sets.iter().any(|set| set.split('=').next().is_some_and(|key| key.trim() == "normalize"));
    // A file that `temper config` printed has every key in it, so only what is not the default was asked for.
    let of_file = file.as_deref().map(|file| resolve::<RewardConfig>(None, Some(file), &[])).transpose()?;
    let is_in_file = of_file.is_some_and(|of_file| of_file.normalize == how && how != Normalize::default());
    if is_set || is_in_file {
        return Err(hinted(
            format!("`normalize` is {how}, but there is no `--normalize-data`"),
            "give demonstrations by `--normalize-data`, or `--set normalize=none`",
        ));
    }
    // There is a note about a preset's settings without effect already.
    if args.settings.preset.is_none() {
        session.note(&format!(
            "note: the scores are not normalised: `normalize` is {how}, but there is no `--normalize-data`"
        ));
    }
    Ok(())
}
