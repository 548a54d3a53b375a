//! Sums over rows of numbers in host memory, and the update of a row of weights.

use crate::math::{LANES, exp, sum};
use crate::vectorized::vectorized;

vectorized! {
    /// Σ eˣ over a row, which is in host memory.
    pub fn sum_of_exps<'a>(row: &'a [f32]) -> f32 {
        sum(row.len(), |i| exp(row[i]))
    }
}

vectorized! {
    /// Σ x² over a row: in f32 lanes over short runs, in f64 between them, as fast as f32 and nearly as exact as f64.
    pub fn sum_of_squares<'a>(row: &'a [f32]) -> f64 {
        let mut total = 0.0;
        for run in row.chunks(1024) {
            let mut lanes = [0.0f32; LANES];
            let (blocks, rest) = run.as_chunks::<LANES>();
            for block in blocks {
                for (lane, value) in lanes.iter_mut().zip(block) {
                    *lane += value * value;
                }
            }
            let rest: f32 = rest.iter().map(|value| value * value).sum();
            total += lanes.iter().chain(&[rest]).map(|&lane| f64::from(lane)).sum::<f64>();
        }
        total
    }
}

/// The numbers of one update of AdamW (Loshchilov and Hutter 2019), the same for every weight.
#[derive(Clone, Copy, Debug)]
pub struct AdamWUpdate {
    /// β₁, and 1 − β₁.
    pub first: [f32; 2],
    /// β₂, and 1 − β₂.
    pub second: [f32; 2],
    /// Learning rate / (1 − β₁ᵗ) at update t.
    pub rate: f32,
    /// 1 / √(1 − β₂ᵗ).
    pub second_scale: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// 1 − learning rate · weight decay.
    pub keep: f32,
    /// What each gradient is multiplied by.
    pub grad_scale: f32,
}

vectorized! {
    /// Moves `weights` by their `gradients`, after the means of gradients and of their squares took these in:
    /// p ← keep · p − rate · m / (√v · second_scale + ε).
    ///
    /// # Panics
    /// If the four slices do not have one length.
    pub fn adamw<'a>(
        update: AdamWUpdate,
        weights: &'a mut [f32],
        gradients: &'a [f32],
        first: &'a mut [f32],
        second: &'a mut [f32],
    ) {
        let n = weights.len();
        assert!([gradients.len(), first.len(), second.len()] == [n; 3], "slices of one length");
        let [beta_1, rest_1] = update.first;
        let [beta_2, rest_2] = update.second;
        for (((p, g), m), v) in weights.iter_mut().zip(gradients).zip(first).zip(second) {
            let g = g * update.grad_scale;
            *m = *m * beta_1 + g * rest_1;
            *v = *v * beta_2 + g * g * rest_2;
            *p = *p * update.keep - *m / (v.sqrt() * update.second_scale + update.epsilon) * update.rate;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_summed() {
        let row: Vec<f32> = (0..2077).map(|i| (i as f32 * 0.7).sin()).collect();
        let expected: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!((sum_of_squares(&row) / expected - 1.0).abs() < 1e-6);
        assert_eq!(sum_of_squares(&[]), 0.0);
    }

    #[test]
    fn exponentials_are_summed() {
        let row: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin()).collect();
        let expected: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        assert!((f64::from(sum_of_exps(&row)) / expected - 1.0).abs() < 1e-6);
        assert_eq!(sum_of_exps(&[f32::NEG_INFINITY, 0.0]), 1.0);
    }
}
