use std::io::ErrorKind;
use std::path::PathBuf;

use plotters::drawing::DrawingAreaErrorKind;

/// What can go wrong while a report is drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory holds neither metrics nor a summary nor samples.
    #[error("{}: nothing to draw: no metrics.jsonl with steps, no summary.json, no samples.jsonl", dir.display())]
    NothingToDraw {
        /// The directory that was asked for.
        dir: PathBuf,
    },
    /// The path is missing or is not a directory.
    #[error("{}: not a directory", dir.display())]
    NotADirectory {
        /// The path that was asked for.
        dir: PathBuf,
    },
    /// A file of the run is a link, a directory, a pipe or a device.
    #[error("{}: it is {kind}, and a report reads only regular files", path.display())]
    NotAFile {
        /// The path of the file.
        path: PathBuf,
        /// What is there instead.
        kind: &'static str,
    },
    /// Something that is not an older report is in the place of a file to be written.
    #[error("{}: it is {kind}, and is not overwritten", path.display())]
    Occupied {
        /// The path of the file to be written.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// A page of several runs was asked for under the name of a picture, or without a name.
    #[error("`--out` is `{}`, which is not the name of a page", path.display())]
    BadOut {
        /// What was asked for.
        path: PathBuf,
    },
    /// A file is there but cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A directory to compare has no score against KL.
    #[error(
        "{}: nothing to compare: its metrics.jsonl has no two rollouts with `objective/kl` and `objective/scores`",
        dir.display()
    )]
    NoFrontier {
        /// The directory that was given.
        dir: PathBuf,
    },
    /// The file of further results is not what it should be.
    #[error("{}: {problem}", path.display())]
    BadPoints {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// More lines than colours.
    #[error("{n} runs and labels of points are too many for one picture: {most} can be told apart")]
    TooManySeries {
        /// How many there are.
        n: usize,
        /// How many there may be.
        most: usize,
    },
    /// The plotting library refused a curve.
    #[error("the curve of `{metric}` cannot be drawn: {source}")]
    Plot {
        /// The metric, or the stage for a whole sheet.
        metric: String,
        /// Why.
        source: DrawingAreaErrorKind<std::io::Error>,
    },
}

impl Error {
    /// What to do about it, as one line.
    pub fn hint(&self) -> String {
        match self {
            Self::NothingToDraw { .. } => {
                "give the output directory of `temper pipeline`, or a run directory that has logged a step".into()
            }
            Self::NotADirectory { .. } => {
                "check the path for a typing mistake; a report is drawn of a run directory".into()
            }
            Self::NotAFile { .. } => "put a copy of the real file there".into(),
            Self::Occupied { .. } => "move it away, or choose another name".into(),
            Self::BadOut { path } => {
                let mut page = path.clone();
                page.set_extension("html");
                match page.file_name() {
                    Some(_) => format!("for example `--out {}`; the picture goes next to it", page.display()),
                    None => "for example `--out compared.html`; the picture goes next to it".into(),
                }
            }
            Self::Read { source, .. } => hint_of_io(source.kind(), "check that the disk and the file are whole"),
            Self::Write { source, .. } => {
                hint_of_io(source.kind(), "check that the disk is there and can be written")
            }
            Self::NoFrontier { .. } => {
                "give runs of `temper ppo` with at least two rollouts, or the directories of pipelines".into()
            }
            Self::BadPoints { .. } => {
                "write a JSON array of objects: `label`, `kl`, `gold` or `score` or both, and `note` if wanted".into()
            }
            Self::TooManySeries { .. } => "compare fewer runs, or give points that belong together one label".into(),
            Self::Plot { .. } => {
                "this is a defect in Temper: please report it together with the run's metrics.jsonl".into()
            }
        }
    }
}

fn hint_of_io(kind: ErrorKind, otherwise: &str) -> String {
    match kind {
        ErrorKind::NotFound => "check the path for a typing mistake; the directory must exist",
        ErrorKind::NotADirectory => "a file is in the place of a directory: choose another path",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "choose a place that you may read and write, for example a copy of the run directory"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => "free some space",
        ErrorKind::InvalidFilename => "choose a shorter name without special characters",
        ErrorKind::IsADirectory => "give a file, this is a directory",
        ErrorKind::InvalidData => "the text must be UTF-8",
        _ => otherwise,
    }
    .to_owned()
}
