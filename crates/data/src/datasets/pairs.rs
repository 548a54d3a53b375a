//! Pairs of many rankings at once, as tensors.

use burn::tensor::{Device, Int, Tensor};

use super::{Pair, Ranking};

/// Which of many scores are compared, and how much each comparison counts.
#[derive(Clone, Debug)]
pub struct ScorePairs {
    chosen: Tensor<1, Int>,
    rejected: Tensor<1, Int>,
    weights: Tensor<1>,
    gaps: Tensor<1>,
}

impl ScorePairs {
    /// The pairs of some rankings, each with its number of completions, which are scored one ranking after the
    /// other.
    ///
    /// Every ranking counts the same, and its pairs share its weight: with `n` rankings, one with `k` pairs
    /// that are not tied gives each of them `1 / (n k)`.
    pub fn new(rankings: &[(usize, &[Pair])], device: &Device) -> Self {
        let (mut chosen, mut rejected, mut weights, mut gaps) = (vec![], vec![], vec![], vec![]);
        let mut first = 0;
        for &(n_completions, pairs) in rankings {
            for pair in pairs {
                chosen.push((first + pair.chosen) as i32);
                rejected.push((first + pair.rejected) as i32);
                weights.push((1.0 / (rankings.len() * pairs.len()) as f64) as f32);
                gaps.push(pair.gap as f32);
            }
            first += n_completions;
        }
        Self {
            chosen: Tensor::from_data(chosen.as_slice(), device),
            rejected: Tensor::from_data(rejected.as_slice(), device),
            weights: Tensor::from_data(weights.as_slice(), device),
            gaps: Tensor::from_data(gaps.as_slice(), device),
        }
    }

    /// The pairs of whole rankings.
    pub fn of(rankings: &[&Ranking], device: &Device) -> Self {
        let pairs: Vec<_> = rankings.iter().map(|r| (r.completions.len(), r.pairs.as_slice())).collect();
        Self::new(&pairs, device)
    }

    /// The scores of the chosen and of the rejected completion of each pair.
    ///
    /// # Shapes
    /// - `scores`: `[completions]`
    /// - output: `[pairs]` each; gradients flow into the scores
    pub fn sides(&self, scores: Tensor<1>) -> (Tensor<1>, Tensor<1>) {
        let chosen = scores.clone().select(0, self.chosen.clone());
        (chosen, scores.select(0, self.rejected.clone()))
    }

    /// By how much the data prefer the chosen completion of each pair: `[pairs]`.
    pub fn gaps(&self) -> Tensor<1> {
        self.gaps.clone()
    }

    /// Mean over rankings of the mean over their pairs.
    ///
    /// # Shapes
    /// - `costs`: `[pairs]`
    /// - output: `[1]`
    pub fn mean(&self, costs: Tensor<1>) -> Tensor<1> {
        (costs * self.weights.clone()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rankings_count_the_same_and_their_completions_follow_each_other() {
        let pair = |chosen, rejected| Pair { chosen, rejected, gap: 1.0 };
        let three = [pair(0, 1), pair(0, 2), pair(2, 1)];
        let two = [pair(1, 0)];
        let device = Device::flex();
        let pairs = ScorePairs::new(&[(3, &three), (2, &two)], &device);
        let (chosen, rejected) = pairs.sides(Tensor::from_data([10.0f32, 20.0, 30.0, 40.0, 50.0], &device));
        let numbers = |x: Tensor<1>| x.into_data().as_slice::<f32>().unwrap().to_vec();
        assert_eq!(numbers(chosen), [10.0, 10.0, 30.0, 50.0]);
        assert_eq!(numbers(rejected), [20.0, 30.0, 20.0, 40.0]);
        // Half of (1 + 2 + 6) / 3, and half of 7.
        let mean: f32 = pairs.mean(Tensor::from_data([1.0f32, 2.0, 6.0, 7.0], &device)).into_scalar();
        assert!((mean - 5.0).abs() < 1e-6, "{mean}");
    }
}
