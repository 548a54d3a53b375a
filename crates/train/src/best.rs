//! The best model of a run so far, in `best/`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{TRAINING_DIR, verify};
use crate::error::Error;
use crate::exact::Exact;
use crate::files::load_json;

pub(crate) const BEST_DIR: &str = "best";
pub(crate) const BEST_FILE: &str = "best.json";

/// A model that may be the best one.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Updates that it has had.
    pub step: usize,
    /// What it is judged by: a key of the metrics.
    pub metric: &'a str,
    /// The value of that.
    pub value: f64,
    /// Whether a lower value is the better one.
    pub lower_is_better: bool,
}

/// The content of `best/training/best.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    pub(crate) step: usize,
    pub(crate) metric: String,
    pub(crate) value: Exact,
}

impl Best {
    /// That of a run; none if it has none.
    ///
    /// A run that was killed may have found its best model after the checkpoint that it is resumed from. It finds the
    /// same one again, so this one stays: it is the same either way.
    pub(crate) fn load(run_dir: &Path) -> Result<Option<Self>, Error> {
        let dir = best_dir(run_dir);
        if !fs::exists(&dir).map_err(Error::io("read", &dir))? {
            return Ok(None);
        }
        verify(&dir)?;
        load_json(&dir.join(TRAINING_DIR).join(BEST_FILE)).map(Some)
    }

    pub(crate) fn of(candidate: &Candidate<'_>) -> Self {
        let Candidate { step, metric, value, .. } = *candidate;
        Self { step, metric: metric.to_owned(), value: Exact(value) }
    }
}

impl Candidate<'_> {
    /// Ties keep the earlier one, and NaN is never better.
    pub(crate) fn beats(&self, best: Option<&Best>) -> bool {
        let better = |than: f64| if self.lower_is_better { self.value < than } else { self.value > than };
        self.value.is_finite() && best.is_none_or(|best| better(best.value.0))
    }
}

pub(crate) fn best_dir(run_dir: &Path) -> PathBuf {
    run_dir.join(BEST_DIR)
}

/// Refuses a result that is NaN or infinite, such as the evaluation loss by which the best model is chosen.
///
/// # Errors
/// [`Error::NonFiniteResult`].
pub fn require_finite(what: &'static str, step: usize, value: f64) -> Result<(), Error> {
    if value.is_finite() { Ok(()) } else { Err(Error::NonFiniteResult { what, step, value }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_of_equals_and_every_number_before_nan_is_better() {
        let candidate = |value, lower_is_better| Candidate { step: 2, metric: "m", value, lower_is_better };
        let best = Best { step: 1, metric: "m".into(), value: Exact(0.5) };
        for (value, as_loss, as_score) in
            [(0.4, true, false), (0.5, false, false), (0.6, false, true), (f64::NAN, false, false)]
        {
            assert_eq!(candidate(value, true).beats(Some(&best)), as_loss, "{value}");
            assert_eq!(candidate(value, false).beats(Some(&best)), as_score, "{value}");
        }
        assert!(candidate(9.0, true).beats(None));
        assert!(!candidate(f64::NAN, true).beats(None));
        assert!(!candidate(f64::NEG_INFINITY, true).beats(None));
    }
}
