//! Generalised advantage estimation: PPO as in InstructGPT.

use burn::tensor::Tensor;
use temper_tensor::{floats, scale_to_unit_variance, whiten};

use super::{Estimate, Estimator, KlPlacement};
use crate::rewards::next_column;
use crate::rollout::Rollout;

/// Generalised advantage estimation with a critic (Schulman et al. 2016, arXiv 1506.02438).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gae {
    /// γ: the discount (InstructGPT: 1).
    pub gamma: f64,
    /// λ: 0 trusts the critic, 1 trusts the rewards.
    pub lambda: f64,
    /// Whether the rewards of a rollout are scaled to unit variance before anything else, their mean kept.
    pub whiten_rewards: bool,
}

impl Estimator for Gae {
    fn needs_critic(&self) -> bool {
        true
    }

    fn needs_groups(&self) -> bool {
        false
    }

    fn kl(&self) -> KlPlacement {
        KlPlacement::InReward
    }

    /// Returns are made from the plain advantages; then the advantages are whitened over all completion tokens.
    fn estimate(&self, rollout: &Rollout, kl_coef: f64) -> Estimate {
        let (mask, value_mask) = (rollout.completion_mask.clone(), rollout.value_mask.clone());
        let mut rewards = rollout.rewards(kl_coef);
        if self.whiten_rewards {
            rewards = scale_to_unit_variance(rewards, value_mask.clone());
        }
        let values = rollout.values.clone().expect("generalised advantage estimation needs values");
        let Advantages { advantages, returns } =
            estimate_advantages(rewards, values, value_mask, self.gamma, self.lambda);
        Estimate { advantages: whiten(advantages, mask), returns: Some(returns) }
    }
}

/// Advantages before whitening, and the returns that the critic learns.
#[derive(Clone, Debug)]
pub struct Advantages {
    /// Aₜ: `[batch, completion_len]`.
    pub advantages: Tensor<2>,
    /// Rₜ = Aₜ + Vₜ: `[batch, completion_len]`.
    pub returns: Tensor<2>,
}

/// Aₜ = Σ_{s ≥ t} (γλ)^{s−t} δₛ with δₜ = rₜ + γ Vₜ₊₁ − Vₜ (Schulman et al. 2016, Eq. (16)).
///
/// After the last column of `value_mask` rewards and values are 0, because the answer has ended. The sum is a product
/// with a triangular matrix of powers, so it is one operation on any backend. Whiten the advantages afterwards: the
/// returns need the plain ones.
///
/// # Shapes
/// - `rewards`, `values`, `value_mask` and both results: `[batch, completion_len]`
pub fn estimate_advantages(
    rewards: Tensor<2>,
    values: Tensor<2>,
    value_mask: Tensor<2>,
    gamma: f64,
    gae_lambda: f64,
) -> Advantages {
    let [_, len] = rewards.dims();
    let device = rewards.device();
    let values = values * value_mask.clone();
    let next_values = next_column(values.clone()).mul_scalar(gamma);
    let deltas = (rewards + next_values - values.clone()) * value_mask.clone();
    let power =
        |s: usize, t: usize| if s >= t { (gamma * gae_lambda).powi((s - t) as i32) as f32 } else { 0.0 };
    let decay: Vec<f32> = (0..len * len).map(|i| power(i / len, i % len)).collect();
    let decay = floats(decay, [len, len], &device); // [s, t]
    let advantages = deltas.matmul(decay) * value_mask;
    Advantages { returns: advantages.clone() + values, advantages }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn run<const B: usize, const T: usize>(
        rewards: [[f32; T]; B],
        values: [[f32; T]; B],
        mask: [[f32; T]; B],
        gamma: f64,
        lambda: f64,
    ) -> (Vec<f32>, Vec<f32>) {
        let tensor = |rows: [[f32; T]; B]| Tensor::<2>::from_data(rows, &Device::flex());
        let estimate = estimate_advantages(tensor(rewards), tensor(values), tensor(mask), gamma, lambda);
        let list = |t: Tensor<2>| t.into_data().as_slice::<f32>().unwrap().to_vec();
        (list(estimate.advantages), list(estimate.returns))
    }

    fn close(values: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(values.len(), expected.len());
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < tolerance), "{values:?}");
    }

    /// Oracle 4 (GAE equals its definition) with γ = λ = 1: the advantage is the sum of the coming rewards minus the value.
    #[test]
    fn without_discount_it_is_the_rest_minus_the_value() {
        let (advantages, returns) = run([[1.0, -2.0, 5.0]], [[0.5, 0.25, 1.0]], [[1.0; 3]], 1.0, 1.0);
        close(&advantages, &[3.5, 2.75, 4.0], 1e-6);
        close(&returns, &[4.0, 3.0, 5.0], 1e-6);
    }

    /// By hand with γ = .9, λ = .5: δ = (1 + .9·2 − 3, 4 − 2) = (−.2, 2), A = (−.2 + .45·2, 2).
    #[test]
    fn columns_after_the_end_do_not_count() {
        for other in [0.0, 99.0] {
            let (advantages, returns) =
                run([[1.0, 4.0, other]], [[3.0, 2.0, other]], [[1.0, 1.0, 0.0]], 0.9, 0.5);
            close(&advantages, &[0.7, 2.0, 0.0], 1e-6);
            close(&returns, &[3.7, 4.0, 0.0], 1e-6);
        }
    }

    /// The backward recursion δₜ = rₜ + γ Vₜ₊₁ − Vₜ, Aₜ = δₜ + γλ Aₜ₊₁ over the tokens of one answer, in f64.
    fn recursion(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> Vec<f64> {
        let (mut advantage, mut next_value) = (0.0, 0.0);
        let mut advantages: Vec<f64> = rewards
            .iter()
            .zip(values)
            .rev()
            .map(|(reward, value)| {
                advantage = reward + gamma * next_value - value + gamma * lambda * advantage;
                next_value = *value;
                advantage
            })
            .collect();
        advantages.reverse();
        advantages
    }

    /// Oracle 4: GAE equals the backward recursion. The answers have 7, 4 and 1 tokens; the columns after their end hold
    /// arbitrary numbers.
    #[test]
    fn it_equals_the_backward_recursion() {
        let wave = |phase: f64| {
            let at = |row: usize, t: usize| (0.9 * (7 * row + t) as f64 + phase).sin() as f32;
            std::array::from_fn::<_, 3, _>(|row| std::array::from_fn::<_, 7, _>(|t| at(row, t)))
        };
        let lens = [7, 4, 1];
        let mask = lens.map(|len| std::array::from_fn(|t| if t < len { 1.0 } else { 0.0 }));
        let (rewards, values) = (wave(0.0), wave(2.0));
        for (gamma, lambda) in [(1.0, 0.95), (0.99, 0.95), (0.9, 0.0), (1.0, 1.0), (0.5, 0.7)] {
            let (advantages, returns) = run(rewards, values, mask, gamma, lambda);
            for (row, len) in lens.into_iter().enumerate() {
                let [r, v] = [rewards, values].map(|x| x[row][..len].iter().map(|&x| f64::from(x)).collect());
                let (r, v): (Vec<f64>, Vec<f64>) = (r, v);
                let mut expected = recursion(&r, &v, gamma, lambda);
                expected.resize(7, 0.0);
                // Seven additions of numbers near 1.
                close(
                    &advantages[row * 7..][..7],
                    &expected.iter().map(|&x| x as f32).collect::<Vec<_>>(),
                    2e-6,
                );
                let expected: Vec<f32> =
                    (0..7).map(|t| (expected[t] + v.get(t).unwrap_or(&0.0)) as f32).collect();
                close(&returns[row * 7..][..7], &expected, 2e-6);
            }
        }
    }

    /// N9: the example that the notebook works out, to the digits that it prints.
    #[test]
    fn the_notebooks_example_comes_out_as_printed() {
        let rewards = [[0.0, -0.01, -0.02, -0.03, 1.2], [0.0, -0.005, -0.015, -0.025, 0.8]];
        let values = [[0.0, 0.8, 0.6, 0.4, 0.2], [0.0, 0.7, 0.5, 0.3, 0.1]];
        // The notebook masks both inputs before it starts, and then counts every column.
        let (advantages, returns) = run(rewards, values, [[1.0; 5]; 2], 0.99, 0.95);
        let printed = [0.9801, 0.2000, 0.4423, 0.7085, 1.0000, 0.6623, -0.0326, 0.1886, 0.4323, 0.7000];
        close(&advantages, &printed, 5.1e-5);
        let printed = [0.9801, 1.0000, 1.0423, 1.1085, 1.2000, 0.6623, 0.6674, 0.6886, 0.7323, 0.8000];
        close(&returns, &printed, 5.1e-5);
    }
}
