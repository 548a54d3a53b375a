//! Which rows go into which batch.

use rand::Rng;
use rand::seq::SliceRandom;

/// Most batches in a window of [`length_buckets`]. More save padding, fewer mix better.
const WINDOW_BATCHES: usize = 32;

/// The numbers `0..n` in random order.
pub fn shuffled(n: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(rng);
    order
}

/// One epoch of batches whose rows have about the same length, so that little is padded.
///
/// The rows are shuffled. If `batch_size` does not divide their number, the rest becomes a smaller batch, so which rows
/// those are is a matter of chance alone. The others are sorted by length within windows of equal size and cut into
/// batches; then all batches are shuffled. A window has at most 32 batches, and there are at least two windows where
/// there are two batches, so every epoch puts other rows together. Every row occurs once. The same `rng` gives the same
/// batches.
///
/// # Panics
///
/// If `batch_size` is 0.
pub fn length_buckets(lengths: &[usize], batch_size: usize, rng: &mut impl Rng) -> Vec<Vec<usize>> {
    assert!(batch_size > 0, "batch_size must be at least 1");
    let mut order = shuffled(lengths.len(), rng);
    let n_whole = order.len() / batch_size;
    let mut batches = Vec::with_capacity(lengths.len().div_ceil(batch_size));
    let mut rest = order.split_off(n_whole * batch_size);
    if !rest.is_empty() {
        rest.sort_by_key(|&row| lengths[row]);
        batches.push(rest);
    }
    let n_windows = n_whole.div_ceil(WINDOW_BATCHES).max(2);
    for window in 0..n_windows {
        let [start, end] = [window, window + 1].map(|w| w * n_whole / n_windows * batch_size);
        let rows = &mut order[start..end];
        rows.sort_by_key(|&row| lengths[row]);
        batches.extend(rows.chunks(batch_size).map(<[usize]>::to_vec));
    }
    batches.shuffle(rng);
    batches
}

/// One epoch of batches in random order, whatever the lengths of their rows. Every row occurs once; the last batch has
/// what is left. The same `rng` gives the same batches.
///
/// # Panics
///
/// If `batch_size` is 0.
pub fn random_batches(n_rows: usize, batch_size: usize, rng: &mut impl Rng) -> Vec<Vec<usize>> {
    assert!(batch_size > 0, "batch_size must be at least 1");
    shuffled(n_rows, rng).chunks(batch_size).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;
    use proptest::prelude::*;

    fn buckets(lengths: &[usize], batch_size: usize, epoch: u64) -> Vec<Vec<usize>> {
        length_buckets(lengths, batch_size, &mut Seed(0).stream_at("shuffle", epoch))
    }

    proptest! {
        #[test]
        fn every_row_occurs_exactly_once(
            lengths in prop::collection::vec(0usize..100, 0..300),
            batch_size in 1usize..20,
            seed: u64,
        ) {
            let mut rng = Seed(seed).stream("shuffle");
            for batches in
                [length_buckets(&lengths, batch_size, &mut rng), random_batches(lengths.len(), batch_size, &mut rng)]
            {
                prop_assert_eq!(batches.len(), lengths.len().div_ceil(batch_size));
                prop_assert!(batches.iter().all(|batch| !batch.is_empty() && batch.len() <= batch_size));
                prop_assert!(batches.iter().filter(|batch| batch.len() < batch_size).count() <= 1);
                let mut rows = batches.concat();
                rows.sort_unstable();
                prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            }
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

    /// 128 rows of 128 lengths in two windows of four batches: a batch of 16 holds about a quarter of all lengths. At
    /// random it would hold a range of 15/17 of them, 113.
    #[test]
    fn batches_hold_rows_of_about_the_same_length() {
        let lengths: Vec<usize> = (0..128).collect();
        let range =
            |batch: &Vec<usize>| batch.iter().max().expect("a row") - batch.iter().min().expect("a row");
        let mean = |batches: &[Vec<usize>]| batches.iter().map(range).sum::<usize>() / batches.len();
        assert!(mean(&buckets(&lengths, 16, 0)) < 40);
        assert!(mean(&random_batches(128, 16, &mut Seed(0).stream("shuffle"))) > 90);
    }

    #[test]
    fn batches_do_not_come_in_order_of_length() {
        let lengths: Vec<usize> = (0..64).collect();
        assert!(!buckets(&lengths, 4, 0).is_sorted());
    }

    /// Of 65 rows in batches of 64 one is left over. Over 650 epochs each row is it 10 times on average, the longest
    /// one too; 25 would be nearly five standard deviations away.
    #[test]
    fn the_row_that_is_left_over_is_a_random_one() {
        let lengths: Vec<usize> = (0..65).collect();
        let left_over = |epoch| buckets(&lengths, 64, epoch).into_iter().find(|batch| batch.len() == 1);
        let mut counts = [0; 65];
        (0..650).for_each(|epoch| counts[left_over(epoch).expect("65 is 64 + 1")[0]] += 1);
        assert!(counts.iter().all(|&count| count < 25), "{counts:?}");
        assert!(counts.iter().filter(|&&count| count > 0).count() > 60, "{counts:?}");
    }

    /// Whatever the number of batches, also where all of them would fit into one window.
    #[test]
    fn no_two_epochs_put_the_same_rows_together() {
        for n_batches in [2, 3, 8, 32, 33] {
            let lengths: Vec<usize> = (0..n_batches * 8).collect();
            let sets = |epoch| {
                let mut batches = buckets(&lengths, 8, epoch);
                batches.iter_mut().for_each(|batch| batch.sort_unstable());
                batches
            };
            let (first, second) = (sets(0), sets(1));
            let kept = first.iter().filter(|batch| second.contains(batch)).count();
            assert_eq!(kept, 0, "{n_batches} batches");
        }
    }
}
