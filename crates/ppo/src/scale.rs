//! The scale of the scores: with one scale, penalties and clips mean the same for every scorer.

use serde::{Deserialize, Serialize};
use temper_train::Exact;

use crate::config::ScaleFrom;

/// Scores are lowered by a mean and divided by a deviation (Ziegler et al. 2019, section 2.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreScale {
    /// What a score is lowered by.
    pub mean: f64,
    /// What it is divided by then.
    pub deviation: f64,
}

impl ScoreScale {
    /// The scale that leaves scores as they are.
    pub const NONE: Self = Self { mean: 0.0, deviation: 1.0 };

    /// The scale that gives these scores a mean of 0 and a standard deviation of 1. `None` where they do not differ by more
    /// than rounding does, because such scores do not show a scale.
    pub fn of(scores: &[f32]) -> Option<Self> {
        /// Rounding errors of f32 scores, relative to their size.
        const ROUNDING: f64 = 1e-6;
        let n = scores.len() as f64;
        let mean = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / n;
        let variance = scores.iter().map(|&score| (f64::from(score) - mean).powi(2)).sum::<f64>() / n;
        let deviation = variance.sqrt();
        (deviation > ROUNDING * mean.abs().max(deviation)).then_some(Self { mean, deviation })
    }

    /// The score on this scale.
    pub fn apply(self, score: f32) -> f32 {
        ((f64::from(score) - self.mean) / self.deviation) as f32
    }

    /// Gain and shift that do the same to the head of a reward model.
    pub(crate) fn gain_and_shift(self) -> (f64, f64) {
        (1.0 / self.deviation, -self.mean / self.deviation)
    }
}

/// The scale of a run, which is known from its first rollout on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum RunScale {
    /// Scores stay as they are.
    #[default]
    None,
    /// The next rollout whose scores differ sets the scale. Until then, they stay as they are.
    Unknown,
    /// This one.
    Known(ScoreScale),
}

/// A scale in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredScale {
    mean: Exact,
    deviation: Exact,
}

impl RunScale {
    /// At the start of a run.
    pub(crate) fn new(from: ScaleFrom) -> Self {
        match from {
            ScaleFrom::None => Self::None,
            ScaleFrom::FirstRollout => Self::Unknown,
        }
    }

    /// The scale of the next scores.
    pub(crate) fn current(self) -> ScoreScale {
        match self {
            Self::None | Self::Unknown => ScoreScale::NONE,
            Self::Known(scale) => scale,
        }
    }

    /// What a checkpoint stores.
    pub(crate) fn to_store(self) -> Option<StoredScale> {
        let Self::Known(ScoreScale { mean, deviation }) = self else { return None };
        Some(StoredScale { mean: Exact(mean), deviation: Exact(deviation) })
    }

    /// As it was when a checkpoint was saved, in a run with this setting.
    pub(crate) fn resume(from: ScaleFrom, stored: Option<StoredScale>) -> Self {
        let known =
            |scale: StoredScale| Self::Known(ScoreScale { mean: scale.mean.0, deviation: scale.deviation.0 });
        stored.map_or(Self::new(from), known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1, 1 and 4: mean 2, variance (1 + 1 + 4) / 3 = 2.
    #[test]
    fn scores_that_differ_have_mean_0_and_deviation_1_on_their_scale() {
        let scores = [1.0, 1.0, 4.0];
        let scale = ScoreScale::of(&scores).unwrap();
        assert_eq!(scale.mean, 2.0);
        assert!((scale.deviation - 2f64.sqrt()).abs() < 1e-12);
        assert!((scale.apply(4.0) - 2f32.sqrt()).abs() < 1e-6);
        let (gain, shift) = scale.gain_and_shift();
        assert!((f64::from(scale.apply(5.0)) - (gain * 5.0 + shift)).abs() < 1e-6);
        assert_eq!(ScoreScale::of(&[-1e-4, 1e-4]).map(|scale| scale.mean), Some(0.0));
    }

    #[test]
    fn scores_that_are_equal_but_for_rounding_have_no_scale() {
        for scores in [[0.7, 0.7], [0.0, 0.0], [1e6, 1e6 + 0.125]] {
            assert_eq!(ScoreScale::of(&scores), None, "{scores:?}");
        }
        assert_eq!(ScoreScale::NONE.apply(0.1), 0.1);
    }

    #[test]
    fn a_resumed_run_has_the_scale_of_its_first_rollout_or_looks_for_one() {
        let known = RunScale::Known(ScoreScale { mean: 0.1, deviation: 0.3 });
        assert_eq!(RunScale::resume(ScaleFrom::FirstRollout, known.to_store()), known);
        assert_eq!(RunScale::resume(ScaleFrom::FirstRollout, None), RunScale::Unknown);
        assert_eq!(RunScale::resume(ScaleFrom::None, None), RunScale::None);
        assert_eq!(RunScale::Unknown.current(), ScoreScale::NONE);
    }
}
