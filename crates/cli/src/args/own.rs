//! Arguments of what makes a tokenizer and a model of one's own, of adapters, and of plain text.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use temper_data::{ColumnNames, Separator};

use super::LoadArgs;

/// What can be done with tokenizers.
#[derive(Debug, Subcommand)]
pub enum TokenizerCommand {
    /// Learn a byte-level BPE tokenizer, with special tokens and a chat template, from all text of data files
    #[command(
        after_help = "Example:\n  temper tokenizer train --data stories.txt chats.jsonl --vocab-size 4096 --out my-tokenizer"
    )]
    Train(TrainTokenizerArgs),
}

#[derive(Debug, Args)]
pub struct TrainTokenizerArgs {
    /// Data files of any format, or directories of them
    #[arg(long, required = true, num_args = 1.., value_name = "FILE|DIR")]
    pub data: Vec<PathBuf>,
    /// Tokens, the 256 bytes and the special tokens among them
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub vocab_size: usize,
    /// Directory for the tokenizer
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Which columns of the rows to read, for example `text=body`
    #[arg(long, value_name = "KNOWN=NAME,…")]
    pub columns: Option<ColumnNames>,
    /// Leave out rows that cannot be read
    #[arg(long)]
    pub skip_bad_rows: bool,
    #[command(flatten)]
    pub texts: TextArgs,
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// A directory with a tokenizer, for example one of `temper tokenizer train`; or a model of the Hugging Face hub
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub tokenizer: PathBuf,
    /// The preset whose shape it has: tiny, small, medium, gpt2-tiny or gpt2-small
    #[arg(long, value_name = "PRESET")]
    pub shape: String,
    /// What of the shape is different, for example `--set d_model=192 n_layers=8 max_seq_len=512`: vocab_size,
    /// max_seq_len, d_model, n_layers, n_heads, n_kv_heads, d_ff, dropout, attention_dropout or tie_head
    #[arg(long = "set", value_name = "KEY=VALUE", num_args = 1..)]
    pub sets: Vec<String>,
    /// The architecture, as transformers names it [default: that of the preset]
    #[arg(long, value_enum)]
    pub family: Option<ModelFamily>,
    /// Directory for the model
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// The architecture of a fresh model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModelFamily {
    /// Learned positions and layer norms
    Gpt2,
    /// Rotary positions, SwiGLU and RMS norms
    Llama,
}

/// How plain text is read.
#[derive(Clone, Debug, Default, Args)]
pub struct TextArgs {
    /// What separates the documents of a .txt file: `blank-lines`, `lines`, `file` for nothing, or a mark
    /// [default: <|endoftext|>]
    #[arg(long, value_name = "NAME|MARK", allow_hyphen_values = true)]
    pub separator: Option<Separator>,
}

#[derive(Debug, Args)]
pub struct MergeArgs {
    /// The directory of an adapter, by PEFT or by a checkpoint of Temper
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The model that it adapts [default: what its adapter_config.json names]
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]")]
    pub base: Option<PathBuf>,
    /// Directory for the model
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub load: LoadArgs,
}
