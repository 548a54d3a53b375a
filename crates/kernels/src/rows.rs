//! Sums over rows of numbers in host memory.

use crate::math::{exp, sum};
use crate::vectorized::vectorized;

vectorized! {
    /// Σ eˣ over a row, which is in host memory.
    pub fn sum_of_exps<'a>(row: &'a [f32]) -> f32 {
        sum(row.len(), |i| exp(row[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_summed() {
        let row: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin()).collect();
        let expected: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        assert!((f64::from(sum_of_exps(&row)) / expected - 1.0).abs() < 1e-6);
        assert_eq!(sum_of_exps(&[f32::NEG_INFINITY, 0.0]), 1.0);
    }
}
