//! What the user types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use temper_data::{ColumnNames, FileWeight};
use temper_train::MemoryLimit;

use crate::recipe::Recipe;

mod data;
mod own;

pub use data::{DataCommand, InspectArgs, InspectFor};
pub use own::{InitArgs, MergeArgs, ModelFamily, TextArgs, TokenizerCommand, TrainTokenizerArgs};

/// InstructGPT in Rust: supervised fine-tuning, a reward model, and PPO.
#[derive(Debug, Parser)]
#[command(name = "temper", version, about, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub common: Common,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Where to compute: `auto`, or a backend that `temper devices` lists; `:N` picks a card
    #[arg(long, global = true, value_name = "NAME")]
    pub device: Option<String>,
    /// Everything random comes from it
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    /// No progress on standard error
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More on standard error
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Stage 1: fine-tune a model on demonstrations
    #[command(
        after_help = "Example:\n  temper sft --data demonstrations.jsonl --model small --out runs/sft --set epochs=3"
    )]
    Sft(SftArgs),
    /// Stage 2: learn a reward model from comparisons
    #[command(
        after_help = "Example:\n  temper reward --data comparisons.jsonl --model runs/sft/final --out runs/reward"
    )]
    Reward(RewardArgs),
    /// Instead of stages 2 and 3: direct preference optimisation (DPO) on comparisons
    #[command(
        after_help = "Example:\n  temper dpo --data comparisons.jsonl --model runs/sft/final --out runs/dpo --set beta=0.1"
    )]
    Dpo(ComparisonArgs),
    /// Stage 3: PPO against a reward model
    #[command(
        after_help = "Example:\n  temper ppo --policy runs/sft/final --reward runs/reward/final --prompts prompts.jsonl --out runs/ppo"
    )]
    Ppo(PpoArgs),
    /// All three stages and an evaluation, from a recipe
    #[command(after_help = "Example:\n  temper pipeline --recipe courtesy --out runs/courtesy")]
    Pipeline(PipelineArgs),
    /// Complete prompts
    #[command(
        after_help = "Example:\n  temper generate --model runs/ppo/final --prompt 'Capital of Spain?' --greedy"
    )]
    Generate(GenerateArgs),
    /// Talk to a model
    #[command(after_help = "Example:\n  temper chat --model runs/ppo/final")]
    Chat(ChatArgs),
    /// Show the token ids of a dialogue
    #[command(
        after_help = "Example:\n  temper tokenize --prompt 'What is AI?' --completion 'A field.' --json"
    )]
    Tokenize(TokenizeArgs),
    /// Log-probabilities of given completions
    #[command(after_help = "Example:\n  temper logprobs --model runs/sft/final --data demonstrations.jsonl")]
    Logprobs(DataArgs),
    /// Scores of given completions by a reward model
    #[command(after_help = "Example:\n  temper score --model runs/reward/final --data demonstrations.jsonl")]
    Score(DataArgs),
    /// Judge a model: SFT loss, reward accuracy, the mean score of a policy, or the win rate of two
    #[command(
        after_help = "Examples:\n  temper eval --model runs/sft/final --data heldout.jsonl\n  temper eval --model runs/ppo/final --judge runs/reward/final --data prompts.jsonl\n  temper eval --model runs/ppo/final --against runs/sft/final --judge runs/reward/final --data prompts.jsonl"
    )]
    Eval(EvalArgs),
    /// Choose the checkpoint of an SFT run whose answers a reward model likes best
    #[command(
        after_help = "Example:\n  temper select --run runs/sft --reward runs/reward/final --prompts prompts.jsonl"
    )]
    Select(SelectArgs),
    /// Make a tokenizer of your own
    #[command(subcommand)]
    Tokenizer(TokenizerCommand),
    /// Make a model with fresh weights and a tokenizer of your own
    #[command(
        after_help = "Example:\n  temper init --tokenizer my-tokenizer --shape small --set max_seq_len=512 --out my-model"
    )]
    Init(InitArgs),
    /// Fold a low-rank adapter into its base model
    #[command(after_help = "Example:\n  temper merge --model my-adapter --base my-model --out merged")]
    Merge(MergeArgs),
    /// Print the settings of a stage
    #[command(after_help = "Example:\n  temper config ppo --preset instructgpt-1.3b > ppo.toml")]
    Config(ConfigArgs),
    /// Write the data of a recipe
    #[command(after_help = "Example:\n  temper recipe courtesy --out data")]
    Recipe(RecipeArgs),
    /// Draw the report of a run again
    #[command(after_help = "Examples:\n  temper report runs/courtesy\n  \
                             temper report --compare runs/ppo runs/rloo --points best-of-n.json --out frontier.html")]
    Report(ReportArgs),
    /// List the backends compiled in and the hardware that they see
    #[command(after_help = "Examples:\n  temper devices\n  temper devices --check")]
    Devices(DevicesArgs),
    /// Time one piece of work
    #[command(hide = true)]
    Bench(BenchArgs),
    /// Look at data files before training on them
    #[command(subcommand)]
    Data(DataCommand),
}

/// Settings of a stage, from files and flags.
#[derive(Clone, Debug, Default, Args)]
pub struct Settings {
    /// Built-in settings to start from; `temper config STAGE --preset NAME` prints them
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// A TOML file of settings
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting, for example `--set epochs=3` or `--set kl.coef=0.05`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// The most memory that the run may need: microbatches follow from it, unless they are set
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<MemoryLimit>,
}

/// How model directories are read.
#[derive(Clone, Debug, Default, Args)]
pub struct LoadArgs {
    /// Load a model although its config.json has this field, which Temper does not know: the model is then computed
    /// without it
    #[arg(long, value_name = "FIELD")]
    pub allow_config: Vec<String>,
}

/// Where a run goes.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Run directory
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Resume from the last checkpoint in `--out`
    #[arg(long)]
    pub resume: bool,
    /// Which columns of the rows to read, for example `prompt=question,completion=answer`
    #[arg(long, value_name = "KNOWN=NAME,…")]
    pub columns: Option<ColumnNames>,
    /// Leave out rows that cannot be read, and count them
    #[arg(long)]
    pub skip_bad_rows: bool,
    #[command(flatten)]
    pub texts: TextArgs,
    #[command(flatten)]
    pub selection: SelectionArgs,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Which rows of the training data are learned, how often, and which are kept for evaluation.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectionArgs {
    /// Keep this part of the prompts, such as 0.05, for evaluation, chosen by a hash of their texts
    #[arg(long, value_name = "PART", allow_negative_numbers = true, conflicts_with = "eval_data")]
    pub eval_fraction: Option<f64>,
    /// Learn the rows of a file as often as its weight says, such as `chats.jsonl=0.5`; may be repeated. Without this
    /// flag each row is learned once an epoch
    #[arg(long, value_name = "FILE=WEIGHT")]
    pub mix: Vec<FileWeight>,
    /// Leave out rows that are the same as an earlier one
    #[arg(long)]
    pub drop_duplicates: bool,
}

#[derive(Debug, Args)]
pub struct SftArgs {
    /// Demonstrations: JSON lines with `prompt` and `completion`, or a JSON array; `.gz` too. Rows with `text` alone and
    /// .txt files are plain text, which is learned in full; from rows with `chosen` and `rejected` the chosen side is learned
    #[arg(long, required_unless_present = "mix", num_args = 1.., value_name = "FILE")]
    pub data: Vec<PathBuf>,
    /// A model directory; the name of a preset: notebook, tiny, small, medium, gpt2-tiny, gpt2-small; or a model of the
    /// Hugging Face hub
    #[arg(long, value_name = "DIR|PRESET|ORG/NAME[@REVISION]")]
    pub model: String,
    /// Held-out demonstrations
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub eval_data: Vec<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct ComparisonArgs {
    /// Comparisons: `prompt` with `chosen` and `rejected`, or with `completions` and their `scores` or `ranking`; or
    /// hh-rlhf transcripts without `prompt`
    #[arg(long, required_unless_present = "mix", num_args = 1.., value_name = "FILE")]
    pub data: Vec<PathBuf>,
    /// The SFT model: its directory, or its name on the Hugging Face hub
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub model: PathBuf,
    /// Held-out comparisons
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub eval_data: Vec<PathBuf>,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct RewardArgs {
    #[command(flatten)]
    pub comparisons: ComparisonArgs,
    /// Demonstrations that are to score 0 on average in the end; `--set normalize=mean_std` also sets the scale
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub normalize_data: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct PpoArgs {
    /// The SFT model, where policy and reference start: its directory, or its name on the Hugging Face hub
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub policy: PathBuf,
    #[command(flatten)]
    pub rewards: RewardSources,
    /// Prompts: JSON lines with `prompt`
    #[arg(long, required_unless_present = "mix", num_args = 1.., value_name = "FILE")]
    pub prompts: Vec<PathBuf>,
    /// Held-out prompts
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub eval_data: Vec<PathBuf>,
    /// Plain text to learn in addition to the scores (PPO-ptx): JSON lines with `text`
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub ptx_data: Vec<PathBuf>,
    /// A judge whose scores are recorded and never learned from: `courtesy`, or a reward model
    #[arg(long, value_name = "courtesy|DIR|ORG/NAME[@REVISION]")]
    pub gold: Option<String>,
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub settings: Settings,
}

/// What scores an answer: at least one of three, or their weighted sum.
#[derive(Clone, Debug, Args)]
pub struct RewardSources {
    /// The reward model: its directory, or its name on the Hugging Face hub
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]", required_unless_present_any = ["reward_program", "reward_url"])]
    pub reward: Option<PathBuf>,
    /// A program with its arguments: reads an answer per line, as JSON, and writes a number for each
    #[arg(long, value_name = "COMMAND")]
    pub reward_program: Option<String>,
    /// An http or https address that takes answers as JSON and gives `scores`
    #[arg(long, value_name = "URL")]
    pub reward_url: Option<String>,
    /// Weight of the reward model's score
    #[arg(long, value_name = "W", default_value_t = 1.0, allow_negative_numbers = true)]
    pub reward_weight: f32,
    /// Weight of the program's score
    #[arg(long, value_name = "W", default_value_t = 1.0, allow_negative_numbers = true)]
    pub program_weight: f32,
    /// Weight of the endpoint's score
    #[arg(long, value_name = "W", default_value_t = 1.0, allow_negative_numbers = true)]
    pub url_weight: f32,
    /// How long the program or the endpoint may take for one rollout, all tries included
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, allow_negative_numbers = true)]
    pub reward_seconds: f64,
}

impl RewardSources {
    /// A reward model alone.
    pub fn model(dir: PathBuf) -> Self {
        Self {
            reward: Some(dir),
            reward_program: None,
            reward_url: None,
            reward_weight: 1.0,
            program_weight: 1.0,
            url_weight: 1.0,
            reward_seconds: 60.0,
        }
    }
}

#[derive(Debug, Args)]
pub struct PipelineArgs {
    /// What to train on
    #[arg(long, value_enum, default_value = "courtesy")]
    pub recipe: Recipe,
    /// Run directory; an interrupted run in it resumes where it stopped [default: runs/RECIPE]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// One setting of one stage, for example `--set ppo.max_steps=20`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    pub sets: Vec<String>,
}

/// How answers are sampled.
#[derive(Clone, Debug, Args)]
pub struct SamplingArgs {
    /// Longest answer in tokens [default: what the model has learned, as its generation_config.json says; or 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_new_tokens: Option<usize>,
    /// Divides the logits, from 0.0001 to 10000; below 1 is bolder, above 1 more varied
    #[arg(long, default_value_t = 1.0, value_name = "T", allow_negative_numbers = true)]
    pub temperature: f64,
    /// Keep the most probable tokens up to this probability
    #[arg(long, default_value_t = 1.0, value_name = "P", allow_negative_numbers = true)]
    pub top_p: f64,
    /// Keep this many most probable tokens; 0 keeps all
    #[arg(long, default_value_t = 0, value_name = "K", allow_negative_numbers = true)]
    pub top_k: usize,
    /// Always the most probable token
    #[arg(long)]
    pub greedy: bool,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Model directory, or the name of a model on the Hugging Face hub
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub model: PathBuf,
    /// One prompt; without it and without `--data`, one per line of standard input
    #[arg(long, value_name = "TEXT", conflicts_with = "data")]
    pub prompt: Option<String>,
    /// Data files with a `prompt`, or with `messages` that the model continues
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub data: Vec<PathBuf>,
    /// Which columns of the rows to read, for example `prompt=question`
    #[arg(long, value_name = "KNOWN=NAME,…", requires = "data")]
    pub columns: Option<ColumnNames>,
    /// Leave out rows that cannot be read or answered, and count them
    #[arg(long, requires = "data")]
    pub skip_bad_rows: bool,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// JSON lines with tokens and log-probabilities
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Model directory, or the name of a model on the Hugging Face hub
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub model: PathBuf,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// The prompt
    #[arg(long, default_value = "", value_name = "TEXT", required_unless_present = "messages")]
    pub prompt: String,
    /// The completion
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub completion: String,
    /// A conversation as JSON, `[{"role": "user", "content": "Hi"}, …]`: prints its text and the ids of the text, with a
    /// label for each id: the id itself where it is learned, otherwise -100
    #[arg(long, value_name = "JSON", requires = "model", conflicts_with_all = ["prompt", "completion", "max_len"])]
    pub messages: Option<String>,
    /// End where the assistant would begin its answer; nothing is learned of a conversation like that
    #[arg(long, requires = "messages")]
    pub add_generation_prompt: bool,
    /// Take tokenizer and template from this model, and show the labels that are trained. Without it, print the arrays
    /// of the notebook's `encode_dialog`, whose labels its own training uses and Temper's does not
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub model: Option<PathBuf>,
    /// Pad to this length; without `--model`, also cut to it as the notebook does
    #[arg(long, default_value_t = 128, value_name = "N", allow_negative_numbers = true)]
    pub max_len: usize,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DataArgs {
    /// Model directory, or the name of a model on the Hugging Face hub
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub model: PathBuf,
    /// Rows with `prompt` and `completion`; `temper score` reads `ended` too: false for an answer that has no end
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub data: Vec<PathBuf>,
    /// Which columns of the rows to read, for example `prompt=question,completion=answer`
    #[arg(long, value_name = "KNOWN=NAME,…")]
    pub columns: Option<ColumnNames>,
    /// Leave out rows that cannot be read or do not fit, and count them
    #[arg(long)]
    pub skip_bad_rows: bool,
    #[command(flatten)]
    pub load: LoadArgs,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A language model or a reward model: its directory, or its name on the Hugging Face hub
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub model: PathBuf,
    /// Demonstrations, comparisons or prompts, as the model and the flags ask for
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub data: Vec<PathBuf>,
    /// A second policy to win against; a judge without one gives the mean score of `--model`
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]", requires = "who")]
    pub against: Option<PathBuf>,
    /// `courtesy` for that recipe's rule, or a reward model
    #[arg(long, value_name = "courtesy|DIR|ORG/NAME[@REVISION]", group = "who")]
    pub judge: Option<String>,
    /// A program with its arguments as the judge: reads an answer per line, as JSON, and writes a number for each
    #[arg(long, value_name = "COMMAND", group = "who")]
    pub judge_program: Option<String>,
    /// How long the program may take for 64 answers
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, allow_negative_numbers = true)]
    pub judge_seconds: f64,
    #[command(flatten)]
    pub best_of: BestOf,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Save every prompt with its answer, and with the score where there is a judge, as JSON lines in a new file
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// `overflow` or `max_seq_len`, for example `--set overflow=truncate_prompt`; else as in the run that the model is of
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "who")]
    pub sets: Vec<String>,
    /// Which columns of the rows to read, for example `prompt=question,completion=answer`
    #[arg(long, value_name = "KNOWN=NAME,…")]
    pub columns: Option<ColumnNames>,
    /// Leave out rows that cannot be read or do not fit, and count them
    #[arg(long)]
    pub skip_bad_rows: bool,
    #[command(flatten)]
    pub texts: TextArgs,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Several answers to each prompt; a reward model picks one of them.
#[derive(Clone, Debug, Args)]
pub struct BestOf {
    /// Let `--model` give N answers to each prompt, and take the one that `--reward` scores highest
    #[arg(
        long = "best-of",
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..),
        requires_all = ["who", "reward"]
    )]
    pub n: u16,
    /// The reward model that picks
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]", requires = "n")]
    pub reward: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct SelectArgs {
    /// The SFT run: each of its checkpoints and its final model take part
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// The reward model: its directory, or its name on the Hugging Face hub
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub reward: PathBuf,
    /// Held-out prompts: JSON lines with `prompt`
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub prompts: Vec<PathBuf>,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Which columns of the rows to read, for example `prompt=question,completion=answer`
    #[arg(long, value_name = "KNOWN=NAME,…")]
    pub columns: Option<ColumnNames>,
    /// Leave out rows that cannot be read, and count them
    #[arg(long)]
    pub skip_bad_rows: bool,
    #[command(flatten)]
    pub load: LoadArgs,
}

/// What has settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    Sft,
    Reward,
    Dpo,
    Ppo,
}

#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Which stage
    #[arg(value_enum)]
    pub stage: Stage,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Args)]
pub struct RecipeArgs {
    /// Which recipe
    #[arg(value_enum)]
    pub recipe: Recipe,
    /// Directory for the data
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Compute on every device that works what the CPU computes, and fail where a device finds something else
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A pipeline's or a stage's run directory
    #[arg(required_unless_present = "compare")]
    pub run_dir: Option<PathBuf>,
    /// Several runs of PPO in one picture instead: their scores against the KL to the SFT model
    #[arg(long, value_name = "RUN", num_args = 1.., conflicts_with = "run_dir", requires = "out")]
    pub compare: Vec<PathBuf>,
    /// Results without a run for that picture, as JSON: `[{"label": "DPO", "kl": 2.9, "gold": 0.81}, …]`
    #[arg(long, value_name = "FILE", requires = "compare")]
    pub points: Option<PathBuf>,
    /// The page to write, exactly there; the picture alone goes next to it, with `.svg` in place of `.html`
    #[arg(long, value_name = "FILE.html", requires = "compare")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which piece of work
    pub name: String,
    /// Times to repeat it
    #[arg(long, default_value_t = 3)]
    pub repeats: usize,
    /// For `rankings`: an SFT model to start from, instead of training one
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
}
