//! What can go wrong with a scorer.

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
    /// A line is not a score.
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
    /// The user has asked to stop before all scores were there.
    #[error("`{scorer}` was interrupted while it was scoring")]
    Interrupted {
        /// The command or the address.
        scorer: String,
    },
    /// The system has no thread for the work.
    #[error("cannot start a thread for `{scorer}`: {source}")]
    Thread {
        /// The command or the address.
        scorer: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not an address, or one of another kind.
    #[error("`{url}` is not an http or https address")]
    BadUrl {
        /// As it was given, without a password.
        url: String,
    },
    /// The address has a port that no server can have.
    #[error("`{url}`: the port {port} is not between 1 and 65535")]
    BadPort {
        /// As it was given, without a password.
        url: String,
        /// What should be its port.
        port: String,
    },
    /// No answer came, or a server's own trouble, in every try.
    #[error("{url} cannot be reached in {}: {problem}", tries(*n_tries))]
    Unreachable {
        /// As it was given, without a password.
        url: String,
        /// How often it was tried.
        n_tries: u32,
        /// What the last try said.
        problem: String,
    },
    /// The time limit was over before an answer came.
    #[error("{url} gave no scores within {seconds} s ({}): {problem}", tries(*n_tries))]
    NoAnswer {
        /// As it was given, without a password.
        url: String,
        /// The limit.
        seconds: f64,
        /// How often it was tried.
        n_tries: u32,
        /// What the last try said.
        problem: String,
    },
    /// The server sends to another address; nobody follows there.
    #[error("{url} redirects (status {status}) to {target}")]
    Redirects {
        /// As it was given, without a password.
        url: String,
        /// HTTP status.
        status: u16,
        /// Where to, quoted, without a password.
        target: String,
    },
    /// What came back is not the answer of a working HTTP server.
    #[error("{url} gave a response that cannot be used: {problem}")]
    BadResponse {
        /// As it was given, without a password.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The server does not want such requests.
    #[error("{url} refused (status {status}): {body}")]
    Refused {
        /// As it was given, without a password.
        url: String,
        /// HTTP status.
        status: u16,
        /// The beginning of what it said, quoted.
        body: String,
    },
    /// What came back are no scores.
    #[error("{url} answered {body}, which is {problem}")]
    BadBody {
        /// As it was given, without a password.
        url: String,
        /// The beginning, quoted.
        body: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn tries(n: u32) -> String {
    if n == 1 { "1 try".to_owned() } else { format!("{n} tries") }
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
