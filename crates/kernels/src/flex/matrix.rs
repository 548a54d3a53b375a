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
    assert_eq!(a.columns, b.rows, "the inner sizes of a product");
    let output_is_inside = is_inside(output.len(), [a.rows, b.columns], [stride, 1]);
    assert!(a.is_inside() && b.is_inside() && output_is_inside, "a matrix ends after its slice");
    assert!(stride >= b.columns || a.rows <= 1, "rows that overlap");
    // No slice is longer than an `isize` says, so no stride within one is.
    let [ars, acs, brs, bcs] =
        [a.row_stride, a.column_stride, b.row_stride, b.column_stride].map(|stride| stride as isize);
    // SAFETY: every number of the three matrices is inside of its slice, which has been checked, and the output, which
    // nobody else can see, does not overlap itself.
    #[allow(unsafe_code)] // The library of matrix products takes pointers.
    unsafe {
        gemm(
            a.rows,
            b.columns,
            a.columns,
            output.as_mut_ptr(),
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
            Parallelism::None,
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
