//! Draws what a run left behind: `report.html`, one self-contained page, and the curves of each stage as SVG; and what
//! several runs of PPO paid in KL for their scores, as one picture.
//!
//! Invariant: every text that comes from a run (prompts, completions, settings) is escaped before it reaches the
//! page, and the page loads nothing: no script, no font, no picture from elsewhere. A run that was interrupted gives
//! a report of what is there.
//!
//! ```
//! # fn main() -> Result<(), temper_report::Error> {
//! # let dir = std::env::temp_dir().join(format!("temper-report-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(dir.join("sft")).expect("the temporary folder can be written");
//! # std::fs::write(dir.join("sft/metrics.jsonl"), "{\"step\":1,\"loss\":5.25}\n{\"step\":2,\"loss\":4.75}\n")
//! #     .expect("the temporary folder can be written");
//! let written = temper_report::draw(&dir)?;
//! assert_eq!(written, [dir.join("curves-sft.svg"), dir.join("report.html")]);
//! # std::fs::remove_dir_all(&dir).expect("the temporary folder can be removed");
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

mod compare;
mod curve;
mod error;
mod escape;
mod figures;
mod frontier;
mod frontier_plot;
mod metrics;
mod number;
mod page;
mod palette;
mod plot;
mod run;
mod sample;
mod settings;
mod stage;
mod summary;
mod timings;
mod verdict;

pub use error::Error;

/// Draws `report.html` and one `curves-STAGE.svg` per stage that has metrics into `dir`, and returns their paths.
///
/// `dir` is the output directory of a pipeline or the run directory of a single stage.
///
/// # Errors
/// When `dir` holds nothing to draw, or something in it cannot be read or written.
pub fn draw(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let run = run::Run::read(dir)?;
    let mut written = Vec::new();
    for stage in &run.stages {
        let curves = stage.curves();
        if !curves.is_empty() {
            let path = dir.join(format!("curves-{}.svg", stage.stage.slug()));
            write_whole(&path, &plot::sheet(stage.stage, &curves)?)?;
            written.push(path);
        }
    }
    let path = dir.join("report.html");
    write_whole(&path, &page::render(&run)?)?;
    written.push(path);
    Ok(written)
}

/// Draws the scores of several runs against √KL into one picture, and returns the paths of a page and of the picture
/// alone: `out` with the endings `.html` and `.svg`.
///
/// Each of `runs` is the run directory of something that logs `objective/scores`, `objective/kl` and, for an
/// independent judge, `objective/gold`; or of a pipeline. `points` is a JSON file of results without a run:
/// `[{"label": "best of n", "kl": 1.39, "gold": 0.81, "note": "n = 8"}, …]`, with `score` beside or instead of `gold`;
/// those of the same label are joined.
///
/// # Errors
/// When a directory has no such metrics, the points are not as above, there are more than eight runs and labels, or
/// something cannot be read or written.
pub fn compare(runs: &[PathBuf], points: Option<&Path>, out: &Path) -> Result<Vec<PathBuf>, Error> {
    const TITLE: &str = "Scores against the KL that they cost";
    let comparison = compare::Comparison::read(runs, points)?;
    let picture = comparison.picture();
    let body = format!(
        "<header><p class=\"brand\">Temper report</p><h1>{TITLE}</h1></header>\n<section>\n\
         <figure class=\"frontier wide\">{}</figure>\n{}<p class=\"note\">{}</p>\n</section>\n",
        picture.inline()?,
        comparison.table(),
        comparison.smoothing_note()
    );
    let paths = vec![out.with_extension("html"), out.with_extension("svg")];
    write_whole(&paths[0], &page::document(TITLE, &body))?;
    write_whole(&paths[1], &picture.sheet(TITLE)?)?;
    Ok(paths)
}

/// Writes beside the target and renames, so that an older report is never left half overwritten.
fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, path)).map_err(|source| {
        // The rest of a failed write is of no use to anyone; the first error is the one to tell.
        let _ = std::fs::remove_file(&partial);
        Error::Write { path: path.to_path_buf(), source }
    })
}
