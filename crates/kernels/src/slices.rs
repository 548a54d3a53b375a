//! Formulas on rows of numbers, which the kernels and decoding share.

use std::f32::consts::FRAC_2_PI;

use crate::math::{exp, sum};
use crate::vectorized::vectorized;

/// The share of a number that a gate lets through.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Of the cube in the argument of tanh.
pub(crate) const CUBE: f32 = 0.044715;

/// The factor σ of GELU: its value is x times σ.
#[inline(always)]
pub(crate) fn gelu_share(x: f32) -> f32 {
    let u = FRAC_2_PI.sqrt() * (x + CUBE * x * x * x);
    1.0 / (1.0 + exp(-2.0 * u))
}

vectorized! {
    /// Turns the heads of one token.
    pub(crate) fn turn<'a>(heads: &'a mut [f32], d_head: usize, cos: &'a [f32], sin: &'a [f32], sign: f32) {
        for head in heads.chunks_exact_mut(d_head) {
            let (first, second) = head[..2 * cos.len()].split_at_mut(cos.len());
            for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
                let (x, y) = (*a, *b);
                *a = x * cos - sign * y * sin;
                *b = y * cos + sign * x * sin;
            }
        }
    }
}

/// The norm of each row, in its place; an RMS norm where there is no `beta`.
pub(crate) fn normalise_in_place(rows: &mut [f32], gamma: &[f32], beta: Option<&[f32]>, epsilon: f64) {
    let width = gamma.len();
    let zeros;
    let shift = match beta {
        Some(beta) => beta,
        None => {
            zeros = vec![0.0; width];
            &zeros
        }
    };
    for row in rows.chunks_exact_mut(width) {
        let (mut mean, mut scale) = ([0.0], [0.0]);
        measure(row, width, beta.is_some(), epsilon as f32, &mut mean, &mut scale);
        normalise(row, gamma, shift, &mean, &scale);
    }
}

vectorized! {
    /// Mean and scale of each row.
    pub(crate) fn measure<'a>(
        x: &'a [f32],
        width: usize,
        subtracts_mean: bool,
        epsilon: f32,
        means: &'a mut [f32],
        scales: &'a mut [f32],
    ) {
        for (row, (mean, scale)) in x.chunks_exact(width).zip(means.iter_mut().zip(scales)) {
            *mean = if subtracts_mean { sum(width, |i| row[i]) / width as f32 } else { 0.0 };
            let variance = sum(width, |i| (row[i] - *mean) * (row[i] - *mean)) / width as f32;
            *scale = 1.0 / (variance + epsilon).sqrt();
        }
    }
}

vectorized! {
    pub(crate) fn normalise<'a>(
        output: &'a mut [f32],
        gamma: &'a [f32],
        beta: &'a [f32],
        means: &'a [f32],
        scales: &'a [f32],
    ) {
        let rows = output.chunks_exact_mut(gamma.len()).zip(means.iter().zip(scales));
        for (row, (mean, scale)) in rows {
            for ((x, gamma), beta) in row.iter_mut().zip(gamma).zip(beta) {
                *x = (*x - mean) * scale * gamma + beta;
            }
        }
    }
}
