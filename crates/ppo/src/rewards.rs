//! From scores and log-probabilities to one reward per token.

use burn::tensor::Tensor;

use crate::kl::token_kl;

/// rₜ = −β dₜ + \[t is the last marked column\] · score, with dₜ = log π_old(yₜ) − log π_ref(yₜ)
/// (InstructGPT section 3.5, Eq. (2); Stiennon et al. 2020, section 3.4). [`token_kl`] computes dₜ.
///
/// The score is placed in the last column of each row that `value_mask` marks. That mask either equals `completion_mask`, whose last column is
/// the end token where there is one, or it has one column more, and the score is placed one past the end.
///
/// ```text
/// completion   a    b    [EOS]  .
/// mask         1    1    1      0
/// rewards     −βd₀ −βd₁ −βd₂+s  0
/// ```
///
/// # Shapes
/// - `old_logprobs`, `ref_logprobs`, `completion_mask`, `value_mask`: `[batch, completion_len]`
/// - `scores`: `[batch]`
/// - output: `[batch, completion_len]`
pub fn shape_rewards(
    old_logprobs: Tensor<2>,
    ref_logprobs: Tensor<2>,
    scores: Tensor<1>,
    completion_mask: Tensor<2>,
    value_mask: Tensor<2>,
    kl_coef: f64,
) -> Tensor<2> {
    let d = token_kl(old_logprobs, ref_logprobs, completion_mask);
    d.mul_scalar(-kl_coef) + last_marked_column(value_mask) * scores.unsqueeze_dim::<2>(1)
}

/// 1 in the last marked column of each row and 0 elsewhere: the marked column that no other marked one follows.
fn last_marked_column(mask: Tensor<2>) -> Tensor<2> {
    let next = next_column(mask.clone());
    mask * (next * -1.0 + 1.0)
}

/// Shifts every column one to the left and fills the last one with zeros: column t becomes that of t + 1.
pub(crate) fn next_column(x: Tensor<2>) -> Tensor<2> {
    let [batch, len] = x.dims();
    let nothing = Tensor::zeros([batch, 1], &x.device());
    if len == 1 { nothing } else { Tensor::cat(vec![x.narrow(1, 1, len - 1), nothing], 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn rewards(kl_coef: f64) -> Vec<f32> {
        let device = Device::flex();
        let tensor = |rows: [[f32; 3]; 2]| Tensor::<2>::from_data(rows, &device);
        let rewards = shape_rewards(
            tensor([[-1.0, -2.0, -3.0], [-0.5, -9.0, -9.0]]),
            tensor([[-1.5, -1.0, -3.5], [-2.5, -4.0, -5.0]]),
            Tensor::from_data([10.0f32, -4.0], &device),
            tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]),
            tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]),
            kl_coef,
        );
        rewards.into_data().as_slice::<f32>().unwrap().to_vec()
    }

    #[test]
    fn the_score_lands_on_the_last_token_and_the_penalty_on_all() {
        let rewards = rewards(0.1);
        let expected = [-0.05, 0.1, 9.95, -4.2, 0.0, 0.0];
        assert!(rewards.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{rewards:?}");
    }

    #[test]
    fn an_answer_of_one_token_gets_its_score() {
        let tensor = |x: f32| Tensor::<2>::from_data([[x]], &Device::flex());
        let score = Tensor::from_data([7.0f32], &Device::flex());
        let rewards = shape_rewards(tensor(-1.0), tensor(-3.0), score, tensor(1.0), tensor(1.0), 0.5);
        assert_eq!(rewards.into_data().as_slice::<f32>().unwrap(), [6.0]);
    }

    #[test]
    fn one_past_the_end_the_score_comes_after_the_last_penalty() {
        let tensor = |rows: [[f32; 3]; 2]| Tensor::<2>::from_data(rows, &Device::flex());
        let rewards = shape_rewards(
            tensor([[-1.0, -2.0, -9.0], [-1.0, -1.0, -1.0]]),
            tensor([[-2.0, -4.0, -3.0], [-1.0, -1.0, -2.0]]),
            Tensor::from_data([10.0f32, -4.0], &Device::flex()),
            tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]),
            tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]),
            0.5,
        );
        assert_eq!(rewards.into_data().as_slice::<f32>().unwrap(), [-0.5, -1.0, 10.0, 0.0, 0.0, -4.5]);
    }

    /// Oracle 3 (rewards add up): without a penalty their sum is the score.
    #[test]
    fn without_a_penalty_the_rewards_add_up_to_the_score() {
        let rewards = rewards(0.0);
        assert_eq!([rewards[..3].iter().sum::<f32>(), rewards[3..].iter().sum()], [10.0, -4.0]);
    }

    /// Oracle 3 (rewards add up): Σ d is 0 in the first row and 2 in the second, whose last two columns do not count.
    #[test]
    fn with_a_penalty_they_add_up_to_the_score_less_the_penalty_on_the_kl() {
        for kl_coef in [0.25, 2.0] {
            let rewards = rewards(kl_coef);
            let sums = [rewards[..3].iter().sum::<f32>(), rewards[3..].iter().sum()];
            assert_eq!(sums, [10.0, -4.0 - 2.0 * kl_coef as f32]);
        }
    }
}
