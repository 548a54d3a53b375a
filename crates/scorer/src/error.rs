//! What can go wrong with a scoring program.

use std::process::ExitStatus;

/// Characters of a bad answer that are shown.
pub(crate) const SHOWN: usize = 80;

/// Errors of a scorer; each names its command or address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command is empty, or has a quotation mark that is not closed.
    #[error("`{command}` is not a command")]
    BadCommand {
        /// As it was given.
        command: String,
    },
    /// The program could not be started.
    #[error("cannot start `{command}`: {source}")]
    Start {
        /// As it was given.
        command: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program ended before it had answered.
    #[error("`{command}` ended ({status}) after {n_answered} of {n_asked} scores")]
    Died {
        /// As it was given.
        command: String,
        /// How it ended.
        status: Status,
        /// Scores of this call that had come.
        n_answered: usize,
        /// Answers that were to be scored.
        n_asked: usize,
    },
    /// The program was silent for too long.
    #[error("`{command}` gave {n_answered} of {n_asked} scores within {seconds} s")]
    TimeLimit {
        /// As it was given.
        command: String,
        /// Scores of this call that had come.
        n_answered: usize,
        /// Answers that were to be scored.
        n_asked: usize,
        /// The limit.
        seconds: f64,
    },
    /// A line is no score.
    #[error("`{command}` answered {line}, which is {problem}")]
    BadLine {
        /// As it was given.
        command: String,
        /// The beginning of the line, quoted.
        line: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The program wrote more lines than it was asked for.
    #[error("`{command}` wrote {line} without being asked")]
    Unasked {
        /// As it was given.
        command: String,
        /// The beginning of the line, quoted.
        line: String,
    },
    /// The address is none, or of another kind.
    #[error("`{url}` is no http or https address")]
    BadUrl {
        /// As it was given.
        url: String,
    },
    /// No answer came, or a server's own trouble, in every try.
    #[error("{url} cannot be reached in {n_tries} tries: {problem}")]
    Unreachable {
        /// As it was given.
        url: String,
        /// How often it was tried.
        n_tries: u32,
        /// What the last try said.
        problem: String,
    },
    /// The server does not want such requests.
    #[error("{url} refused (status {status}): {body}")]
    Refused {
        /// As it was given.
        url: String,
        /// HTTP status.
        status: u16,
        /// The beginning of what it said, quoted.
        body: String,
    },
    /// What came back are no scores.
    #[error("{url} answered {body}, which is {problem}")]
    BadBody {
        /// As it was given.
        url: String,
        /// The beginning, quoted.
        body: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// How a program ended, as far as that is known.
#[derive(Debug)]
pub struct Status(pub(crate) Option<ExitStatus>);

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(status) => status.fmt(f),
            None => f.write_str("it closed its output"),
        }
    }
}
