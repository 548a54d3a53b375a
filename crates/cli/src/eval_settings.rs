//! Which rows take part in `temper eval`: as in the run that the model belongs to.

use std::fs;
use std::path::Path;

use anyhow::Result;
use temper_tokenizer::Overflow;
use temper_train::{resolve, resolve_known, settings};

use crate::args::EvalArgs;
use crate::session::Session;

settings! {
    /// What decides which rows take part in an evaluation, and what happens to rows that are too long.
    pub struct EvalSettings {
        /// Longest row in tokens; 0: the model's context.
        pub max_seq_len: usize = 0, in ZeroOr(2..),
        /// What happens to a longer row: drop | truncate_prompt.
        pub overflow: Overflow = Overflow::Drop,
    }
}

impl EvalSettings {
    /// The settings of the run that the model belongs to, so that its evaluation is repeated. Those of `--set` come on top.
    pub fn of(session: &Session, args: &EvalArgs) -> Result<Self> {
        let of_run = of_run(&args.model)?;
        let settings: Self = resolve(of_run.as_deref(), None, &args.sets)?;
        settings.validate()?;
        if of_run.is_some() && settings != Self::default() {
            let said = toml::to_string(&settings)?.trim_end().replace('\n', ", ");
            let from =
                if args.sets.is_empty() { "as in the run of this model" } else { "in this evaluation" };
            session.note(&format!("note: {from}: {said}"));
        }
        Ok(settings)
    }
}

/// The settings of [`EvalSettings`] as TOML, if the model is in the directory of a run.
fn of_run(model: &Path) -> Result<Option<String>> {
    // A link or `.` has parents of its own; what is not there is reported when the model is loaded.
    let Ok(model) = fs::canonicalize(model) else { return Ok(None) };
    let is_run = |dir: &&Path| dir.join("config.toml").is_file() && dir.join("metrics.jsonl").is_file();
    // RUN/final and RUN/checkpoints/step-000123.
    let Some(run) = model.ancestors().skip(1).take(2).find(is_run) else { return Ok(None) };
    let path = run.join("config.toml");
    Ok(Some(toml::to_string(&resolve_known::<EvalSettings>(&path)?)?))
}
