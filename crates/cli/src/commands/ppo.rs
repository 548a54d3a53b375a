//! `temper ppo`

use anyhow::Result;
use temper_ppo::{PpoConfig, PpoFiles};

use crate::args::{PpoArgs, Stage};
use crate::commands::Outcome;
use crate::session::Session;

pub fn run(session: &Session, args: &PpoArgs) -> Result<Outcome> {
    let (config, auto) = session.settings::<PpoConfig>(Stage::Ppo, &args.settings)?;
    let launch = session.launch(Stage::Ppo, &config.training, &args.run, &args.settings)?.auto(auto);
    let files = PpoFiles {
        policy: args.policy.clone(),
        reward: args.rewards.reward.clone(),
        scorer: args.rewards.spec()?,
        prompts: args.prompts.clone(),
        eval_data: args.eval_data.clone(),
        ptx_data: args.ptx_data.clone(),
        gold: args.gold.clone(),
    };
    temper_ppo::run(&config, &files, launch)?;
    Ok(session.outcome())
}
