//! `temper report`

use anyhow::Result;

use crate::args::ReportArgs;
use crate::commands::{Outcome, print_line};
use crate::session::Session;

pub fn run(_session: &Session, args: &ReportArgs) -> Result<Outcome> {
    for path in temper_report::draw(&args.run_dir)? {
        print_line(&path.display().to_string())?;
    }
    Ok(Outcome::Done)
}
