//! `temper sft`

use anyhow::Result;
use temper_sft::{SftConfig, SftFiles};

use crate::args::{SftArgs, Stage};
use crate::commands::Outcome;
use crate::session::Session;

pub fn run(session: &Session, args: &SftArgs) -> Result<Outcome> {
    let (config, auto) = session.settings::<SftConfig>(Stage::Sft, &args.settings)?;
    let launch = session.launch(Stage::Sft, &config.training, &args.run, &args.settings)?.auto(auto);
    let files =
        SftFiles { model: args.model.clone(), data: args.data.clone(), eval_data: args.eval_data.clone() };
    temper_sft::run(&config, &files, launch)?;
    Ok(session.outcome())
}
