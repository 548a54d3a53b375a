//! `temper report`

use anyhow::Result;

use crate::args::ReportArgs;
use crate::commands::{Outcome, print_line};
use crate::session::Session;

pub fn run(_session: &Session, args: &ReportArgs) -> Result<Outcome> {
    let written = match (&args.run_dir, &args.out) {
        (Some(dir), _) => temper_report::draw(dir)?,
        (None, Some(out)) => temper_report::compare(&args.compare, args.points.as_deref(), out)?,
        (None, None) => unreachable!("without a directory there are `--compare` and `--out`"),
    };
    for path in written {
        print_line(&path.display().to_string())?;
    }
    Ok(Outcome::Done)
}
