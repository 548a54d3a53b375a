//! What can be wrong with a tokenizer or a template.

use std::{io, path::Path, path::PathBuf};

/// Everything this crate can refuse, each with the path or the key that is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no `tokenizer.json` where one is needed.
    #[error("no tokenizer at `{path}`: a model directory needs a `tokenizer.json`")]
    NoTokenizer {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// A file exists but cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write `{path}`: {source}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not JSON, or not the JSON that belongs there; the source has line and column.
    #[error("`{path}` is not valid: {source}")]
    BadJson {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// The `tokenizers` crate does not take this `tokenizer.json`.
    #[error("`{path}` is not a tokenizer: {reason}")]
    BadTokenizer {
        /// The file.
        path: PathBuf,
        /// What the `tokenizers` crate said.
        reason: String,
    },
    /// No end token is named anywhere, so no completion could ever end.
    #[error(
        "`{path}` has no end token: set `eos_token_id` in `config.json` or `eos_token` in `tokenizer_config.json`"
    )]
    NoEos {
        /// The `tokenizer.json`.
        path: PathBuf,
    },
    /// No built-in template has this name.
    #[error("`template` must be one of {}, got `{name}`", .known.join(", "))]
    UnknownTemplate {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// A template does not hold its prompt or its completion exactly once.
    #[error("template `{template}`: `{part}` needs exactly one `<{part}>` and no `<{other}>`")]
    BadTemplate {
        /// The template's name.
        template: String,
        /// The list that is wrong: `prompt` or `completion`.
        part: &'static str,
        /// The piece that does not belong there.
        other: &'static str,
    },
    /// A template needs a special token that the tokenizer does not have.
    #[error("template `{template}` needs a `{token}` token, and this tokenizer has none")]
    MissingSpecial {
        /// The template's name.
        template: String,
        /// The piece, as `template.json` writes it.
        token: &'static str,
    },
    /// A template of pieces knows only system, user and assistant.
    #[error("a message has the role `{role}`, which only a chat template can render")]
    Role {
        /// The role.
        role: String,
    },
    /// A prompt has nothing to answer.
    #[error("a prompt must end with a message of the user")]
    NothingAsked,
    /// A conversation has nothing to learn.
    #[error("the conversation has no message of the assistant to learn")]
    NoAnswer,
    /// Even with its text cut to one token, the prompt is too long.
    #[error("a prompt needs at least {needed} tokens in template `{template}`, but only {max_len} fit")]
    PromptTooLong {
        /// The template's name.
        template: String,
        /// The template's own tokens, plus one of the prompt's text.
        needed: usize,
        /// The limit.
        max_len: usize,
    },
}

impl Error {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}
