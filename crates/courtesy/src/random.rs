use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a stream of random numbers is for: each use has its own, so that the size of one file cannot change another.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Demonstrations = 1,
    Comparisons,
    Prompts,
    EvalPrompts,
    DemonstrationsHeldout,
    ComparisonsHeldout,
    Graded,
    Texts,
    TextsHeldout,
}

/// Random choices that are the same on every platform and with every release of `rand`.
///
/// Only the ChaCha keystream is taken from a library; how it becomes a choice is written here.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64, stream: Stream) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8] = stream as u8;
        Self(ChaCha8Rng::from_seed(key))
    }

    /// A number from `0` to `1`, `1` excluded.
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(self.0.next_u32()) / (f64::from(u32::MAX) + 1.0)
    }

    /// True with probability `p`.
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// An index below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "cannot choose out of nothing");
        ((u64::from(self.0.next_u32()) * n as u64) >> 32) as usize
    }

    /// One of `items`.
    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Puts `items` in a random order (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_reached_about_as_often() {
        let mut random = Random::new(0, Stream::Graded);
        let mut counts = [0; 6];
        for _ in 0..6_000 {
            counts[random.below(6)] += 1;
        }
        assert!(counts.iter().all(|n| (850..1_150).contains(n)), "{counts:?}");
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let mut one = Random::new(7, Stream::Demonstrations);
        let mut other = Random::new(7, Stream::Comparisons);
        assert_ne!([one.unit(), one.unit()], [other.unit(), other.unit()]);
    }

    #[test]
    fn choices_are_pinned_so_that_data_stays_the_same_across_releases() {
        let mut random = Random::new(3, Stream::Comparisons);
        assert_eq!([(); 6].map(|()| random.below(1_000)), [156, 92, 529, 794, 429, 927]);
    }
}
