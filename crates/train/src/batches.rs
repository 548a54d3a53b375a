//! Which rows go into which batch.

use rand::Rng;
use rand::seq::SliceRandom;

/// Batches in a window of [`length_buckets`]. More save padding, fewer mix better.
const WINDOW_BATCHES: usize = 32;

/// The numbers `0..n` in random order.
pub fn shuffled(n: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(rng);
    order
}

/// One epoch of batches whose rows have about the same length, so that little is padded.
///
/// The rows are shuffled, sorted by length within windows of 32 batches and cut; then the batches are
/// shuffled. Every row occurs once; at most one batch is smaller than `batch_size`. The same `rng` gives the
/// same batches.
///
/// # Panics
///
/// If `batch_size` is 0.
pub fn length_buckets(lengths: &[usize], batch_size: usize, rng: &mut impl Rng) -> Vec<Vec<usize>> {
    assert!(batch_size > 0, "batch_size must be at least 1");
    let mut order = shuffled(lengths.len(), rng);
    let mut batches = Vec::with_capacity(lengths.len().div_ceil(batch_size));
    for window in order.chunks_mut(batch_size.saturating_mul(WINDOW_BATCHES)) {
        window.sort_by_key(|&row| lengths[row]);
        batches.extend(window.chunks(batch_size).map(<[usize]>::to_vec));
    }
    batches.shuffle(rng);
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_occurs_exactly_once(
            lengths in prop::collection::vec(0usize..100, 0..300),
            batch_size in 1usize..20,
            seed: u64,
        ) {
            let batches = length_buckets(&lengths, batch_size, &mut Seed(seed).stream("shuffle"));
            prop_assert_eq!(batches.len(), lengths.len().div_ceil(batch_size));
            prop_assert!(batches.iter().all(|batch| !batch.is_empty() && batch.len() <= batch_size));
            prop_assert!(batches.iter().filter(|batch| batch.len() < batch_size).count() <= 1);
            let mut rows = batches.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn the_same_stream_gives_the_same_batches(
            lengths in prop::collection::vec(0usize..9, 0..99),
            seed: u64,
        ) {
            let make = || length_buckets(&lengths, 4, &mut Seed(seed).stream("shuffle"));
            prop_assert_eq!(make(), make());
        }
    }

    #[test]
    fn batches_hold_rows_of_about_the_same_length() {
        let lengths: Vec<usize> = (0..64).map(|row| row % 8).collect();
        for batch in length_buckets(&lengths, 8, &mut Seed(0).stream("shuffle")) {
            assert!(batch.iter().all(|&row| lengths[row] == lengths[batch[0]]));
        }
    }

    #[test]
    fn batches_do_not_come_in_order_of_length() {
        let lengths: Vec<usize> = (0..64).collect();
        let batches = length_buckets(&lengths, 4, &mut Seed(0).stream("shuffle"));
        assert!(!batches.is_sorted());
    }
}
