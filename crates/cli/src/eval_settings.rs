//! Which rows take part in `temper eval`: as in the run that the model belongs to.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use temper_tokenizer::Overflow;
use temper_train::{Documented, resolve};

use crate::args::EvalArgs;
use crate::session::Session;

/// What decides which rows take part in an evaluation, and what becomes of rows that are too long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvalSettings {
    /// Longest row in tokens; 0 for the model's context.
    pub max_seq_len: usize,
    /// What happens to longer rows.
    pub overflow: Overflow,
}

impl Documented for EvalSettings {
    fn docs() -> Vec<(&'static str, &'static str)> {
        vec![
            ("max_seq_len", "longest row in tokens; 0: the model's context"),
            ("overflow", "what happens to longer ones: drop | truncate_prompt"),
        ]
    }
}

impl EvalSettings {
    /// The settings of the run that the model belongs to, so that its evaluation is repeated. Those of `--set` come on top.
    pub fn of(session: &Session, args: &EvalArgs) -> Result<Self> {
        let of_run = of_run(&args.model)?;
        if let Some(of_run) = of_run.as_deref().filter(|_| args.sets.is_empty()) {
            let settings: Self = resolve(Some(of_run), None, &[])?;
            if settings != Self::default() {
                let settings = of_run.trim_end().replace('\n', ", ");
                session.note(&format!("note: as in the run of this model: {settings}"));
            }
        }
        Ok(resolve(of_run.as_deref(), None, &args.sets)?)
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
    let settings = fs::read_to_string(&path)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(toml::from_str::<EvalSettings>(&text)?))
        .and_then(|settings| Ok(toml::to_string(&settings)?));
    settings.map(Some).with_context(|| format!("cannot read the settings of {}", path.display()))
}
