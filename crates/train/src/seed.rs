//! One seed, many independent streams of random numbers.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The one seed of a run. Every use of chance takes a stream of its own, by name, so that a new use does not
/// move the others, and a resumed run asks for the stream of its step again instead of having saved it.
///
/// A stream is ChaCha8 under the key (seed, hash of the name, index, kind): distinct keys, independent
/// streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

/// The last word of a key, so that the three methods never share a stream.
#[derive(Clone, Copy)]
enum Kind {
    Stream = 0,
    StreamAt = 1,
    Derive = 2,
}

impl Seed {
    /// The stream called `name`.
    pub fn stream(self, name: &str) -> ChaCha8Rng {
        self.rng(name, 0, Kind::Stream)
    }

    /// The stream called `name` of one epoch, step or row.
    pub fn stream_at(self, name: &str, index: u64) -> ChaCha8Rng {
        self.rng(name, index, Kind::StreamAt)
    }

    /// Another seed, for a part that makes streams of its own.
    pub fn derive(self, name: &str) -> Seed {
        Seed(self.rng(name, 0, Kind::Derive).next_u64())
    }

    fn rng(self, name: &str, index: u64, kind: Kind) -> ChaCha8Rng {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip([self.0, fnv1a(name.as_bytes()), index, kind as u64])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }
}

/// The 64-bit FNV-1a hash: short, and the same on every machine and in every release (unlike `std`'s).
fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_hash_is_fnv1a() {
        // From the FNV authors' test suite.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn streams_never_change() {
        assert_eq!(Seed(0).stream("shuffle").next_u64(), GOLDEN_STREAM);
        assert_eq!(Seed(7).stream_at("sample", 3).next_u64(), GOLDEN_STREAM_AT);
        assert_eq!(Seed(7).derive("rollout").0, GOLDEN_DERIVED);
    }
    const GOLDEN_STREAM: u64 = 12_697_166_828_597_145_782;
    const GOLDEN_STREAM_AT: u64 = 6_003_155_785_410_298_130;
    const GOLDEN_DERIVED: u64 = 12_983_009_935_134_505_587;

    #[test]
    fn seeds_names_indices_and_kinds_give_different_streams() {
        let mut seen = HashSet::new();
        for seed in [Seed(0), Seed(1), Seed(u64::MAX)] {
            for name in ["", "init", "shuffle"] {
                assert!(seen.insert(seed.stream(name).next_u64()));
                assert!(seen.insert(seed.derive(name).0));
                for index in 0..10 {
                    assert!(seen.insert(seed.stream_at(name, index).next_u64()));
                }
            }
        }
    }
}
