//! `temper config`

use anyhow::Result;
use temper_dpo::DpoConfig;
use temper_ppo::PpoConfig;
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_train::to_commented_toml;

use crate::args::{ConfigArgs, Stage};
use crate::commands::{Outcome, print_line};
use crate::session::Session;

pub fn run(session: &Session, args: &ConfigArgs) -> Result<Outcome> {
    let toml = match args.stage {
        Stage::Sft => {
            let config: SftConfig = session.settings(args.stage, &args.settings)?;
            config.validate()?;
            to_commented_toml(&config)?
        }
        Stage::Reward => {
            let config: RewardConfig = session.settings(args.stage, &args.settings)?;
            config.validate()?;
            to_commented_toml(&config)?
        }
        Stage::Dpo => {
            let config: DpoConfig = session.settings(args.stage, &args.settings)?;
            config.validate()?;
            to_commented_toml(&config)?
        }
        Stage::Ppo => {
            let config: PpoConfig = session.settings(args.stage, &args.settings)?;
            config.validate()?;
            to_commented_toml(&config)?
        }
    };
    print_line(toml.trim_end())?;
    Ok(Outcome::Done)
}
