//! What can go wrong with files, settings and run directories.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the built-in preset, at a 1-based line.
    Preset {
        /// 1-based line of the preset's TOML.
        line: usize,
    },
    /// In a settings file, at a 1-based line.
    File {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
    },
    /// On the command line, by `--set`.
    Set,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Preset { line } => write!(f, "the preset, line {line}"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Set => f.write_str("`--set`"),
        }
    }
}

/// What to do about a number that is not finite, whichever stage met it.
///
/// The learning rate is the usual cause where the loss grew before, but an extreme score or coefficient does the same.
pub const NOT_FINITE_HINT: &str = "if the loss grew before, start again in another `--out` with a lower `learning_rate`; \
     otherwise look for extreme scores, margins or coefficients";

/// Every failure of this crate. Messages are one line; [`Error::hint`] may add what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused: missing, not permitted, read-only, full.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: `read`, `write`, ….
        action: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Text that should be JSON is not.
    #[error("{}:{line}: broken JSON: {message} (column {column})", path.display())]
    BrokenJson {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// 1-based column within the row, as the JSON parser counts it.
        column: usize,
        /// What the JSON parser said.
        message: String,
    },
    /// A file of settings or state is larger than any such file.
    #[error("{} has more than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How much is read.
        limit: u64,
    },
    /// A file of a run directory is a device, a pipe or something else that has no end.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// Where it is.
        path: PathBuf,
    },
    /// A JSON file of ours (state, manifest) does not hold what it should.
    #[error("{}: {message}", path.display())]
    BadState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A settings file holds bytes that are not UTF-8.
    #[error("{}:{line}: not valid UTF-8", path.display())]
    SettingsNotUtf8 {
        /// The settings file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
    },
    /// A number of the training itself is NaN or infinite.
    #[error("the {what} of update {update} is not finite")]
    NonFinite {
        /// Which number.
        what: &'static str,
        /// The update that it would have made, from 1.
        update: u64,
    },
    /// The loss became NaN or infinite; nothing was updated with it.
    #[error("the loss of step {step} is {loss}")]
    NonFiniteLoss {
        /// The step that failed.
        step: usize,
        /// What came out.
        loss: f64,
    },
    /// A sign of divergence, at which `on_divergence` ends the run.
    #[error("step {step}: {sign}")]
    Diverges {
        /// The update after which it was seen.
        step: usize,
        /// What was seen, and the setting to change.
        sign: String,
    },
    /// A number by which the model is judged became NaN or infinite; the model was not saved.
    #[error("the {what} after step {step} is {value}")]
    NonFiniteResult {
        /// Which number.
        what: &'static str,
        /// Updates that the model has had.
        step: usize,
        /// What came out.
        value: f64,
    },
    /// A setting has the right type but a value that cannot be used.
    #[error("`{key}` must be {expected}, got {value}")]
    OutOfRange {
        /// The key, dotted.
        key: String,
        /// What it may be.
        expected: String,
        /// The value as given.
        value: String,
    },
    /// A setting that was renamed is given under both names.
    #[error("`{old}` in {origin} is the old name of `{key}`, which is given there, too")]
    OldAndNewKey {
        /// The old dotted key.
        old: String,
        /// The dotted key.
        key: String,
        /// Where the old one was given.
        origin: Origin,
    },
    /// A setting that does not exist.
    #[error("unknown key `{key}` in {origin}{}", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// The key as given, dotted.
        key: String,
        /// Where it was given.
        origin: Origin,
        /// The existing key that looks most like it.
        nearest: Option<String>,
    },
    /// A setting of the wrong type, or a value its type does not have.
    #[error("wrong value for `{key}` in {origin}: expected {expected}, got `{value}`")]
    WrongValue {
        /// The key, dotted.
        key: String,
        /// Where it was given.
        origin: Origin,
        /// What would be right.
        expected: String,
        /// What was given, as TOML.
        value: String,
    },
    /// A settings file or preset that is not TOML.
    #[error("{origin}: not valid TOML: {message}")]
    TomlSyntax {
        /// Where.
        origin: Origin,
        /// What the TOML parser said.
        message: String,
    },
    /// A `--set` without `=` or without a key.
    #[error("`--set {text}` is not of the form key=value")]
    BadSet {
        /// The argument.
        text: String,
    },
    /// Settings that are each valid, but not together; or that TOML cannot express.
    #[error("these settings do not fit together: {message}")]
    Unresolvable {
        /// What serde said.
        message: String,
    },
    /// A run is to go back, and has no whole checkpoint.
    #[error("the run in {} diverges, and has no checkpoint to go back to", dir.display())]
    NothingToRewindTo {
        /// The run directory.
        dir: PathBuf,
    },
    /// The directory holds a run and `resume` was not asked for.
    #[error("{} holds a run already", dir.display())]
    RunExists {
        /// The run directory.
        dir: PathBuf,
    },
    /// A directory has a file of a name that a run writes, but holds no run of Temper.
    #[error("{} exists, and {} holds no run that Temper wrote, so nothing is overwritten", path.display(), dir.display())]
    NotARun {
        /// The directory that was to be a run directory.
        dir: PathBuf,
        /// What is in the way.
        path: PathBuf,
    },
    /// The run directory was removed, moved or replaced by another one while the run was open.
    #[error("{} was removed or replaced during the run", dir.display())]
    RunRemoved {
        /// The run directory.
        dir: PathBuf,
    },
    /// Something else has taken the place of the metrics file while the run was open.
    #[error(
        "{} was replaced during the run{}", path.display(),
        saved.as_ref().map(|saved| format!("; its lines are in {}", saved.display())).unwrap_or_default()
    )]
    MetricsReplaced {
        /// The metrics file.
        path: PathBuf,
        /// Where the lines of the run are now, if they could be saved.
        saved: Option<PathBuf>,
    },
    /// A run is to become longer, and its learning rate does not allow it.
    #[error(
        "{}: {change}, but with `schedule.kind = {schedule}` the learning rate of every update follows from the length of \
         the run",
        path.display()
    )]
    CannotExtend {
        /// The stored settings.
        path: PathBuf,
        /// The setting that says how long the run is, with what it was and what it is now, in words.
        change: String,
        /// The kind of the schedule.
        schedule: String,
    },
    /// A run is resumed with other settings than it was started with.
    #[error("{}: `{key}` was {stored} when the run started and is {given} now", path.display())]
    ConfigDiffers {
        /// The stored `config.toml`.
        path: PathBuf,
        /// The first key that differs, dotted.
        key: String,
        /// Its stored value as TOML, or `not set`.
        stored: String,
        /// The value now, as TOML, or `not set`.
        given: String,
    },
    /// A run is resumed with other data or models than it was started with.
    #[error("{}: `{flag}` was {stored} when the run started and is {given} now", dir.display())]
    InputDiffers {
        /// The run directory.
        dir: PathBuf,
        /// The flag that gives it.
        flag: String,
        /// Its fingerprint then, or `not given`.
        stored: String,
        /// Its fingerprint now, or `not given`.
        given: String,
    },
    /// Another process has the run directory open.
    #[error("{} is in use by another run", dir.display())]
    RunInUse {
        /// The run directory.
        dir: PathBuf,
    },
    /// A run has step checkpoints, but none that is whole.
    #[error("{} has no whole checkpoint; of the newest one: {newest}", dir.display())]
    NoWholeCheckpoint {
        /// The run directory.
        dir: PathBuf,
        /// What is wrong with the newest.
        newest: Box<Error>,
    },
    /// A metrics file has lost lines that a checkpoint promises.
    #[error("{} has {found} whole lines, its checkpoint was saved with {expected}", path.display())]
    MetricsLost {
        /// The metrics file.
        path: PathBuf,
        /// Whole lines at its start.
        found: usize,
        /// Lines when the checkpoint was saved.
        expected: usize,
    },
    /// A checkpoint directory lacks a file, or has it at another size or with other bytes.
    #[error("checkpoint {} is damaged: {file} {fault}", path.display())]
    DamagedCheckpoint {
        /// The checkpoint directory.
        path: PathBuf,
        /// The file in it.
        file: String,
        /// What is wrong with the file.
        fault: Fault,
    },
    /// A checkpoint of a layout that this version does not know.
    #[error("checkpoint {} has format {found}, this version reads format {supported}", path.display())]
    CheckpointFormat {
        /// The checkpoint directory.
        path: PathBuf,
        /// Its `format_version`.
        found: u64,
        /// Ours.
        supported: u64,
    },
    /// A directory that would be replaced is not a checkpoint.
    #[error("{} exists and is not a checkpoint, so it is not replaced", path.display())]
    NotACheckpoint {
        /// The directory.
        path: PathBuf,
    },
    /// Metrics that are not a struct or map with text keys.
    #[error("metrics of step {step} are not an object: {message}")]
    BadMetrics {
        /// The step that was logged.
        step: usize,
        /// What serde said.
        message: String,
    },
}

/// What is wrong with one file of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is listed in the manifest but not there.
    Missing,
    /// It is shorter or longer than the manifest says.
    Size {
        /// Bytes according to the manifest.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// Its size is right, its bytes are not.
    Checksum,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("is missing"),
            Fault::Size { expected, found } => write!(f, "has {found} bytes, expected {expected}"),
            Fault::Checksum => f.write_str("does not have the bytes that were written"),
        }
    }
}

impl Error {
    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint: &str = match self {
            Error::Io { source, .. } => return io_hint(source),
            Error::BrokenJson { .. } => "the file is damaged: copy it back as it was",
            Error::UnknownKey { nearest: None, .. } => "`temper config STAGE` lists all keys",
            Error::NonFinite { .. } | Error::NonFiniteLoss { .. } | Error::NonFiniteResult { .. } => {
                NOT_FINITE_HINT
            }
            Error::Diverges { .. } => {
                "start again in another `--out` with that setting, or with `--set on_divergence=rewind`; \
                 `--resume` continues from the checkpoint"
            }
            Error::NothingToRewindTo { .. } => "start again in another `--out` with a lower `learning_rate`",
            Error::OldAndNewKey { .. } => "remove the old one",
            Error::SettingsNotUtf8 { .. } => "save the file as UTF-8",
            Error::TomlSyntax { .. } => "`temper config STAGE` prints settings as they should look",
            Error::BadSet { .. } => "for example `--set epochs=3` or `--set kl.coef=0.05`",
            Error::RunExists { .. } => "continue with `--resume`, or choose another `--out`",
            Error::NotARun { .. } => "move it away, or choose another `--out`",
            Error::RunRemoved { .. } => "start the run again, or move its directory back and use `--resume`",
            Error::MetricsReplaced { saved: Some(_), .. } => {
                "move what is there away, rename that file to `metrics.jsonl`, and continue with `--resume`"
            }
            Error::MetricsReplaced { saved: None, .. } => "move what is there away",
            Error::CannotExtend { .. } => {
                "start another run from the `final/` of this one, in another `--out`; a run with \
                 `schedule.kind=constant` can become longer"
            }
            Error::ConfigDiffers { .. } => {
                "resume with the stored settings, or start a new run in another `--out`"
            }
            Error::InputDiffers { .. } => {
                "resume with the data and models of the start, or start a new run in another `--out`"
            }
            Error::RunInUse { .. } => "wait until it ends, or choose another `--out`",
            Error::NoWholeCheckpoint { .. } => {
                "copy a whole one back, or remove `checkpoints` to begin the run again"
            }
            Error::MetricsLost { .. } => {
                "copy the file back, or remove that checkpoint to resume from an older one"
            }
            Error::DamagedCheckpoint { .. } => "remove it, or copy it back as it was",
            Error::BadState { .. } => {
                "the file is damaged: copy it back as it was, or begin in another place"
            }
            Error::CheckpointFormat { .. } => "use the version of Temper that wrote it",
            Error::TooLarge { .. } => "check the path: such a file is much smaller",
            Error::NotRegular { .. } => "put a regular file in its place",
            Error::NotACheckpoint { .. } => "move it away, or choose another directory",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// An [`Error::Io`] maker for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }
}

fn io_hint(source: &io::Error) -> Option<String> {
    let hint = match source.kind() {
        io::ErrorKind::NotFound => "check the path for a typing mistake",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a place that you may read and write"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            "free some space, or choose another `--out`"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|key| format!(", did you mean `{key}`?")).unwrap_or_default()
}

/// Other libraries' messages may span lines; ours do not.
pub(crate) fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_and_say_what_and_where() {
        let error = Error::UnknownKey {
            key: "learning_rat".into(),
            origin: Origin::File { path: "sft.toml".into(), line: 3 },
            nearest: Some("learning_rate".into()),
        };
        assert_eq!(
            error.to_string(),
            "unknown key `learning_rat` in sft.toml:3, did you mean `learning_rate`?"
        );
        assert_eq!(one_line("a\n\n  b\n"), "a; b");
        let full = Error::io("write", Path::new("out/x"))(io::Error::from(io::ErrorKind::StorageFull));
        assert!(full.to_string().starts_with("cannot write out/x: "));
        assert!(full.hint().is_some_and(|hint| hint.contains("--out")));
    }
}
