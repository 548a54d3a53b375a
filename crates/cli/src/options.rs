//! From flags to the options of the libraries.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use temper_assistant::{LoadOptions, Sampling, ScorerSpec};
use temper_data::{BadRows, ColumnNames, ReadOptions, Selection, Separator};
use temper_eval::JudgeSpec;
use temper_model::max_new_tokens as max_new_tokens_of;

use crate::args::{
    DataArgs, EvalArgs, GenerateArgs, InspectArgs, LoadArgs, RewardSources, SamplingArgs, SelectArgs,
    SelectionArgs, TextArgs, TrainTokenizerArgs,
};
use crate::failure::hinted;

impl SamplingArgs {
    /// How the model in `dir` is sampled, if each number is in its range.
    pub fn of_model(&self, dir: &Path) -> Result<Sampling> {
        let Self { max_new_tokens, temperature, top_p, top_k, greedy } = *self;
        let max_new_tokens = max_new_tokens.or_else(|| max_new_tokens_of(dir));
        let max_new_tokens = max_new_tokens.unwrap_or(Sampling::default().max_new_tokens);
        let sampling = Sampling { max_new_tokens, temperature, top_k, top_p, greedy };
        match sampling.check() {
            Err(temper_assistant::Error::Temperature { temperature }) => Err(hinted(
                format!("`--temperature` must be a number from 0.0001 to 10000, got {temperature}"),
                "`--greedy` takes the most likely token, as a temperature of 0 would",
            )),
            Err(temper_assistant::Error::TopP { top_p }) => {
                bail!("`--top-p` must be between 0 and 1, got {top_p}")
            }
            checked => Ok(checked.map(|()| sampling)?),
        }
    }
}

impl LoadArgs {
    /// How the library reads model directories.
    pub fn options(&self) -> LoadOptions {
        LoadOptions { ignored_fields: self.allow_config.clone(), ..LoadOptions::default() }
    }
}

impl SelectionArgs {
    /// Which rows of the training data are used, for the library.
    pub fn selection(&self) -> Selection {
        let Self { eval_fraction, ref mix, drop_duplicates } = *self;
        Selection { eval_fraction, mix: mix.clone(), drop_duplicates }
    }
}

impl RewardSources {
    /// The sources in addition to the reward model, and all weights, for the library.
    pub fn spec(&self) -> Result<ScorerSpec> {
        Ok(ScorerSpec {
            model_weight: self.reward_weight,
            program: self.reward_program.clone(),
            program_weight: self.program_weight,
            endpoint: self.reward_url.clone(),
            endpoint_weight: self.url_weight,
            time_limit: time_limit("--reward-seconds", self.reward_seconds)?,
            ..ScorerSpec::default()
        })
    }
}

impl EvalArgs {
    /// The judge, if policies are to be judged.
    pub fn judge(&self) -> Result<Option<JudgeSpec>> {
        Ok(match (&self.judge_program, &self.judge) {
            (Some(command), _) => {
                let time_limit = time_limit("--judge-seconds", self.judge_seconds)?;
                Some(JudgeSpec::Program { command: command.clone(), time_limit })
            }
            (None, Some(name)) => Some(JudgeSpec::named(name)?),
            (None, None) => None,
        })
    }
}

impl DataArgs {
    /// How the data files are read.
    pub fn read(&self) -> ReadOptions {
        read_options(self.columns.as_ref(), self.skip_bad_rows)
    }
}

impl GenerateArgs {
    /// How the data files are read.
    pub fn read(&self) -> ReadOptions {
        read_options(self.columns.as_ref(), self.skip_bad_rows)
    }
}

impl EvalArgs {
    /// How the data files are read.
    pub fn read(&self) -> ReadOptions {
        let options = read_options(self.columns.as_ref(), self.skip_bad_rows);
        ReadOptions { separator: self.texts.separator(), ..options }
    }
}

impl SelectArgs {
    /// How the prompts are read.
    pub fn read(&self) -> ReadOptions {
        read_options(self.columns.as_ref(), self.skip_bad_rows)
    }
}

impl InspectArgs {
    /// How the data files are read. Bad rows are counted.
    pub fn read(&self) -> ReadOptions {
        ReadOptions { separator: self.texts.separator(), ..read_options(self.columns.as_ref(), true) }
    }
}

impl TrainTokenizerArgs {
    /// How the data files are read.
    pub fn read(&self) -> ReadOptions {
        let options = read_options(self.columns.as_ref(), self.skip_bad_rows);
        ReadOptions { separator: self.texts.separator(), ..options }
    }
}

impl TextArgs {
    /// What separates the documents of a plain text.
    pub fn separator(&self) -> Separator {
        self.separator.clone().unwrap_or_default()
    }
}

fn read_options(columns: Option<&ColumnNames>, skip_bad_rows: bool) -> ReadOptions {
    let bad_rows = if skip_bad_rows { BadRows::Skip } else { BadRows::Refuse };
    ReadOptions { bad_rows, columns: columns.cloned().unwrap_or_default(), ..ReadOptions::default() }
}

/// The time limit that a flag gives.
fn time_limit(flag: &str, seconds: f64) -> Result<Duration> {
    if seconds > 0.0 && seconds < 1e9 {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(hinted(format!("`{flag} {seconds}` is not a time limit"), "for example `60`"))
}
