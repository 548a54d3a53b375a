//! What the user types to look at data files.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use temper_data::ColumnNames;

use super::{LoadArgs, TextArgs};

/// What can be done with data files.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Show the format of data files, what would be left out or cut, and three examples
    #[command(after_help = "Example:\n  temper data inspect --data comparisons.jsonl --model runs/sft/final")]
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Data files of any format, or directories of them
    #[arg(long, required = true, num_args = 1.., value_name = "FILE|DIR")]
    pub data: Vec<PathBuf>,
    /// A model, whose tokens are counted and whose template puts the examples together: its directory, or its name on the
    /// Hugging Face hub
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub load: LoadArgs,
    /// What the rows are read for [default: what they have the columns for]
    #[arg(long = "for", value_enum, value_name = "STAGE")]
    pub purpose: Option<InspectFor>,
    /// Which columns of the rows to read, for example `prompt=question,completion=answer`
    #[arg(long, value_name = "KNOWN=NAME,…")]
    pub columns: Option<ColumnNames>,
    #[command(flatten)]
    pub texts: TextArgs,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// What the rows of a data file can be read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InspectFor {
    /// Demonstrations
    Sft,
    /// Comparisons, for the reward model and DPO
    Reward,
    /// Prompts, for PPO
    Prompts,
}
