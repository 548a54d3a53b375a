//! The loss of DPO.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use temper_data::ScorePairs;

/// β (log π(y|x) − log π_ref(y|x)): the reward, up to a term of the prompt alone, under which the policy would be the
/// best answer to a KL penalty of weight β (arXiv 2305.18290, Eq. (5)).
///
/// # Shapes
/// - `logprobs`: `[completions]`, sums over the tokens of each; gradients flow into them
/// - `ref_logprobs` and output: `[completions]`
pub fn implicit_rewards(logprobs: Tensor<1>, ref_logprobs: Tensor<1>, beta: f64) -> Tensor<1> {
    (logprobs - ref_logprobs) * beta
}

/// Mean over rankings of the mean over their pairs of −log σ(r_chosen − r_rejected), in nats.
///
/// For rankings of two it is Eq. (7) of arXiv 2305.18290; pairs of a longer one share its weight, as in the loss of the
/// reward model. With `label_smoothing` ε a pair costs −(1 − ε) log σ(m) − ε log σ(−m): conservative DPO, for labels of
/// which a share ε is wrong (TRL's `sigmoid` loss with the same setting).
///
/// # Shapes
/// - `rewards`: `[completions]`, from [`implicit_rewards`]
/// - output: `[1]`; gradients flow into the rewards
pub fn dpo_loss(rewards: Tensor<1>, pairs: &ScorePairs, label_smoothing: f64) -> Tensor<1> {
    let (chosen, rejected) = pairs.sides(rewards);
    let margin = chosen - rejected;
    let cost = -log_sigmoid(margin.clone());
    if label_smoothing == 0.0 {
        return pairs.mean(cost);
    }
    let reversed = -log_sigmoid(-margin);
    pairs.mean(cost * (1.0 - label_smoothing) + reversed * label_smoothing)
}

/// The same cost of one pair, on the host.
pub(crate) fn pair_cost(margin: f64, label_smoothing: f64) -> f64 {
    // softplus(−x), written so that neither end overflows.
    let cost = |x: f64| (-x).max(0.0) + (-x.abs()).exp().ln_1p();
    (1.0 - label_smoothing) * cost(margin) + label_smoothing * cost(-margin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use temper_data::Pair;

    /// Sums of f32 numbers below 10.
    const TOLERANCE: f64 = 2e-6;

    fn tensor(numbers: &[f32]) -> Tensor<1> {
        Tensor::from_data(numbers, &Device::flex())
    }

    /// All pairs of completions ranked by `ranks`, the best being 0.
    fn ranked(ranks: &[usize]) -> Vec<Pair> {
        let n = ranks.len();
        let all = (0..n).flat_map(|a| (0..n).map(move |b| (a, b))).filter(|&(a, b)| ranks[a] < ranks[b]);
        all.map(|(chosen, rejected)| Pair { chosen, rejected, gap: 1.0 }).collect()
    }

    fn loss(rewards: &[f32], rankings: &[&[usize]], label_smoothing: f64) -> f64 {
        let pairs: Vec<Vec<Pair>> = rankings.iter().map(|ranks| ranked(ranks)).collect();
        let pairs: Vec<_> = rankings.iter().zip(&pairs).map(|(r, p)| (r.len(), p.as_slice())).collect();
        let pairs = ScorePairs::new(&pairs, &Device::flex());
        dpo_loss(tensor(rewards), &pairs, label_smoothing).into_scalar::<f64>()
    }

    fn check(found: f64, expected: f64) {
        assert!((found - expected).abs() < TOLERANCE, "{found}, expected {expected}");
    }

    #[test]
    fn a_policy_that_is_its_reference_costs_ln_2() {
        let logprobs = tensor(&[-31.5, -8.25]);
        let rewards = implicit_rewards(logprobs.clone(), logprobs, 0.1);
        assert_eq!(rewards.into_data().as_slice::<f32>().unwrap(), [0.0, 0.0]);
        check(loss(&[0.0, 0.0], &[&[0, 1]], 0.0), 2f64.ln());
        check(loss(&[0.0, 0.0], &[&[0, 1]], 0.3), 2f64.ln());
    }

    /// Ten nats up and twenty down at β = 0.1 are rewards 1 and −2, and log σ(3) = −ln(1 + e⁻³).
    #[test]
    fn a_nat_counts_beta() {
        let rewards = implicit_rewards(tensor(&[-20.0, -50.0]), tensor(&[-30.0, -30.0]), 0.1);
        let rewards = rewards.into_data().as_slice::<f32>().unwrap().to_vec();
        check(f64::from(rewards[0]), 1.0);
        check(f64::from(rewards[1]), -2.0);
        check(loss(&rewards, &[&[0, 1]], 0.0), (-3f64).exp().ln_1p());
    }

    /// −0.9 log σ(ln 3) − 0.1 log σ(−ln 3), with σ(ln 3) = 3/4.
    #[test]
    fn smoothing_takes_a_share_of_the_labels_to_be_wrong() {
        let expected = -0.9 * 0.75f64.ln() - 0.1 * 0.25f64.ln();
        check(loss(&[3f32.ln(), 0.0], &[&[0, 1]], 0.1), expected);
        check(pair_cost(3f64.ln(), 0.1), expected);
    }

    /// With σ(m) = 1 − ε nothing pulls any more: the labels say no more than that.
    #[test]
    fn a_smoothed_pair_rests_at_the_odds_of_its_label() {
        let cost = |margin: f32| loss(&[margin, 0.0], &[&[0, 1]], 0.2);
        let at_odds = 4f32.ln();
        assert!(cost(at_odds) < cost(at_odds - 0.1) && cost(at_odds) < cost(at_odds + 0.1));
    }

    /// Brute force over the pairs, by hand; the other ranking has one pair and weighs the same.
    #[test]
    fn the_pairs_of_a_ranking_share_its_weight() {
        let cost = |x: f64| (-x).exp().ln_1p();
        let three = (cost(0.5 - -1.0) + cost(0.5 - 2.0) + cost(-1.0 - 2.0)) / 3.0;
        let losses = loss(&[0.5, -1.0, 2.0, 1.5, 0.0], &[&[0, 1, 2], &[0, 1]], 0.0);
        check(losses, f64::midpoint(three, cost(1.5)));
    }

    #[test]
    fn permuting_completions_with_their_ranks_changes_nothing() {
        for smoothing in [0.0, 0.1] {
            let permuted = loss(&[2.0, 0.5, 0.25, -1.0], &[&[2, 0, 3, 1]], smoothing);
            check(permuted, loss(&[0.5, -1.0, 2.0, 0.25], &[&[0, 1, 2, 3]], smoothing));
        }
    }

    #[test]
    fn a_hopeless_pair_costs_its_difference_and_stays_finite() {
        check(loss(&[-200.0, 300.0], &[&[0, 1]], 0.0), 500.0);
        check(pair_cost(-500.0, 0.0), 500.0);
        check(pair_cost(500.0, 0.0), 0.0);
    }
}
