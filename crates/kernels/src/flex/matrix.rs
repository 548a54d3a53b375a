//! Products of matrices that lie inside of slices.

use gemm::{Parallelism, gemm};

/// A matrix whose rows lie in a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix<'a> {
    numbers: &'a [f32],
    rows: usize,
    columns: usize,
    /// From a number to the one below it.
    row_stride: usize,
    /// From a number to the one to its right.
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// The rows begin `stride` numbers apart.
    pub(super) fn new(numbers: &'a [f32], [rows, columns]: [usize; 2], stride: usize) -> Self {
        Self { numbers, rows, columns, row_stride: stride, column_stride: 1 }
    }

    /// Rows as columns.
    pub(super) fn transposed(self) -> Self {
        let Self { numbers, rows, columns, row_stride, column_stride } = self;
        Self { numbers, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }

    pub(super) fn rows(self) -> usize {
        self.rows
    }

    pub(super) fn columns(self) -> usize {
        self.columns
    }

    fn is_inside(self) -> bool {
        is_inside(self.numbers.len(), [self.rows, self.columns], [self.row_stride, self.column_stride])
    }
}

/// Whether a matrix lies within `len` numbers.
fn is_inside(len: usize, [rows, columns]: [usize; 2], [row_stride, column_stride]: [usize; 2]) -> bool {
    rows == 0 || columns == 0 || (rows - 1) * row_stride + (columns - 1) * column_stride < len
}

/// How a product is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Output {
    /// In place of the numbers that are there.
    Overwritten,
    /// Added to them.
    Added,
}

/// Writes `factor` · `a` `b` to `output`, whose rows begin `stride` numbers apart. It computes on the thread that calls.
///
/// # Panics
/// If the sizes do not fit together, or a matrix is not inside of its slice.
pub(super) fn multiply(
    output: &mut [f32],
    stride: usize,
    written: Output,
    factor: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    multiply_on(output, stride, written, factor, a, b, Parallelism::None);
}

/// Adds `a` `b` to `output`, whose rows are as long as those of `b`, on all threads that there are, if the product is large.
///
/// # Panics
/// As [`multiply`].
pub(super) fn add_product(output: &mut [f32], a: Matrix<'_>, b: Matrix<'_>) {
    multiply_on(output, b.columns, Output::Added, 1.0, a, b, threads_for(a, b));
}

fn multiply_on(
    output: &mut [f32],
    stride: usize,
    written: Output,
    factor: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    threads: Parallelism,
) {
    assert!(is_inside(output.len(), [a.rows, b.columns], [stride, 1]), "a matrix ends after its slice");
    assert!(stride >= b.columns || a.rows <= 1, "rows that overlap");
    // SAFETY: the output is inside of its slice, which nobody else can see, and does not overlap itself.
    #[allow(unsafe_code)] // The library of matrix products takes pointers.
    unsafe {
        write_product(output.as_mut_ptr(), stride, written, factor, a, b, threads);
    }
}

/// `a` `b`, row by row, on all threads that there are, if it is large.
///
/// # Panics
/// If the sizes do not fit together, or a matrix is not inside of its slice.
pub(super) fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let n = a.rows * b.columns;
    assert!(a.columns > 0, "a product of nothing");
    let mut output: Vec<f32> = Vec::with_capacity(n);
    // SAFETY: the vector has room for the product, which writes every number and reads none of them.
    #[allow(unsafe_code)] // To clear the numbers first would take a tenth of the time of a training step.
    unsafe {
        write_product(output.as_mut_ptr(), b.columns, Output::Overwritten, 1.0, a, b, threads_for(a, b));
        output.set_len(n);
    }
    output
}

/// Products of fewer numbers than this are computed on the thread that calls: to wake another one takes longer.
const WORTH_SHARING: usize = 192 * 192 * 192;

fn threads_for(a: Matrix<'_>, b: Matrix<'_>) -> Parallelism {
    let is_large = a.rows * a.columns * b.columns >= WORTH_SHARING;
    if is_large && rayon::current_num_threads() > 1 { Parallelism::Rayon(0) } else { Parallelism::None }
}

/// Writes `factor` · `a` `b` to the place of `output`.
///
/// # Panics
/// If the inner sizes differ, or a factor is not inside of its slice.
///
/// # Safety
/// `output` must point to a matrix of as many rows as `a` and as many columns as `b`, whose rows begin `stride` numbers apart
/// and do not overlap; its numbers must be initialised if the product is added to them.
#[allow(unsafe_code)] // The library of matrix products takes pointers.
unsafe fn write_product(
    output: *mut f32,
    stride: usize,
    written: Output,
    factor: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    threads: Parallelism,
) {
    assert_eq!(a.columns, b.rows, "the inner sizes of a product");
    assert!(a.is_inside() && b.is_inside(), "a matrix ends after its slice");
    // No slice is longer than an `isize` says, so no stride within one is.
    let [ars, acs, brs, bcs] =
        [a.row_stride, a.column_stride, b.row_stride, b.column_stride].map(|stride| stride as isize);
    // SAFETY: every number of the factors is inside of its slice, which has been checked, and the caller promises the output.
    unsafe {
        gemm(
            a.rows,
            b.columns,
            a.columns,
            output,
            1,
            stride as isize,
            written == Output::Added,
            a.numbers.as_ptr(),
            acs,
            ars,
            b.numbers.as_ptr(),
            bcs,
            brs,
            1.0,
            factor,
            false,
            false,
            false,
            threads,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [1 2; 3 4] in rows of three, times [5; 6] and transposed.
    #[test]
    fn a_product_is_written_where_it_belongs() {
        let numbers = [1.0, 2.0, 9.0, 3.0, 4.0];
        let a = Matrix::new(&numbers, [2, 2], 3);
        let b = Matrix::new(&[5.0, 6.0], [2, 1], 1);
        let mut output = [100.0, 7.0, 200.0];
        multiply(&mut output, 2, Output::Added, 0.5, a, b);
        assert_eq!(output, [108.5, 7.0, 219.5]);
        multiply(&mut output, 2, Output::Overwritten, 1.0, a.transposed(), b);
        assert_eq!(output, [23.0, 7.0, 34.0]);
    }

    #[test]
    fn a_matrix_is_inside_of_its_slice() {
        let is_square_inside = |len| is_inside(len, [2, 2], [3, 1]);
        assert_eq!([4, 5].map(is_square_inside), [false, true]);
        assert_eq!([3, 4].map(|len| is_inside(len, [2, 2], [1, 2])), [false, true], "transposed");
        assert!(is_inside(0, [0, 2], [2, 1]), "without rows");
        let a = Matrix::new(&[1.0, 2.0, 3.0], [2, 2], 2);
        let product = || multiply(&mut [0.0; 4], 2, Output::Overwritten, 1.0, a, a);
        assert!(std::panic::catch_unwind(product).is_err());
    }
}
