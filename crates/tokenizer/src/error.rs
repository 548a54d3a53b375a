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
    /// The byte tokenizer has a template of its own.
    #[error("a chat template needs the tokenizer that it was written for, not the byte tokenizer")]
    ChatNeedsTokenizer,
    /// A `template.json` names a chat template that is not there.
    #[error("`{path}` names a chat template, and the directory has none")]
    NoChatTemplate {
        /// The `template.json`.
        path: PathBuf,
    },
    /// A template of pieces knows only system, user and assistant.
    #[error("a message has the role `{role}`, which only a chat template can render")]
    Role {
        /// The role.
        role: String,
    },
    /// A template of pieces has no place for what a message says besides text.
    #[error(
        "a message of the role `{role}` has no text, such as one that calls a tool, which only a chat template can render"
    )]
    NoContent {
        /// The role.
        role: String,
    },
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
    /// A chat template cannot be parsed, or fails on a conversation.
    #[error("the chat template{place} fails: {reason}")]
    ChatTemplate {
        /// Empty, or a space and the file.
        place: String,
        /// What the template engine said, with the line of the template.
        reason: String,
    },
    /// The source of a chat template is too large to be one.
    #[error("the chat template{place} has {len} bytes, the limit is {max}")]
    ChatTemplateTooLarge {
        /// Empty, or a space and the file.
        place: String,
        /// Its size, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// A chat template works or writes far more than a conversation needs.
    #[error(
        "the chat template{place} does not come to an end: it works or writes too much for this conversation"
    )]
    ChatTemplateEndless {
        /// Empty, or a space and the file.
        place: String,
    },
    /// A chat template called `raise_exception`.
    #[error("the chat template{place} refuses the conversation: {message}")]
    ConversationRefused {
        /// Empty, or a space and the file.
        place: String,
        /// The template's own message.
        message: String,
    },
    /// No message of the assistant, so nothing to learn.
    #[error("the conversation has no message with the role `assistant`, so it has nothing to learn")]
    NoAssistantTurn,
    /// A prompt without messages, or one that was answered.
    #[error("a prompt must end with a message that the assistant can answer, but it {reason}")]
    NotAPrompt {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The rendered text does not show which part of it the assistant wrote.
    #[error("the template does not show what the assistant says{}: {reason}", in_message(*turn))]
    DoubtfulTurn {
        /// The message of the assistant, from 1; `None` for the whole conversation.
        turn: Option<usize>,
        /// Why it is not clear, and perhaps what helps.
        reason: String,
    },
    /// The conversation has every character that could mark a place in it.
    #[error("the conversation has every private character of Unicode, so none is left to mark its turns")]
    NoUnusedCharacter,
    /// The tokenizer cannot encode a rendered conversation.
    #[error("the tokenizer cannot encode the conversation: {reason}")]
    CannotEncode {
        /// What the `tokenizers` crate said.
        reason: String,
    },
    /// A vocabulary has no room for every byte and every special token.
    #[error(
        "a vocabulary of {vocab_size} tokens is too small: every byte and every special token make {least}"
    )]
    VocabularyTooSmall {
        /// The size that was asked for.
        vocab_size: usize,
        /// The smallest size.
        least: usize,
    },
    /// A tokenizer is to be trained on nothing.
    #[error("no text to train a tokenizer on")]
    NoTrainingText,
    /// A text is not a date.
    #[error("a date is written as YYYY-MM-DD, got `{text}`")]
    BadDate {
        /// The text.
        text: String,
    },
}

fn in_message(turn: Option<usize>) -> String {
    turn.map(|number| format!(" in message {number}")).unwrap_or_default()
}

impl Error {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}
