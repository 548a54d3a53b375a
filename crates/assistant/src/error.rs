//! What can be wrong with a model directory, a prompt, an answer or a score.

use std::path::PathBuf;

/// Everything this crate can refuse. Each variant names the directory, the row or the number that is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be loaded, saved or run.
    #[error(transparent)]
    Model(temper_model::Error),
    /// A `config.json` does not describe a usable model.
    #[error("{}: {source}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Which field is wrong, and why.
        source: temper_model::Error,
    },
    /// The tokenizer or the template cannot be loaded or saved.
    #[error(transparent)]
    Tokenizer(#[from] temper_tokenizer::Error),
    /// A program or an endpoint does not score.
    #[error(transparent)]
    Scorer(#[from] temper_scorer::Error),
    /// The tokenizer has more tokens than the model has embedding rows.
    #[error("{}: the tokenizer has {n_tokens} tokens, the model {n_rows}", dir.display())]
    Vocabulary {
        /// The model directory.
        dir: PathBuf,
        /// Tokens of the tokenizer.
        n_tokens: usize,
        /// Embedding rows of the model.
        n_rows: usize,
    },
    /// A model to start from is neither a directory nor a preset.
    #[error("`{spec}` is neither a model directory nor a preset")]
    UnknownModel {
        /// What was asked for.
        spec: String,
    },
    /// A preset has a vocabulary that no built-in tokenizer fits.
    #[error("the preset `{preset}` has no tokenizer of its own")]
    PresetWithoutTokenizer {
        /// The preset.
        preset: String,
    },
    /// Rows are to be longer than the model's context.
    #[error("`max_seq_len` is {setting}, the model's context has {context} tokens")]
    MaxSeqLen {
        /// The length that was asked for, in tokens.
        setting: usize,
        /// The model's context, in tokens.
        context: usize,
    },
    /// A model cannot answer a prompt.
    #[error("prompt {}: {source} ({})", index + 1, dir.display())]
    Prompt {
        /// Which prompt, from 0.
        index: usize,
        /// The directory of the model.
        dir: PathBuf,
        /// What is wrong with it.
        source: PromptFault,
    },
    /// The sampling temperature is outside of the range in which logits stay numbers that differ.
    #[error("the temperature is {temperature}, it must be a number from 0.0001 to 10000")]
    Temperature {
        /// What was asked for.
        temperature: f64,
    },
    /// The probability mass of nucleus sampling is not a probability.
    #[error("top_p is {top_p}, it must be between 0 and 1")]
    TopP {
        /// What was asked for.
        top_p: f64,
    },
    /// The keys and values of a batch would need more memory than any machine has.
    #[error("{n_prompts} answers of up to {max_new_tokens} tokens at once would need {gib} GiB of memory")]
    Memory {
        /// Prompts that are answered together.
        n_prompts: usize,
        /// Longest answer, in tokens.
        max_new_tokens: usize,
        /// Memory, in GiB.
        gib: u64,
    },
    /// The weights of a policy are finite and its logits are not.
    #[error("{} gives logits that are not finite numbers", dir.display())]
    NonFiniteLogits {
        /// The directory of the policy.
        dir: PathBuf,
    },
    /// The weights of a reward model are finite and a score is not.
    #[error("{} scores the answer to prompt {} as {score}", dir.display(), index + 1)]
    NonFiniteScore {
        /// The directory of the reward model.
        dir: PathBuf,
        /// Which prompt, from 0.
        index: usize,
        /// The score.
        score: f32,
    },
    /// A model that scores ids, which cannot be cut, has too short a context.
    #[error("a prompt and its answer may have {needed} tokens, the context of {} has {context}", dir.display())]
    NoRoom {
        /// The directory of the model that scores.
        dir: PathBuf,
        /// The most tokens of a prompt with its answer.
        needed: usize,
        /// The model's context, in tokens.
        context: usize,
    },
    /// The template alone fills the context of a model that scores text.
    #[error("no answer fits into the {context} tokens of {}", dir.display())]
    TemplateTooLong {
        /// The directory of the model.
        dir: PathBuf,
        /// The model's context, in tokens.
        context: usize,
    },
    /// The template cannot put a prompt and its answer together.
    #[error("{}: {source}", dir.display())]
    Template {
        /// The directory of the model.
        dir: PathBuf,
        /// What the template says.
        source: temper_tokenizer::Error,
    },
    /// Nothing of a prompt and its answer has a token.
    #[error("the tokenizer of {} has no token for a prompt and its answer", dir.display())]
    NoTokens {
        /// The directory of the model.
        dir: PathBuf,
    },
    /// The weight of a source of scores is not a number.
    #[error("the weight {weight} is not a finite number")]
    Weight {
        /// The weight.
        weight: f32,
    },
}

/// Why a model cannot answer a prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptFault {
    /// The template cannot put it together.
    #[error(transparent)]
    Template(#[from] temper_tokenizer::Error),
    /// The prompt has no token, and the template adds none.
    #[error("the prompt is empty")]
    Empty,
    /// The prompt fills the context.
    #[error("the prompt has {n_tokens} tokens, which leaves no room for an answer in a context of {context}")]
    TooLong {
        /// Tokens of the prompt with its template.
        n_tokens: usize,
        /// The model's context, in tokens.
        context: usize,
    },
}

/// Why a model cannot read a prompt with its completion.
#[derive(Debug, thiserror::Error)]
pub enum RowFault {
    /// The template cannot put it together.
    #[error(transparent)]
    Template(#[from] temper_tokenizer::Error),
    /// The row is longer than the context.
    #[error("{n_tokens} tokens, longer than the model's context of {context} tokens")]
    TooLong {
        /// Tokens of the prompt with its completion.
        n_tokens: usize,
        /// The model's context, in tokens.
        context: usize,
    },
    /// A language model would have to predict the first token of a row from nothing.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// A reward model would have no token to read the score at.
    #[error("the tokenizer has no token for this row")]
    NoTokens,
}
