//! Oracle 17: every loss, written again in f64 from its formula, differenced, and compared with autodiff.

use burn::tensor::{Device, Int, Tensor, TensorData};
use temper_data::{Pair, ScorePairs};
use temper_dpo::{dpo_loss, implicit_rewards};
use temper_ppo::{kl_loss, policy_loss, value_loss};
use temper_reward::ranking_loss;
use temper_sft::sft_loss;
use temper_tensor::{entropy, log_probs, masked_mean, token_logprobs};

use crate::setup::{numbers, wave};

/// A dozen float32 operations on numbers of size 1 to 5, and a gradient below 1.
const TOLERANCE: f64 = 2e-6;
/// Central differences in f64: the error of order STEP² and the rounding of 1e-16 / STEP are both below 1e-10.
const STEP: f64 = 1e-5;

fn differenced(loss: &dyn Fn(&[f64]) -> f64, at: &[f64]) -> Vec<f64> {
    let moved = |i: usize, by: f64| {
        let mut x = at.to_vec();
        x[i] += by;
        loss(&x)
    };
    (0..at.len()).map(|i| (moved(i, STEP) - moved(i, -STEP)) / (2.0 * STEP)).collect()
}

/// Compares loss and gradient at `at`, numbers that float32 holds exactly.
fn check<const D: usize>(
    shape: [usize; D],
    at: &[f64],
    expected: &dyn Fn(&[f64]) -> f64,
    found: impl Fn(Tensor<D>) -> Tensor<1>,
) -> Vec<f64> {
    let input = tensor(at, shape, &Device::flex().autodiff()).require_grad();
    let loss = found(input.clone());
    let value = numbers(loss.clone())[0];
    assert!((value - expected(at)).abs() < TOLERANCE, "the loss is {value}, not {}", expected(at));
    let gradient = numbers(input.grad(&loss.backward()).unwrap());
    let by_hand = differenced(expected, at);
    assert!(by_hand.iter().any(|g| g.abs() > 0.01), "nothing to compare: {by_hand:?}");
    let worst = gradient.iter().zip(&by_hand).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("differs by {worst:.1e}, tolerance {TOLERANCE:.0e}");
    assert!(worst < TOLERANCE, "off by {worst:.1e}:\n{gradient:?}\n{by_hand:?}");
    gradient
}

fn tensor<const D: usize>(values: &[f64], shape: [usize; D], device: &Device) -> Tensor<D> {
    let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn plain<const D: usize>(values: &[f64], shape: [usize; D]) -> Tensor<D> {
    tensor(values, shape, &Device::flex())
}

fn ids(values: &[usize]) -> Tensor<1, Int> {
    let values: Vec<i32> = values.iter().map(|&x| x as i32).collect();
    Tensor::from_data(TensorData::new(values.clone(), [values.len()]), &Device::flex())
}

/// log softmax of each row of `vocab` numbers, divided by a temperature.
fn log_softmax(logits: &[f64], vocab: usize, temperature: f64) -> Vec<Vec<f64>> {
    let row = |row: &[f64]| {
        let total: f64 = row.iter().map(|l| (l / temperature).exp()).sum();
        row.iter().map(|l| l / temperature - total.ln()).collect()
    };
    logits.chunks(vocab).map(row).collect()
}

/// Σ x · mask / Σ mask.
fn mean(x: impl Iterator<Item = f64>, mask: &[f64]) -> f64 {
    x.zip(mask).map(|(x, m)| x * m).sum::<f64>() / mask.iter().sum::<f64>()
}

#[test]
fn the_sft_loss_is_the_mean_negative_log_likelihood() {
    let targets = [3, 0, 4, 1, 1, 2];
    let loss = |logits: &[f64]| {
        let rows = log_softmax(logits, 5, 1.0);
        -rows.iter().zip(targets).map(|(row, target)| row[target]).sum::<f64>() / 6.0
    };
    check([6, 5], &wave(30, 2.0), &loss, |logits| sft_loss(logits, ids(&targets)));
}

#[test]
fn the_pairwise_loss_is_the_log_sigmoid_of_the_difference() {
    // Chosen and then rejected scores; margins from about −6 to 6.
    let pairs: Vec<Pair> = (0..6).map(|i| Pair { chosen: i, rejected: 6 + i, gap: 1.0 }).collect();
    let loss =
        |scores: &[f64]| (0..6).map(|i| (1.0 + (scores[6 + i] - scores[i]).exp()).ln()).sum::<f64>() / 6.0;
    let gradient = check([12], &wave(12, 3.0), &loss, |scores| {
        ranking_loss(scores, &ScorePairs::new(&[(12, &pairs)], &Device::flex()), 0.0, 0.0)
    });
    for i in 0..6 {
        assert!(gradient[i] < 0.0 && gradient[6 + i] > 0.0, "up with the chosen, down with the other");
    }
}

/// Of log-probabilities, next to those of the reference: three pairs of a ranking of three, one of a pair.
#[test]
fn the_dpo_loss_is_the_log_sigmoid_of_how_far_each_pair_has_moved() {
    const BETA: f64 = 0.4;
    let reference = wave(5, 4.0);
    let three = [(0, 1), (0, 2), (2, 1)];
    let pairs = |of: &[(usize, usize)]| -> Vec<Pair> {
        of.iter().map(|&(chosen, rejected)| Pair { chosen, rejected, gap: 1.0 }).collect()
    };
    let (of_three, of_two) = (pairs(&three), pairs(&[(1, 0)]));
    for smoothing in [0.0, 0.2] {
        let loss = |logprobs: &[f64]| {
            let cost = |(chosen, rejected): (usize, usize)| {
                let moved = |i: usize| logprobs[i] - reference[i];
                let margin = BETA * (moved(chosen) - moved(rejected));
                (1.0 - smoothing) * (1.0 + (-margin).exp()).ln() + smoothing * (1.0 + margin.exp()).ln()
            };
            (three.map(cost).iter().sum::<f64>() / 3.0 + cost((4, 3))) / 2.0
        };
        check([5], &wave(5, 9.0), &loss, |logprobs| {
            let rewards = implicit_rewards(logprobs, plain(&reference, [5]), BETA);
            dpo_loss(rewards, &ScorePairs::new(&[(3, &of_three), (2, &of_two)], &Device::flex()), smoothing)
        });
    }
}

const CLIP: f64 = 0.2;
/// Of every token: log π − log π_old, the advantage, whether it counts, whether the clip holds it.
/// Every combination of side and sign, in both rows pads with wild numbers.
const TOKENS: [(f64, f64, f64, bool); 10] = [
    (0.5, 1.0, 1.0, true),
    (0.5, -1.5, 1.0, false),
    (-0.5, 2.0, 1.0, false),
    (-0.5, -0.75, 1.0, true),
    (0.75, 9.0, 0.0, true),
    (0.125, 1.25, 1.0, false),
    (-0.125, -2.0, 1.0, false),
    (0.1875, 3.0, 1.0, true),
    (-2.0, -4.0, 0.0, true),
    (-0.25, 0.5, 1.0, false),
];

fn column(of: impl Fn(&(f64, f64, f64, bool)) -> f64) -> Vec<f64> {
    TOKENS.iter().map(of).collect()
}

/// mean of max(−A ρ, −A clip(ρ, 1 ± ε)), ρ = exp(log π − log π_old).
fn surrogate(logprobs: &[f64], old: &[f64], advantages: &[f64], mask: &[f64]) -> f64 {
    let token = |t: usize| {
        let ratio = (logprobs[t] - old[t]).exp();
        (-advantages[t] * ratio).max(-advantages[t] * ratio.clamp(1.0 - CLIP, 1.0 + CLIP))
    };
    mean((0..logprobs.len()).map(token), mask)
}

#[test]
fn the_policy_loss_is_the_clipped_surrogate_and_what_is_clipped_has_no_gradient() {
    let old = wave(10, 1.0);
    let logprobs: Vec<f64> =
        old.iter().zip(TOKENS).map(|(old, token)| f64::from((old + token.0) as f32)).collect();
    let (advantages, mask) = (column(|token| token.1), column(|token| token.2));
    let shape = [2, 5];
    let gradient = check(shape, &logprobs, &|x| surrogate(x, &old, &advantages, &mask), |logprobs| {
        let old = plain(&old, shape);
        policy_loss(logprobs, old, plain(&advantages, shape), plain(&mask, shape), CLIP).loss
    });
    for (gradient, token) in gradient.iter().zip(TOKENS) {
        assert_eq!(*gradient == 0.0, token.3, "{token:?}");
    }
}

/// At ratio 1 both sides of the maximum are equal; the gradient is that of either, −A / n.
#[test]
fn at_ratio_1_the_policy_gradient_is_whole() {
    let logprobs = wave(10, 1.0);
    let (advantages, mask) = (column(|token| token.1), column(|token| token.2));
    let shape = [2, 5];
    check(shape, &logprobs, &|x| surrogate(x, &logprobs, &advantages, &mask), |input| {
        let old = plain(&logprobs, shape);
        policy_loss(input, old, plain(&advantages, shape), plain(&mask, shape), CLIP).loss
    });
}

#[test]
fn where_every_ratio_is_clipped_the_gradient_is_zero() {
    let clipped: Vec<_> = TOKENS.iter().filter(|token| token.3).collect();
    let n = clipped.len();
    let of = |f: fn(&(f64, f64, f64, bool)) -> f64| clipped.iter().map(|token| f(token)).collect::<Vec<_>>();
    let logprobs = tensor(&of(|token| token.0), [1, n], &Device::flex().autodiff()).require_grad();
    let ones = Tensor::ones([1, n], &Device::flex());
    let loss =
        policy_loss(logprobs.clone(), ones.zeros_like(), plain(&of(|token| token.1), [1, n]), ones, CLIP)
            .loss;
    assert_eq!(numbers(logprobs.grad(&loss.backward()).unwrap()), vec![0.0; n]);
}

/// From the logits on: temperature, log-softmax, the taken token, the ratio.
#[test]
fn the_policy_gradient_reaches_the_logits_at_their_temperature() {
    const TEMPERATURE: f64 = 0.7;
    let logits = wave(40, 1.5);
    let targets = [0, 3, 1, 2, 2, 0, 1, 3, 3, 1];
    let taken = |logits: &[f64]| -> Vec<f64> {
        log_softmax(logits, 4, TEMPERATURE).iter().zip(targets).map(|(row, target)| row[target]).collect()
    };
    let old: Vec<f64> =
        taken(&logits).iter().zip(TOKENS).map(|(l, token)| f64::from((l - token.0) as f32)).collect();
    let (advantages, mask) = (column(|token| token.1), column(|token| token.2));
    check([10, 4], &logits, &|x| surrogate(&taken(x), &old, &advantages, &mask), |logits| {
        let logprobs = token_logprobs(log_probs(logits, TEMPERATURE), ids(&targets)).reshape([2, 5]);
        let [old, advantages, mask] = [&old, &advantages, &mask].map(|x| plain(x, [2, 5]));
        policy_loss(logprobs, old, advantages, mask, CLIP).loss
    });
}

/// Where V moved by more than ε and the clipped error is the larger, there is no gradient.
#[test]
fn the_value_loss_is_the_larger_squared_error() {
    // V − V_old, R − V_old, whether it counts, whether the clip holds it.
    let tokens = [
        (0.5, 2.0, 1.0, true),
        (0.5, -1.0, 1.0, false),
        (-0.5, -2.0, 1.0, true),
        (-0.5, 1.0, 1.0, false),
        (0.125, 1.5, 1.0, false),
        (-0.125, -0.5, 1.0, false),
        (3.0, -7.0, 0.0, true),
        (0.375, 0.25, 1.0, false),
    ];
    let shape = [2, 4];
    let old = wave(8, 1.0);
    let of = |f: fn(&(f64, f64, f64, bool)) -> f64| -> Vec<f64> {
        old.iter().zip(&tokens).map(|(old, token)| f64::from((old + f(token)) as f32)).collect()
    };
    let (values, returns) = (of(|token| token.0), of(|token| token.1));
    let mask: Vec<f64> = tokens.iter().map(|token| token.2).collect();
    let loss = |values: &[f64]| {
        let token = |t: usize| {
            let clipped = values[t].clamp(old[t] - CLIP, old[t] + CLIP);
            0.5 * (values[t] - returns[t]).powi(2).max((clipped - returns[t]).powi(2))
        };
        mean((0..8).map(token), &mask)
    };
    let gradient = check(shape, &values, &loss, |values| {
        value_loss(values, plain(&old, shape), plain(&returns, shape), plain(&mask, shape), CLIP).loss
    });
    for (gradient, token) in gradient.iter().zip(tokens) {
        assert_eq!(*gradient == 0.0, token.3, "{token:?}");
    }
}

/// At the first minibatch V is V_old.
#[test]
fn at_the_old_values_the_value_gradient_is_whole() {
    let (values, returns, shape) = (wave(8, 1.0), wave(8, 2.0), [2, 4]);
    let returns: Vec<f64> = returns.iter().rev().copied().collect();
    let loss = |x: &[f64]| x.iter().zip(&returns).map(|(v, r)| 0.5 * (v - r).powi(2)).sum::<f64>() / 8.0;
    check(shape, &values, &loss, |input| {
        let ones = Tensor::ones(shape, &Device::flex());
        value_loss(input, plain(&values, shape), plain(&returns, shape), ones, CLIP).loss
    });
}

/// Both sides of the reference, far and near; pads with wild numbers.
#[test]
fn the_kl_in_the_loss_is_exp_r_less_r_less_1() {
    let logprobs = wave(10, 1.0);
    let shape = [2, 5];
    let reference: Vec<f64> = logprobs
        .iter()
        .zip(TOKENS)
        .map(|(logprob, token)| f64::from((logprob + 2.0 * token.0) as f32))
        .collect();
    let mask = column(|token| token.2);
    let loss = |x: &[f64]| {
        let token = |t: usize| (reference[t] - x[t]).exp() - (reference[t] - x[t]) - 1.0;
        mean((0..10).map(token), &mask)
    };
    let gradient =
        check(shape, &logprobs, &loss, |input| kl_loss(input, plain(&reference, shape), plain(&mask, shape)));
    for (gradient, token) in gradient.iter().zip(TOKENS) {
        // A step against the gradient goes towards the reference.
        assert!(
            if token.2 == 1.0 { gradient * token.0 < 0.0 } else { *gradient == 0.0 },
            "{token:?} {gradient}"
        );
    }
}

#[test]
fn the_entropy_is_that_of_the_whole_distribution() {
    const TEMPERATURE: f64 = 0.7;
    let mask = [1.0, 1.0, 0.0, 1.0, 0.0, 1.0];
    let loss = |logits: &[f64]| {
        let of = |row: &Vec<f64>| -row.iter().map(|l| l.exp() * l).sum::<f64>();
        mean(log_softmax(logits, 5, TEMPERATURE).iter().map(of), &mask)
    };
    check([6, 5], &wave(30, 2.0), &loss, |logits| {
        masked_mean(entropy(log_probs(logits, TEMPERATURE)), plain(&mask, [6]))
    });
}
