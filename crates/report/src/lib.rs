//! Draws what a run has written: `report.html`, one self-contained page, and the curves of each stage as SVG; and what
//! several runs of PPO paid in KL for their scores, as one picture.
//!
//! Invariant: every text that comes from a run (prompts, completions, settings) is escaped before it reaches the
//! page or a picture, and the page loads nothing: no script, no font, no picture from elsewhere. A run that was
//! interrupted gives a report of what is there.
//!
//! Invariant: a run directory may be somebody else's. Only regular files are read, links to files are not followed, and
//! nothing is overwritten but an older report.
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

mod answers;
mod compare;
mod curve;
mod error;
mod escape;
mod evaluation;
mod figures;
mod files;
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
mod verdicts;

pub use error::Error;
pub use sample::Sample;
pub use summary::{JudgeSummary, PpoSummary, RewardSummary, SftSummary, Summary};

/// Draws `report.html` and one `curves-NAME.svg` per stage that has metrics into `dir`, and returns their paths.
///
/// `dir` is the output directory of a pipeline, the run directory of a single stage, or a directory of run directories.
/// A run directory that is not called `sft`, `reward`, `ppo` or `dpo` is recognised by its metrics or its settings.
///
/// # Errors
/// When `dir` holds nothing to draw, something in it cannot be read or is not a regular file, or a file to be written is
/// there already and is not an older report.
pub fn draw(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let run = run::Run::read(dir)?;
    let mut drawn = Vec::new();
    for stage in &run.stages {
        let curves = stage.curves();
        if !curves.is_empty() {
            let path = dir.join(format!("curves-{}.svg", stage.slug));
            drawn.push((path, plot::sheet(stage.stage, &stage.title(), &curves)?));
        }
    }
    drawn.push((dir.join("report.html"), page::render(&run)?));
    for (path, _) in &drawn {
        files::check_replaceable(path)?;
    }
    for (path, text) in &drawn {
        files::write(path, text)?;
    }
    Ok(drawn.into_iter().map(|(path, _)| path).collect())
}

/// What a run directory of a single stage says in words: its result in one sentence, then what to watch out for and what
/// to do about it. Nothing where nothing was measured. `docs/verdicts.md` has the rules.
///
/// # Errors
/// When `dir` is not a directory with a run, or something in it cannot be read or is not a regular file.
pub fn verdicts_of(dir: &Path) -> Result<Vec<String>, Error> {
    let run = run::Run::read(dir)?;
    Ok(run.stages.iter().rev().find(|stage| stage.name.is_none()).map(verdicts::verdicts).unwrap_or_default())
}

/// Draws the scores of several runs against √KL into one picture, and returns the paths of a page and of the picture
/// alone. The page is `out` itself; the picture has the ending `.svg` in place of `.html`, or after any other name.
///
/// Each of `runs` is the run directory of something that logs `objective/scores`, `objective/kl` and, for an
/// independent judge, `objective/gold`; or of a pipeline. `points` is a JSON file of results without a run:
/// `[{"label": "best of n", "kl": 1.39, "gold": 0.81, "note": "n = 8"}, …]`, with `score` in addition to `gold` or
/// instead of it; those of the same label are joined. Where the runs were scored by different models or judges, page and
/// picture say so.
///
/// # Errors
/// When a directory has no such metrics, the points are not as above, there are more than eight runs and labels,
/// something cannot be read or written, or `out` or the picture is there already and is not an older report.
pub fn compare(runs: &[PathBuf], points: Option<&Path>, out: &Path) -> Result<Vec<PathBuf>, Error> {
    const TITLE: &str = "Scores against the KL that they cost";
    files::check_free(out)?;
    let (page, picture_alone) = names_of(out)?;
    files::check_free(&picture_alone)?;
    let comparison = compare::Comparison::read(runs, points)?;
    let picture = comparison.picture();
    let body = format!(
        "<header><p class=\"brand\">Temper report</p><h1>{TITLE}</h1></header>\n<section>\n\
         <figure class=\"frontier wide\">{}</figure>\n{}{}<p class=\"note\">{}</p>\n</section>\n",
        picture.inline()?,
        comparison.table(),
        comparison.judges_note(),
        comparison.smoothing_note()
    );
    let sheet = picture.sheet(TITLE)?;
    files::write(&page, &page::document(TITLE, &body))?;
    files::write(&picture_alone, &sheet)?;
    Ok(vec![page, picture_alone])
}

/// Where page and picture go.
fn names_of(out: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let ending = out.extension().map(|ending| ending.to_ascii_lowercase()).unwrap_or_default();
    let Some(name) = out.file_name().filter(|_| ending != "svg") else {
        return Err(Error::BadOut { path: out.to_path_buf() });
    };
    let picture = if ending == "html" || ending == "htm" {
        out.with_extension("svg")
    } else {
        let mut name = name.to_os_string();
        name.push(".svg");
        out.with_file_name(name)
    };
    Ok((out.to_path_buf(), picture))
}

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
