//! Products of a few rows with a matrix: what one step of decoding computes.
//!
//! With so few rows, the time is that of reading the matrix once, so nothing is packed or copied first.

use pulp::{Simd, WithSimd};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

/// Columns of one row that are computed at a time: they stay in the caches.
const BLOCK: usize = 512;

/// Rows of the matrix that are added to one row in one pass over it.
const AT_ONCE: usize = 8;

/// Rows of the matrix that are read side by side for several rows. The processor foresees only so many places to read from.
const PANEL: usize = 32;

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
        if self.x.len() == self.d_in { self.add_to_row(simd) } else { self.add_to_rows(simd) }
    }
}

impl AddProduct<'_> {
    /// For one row, whose columns stay in the caches.
    #[inline(always)]
    fn add_to_row<S: Simd>(self, simd: S) {
        let Self { x, weight, d_in, d_out, first, output, width } = self;
        for start in (0..width).step_by(BLOCK) {
            let columns = start..(start + BLOCK).min(width);
            let row_of =
                |i: usize| &weight[i * d_out + first + columns.start..i * d_out + first + columns.end];
            let whole = d_in - d_in % AT_ONCE;
            for i in (0..whole).step_by(AT_ONCE) {
                let weights: [&[f32]; AT_ONCE] = std::array::from_fn(|k| row_of(i + k));
                let factors: [f32; AT_ONCE] = *x[i..].first_chunk().expect("a whole chunk");
                add_rows(simd, &factors, &weights, &mut output[columns.clone()]);
            }
            for (i, factor) in x.iter().enumerate().skip(whole) {
                add_rows(simd, &[*factor], &[row_of(i)], &mut output[columns.clone()]);
            }
        }
    }

    /// For several rows: tiles of the output stay in registers, while some rows of the matrix are read.
    #[inline(always)]
    fn add_to_rows<S: Simd>(self, simd: S) {
        let Self { x, weight, d_in, d_out, first, output, width } = self;
        let n_rows = x.len() / d_in;
        for i in (0..d_in).step_by(PANEL) {
            let depth = PANEL.min(d_in - i);
            let whole = width - width % (2 * S::F32_LANES);
            let panel = Panel { x: &x[i..], d_in, depth, weight: &weight[i * d_out + first..], d_out, width };
            for column in (0..whole).step_by(2 * S::F32_LANES) {
                let mut row = 0;
                while row < n_rows {
                    // With more rows, the sums would not fit into the registers.
                    row += match n_rows - row {
                        8.. if S::F32_LANES >= 16 => panel.add::<S, 8, 2>(simd, row, column, output),
                        4.. => panel.add::<S, 4, 2>(simd, row, column, output),
                        _ => panel.add::<S, 1, 2>(simd, row, column, output),
                    };
                }
            }
            if whole < width {
                panel.add_columns(whole, output);
            }
        }
    }
}

/// Some rows of the matrix, with the columns of `x` that they are multiplied by.
///
/// Its functions must be inlined, or they would not have the vector instructions.
struct Panel<'a> {
    x: &'a [f32],
    d_in: usize,
    /// Rows of the matrix.
    depth: usize,
    weight: &'a [f32],
    d_out: usize,
    /// Columns of a row of the output.
    width: usize,
}

impl Panel<'_> {
    /// Adds `R` rows of the product, `C` vectors of columns of it. Returns `R`.
    #[allow(clippy::needless_range_loop, clippy::manual_memcpy)] // Each number is a register; the loops are unrolled.
    #[inline(always)]
    fn add<S: Simd, const R: usize, const C: usize>(
        &self,
        simd: S,
        row: usize,
        column: usize,
        output: &mut [f32],
    ) -> usize {
        let Self { x, d_in, depth, weight, d_out, width } = *self;
        let (x, output) = (&x[row * d_in..], &mut output[row * width + column..]);
        let columns = C * S::F32_LANES;
        let mut sums = [[simd.splat_f32s(0.0); C]; R];
        for r in 0..R {
            let (row, _) = S::as_simd_f32s(&output[r * width..r * width + columns]);
            for c in 0..C {
                sums[r][c] = row[c];
            }
        }
        let factors: [&[f32]; R] = std::array::from_fn(|r| &x[r * d_in..r * d_in + depth]);
        for k in 0..depth {
            let start = k * d_out + column;
            let (row, _) = S::as_simd_f32s(&weight[start..start + columns]);
            for r in 0..R {
                let factor = simd.splat_f32s(factors[r][k]);
                for c in 0..C {
                    sums[r][c] = simd.mul_add_f32s(factor, row[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            let (row, _) = S::as_mut_simd_f32s(&mut output[r * width..r * width + columns]);
            for c in 0..C {
                row[c] = sums[r][c];
            }
        }
        R
    }

    /// Adds the columns from `column` on, which are too few for vectors.
    #[inline(always)]
    fn add_columns(&self, column: usize, output: &mut [f32]) {
        let Self { x, d_in, depth, weight, d_out, width } = *self;
        for (x, output) in x.chunks(d_in).zip(output.chunks_exact_mut(width)) {
            for (k, factor) in x[..depth].iter().enumerate() {
                let row = &weight[k * d_out + column..k * d_out + width];
                for (output, weight) in output[column..].iter_mut().zip(row) {
                    *output += factor * weight;
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

impl WithSimd for TransposedProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, matrix, width, output } = self;
        let (n_rows, n) = (x.len() / width, matrix.len() / width);
        let mut column = 0;
        while column < n {
            // With more, the sums would not fit into the registers.
            let n_columns = match n - column {
                4.. if S::F32_LANES >= 16 => 4,
                2.. => 2,
                _ => 1,
            };
            let mut row = 0;
            while row < n_rows {
                let tall = n_rows - row >= 4;
                let tile = Dots { x: &x[row * width..], matrix: &matrix[column * width..], width };
                let output = &mut output[row * n + column..];
                match (tall, n_columns) {
                    (true, 4) => tile.write::<S, 4, 4>(simd, n, output),
                    (true, 2) => tile.write::<S, 4, 2>(simd, n, output),
                    (true, _) => tile.write::<S, 4, 1>(simd, n, output),
                    (false, _) => {
                        let x = &x[row * width..(row + 1) * width];
                        for (row, output) in tile.matrix.chunks_exact(width).zip(&mut output[..n_columns]) {
                            *output = dot(simd, row, x);
                        }
                    }
                }
                row += if tall { 4 } else { 1 };
            }
            column += n_columns;
        }
    }
}

/// Rows whose products with each other are computed at once.
struct Dots<'a> {
    x: &'a [f32],
    matrix: &'a [f32],
    width: usize,
}

impl Dots<'_> {
    /// The products of `R` rows of `x` with `C` rows of the matrix, which has `n`.
    #[inline(always)]
    fn write<S: Simd, const R: usize, const C: usize>(self, simd: S, n: usize, output: &mut [f32]) {
        let Self { x, matrix, width } = self;
        let xs: [(&[S::f32s], &[f32]); R] =
            std::array::from_fn(|r| S::as_simd_f32s(&x[r * width..(r + 1) * width]));
        let rows: [(&[S::f32s], &[f32]); C] =
            std::array::from_fn(|c| S::as_simd_f32s(&matrix[c * width..(c + 1) * width]));
        let mut sums = [[simd.splat_f32s(0.0); C]; R];
        for j in 0..width / S::F32_LANES {
            let row: [S::f32s; C] = std::array::from_fn(|c| rows[c].0[j]);
            for (sums, (x, _)) in sums.iter_mut().zip(&xs) {
                for (sum, number) in sums.iter_mut().zip(&row) {
                    *sum = simd.mul_add_f32s(x[j], *number, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                let rest: f32 = xs[r].1.iter().zip(rows[c].1).map(|(a, b)| a * b).sum();
                output[r * n + c] = simd.reduce_sum_f32s(*sum) + rest;
            }
        }
    }
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
        for (rows, d_in, d_out) in
            [(1, 8, 16), (3, 19, 37), (5, 40, 600), (13, 70, 100), (16, 32, 64), (1, 200, 1000)]
        {
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
        for (rows, width, n) in [(1, 8, 3), (3, 37, 20), (9, 70, 5), (5, 33, 7), (4, 16, 2), (1, 300, 700)] {
            let (x, matrix) = (wave(rows * width, 0.1), wave(n * width, 0.5));
            let mut output = vec![2.0; rows * n];
            transposed_product(&x, &matrix, width, &mut output);
            assert_close(&output, &expected(&x, width, n, |i, column| matrix[column * width + i]));
        }
    }
}
