//! What a step of decoding computes on rows of numbers, in place and without tensors.

pub use crate::flex::Numbers;
use crate::slices::{gelu_share, normalise_in_place, sigmoid, turn};
use crate::vectorized::vectorized;

/// Layer norm of each row, or RMS norm where there is no `beta`.
pub fn norm_rows(rows: &mut [f32], gamma: &[f32], beta: Option<&[f32]>, epsilon: f64) {
    normalise_in_place(rows, gamma, beta, epsilon);
}

/// Turns the heads of one token by the angles of its position: see [`rotate`](crate::rotate).
pub fn rotate_heads(heads: &mut [f32], d_head: usize, cos: &[f32], sin: &[f32]) {
    turn(heads, d_head, cos, sin, 1.0);
}

vectorized! {
    /// [`gelu_tanh`](crate::gelu_tanh) of each number.
    pub fn gelu_tanh_of<'a>(x: &'a mut [f32]) {
        for x in x.iter_mut() {
            *x *= gelu_share(*x);
        }
    }
}

vectorized! {
    /// x sigmoid(x) of each number.
    pub fn silu_of<'a>(x: &'a mut [f32]) {
        for x in x.iter_mut() {
            *x *= sigmoid(*x);
        }
    }
}

vectorized! {
    /// Each number, or 0 where that is negative.
    pub fn relu_of<'a>(x: &'a mut [f32]) {
        for x in x.iter_mut() {
            *x = if *x < 0.0 { 0.0 } else { *x }; // What is not a number stays that.
        }
    }
}

vectorized! {
    /// Multiplies each number by the one at its place in `factors`.
    pub fn multiply_by<'a>(x: &'a mut [f32], factors: &'a [f32]) {
        for (x, factor) in x.iter_mut().zip(factors) {
            *x *= factor;
        }
    }
}

vectorized! {
    /// Adds to each number the one at its place in `terms`.
    pub fn add_to<'a>(x: &'a mut [f32], terms: &'a [f32]) {
        for (x, term) in x.iter_mut().zip(terms) {
            *x += term;
        }
    }
}
