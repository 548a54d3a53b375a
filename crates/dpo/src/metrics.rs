//! What a step and an evaluation report.

use burn::tensor::Device;
use serde::Serialize;
use temper_data::{Ranking, correctness};
use temper_tensor::{Sum, World};
use temper_train::Candidate;

use crate::DpoConfig;
use crate::loss::pair_cost;

/// One line of `metrics.jsonl`, under TRL's names.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DpoMetrics {
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean over the batch's comparisons of the mean over their pairs, in nats.
    pub loss: f64,
    /// Mean over the pairs of the chosen completion's implicit reward.
    #[serde(rename = "rewards/chosen")]
    pub rewards_chosen: f64,
    /// And of the rejected one's.
    #[serde(rename = "rewards/rejected")]
    pub rewards_rejected: f64,
    /// Share of the pairs with the chosen reward above: a tie, up to rounding, counts one half.
    #[serde(rename = "rewards/accuracies")]
    pub rewards_accuracies: f64,
    /// Mean of chosen minus rejected reward.
    #[serde(rename = "rewards/margins")]
    pub rewards_margins: f64,
    /// Mean over the pairs of log π of the chosen completion, in nats.
    #[serde(rename = "logps/chosen")]
    pub logps_chosen: f64,
    /// And of the rejected one.
    #[serde(rename = "logps/rejected")]
    pub logps_rejected: f64,
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Real tokens of all completions over wall-clock time.
    pub tokens_per_second: f64,
}

/// How a policy orders held-out comparisons by its implicit rewards.
#[derive(Clone, Debug, Serialize)]
pub struct DpoEvaluation {
    /// Mean over comparisons of the mean over their pairs, in nats.
    pub eval_loss: f64,
    /// Mean over the pairs of the chosen completion's implicit reward.
    #[serde(rename = "eval_rewards/chosen")]
    pub rewards_chosen: f64,
    /// And of the rejected one's.
    #[serde(rename = "eval_rewards/rejected")]
    pub rewards_rejected: f64,
    /// Share of the pairs with the chosen reward above: a tie, up to rounding, counts one half.
    #[serde(rename = "eval_rewards/accuracies")]
    pub rewards_accuracies: f64,
    /// Mean of chosen minus rejected reward.
    #[serde(rename = "eval_rewards/margins")]
    pub rewards_margins: f64,
    /// Mean over the pairs of log π of the chosen completion, in nats.
    #[serde(rename = "eval_logps/chosen")]
    pub logps_chosen: f64,
    /// And of the rejected one.
    #[serde(rename = "eval_logps/rejected")]
    pub logps_rejected: f64,
    /// Pairs judged.
    pub eval_pairs: usize,
}

impl DpoEvaluation {
    /// The best model is that of the lowest loss.
    pub(crate) fn candidate(&self, step: usize) -> Candidate<'static> {
        Candidate { step, metric: "eval_loss", value: self.eval_loss, lower_is_better: true }
    }
}

/// A comparison with the log-probabilities of its completions under the reference.
#[derive(Clone, Copy)]
pub(crate) struct RankingWithReference<'a> {
    pub(crate) ranking: &'a Ranking,
    pub(crate) ref_logprobs: &'a [f32],
}

/// How far two readings of the same log-probability may be apart, relative to its size, because they were computed in
/// different batches. A margin is the difference of four of them, and one that is smaller than their rounding errors
/// says nothing: in the first step, where the policy is its reference, every margin is like that.
const ROUNDING: f64 = 2e-6;

/// Sums over pairs, the chosen side first.
#[derive(Default)]
pub(crate) struct PairSums {
    n: usize,
    n_correct: f64,
    rewards: [f64; 2],
    logprobs: [f64; 2],
}

impl PairSums {
    /// Takes in the pairs of one comparison, and returns the mean of their costs.
    pub(crate) fn add_row(
        &mut self,
        row: &RankingWithReference<'_>,
        logprobs: &[f32],
        config: &DpoConfig,
    ) -> f64 {
        let reward = |i: usize| config.beta * f64::from(logprobs[i] - row.ref_logprobs[i]);
        let mut cost = 0.0;
        for pair in &row.ranking.pairs {
            let sides = [pair.chosen, pair.rejected];
            let [chosen, rejected] = sides.map(reward);
            self.n += 1;
            let size: f64 =
                sides.iter().map(|&i| f64::from(logprobs[i].abs() + row.ref_logprobs[i].abs())).sum();
            self.n_correct += correctness(chosen - rejected, config.beta * ROUNDING * size);
            for (side, (i, reward)) in sides.into_iter().zip([chosen, rejected]).enumerate() {
                self.rewards[side] += reward;
                self.logprobs[side] += f64::from(logprobs[i]);
            }
            cost += pair_cost(chosen - rejected, config.label_smoothing);
        }
        cost / row.ranking.pairs.len() as f64
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.n as f64
    }

    /// What the batch says; the rest is the step's.
    pub(crate) fn metrics(&self, loss: f64) -> DpoMetrics {
        let ([chosen, rejected], logprobs) = (self.rewards, self.logprobs);
        DpoMetrics {
            loss,
            rewards_chosen: self.mean(chosen),
            rewards_rejected: self.mean(rejected),
            rewards_accuracies: self.mean(self.n_correct),
            rewards_margins: self.mean(chosen - rejected),
            logps_chosen: self.mean(logprobs[0]),
            logps_rejected: self.mean(logprobs[1]),
            ..DpoMetrics::default()
        }
    }

    pub(crate) fn evaluation(&self, loss: f64) -> DpoEvaluation {
        let metrics = self.metrics(loss);
        DpoEvaluation {
            eval_loss: metrics.loss,
            rewards_chosen: metrics.rewards_chosen,
            rewards_rejected: metrics.rewards_rejected,
            rewards_accuracies: metrics.rewards_accuracies,
            rewards_margins: metrics.rewards_margins,
            logps_chosen: metrics.logps_chosen,
            logps_rejected: metrics.logps_rejected,
            eval_pairs: self.n,
        }
    }
}

impl Sum for PairSums {
    fn add(&mut self, other: Self) {
        self.n.add(other.n);
        self.n_correct.add(other.n_correct);
        self.rewards.add(other.rewards);
        self.logprobs.add(other.logprobs);
    }

    fn sum_over_ranks(&mut self, world: &World, device: &Device) {
        self.n.sum_over_ranks(world, device);
        self.n_correct.sum_over_ranks(world, device);
        self.rewards.sum_over_ranks(world, device);
        self.logprobs.sum_over_ranks(world, device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_data::Pair;

    #[test]
    fn means_are_over_pairs_and_a_tie_counts_one_half() {
        let pair = |chosen, rejected| Pair { chosen, rejected, gap: 1.0 };
        let ranking =
            Ranking { completions: vec![], pairs: vec![pair(0, 1), pair(0, 2), pair(1, 2)], row: 0 };
        let row = RankingWithReference { ranking: &ranking, ref_logprobs: &[-10.0, -10.0, -10.0] };
        let config = DpoConfig { beta: 0.5, ..DpoConfig::default() };
        let mut sums = PairSums::default();
        // Rewards 2, −1 and −1: margins 3, 3 and 0.
        let cost = sums.add_row(&row, &[-6.0, -12.0, -12.0], &config);
        let expected = (2.0 * (-3f64).exp().ln_1p() + 2f64.ln()) / 3.0;
        assert!((cost - expected).abs() < 1e-12, "{cost}, expected {expected}");
        let metrics = sums.metrics(cost);
        assert_eq!(
            (metrics.rewards_chosen, metrics.rewards_rejected, metrics.rewards_margins),
            (1.0, -1.0, 2.0)
        );
        assert_eq!((metrics.logps_chosen, metrics.logps_rejected), (-8.0, -12.0));
        assert_eq!(metrics.rewards_accuracies, 2.5 / 3.0);
    }

    /// Log-probabilities that differ in the last bits alone, as those of a policy and of itself in another batch.
    #[test]
    fn margins_of_rounding_are_ties() {
        let ranking =
            Ranking { completions: vec![], pairs: vec![Pair { chosen: 0, rejected: 1, gap: 1.0 }], row: 0 };
        let check = |logprobs: [f32; 2], expected: f64| {
            let row = RankingWithReference { ranking: &ranking, ref_logprobs: &[-120.0, -95.0] };
            let mut sums = PairSums::default();
            let cost = sums.add_row(&row, &logprobs, &DpoConfig::default());
            assert_eq!(sums.metrics(cost).rewards_accuracies, expected, "{logprobs:?}");
        };
        let ulp = 120.0 * f32::EPSILON;
        check([-120.0, -95.0], 0.5);
        check([-120.0 - 2.0 * ulp, -95.0 + 2.0 * ulp], 0.5);
        check([-120.0 + 2.0 * ulp, -95.0], 0.5);
        // A hundredth of a nat is more than rounding.
        check([-119.99, -95.0], 1.0);
        check([-120.01, -95.0], 0.0);
    }
}
