//! How answers are sampled.

use temper_model::{GenerateOptions, Sampler};

use crate::Error;

/// Within this range, 32-bit logits divided by the temperature remain numbers that differ.
const TEMPERATURES: std::ops::RangeInclusive<f64> = 1e-4..=1e4;

/// How answers are sampled. The default is the model's own distribution, up to 64 tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Longest answer in tokens, the end token included.
    pub max_new_tokens: usize,
    /// Divides the logits, from 0.0001 to 10000.
    pub temperature: f64,
    /// Keeps this many of the most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most probable tokens up to this probability mass, from 0 to 1.
    pub top_p: f64,
    /// Always takes the most probable token. The temperature then only enters the log-probabilities that are reported.
    pub greedy: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { max_new_tokens: 64, temperature: 1.0, top_k: 0, top_p: 1.0, greedy: false }
    }
}

impl Sampling {
    /// Refuses numbers outside of their ranges.
    ///
    /// # Errors
    /// [`Error::Temperature`], [`Error::TopP`].
    pub fn check(&self) -> Result<(), Error> {
        if !TEMPERATURES.contains(&self.temperature) {
            return Err(Error::Temperature { temperature: self.temperature });
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return Err(Error::TopP { top_p: self.top_p });
        }
        Ok(())
    }

    /// Whether answers are draws from the model's whole distribution, at any temperature.
    pub fn is_whole_distribution(&self) -> bool {
        !self.greedy && self.top_k == 0 && self.top_p >= 1.0
    }

    /// The options of [`generate`](temper_model::generate()), except for what the model itself decides.
    pub(crate) fn options(&self, seed: u64) -> Result<GenerateOptions, Error> {
        self.check()?;
        let Self { max_new_tokens, temperature, top_k, top_p, greedy } = *self;
        let sampler = if greedy { Sampler::Greedy } else { Sampler::Random { temperature, top_k, top_p } };
        Ok(GenerateOptions { max_new_tokens, sampler, seed, ..GenerateOptions::default() })
    }
}

/// The seed of one batch of prompts, so that no two batches draw the same numbers. `batch` counts from 0.
pub fn batch_seed(seed: u64, batch: u64) -> u64 {
    seed.wrapping_add(batch << 32)
}
