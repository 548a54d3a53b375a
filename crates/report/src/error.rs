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
