//! What can go wrong with a model of the hub.

use std::path::PathBuf;

/// Errors of this crate. No message holds a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address of the hub cannot be used.
    #[error("HF_ENDPOINT is `{url}`: {problem}")]
    BadEndpoint {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The token has characters that no token has.
    #[error("the token in {place} is not one line of visible characters")]
    BadToken {
        /// Where it is from.
        place: String,
    },
    /// Neither a home directory nor a variable says where the cache is.
    #[error("the cache of the hub has no place: HF_HOME, XDG_CACHE_HOME and HOME are not set")]
    NoHome,
    /// The hub has no such model.
    #[error("{endpoint} has no model `{repo}`")]
    UnknownRepo {
        /// The hub.
        endpoint: String,
        /// `ORG/NAME`.
        repo: String,
    },
    /// The model has no such branch, tag or commit.
    #[error("the model `{repo}` has no revision `{revision}`")]
    UnknownRevision {
        /// `ORG/NAME`.
        repo: String,
        /// What was asked for.
        revision: String,
    },
    /// The hub does not give the model to this user.
    #[error(
        "{endpoint} does not give `{repo}` to {} (status {status}): it is private or gated, or does not exist",
        if *has_token { "the owner of this token" } else { "someone without a token" }
    )]
    Denied {
        /// The hub.
        endpoint: String,
        /// `ORG/NAME`.
        repo: String,
        /// 401 or 403.
        status: u16,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// The hub cannot be reached.
    #[error("{url} cannot be reached: {problem}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why not.
        problem: String,
    },
    /// The server is silent.
    #[error("{url} did not answer within {seconds} s")]
    TimeLimit {
        /// What was asked for.
        url: String,
        /// The limit.
        seconds: f64,
    },
    /// The server refuses for a reason of its own.
    #[error("{url} answered with status {status}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
    },
    /// The answer is not that of a hub.
    #[error("{url} did not answer as a hub does: {problem}")]
    NotTheHub {
        /// What was asked for.
        url: String,
        /// How the answer differs.
        problem: String,
    },
    /// A redirect that cannot be followed.
    #[error("{url} redirects {problem}")]
    Redirects {
        /// What was asked for.
        url: String,
        /// Where to, or how often.
        problem: String,
    },
    /// A name of the server would lead out of the directory of the model.
    #[error("`{repo}` names {name:?}, which is not the name of a file in its directory")]
    FileName {
        /// `ORG/NAME`.
        repo: String,
        /// What the server sent.
        name: String,
    },
    /// The model has no weights that Temper reads.
    #[error("`{repo}` has no model.safetensors{}", if others.is_empty() { String::new() } else { format!(", only {}", others.join(", ")) })]
    NoSafetensors {
        /// `ORG/NAME`.
        repo: String,
        /// Files with weights of other kinds.
        others: Vec<String>,
    },
    /// A file that every model needs is missing on the hub.
    #[error("`{repo}` has no {file}")]
    NoFile {
        /// `ORG/NAME`.
        repo: String,
        /// The file.
        file: String,
    },
    /// A download ended early. What came is kept.
    #[error("the download of {file} from `{repo}` ended after {n_bytes} bytes{}: {problem}", match expected { Some(n) => format!(" of {n}"), None => String::new() })]
    Truncated {
        /// `ORG/NAME`.
        repo: String,
        /// The file.
        file: String,
        /// Bytes that are there.
        n_bytes: u64,
        /// Bytes that the file has.
        expected: Option<u64>,
        /// What ended it.
        problem: String,
    },
    /// The bytes of a download are not those of the file. They are removed.
    #[error("the download of {file} from `{repo}` is damaged: {problem}")]
    Damaged {
        /// `ORG/NAME`.
        repo: String,
        /// The file.
        file: String,
        /// What differs.
        problem: String,
    },
    /// The hub must not be asked, and the cache does not have the model.
    #[error("{} does not have {} of `{spec}`, and the hub must not be asked for it (HF_HUB_OFFLINE)", cache.display(), missing.as_deref().unwrap_or("any revision"))]
    NotInCache {
        /// The directory of the cache.
        cache: PathBuf,
        /// `ORG/NAME[@REVISION]`.
        spec: String,
        /// The file; `None` if nothing is there.
        missing: Option<String>,
    },
    /// The cache cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No thread for a request.
    #[error("no thread can be started: {source}")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
    /// The user does not want to wait any more. What came is kept.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Whether the same request may succeed in a moment. A server that was never reached is not waited for.
    pub(crate) fn is_passing(&self, is_reached: bool) -> bool {
        match self {
            Self::Truncated { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Unreachable { .. } | Self::TimeLimit { .. } => is_reached,
            _ => false,
        }
    }

    /// Whether the hub is not there now, so that what the cache has is better than nothing.
    pub(crate) fn is_absence(&self) -> bool {
        self.is_passing(true)
    }
}
