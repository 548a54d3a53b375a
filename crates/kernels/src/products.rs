//! Products of a few rows with a matrix: what one step of decoding computes.
//!
//! With so few rows, the time is that of reading the matrix once, so nothing is packed or copied first.

use pulp::{Simd, WithSimd};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

/// Columns that are computed at a time: those of all rows stay in the caches.
const BLOCK: usize = 512;

/// Rows of the matrix that are added in one pass over the output.
const AT_ONCE: usize = 8;

/// With fewer numbers in a matrix, it takes longer to wake another thread than to compute.
const WORTH_SHARING: usize = 1 << 17;

/// Adds `x` `weight` to `output`.
///
/// # Shapes
/// - `x`: `[rows, d_in]`
/// - `weight`: `[d_in, d_out]`
/// - `output`: `[rows, d_out]`
///
/// # Panics
/// If the sizes do not fit together.
pub fn add_product(x: &[f32], weight: &[f32], d_in: usize, output: &mut [f32]) {
    let (rows, d_out) = (x.len() / d_in, weight.len() / d_in);
    assert!(x.len() == rows * d_in && weight.len() == d_in * d_out && output.len() == rows * d_out, "sizes");
    let arch = pulp::Arch::new();
    if rows == 1 && weight.len() >= WORTH_SHARING && rayon::current_num_threads() > 1 {
        let share = d_out.div_ceil(rayon::current_num_threads()).next_multiple_of(64);
        output.par_chunks_mut(share).enumerate().for_each(|(i, output)| {
            let (first, width) = (i * share, output.len());
            arch.dispatch(AddProduct { x, weight, d_in, d_out, first, output, width });
        });
    } else {
        arch.dispatch(AddProduct { x, weight, d_in, d_out, first: 0, output, width: d_out });
    }
}

/// Adds `width` columns of the product, from `first` on, which are all that `output` has.
struct AddProduct<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    d_in: usize,
    d_out: usize,
    first: usize,
    output: &'a mut [f32],
    width: usize,
}

impl WithSimd for AddProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, weight, d_in, d_out, first, output, width } = self;
        for start in (0..width).step_by(BLOCK) {
            let columns = start..(start + BLOCK).min(width);
            let row_of =
                |i: usize| &weight[i * d_out + first + columns.start..i * d_out + first + columns.end];
            let whole = d_in - d_in % AT_ONCE;
            for i in (0..whole).step_by(AT_ONCE) {
                let weights: [&[f32]; AT_ONCE] = std::array::from_fn(|k| row_of(i + k));
                for (x, output) in x.chunks_exact(d_in).zip(output.chunks_exact_mut(width)) {
                    let factors: [f32; AT_ONCE] = *x[i..].first_chunk().expect("a whole chunk");
                    add_rows(simd, &factors, &weights, &mut output[columns.clone()]);
                }
            }
            for i in whole..d_in {
                for (x, output) in x.chunks_exact(d_in).zip(output.chunks_exact_mut(width)) {
                    add_rows(simd, &[x[i]], &[row_of(i)], &mut output[columns.clone()]);
                }
            }
        }
    }
}

/// Adds each row times its factor to `output`.
#[inline(always)]
fn add_rows<S: Simd, const N: usize>(simd: S, factors: &[f32; N], rows: &[&[f32]; N], output: &mut [f32]) {
    let splats: [S::f32s; N] = std::array::from_fn(|k| simd.splat_f32s(factors[k]));
    let parts: [(&[S::f32s], &[f32]); N] = std::array::from_fn(|k| S::as_simd_f32s(&rows[k][..output.len()]));
    let (output, rest) = S::as_mut_simd_f32s(output);
    for (j, output) in output.iter_mut().enumerate() {
        let mut sum = *output;
        for k in 0..N {
            sum = simd.mul_add_f32s(splats[k], parts[k].0[j], sum);
        }
        *output = sum;
    }
    for (j, output) in rest.iter_mut().enumerate() {
        for k in 0..N {
            *output += factors[k] * parts[k].1[j];
        }
    }
}

/// Writes the products of `x` with every row of a matrix: `x` `matrix`ᵀ.
///
/// # Shapes
/// - `x`: `[rows, width]`
/// - `matrix`: `[n, width]`
/// - `output`: `[rows, n]`
///
/// # Panics
/// If the sizes do not fit together.
pub fn transposed_product(x: &[f32], matrix: &[f32], width: usize, output: &mut [f32]) {
    let (rows, n) = (x.len() / width, matrix.len() / width);
    assert!(x.len() == rows * width && matrix.len() == n * width && output.len() == rows * n, "sizes");
    let arch = pulp::Arch::new();
    if rows == 1 && matrix.len() >= WORTH_SHARING && rayon::current_num_threads() > 1 {
        let share = n.div_ceil(rayon::current_num_threads());
        output.par_chunks_mut(share).enumerate().for_each(|(i, output)| {
            let matrix = &matrix[i * share * width..][..output.len() * width];
            arch.dispatch(TransposedProduct { x, matrix, width, output });
        });
    } else {
        arch.dispatch(TransposedProduct { x, matrix, width, output });
    }
}

struct TransposedProduct<'a> {
    x: &'a [f32],
    matrix: &'a [f32],
    width: usize,
    output: &'a mut [f32],
}

/// Rows of `x` whose products with a row of the matrix are computed at once.
const ROWS_AT_ONCE: usize = 4;

impl WithSimd for TransposedProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, matrix, width, output } = self;
        let n = matrix.len() / width;
        let groups = x.chunks_exact(ROWS_AT_ONCE * width);
        let first_left = x.len() / width / ROWS_AT_ONCE * ROWS_AT_ONCE;
        for (column, row) in matrix.chunks_exact(width).enumerate() {
            for (g, group) in groups.clone().enumerate() {
                let xs: [&[f32]; ROWS_AT_ONCE] = std::array::from_fn(|i| &group[i * width..(i + 1) * width]);
                for (i, product) in dots(simd, row, &xs).into_iter().enumerate() {
                    output[(g * ROWS_AT_ONCE + i) * n + column] = product;
                }
            }
            for (i, x) in groups.remainder().chunks_exact(width).enumerate() {
                output[(first_left + i) * n + column] = dot(simd, row, x);
            }
        }
    }
}

/// The products of one row with several others.
#[inline(always)]
fn dots<S: Simd, const N: usize>(simd: S, row: &[f32], others: &[&[f32]; N]) -> [f32; N] {
    let (head, tail) = S::as_simd_f32s(row);
    let parts: [(&[S::f32s], &[f32]); N] = std::array::from_fn(|i| S::as_simd_f32s(&others[i][..row.len()]));
    let mut sums = [simd.splat_f32s(0.0); N];
    for (j, number) in head.iter().enumerate() {
        for (sum, (other, _)) in sums.iter_mut().zip(&parts) {
            *sum = simd.mul_add_f32s(*number, other[j], *sum);
        }
    }
    std::array::from_fn(|i| {
        let rest: f32 = tail.iter().zip(parts[i].1).map(|(a, b)| a * b).sum();
        simd.reduce_sum_f32s(sums[i]) + rest
    })
}

/// The product of two rows. It has several sums, because one would wait for itself.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let ((a, a_left), (b, b_left)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let mut sums = [simd.splat_f32s(0.0); 4];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..4 {
            sums[lane] = simd.mul_add_f32s(a[lane], b[lane], sums[lane]);
        }
    }
    for (a, b) in a_left.iter().zip(b_left) {
        sums[0] = simd.mul_add_f32s(*a, *b, sums[0]);
    }
    let [p, q, r, s] = sums;
    let sum = simd.add_f32s(simd.add_f32s(p, q), simd.add_f32s(r, s));
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    simd.reduce_sum_f32s(sum) + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(n: usize, phase: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.7 + phase).sin()).collect()
    }

    /// Σ aᵢ bᵢ in float64 of every row of `x` and every column of the matrix, which `at` finds.
    fn expected(x: &[f32], d_in: usize, d_out: usize, at: impl Fn(usize, usize) -> f32) -> Vec<f64> {
        let of_row = |x: &[f32], column: usize| -> f64 {
            x.iter().enumerate().map(|(i, x)| f64::from(*x) * f64::from(at(i, column))).sum()
        };
        x.chunks_exact(d_in)
            .flat_map(|x| (0..d_out).map(|column| of_row(x, column)).collect::<Vec<_>>())
            .collect()
    }

    #[track_caller]
    fn assert_close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((f64::from(*found) - expected).abs() < 1e-4, "number {i}: {found}, not {expected}");
        }
    }

    /// Of one row and of several, smaller and larger than what is computed at a time, and so large that threads share it.
    #[test]
    fn products_are_added_to_what_is_there() {
        for (rows, d_in, d_out) in [(1, 8, 16), (3, 19, 37), (5, 40, 600), (1, 200, 1000)] {
            let (x, weight) = (wave(rows * d_in, 0.1), wave(d_in * d_out, 0.5));
            let mut output = vec![2.0; rows * d_out];
            add_product(&x, &weight, d_in, &mut output);
            let mut expected = expected(&x, d_in, d_out, |i, column| weight[i * d_out + column]);
            expected.iter_mut().for_each(|number| *number += 2.0);
            assert_close(&output, &expected);
        }
    }

    #[test]
    fn products_with_rows_take_the_place_of_what_is_there() {
        for (rows, width, n) in [(1, 8, 3), (3, 37, 20), (9, 70, 5), (1, 300, 700)] {
            let (x, matrix) = (wave(rows * width, 0.1), wave(n * width, 0.5));
            let mut output = vec![2.0; rows * n];
            transposed_product(&x, &matrix, width, &mut output);
            assert_close(&output, &expected(&x, width, n, |i, column| matrix[column * width + i]));
        }
    }
}
