//! Dropout with masks from the host: one seed gives one run on every backend, and a resumed run draws the same masks.

use burn::tensor::{Device, Int, Tensor};
use temper_tensor::{floats, ints, is_host};

/// Draws dropout masks, or does nothing.
///
/// burn's own dropout takes each element from one locked generator: up to half of a training step on a CPU,
/// and its state cannot be saved. Here a counter-based generator fills a mask in bulk. The caller gives a fresh
/// seed for each step, so nothing has to be stored to repeat the step.
#[derive(Clone, Debug)]
pub struct Dropout {
    state: Option<u64>,
}

impl Dropout {
    /// No dropout: evaluation, reward model, PPO.
    pub fn off() -> Self {
        Self { state: None }
    }

    /// Dropout with the masks that belong to `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self { state: Some(seed) }
    }

    /// Whether [`Dropout::apply`] changes anything.
    pub fn drops(&self, p: f64) -> bool {
        self.state.is_some() && p > 0.0
    }

    /// Zeroes each element with probability `p` and scales the others by 1/(1 − p), so that the mean stays.
    ///
    /// # Shapes
    /// - input and output: any.
    pub fn apply<const D: usize>(&mut self, x: Tensor<D>, p: f64) -> Tensor<D> {
        let Some(state) = &mut self.state else { return x };
        if p == 0.0 {
            return x;
        }
        let dims = x.dims();
        let mask = bernoulli_mask(state, dims.iter().product(), p);
        let device = x.device().inner();
        x * if is_host(&device) { floats(mask, dims, &device) } else { unpacked(&mask, dims, &device) }
    }
}

/// Keeps each element with probability 1 − p, four decisions of 16 bits from one draw.
fn bernoulli_mask(state: &mut u64, len: usize, p: f64) -> Vec<f32> {
    let threshold = (p * 65536.0).round() as u16;
    let scale = (1.0 / (1.0 - f64::from(threshold) / 65536.0)) as f32;
    let mut mask = vec![0.0; len];
    for four in mask.chunks_mut(4) {
        let bits = splitmix64(state);
        for (i, keep) in four.iter_mut().enumerate() {
            if (bits >> (16 * i)) as u16 >= threshold {
                *keep = scale;
            }
        }
    }
    mask
}

/// A mask that crosses to a graphics card with one bit for each element, and becomes numbers there.
fn unpacked<const D: usize>(mask: &[f32], dims: [usize; D], device: &Device) -> Tensor<D> {
    let scale = mask.iter().copied().fold(0.0, f32::max);
    let word = |kept: &[f32]| kept.iter().rev().fold(0, |word, &x| word << 1 | i32::from(x > 0.0));
    let words: Vec<i32> = mask.chunks(32).map(word).collect();
    let table = [words.len(), 32];
    let places = Tensor::<1, Int>::arange(0..32, device).unsqueeze::<2>().expand(table);
    let words = ints(words, [table[0], 1], device).expand(table);
    let bits = words.bitwise_right_shift(places).bitwise_and_scalar(1);
    let mask_of_words = bits.float().mul_scalar(scale).reshape([32 * table[0]]);
    mask_of_words.narrow(0, 0, mask.len()).reshape(dims)
}

/// SplitMix64 (Steele, Lea and Flood 2014): a counter and a mixing function.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_tensor::values_of;

    #[test]
    fn a_tenth_of_the_elements_is_dropped_and_the_mean_stays() {
        let mask = bernoulli_mask(&mut 7, 100_000, 0.1);
        let dropped = mask.iter().filter(|&&keep| keep == 0.0).count() as f64 / 1e5;
        let mean = mask.iter().sum::<f32>() / 1e5;
        assert!((dropped - 0.1).abs() < 0.004, "{dropped}");
        assert!((mean - 1.0).abs() < 0.004, "{mean}");
    }

    #[test]
    fn one_seed_gives_one_sequence_of_masks() {
        let draw = |seed| {
            let mut state = seed;
            (bernoulli_mask(&mut state, 64, 0.5), bernoulli_mask(&mut state, 64, 0.5))
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        assert_ne!(draw(3).0, draw(3).1);
    }

    /// Also of a number of elements that fills no word.
    #[test]
    fn a_device_unpacks_the_same_mask() {
        for dims in [[2, 32], [3, 33], [1, 7]] {
            let mask = bernoulli_mask(&mut 5, dims[0] * dims[1], 0.3);
            assert_eq!(values_of(unpacked(&mask, dims, &Device::flex())), mask);
        }
    }

    /// First outputs for state 1234567 as published with the algorithm's reference implementation.
    #[test]
    fn splitmix64_gives_the_published_numbers() {
        let mut state = 1234567;
        assert_eq!(splitmix64(&mut state), 6457827717110365317);
        assert_eq!(splitmix64(&mut state), 3203168211198807973);
    }
}
