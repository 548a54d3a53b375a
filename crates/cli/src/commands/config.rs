//! `temper config`

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use temper_dpo::DpoConfig;
use temper_ppo::PpoConfig;
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_train::{Documented, Error, to_commented_toml, to_sourced_toml};

use crate::args::{ConfigArgs, Stage};
use crate::commands::{Outcome, print_line};
use crate::session::Session;
use crate::{device, recipe};

pub fn run(session: &Session, args: &ConfigArgs) -> Result<Outcome> {
    let toml = match args.stage {
        Stage::Sft => printed(session, args, SftConfig::validate, |c| &c.training.device)?,
        Stage::Reward => printed(session, args, RewardConfig::validate, |c| &c.training.device)?,
        Stage::Dpo => printed(session, args, DpoConfig::validate, |c| &c.training.device)?,
        Stage::Ppo => printed(session, args, PpoConfig::validate, |c| &c.device)?,
    };
    print_line(toml.trim_end())?;
    Ok(Outcome::Done)
}

/// The settings with a comment for each, and with their sources where the preset names them.
fn printed<T>(
    session: &Session,
    args: &ConfigArgs,
    validate: impl Fn(&T) -> Result<(), Error>,
    device_name: impl Fn(&T) -> &str,
) -> Result<String>
where
    T: Serialize + DeserializeOwned + Default + Documented,
{
    let config: T = session.settings(args.stage, &args.settings)?;
    validate(&config)?;
    device::check_name(device_name(&config))?;
    Ok(match &args.settings.preset {
        None => to_commented_toml(&config)?,
        Some(name) => to_sourced_toml(&config, recipe::stage_settings(name, args.stage)?)?,
    })
}
