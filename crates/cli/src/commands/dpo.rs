//! `temper dpo`

use anyhow::Result;
use temper_dpo::{DpoConfig, DpoFiles};

use crate::args::{ComparisonArgs, Stage};
use crate::commands::Outcome;
use crate::session::Session;

pub fn run(session: &Session, args: &ComparisonArgs) -> Result<Outcome> {
    let (config, auto) = session.settings::<DpoConfig>(Stage::Dpo, &args.settings)?;
    let launch = session.launch(Stage::Dpo, &config.training, &args.run, &args.settings)?.auto(auto);
    let files =
        DpoFiles { model: args.model.clone(), data: args.data.clone(), eval_data: args.eval_data.clone() };
    temper_dpo::run(&config, &files, launch)?;
    Ok(session.outcome())
}
