//! Means and whitening over the entries that count. Masks are 1 where an entry counts and 0 where not.

use burn::tensor::Tensor;

/// Kept under square roots, so that a constant batch does not divide by zero.
const EPSILON: f64 = 1e-8;

/// Mean over the entries that count; 0 if none does.
///
/// # Shapes
/// - `x` and `mask`: the same, any
/// - output: `[1]`
pub fn masked_mean<const D: usize>(x: Tensor<D>, mask: Tensor<D>) -> Tensor<1> {
    (x * mask.clone()).sum() / mask.sum().clamp_min(1.0)
}

/// Biased variance over the entries that count: Σ (x − mean)² / n.
///
/// # Shapes
/// - as [`masked_mean`]
pub fn masked_variance<const D: usize>(x: Tensor<D>, mask: Tensor<D>) -> Tensor<1> {
    let mean = masked_mean(x.clone(), mask.clone()).unsqueeze::<D>();
    masked_mean((x - mean).square(), mask)
}

/// Mean 0 and variance 1 over the entries that count; the others become 0.
///
/// One entry alone becomes 0: there is nothing to compare it with (the notebook divides by zero there, D11).
///
/// # Shapes
/// - as [`masked_mean`]; output as `x`
pub fn whiten<const D: usize>(x: Tensor<D>, mask: Tensor<D>) -> Tensor<D> {
    let mean = masked_mean(x.clone(), mask.clone()).unsqueeze::<D>();
    let std = masked_variance(x.clone(), mask.clone()).add_scalar(EPSILON).sqrt().unsqueeze::<D>();
    (x - mean) / std * mask
}

/// Variance 1 over the entries that count, their mean kept; the others become 0.
///
/// Shifting the mean of rewards would change which episode length is best: OpenAI's and TRL's reward whitening
/// keep it too.
///
/// # Shapes
/// - as [`masked_mean`]; output as `x`
pub fn scale_to_unit_variance<const D: usize>(x: Tensor<D>, mask: Tensor<D>) -> Tensor<D> {
    let mean = masked_mean(x.clone(), mask.clone()).unsqueeze::<D>();
    (whiten(x, mask.clone()) + mean) * mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn tensor(rows: [[f32; 3]; 2]) -> Tensor<2> {
        Tensor::from_data(rows, &Device::flex())
    }

    fn values(x: Tensor<2>) -> Vec<f32> {
        x.into_data().as_slice::<f32>().unwrap().to_vec()
    }

    const MASK: [[f32; 3]; 2] = [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]];

    #[test]
    fn masked_entries_do_not_count() {
        // 1, 3 and 5 count: mean 3, variance (4 + 0 + 4) / 3.
        for other in [0.0, 100.0, -7e5] {
            let x = tensor([[1.0, 3.0, other], [5.0, other, other]]);
            let mean: f32 = masked_mean(x.clone(), tensor(MASK)).into_scalar();
            let variance: f32 = masked_variance(x.clone(), tensor(MASK)).into_scalar();
            assert!((mean - 3.0).abs() < 1e-6 && (variance - 8.0 / 3.0).abs() < 1e-5);
            let std = (8f32 / 3.0).sqrt();
            let expected = [-2.0 / std, 0.0, 0.0, 2.0 / std, 0.0, 0.0];
            for (found, expected) in values(whiten(x, tensor(MASK))).iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }

    #[test]
    fn scaling_keeps_the_mean() {
        let std = (8f32 / 3.0).sqrt();
        let scaled = scale_to_unit_variance(tensor([[1.0, 3.0, 9.0], [5.0, 9.0, 9.0]]), tensor(MASK));
        let expected = [3.0 - 2.0 / std, 3.0, 0.0, 3.0 + 2.0 / std, 0.0, 0.0];
        for (found, expected) in values(scaled).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn a_single_entry_whitens_to_zero() {
        let whitened = whiten(tensor([[4.0, 0.0, 0.0], [0.0; 3]]), tensor([[1.0, 0.0, 0.0], [0.0; 3]]));
        assert_eq!(values(whitened), [0.0; 6]);
    }

    #[test]
    fn nothing_that_counts_means_zero() {
        let mean: f32 = masked_mean(tensor([[4.0; 3]; 2]), tensor([[0.0; 3]; 2])).into_scalar();
        assert_eq!(mean, 0.0);
    }
}
