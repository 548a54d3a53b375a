//! The mean and the scale of a reward model's scores, which comparisons leave open.

use std::fmt;

use serde::{Deserialize, Serialize};
use temper_model::ScalarModel;
use temper_tokenizer::Example;

use crate::score;

/// What is made of the scores after training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// They stay as they are.
    None,
    /// A bias: demonstrations score 0 on average (InstructGPT section 3.5).
    #[default]
    Mean,
    /// Bias and gain: demonstrations score 0 on average, with a standard deviation of 1 (Ziegler et al. 2019, section
    /// 2.2, to its references).
    MeanStd,
}

impl fmt::Display for Normalize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Mean => "mean",
            Self::MeanStd => "mean_std",
        })
    }
}

/// Mean and standard deviation of the scores of demonstrations, before they are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScoreStats {
    /// Mean score.
    #[serde(rename = "eval_demonstrations_mean")]
    pub mean: f64,
    /// Standard deviation over the demonstrations.
    #[serde(rename = "eval_demonstrations_std")]
    pub std: f64,
}

/// A model that is normalised on `demonstrations`, and their scores before.
///
/// Gain and bias become part of its head: they hold wherever the model scores, and a critic that starts as the model
/// inherits them. Where all demonstrations score alike there is no scale to go by, and the gain stays 1; see
/// [`ScoreStats::has_scale`].
///
/// # Panics
/// If there are no demonstrations.
pub fn normalized(
    model: ScalarModel,
    demonstrations: &[Example],
    how: Normalize,
    batch_size: usize,
) -> (ScalarModel, ScoreStats) {
    assert!(!demonstrations.is_empty(), "there is nothing to normalise on");
    let stats = score_stats(&score(&model, &demonstrations.iter().collect::<Vec<_>>(), batch_size));
    let (gain, shift) = correction(stats, how);
    (model.rescaled(gain, shift), stats)
}

impl ScoreStats {
    /// Whether the demonstrations differ in score by more than rounding does: only then can they set a scale.
    pub fn has_scale(&self) -> bool {
        /// Rounding errors of f32 scores, relative to their size.
        const ROUNDING: f64 = 1e-6;
        self.std > ROUNDING * self.mean.abs().max(self.std)
    }
}

fn score_stats(scores: &[f32]) -> ScoreStats {
    let n = scores.len() as f64;
    let mean = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / n;
    let variance = scores.iter().map(|&score| (f64::from(score) - mean).powi(2)).sum::<f64>() / n;
    ScoreStats { mean, std: variance.sqrt() }
}

/// Gain and shift.
fn correction(stats: ScoreStats, how: Normalize) -> (f64, f64) {
    let gain = match how {
        Normalize::None => return (1.0, 0.0),
        Normalize::MeanStd if stats.has_scale() => 1.0 / stats.std,
        Normalize::Mean | Normalize::MeanStd => 1.0,
    };
    (gain, -gain * stats.mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use temper_model::{Decoder, ModelConfig, Pooling};
    use temper_train::Seed;

    #[test]
    fn score_stats_and_correction_are_those_by_hand() {
        // Mean 3, deviations −2, 0, 2: variance 8 / 3.
        let stats = score_stats(&[1.0, 3.0, 5.0]);
        assert_eq!(stats.mean, 3.0);
        assert!((stats.std - (8.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(correction(stats, Normalize::None), (1.0, 0.0));
        assert_eq!(correction(stats, Normalize::Mean), (1.0, -3.0));
        let (gain, shift) = correction(stats, Normalize::MeanStd);
        assert!((gain - 0.6123724357).abs() < 1e-9 && (shift + 1.8371173071).abs() < 1e-9);
        for std in [0.0, 2e-7] {
            assert_eq!(correction(ScoreStats { mean: 2.0, std }, Normalize::MeanStd), (1.0, -2.0));
        }
        assert!(
            ScoreStats { mean: 0.0, std: 1e-9 }.has_scale()
                && !ScoreStats { mean: 0.0, std: 0.0 }.has_scale()
        );
    }

    #[test]
    fn demonstrations_score_0_afterwards_and_order_stays() {
        let config = ModelConfig::preset("tiny").unwrap();
        let backbone = Decoder::new(&config, &mut Seed(1).stream("init"), &Device::flex());
        for pooling in [Pooling::Last, Pooling::Mean] {
            let model = ScalarModel::new(backbone.clone(), pooling, &mut Seed(2).stream("head"));
            let example = |i: u32| Example::new(vec![1, 50 + i, 2, 60 + 2 * i, 3], 3);
            let examples: Vec<Example> = (0..9).map(example).collect();
            let scores = |model: &ScalarModel| score(model, &examples.iter().collect::<Vec<_>>(), 4);
            let before = scores(&model);
            for (how, std) in [(Normalize::Mean, None), (Normalize::MeanStd, Some(1.0))] {
                let (model, stats_before) = normalized(model.clone(), &examples, how, 4);
                let after = scores(&model);
                let stats_after = score_stats(&after);
                assert_eq!(stats_before, score_stats(&before));
                assert!(stats_after.mean.abs() < 1e-5, "{stats_after:?}");
                assert!((stats_after.std - std.unwrap_or(stats_before.std)).abs() < 1e-5, "{stats_after:?}");
                let order = |scores: &[f32]| {
                    let mut order: Vec<usize> = (0..scores.len()).collect();
                    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
                    order
                };
                assert_eq!(order(&before), order(&after));
            }
        }
    }
}
