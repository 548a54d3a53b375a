//! `temper reward`

use anyhow::Result;
use temper_reward::{Normalize, RewardConfig, RewardFiles};
use temper_train::resolve;

use crate::args::{ComparisonArgs, RewardArgs, Settings, Stage};
use crate::commands::Outcome;
use crate::failure::hinted;
use crate::session::Session;

pub fn run(session: &Session, args: &RewardArgs) -> Result<Outcome> {
    let RewardArgs { comparisons: args, normalize_data } = args;
    let (config, auto) = session.settings::<RewardConfig>(Stage::Reward, &args.settings)?;
    if normalize_data.is_empty() && config.normalize != Normalize::None {
        nothing_to_normalize_on(session, args, &config)?;
    }
    let launch = session.launch(Stage::Reward, &config.training, &args.run, &args.settings)?.auto(auto);
    let files = RewardFiles {
        model: args.model.clone(),
        data: args.data.clone(),
        eval_data: args.eval_data.clone(),
        normalize_data: normalize_data.clone(),
    };
    temper_reward::run(&config, &files, launch)?;
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
