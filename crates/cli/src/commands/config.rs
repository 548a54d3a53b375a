//! `temper config`

use anyhow::Result;
use temper_dpo::DpoConfig;
use temper_ppo::PpoConfig;
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_train::{Settings, to_annotated_toml, to_sourced_toml};

use crate::args::{ConfigArgs, Stage};
use crate::commands::{Outcome, print_line};
use crate::recipe;
use crate::session::Session;

pub fn run(session: &Session, args: &ConfigArgs) -> Result<Outcome> {
    let toml = match args.stage {
        Stage::Sft => printed::<SftConfig>(session, args)?,
        Stage::Reward => printed::<RewardConfig>(session, args)?,
        Stage::Dpo => printed::<DpoConfig>(session, args)?,
        Stage::Ppo => printed::<PpoConfig>(session, args)?,
    };
    print_line(toml.trim_end())?;
    Ok(Outcome::Done)
}

/// The settings with a comment for each, and with their sources where the preset names them, after what the preset says
/// about itself: which model it needs, and what of its source Temper does not do.
fn printed<T: Settings>(session: &Session, args: &ConfigArgs) -> Result<String> {
    let (config, auto): (T, _) = session.settings(args.stage, &args.settings)?;
    Ok(match &args.settings.preset {
        None => to_annotated_toml(&config, &auto, &[])?,
        Some(name) => {
            let preset = recipe::stage_settings(name, args.stage)?;
            let header: Vec<&str> = preset.lines().take_while(|line| line.starts_with('#')).collect();
            let gap = if header.is_empty() { "" } else { "\n\n" };
            header.join("\n") + gap + &to_sourced_toml(&config, preset)?
        }
    })
}
