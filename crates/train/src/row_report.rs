//! What became of the rows of a data set when they were made into tokens.

/// Which rows were left out or shortened, so that whoever prints can say how many of how many, where and why.
///
/// Rows are named by their index among those that were given, counted from 0, in ascending order. A row appears in
/// at most one of the two lists of rows that were left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowReport {
    /// How many rows were given.
    pub n_rows: usize,
    /// Left out: they do not fit into the longest sequence allowed.
    pub too_long: Vec<usize>,
    /// Left out: the tokenizer has no token for the part that would be learned, or for the whole row.
    pub without_tokens: Vec<usize>,
    /// Kept, but their prompt lost its left part to fit.
    pub truncated: Vec<usize>,
}

impl RowReport {
    /// How many rows were left out, for whatever reason.
    pub fn n_dropped(&self) -> usize {
        self.too_long.len() + self.without_tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_was_only_shortened_is_not_dropped() {
        let report =
            RowReport { n_rows: 9, too_long: vec![1, 4], without_tokens: vec![5], truncated: vec![0, 2] };
        assert_eq!(report.n_dropped(), 3);
    }
}
