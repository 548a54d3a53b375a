//! The loss of the reward model.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;
use temper_data::ScorePairs;

/// Mean over comparisons of the mean over their pairs of −log σ(r_chosen − r_rejected − margin · gap), in nats, plus
/// `center` times the same mean of (r_chosen + r_rejected)².
///
/// Without margin and centring it is Eq. (1) of InstructGPT (section 3.5), except that tied pairs are left out of the
/// sum and of the number it is divided by. All pairs of a prompt come from one forward of each completion. The margin
/// is that of Llama 2 (arXiv 2307.09288, Eq. (2)); the centring term that of Eisenstein et al. (arXiv 2312.09244),
/// which keeps the scores around 0 where the data say nothing about their level.
///
/// # Shapes
/// - `scores`: `[completions]`
/// - output: `[1]`; gradients flow into the scores
pub fn ranking_loss(scores: Tensor<1>, pairs: &ScorePairs, margin: f64, center: f64) -> Tensor<1> {
    let (chosen, rejected) = pairs.sides(scores);
    let gap = chosen.clone() - rejected.clone();
    let gap = if margin == 0.0 { gap } else { gap - pairs.gaps() * margin };
    let loss = -log_sigmoid(gap);
    let loss = if center == 0.0 { loss } else { loss + (chosen + rejected).square() * center };
    pairs.mean(loss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use temper_data::Pair;

    /// All pairs of completions ranked by `scores`; equal ones tie.
    fn pairs(scores: &[f64]) -> Vec<Pair> {
        let n = scores.len();
        let all = (0..n).flat_map(|a| (0..n).map(move |b| (a, b))).filter(|&(a, b)| scores[a] > scores[b]);
        all.map(|(a, b)| Pair { chosen: a, rejected: b, gap: scores[a] - scores[b] }).collect()
    }

    fn loss_with(scores: &[f32], rankings: &[&[f64]], margin: f64, center: f64) -> f64 {
        let all_pairs: Vec<Vec<Pair>> = rankings.iter().map(|scores| pairs(scores)).collect();
        let rankings: Vec<_> =
            rankings.iter().zip(&all_pairs).map(|(r, pairs)| (r.len(), pairs.as_slice())).collect();
        let pairs = ScorePairs::new(&rankings, &Device::flex());
        ranking_loss(Tensor::from_data(scores, &Device::flex()), &pairs, margin, center).into_scalar::<f64>()
    }

    fn loss(scores: &[f32], rankings: &[&[f64]]) -> f64 {
        loss_with(scores, rankings, 0.0, 0.0)
    }

    /// softplus(−x) in double precision.
    fn cost(difference: f64) -> f64 {
        (-difference).exp().ln_1p()
    }

    fn check(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }

    #[test]
    fn equal_scores_cost_ln_2() {
        check(loss(&[3.0, 3.0], &[&[1.0, 0.0]]), 2f64.ln());
    }

    #[test]
    fn only_the_difference_counts() {
        // softplus(−ln 3) = ln(4/3) and softplus(ln 3) = ln 4.
        let ln_3 = 3f32.ln();
        let losses = loss(&[ln_3, 0.0, 5.0, 5.0 + ln_3], &[&[1.0, 0.0], &[1.0, 0.0]]);
        check(losses, ((4f64 / 3.0).ln() + 4f64.ln()) / 2.0);
    }

    #[test]
    fn a_hopeless_pair_costs_its_difference_and_stays_finite() {
        assert!((loss(&[-200.0, 300.0], &[&[1.0, 0.0]]) - 500.0).abs() < 1e-3);
        assert_eq!(loss(&[300.0, -200.0], &[&[1.0, 0.0]]), 0.0);
    }

    /// Brute force over the six pairs, by hand.
    #[test]
    fn four_completions_cost_the_mean_of_their_six_pairs() {
        let expected = [0.5 - -1.0, 0.5 - 2.0, 0.5 - 0.25, -1.0 - 2.0, -1.0 - 0.25, 2.0 - 0.25].map(cost);
        check(loss(&[0.5, -1.0, 2.0, 0.25], &[&[4.0, 3.0, 2.0, 1.0]]), expected.iter().sum::<f64>() / 6.0);
    }

    #[test]
    fn ties_leave_the_sum_and_its_divisor() {
        // The second and third are tied, so two pairs of three are left.
        let expected = (cost(0.5 - -1.0) + cost(0.5 - 2.0)) / 2.0;
        check(loss(&[0.5, -1.0, 2.0], &[&[1.0, 0.0, 0.0]]), expected);
    }

    #[test]
    fn every_prompt_counts_the_same_however_many_completions_it_has() {
        let three = (cost(0.5 - -1.0) + cost(0.5 - 2.0) + cost(-1.0 - 2.0)) / 3.0;
        let two = cost(1.5);
        check(loss(&[0.5, -1.0, 2.0, 1.5, 0.0], &[&[3.0, 2.0, 1.0], &[1.0, 0.0]]), f64::midpoint(three, two));
    }

    #[test]
    fn permuting_completions_with_their_ranks_changes_nothing() {
        let permuted = loss(&[2.0, 0.5, 0.25, -1.0], &[&[2.0, 4.0, 1.0, 3.0]]);
        check(permuted, loss(&[0.5, -1.0, 2.0, 0.25], &[&[4.0, 3.0, 2.0, 1.0]]));
    }

    /// dL/dr_i = (Σ_j: j beats i σ(r_i − r_j) − Σ_j: i beats j σ(r_j − r_i)) / 6, in double precision.
    #[test]
    fn the_gradient_is_the_mean_of_the_pairs_gradients() {
        let scores = [0.5f32, -1.0, 2.0, 0.25];
        let pairs = pairs(&[4.0, 3.0, 2.0, 1.0]);
        let device = Device::flex();
        let leaf = Tensor::<1>::from_data(scores, &device.clone().autodiff()).require_grad();
        let gradients =
            ranking_loss(leaf.clone(), &ScorePairs::new(&[(4, &pairs)], &device), 0.0, 0.0).backward();
        let gradient = leaf.grad(&gradients).unwrap().into_data();
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        for (i, &gradient) in gradient.as_slice::<f32>().unwrap().iter().enumerate() {
            let difference = |j: usize| f64::from(scores[j]) - f64::from(scores[i]);
            let better = (0..i).map(|j| sigma(-difference(j))).sum::<f64>();
            let worse = (i + 1..4).map(|j| sigma(difference(j))).sum::<f64>();
            check(f64::from(gradient), (better - worse) / 6.0);
        }
    }

    #[test]
    fn a_margin_asks_for_more_where_the_data_prefer_more() {
        // Pairs (0, 1) and (1, 2) have gap 1, (0, 2) has gap 2.
        let expected = (cost(1.0 - 0.5) + cost(1.5 - 1.0) + cost(0.5 - 0.5)) / 3.0;
        check(loss_with(&[2.0, 1.0, 0.5], &[&[2.0, 1.0, 0.0]], 0.5, 0.0), expected);
    }

    #[test]
    fn centring_costs_the_square_of_the_sum() {
        let without = loss(&[2.0, 1.0], &[&[1.0, 0.0]]);
        check(loss_with(&[2.0, 1.0], &[&[1.0, 0.0]], 0.0, 0.01), without + 0.09);
        check(loss_with(&[0.5, -0.5], &[&[1.0, 0.0]], 0.0, 0.01), loss(&[1.0, 0.0], &[&[1.0, 0.0]]));
    }
}
