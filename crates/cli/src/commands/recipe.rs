//! `temper recipe`

use anyhow::Result;

use crate::args::RecipeArgs;
use crate::commands::Outcome;
use crate::session::Session;

pub fn run(session: &Session, args: &RecipeArgs) -> Result<Outcome> {
    args.recipe.write_data(&args.out, session.seed.unwrap_or(0))?;
    session.note(&format!("wrote the data of `{}` into {}", args.recipe.name(), args.out.display()));
    Ok(Outcome::Done)
}
