//! Generalised advantage estimation.

use burn::tensor::{Tensor, TensorData};

use crate::rewards::next_column;

/// Advantages and the returns that the critic learns.
#[derive(Clone, Debug)]
pub struct Advantages {
    /// Aₜ, not whitened: `[batch, completion_len]`.
    pub advantages: Tensor<2>,
    /// Aₜ + Vₜ: `[batch, completion_len]`.
    pub returns: Tensor<2>,
}

/// Aₜ = Σ_{s ≥ t} (γλ)^{s−t} δₛ with δₜ = rₜ + γ Vₜ₊₁ − Vₜ (Schulman et al. 2016, Eq. (16)).
///
/// Behind the last token rewards and values are 0: the answer has ended. The sum is a product with a triangular
/// matrix of powers, so it is one operation on any backend. Whiten afterwards: returns need the plain advantages.
///
/// # Shapes
/// - `rewards`, `values`, `completion_mask` and both results: `[batch, completion_len]`
pub fn estimate_advantages(
    rewards: Tensor<2>,
    values: Tensor<2>,
    completion_mask: Tensor<2>,
    gamma: f64,
    gae_lambda: f64,
) -> Advantages {
    let [_, len] = rewards.dims();
    let device = rewards.device();
    let values = values * completion_mask.clone();
    let next_values = next_column(values.clone()).mul_scalar(gamma);
    let deltas = (rewards + next_values - values.clone()) * completion_mask.clone();
    let power =
        |s: usize, t: usize| if s >= t { (gamma * gae_lambda).powi((s - t) as i32) as f32 } else { 0.0 };
    let decay: Vec<f32> = (0..len * len).map(|i| power(i / len, i % len)).collect();
    let decay = Tensor::from_data(TensorData::new(decay, [len, len]), &device); // [s, t]
    let advantages = deltas.matmul(decay) * completion_mask;
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
        let found = estimate_advantages(tensor(rewards), tensor(values), tensor(mask), gamma, lambda);
        let list = |t: Tensor<2>| t.into_data().as_slice::<f32>().unwrap().to_vec();
        (list(found.advantages), list(found.returns))
    }

    fn close(found: &[f32], expected: &[f32], tolerance: f32) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < tolerance), "{found:?}");
    }

    /// Oracle 4, with γ = λ = 1: the advantage is what is still to come minus the value.
    #[test]
    fn without_discount_it_is_the_rest_minus_the_value() {
        let (advantages, returns) = run([[1.0, -2.0, 5.0]], [[0.5, 0.25, 1.0]], [[1.0; 3]], 1.0, 1.0);
        close(&advantages, &[3.5, 2.75, 4.0], 1e-6);
        close(&returns, &[4.0, 3.0, 5.0], 1e-6);
    }

    /// By hand with γ = .9, λ = .5: δ = (1 + .9·2 − 3, 4 − 2) = (−.2, 2), A = (−.2 + .45·2, 2).
    #[test]
    fn what_stands_behind_the_end_does_not_count() {
        for other in [0.0, 99.0] {
            let (advantages, returns) =
                run([[1.0, 4.0, other]], [[3.0, 2.0, other]], [[1.0, 1.0, 0.0]], 0.9, 0.5);
            close(&advantages, &[0.7, 2.0, 0.0], 1e-6);
            close(&returns, &[3.7, 4.0, 0.0], 1e-6);
        }
    }
}
