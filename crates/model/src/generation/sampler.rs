//! Choosing the next token, on the host: the same choice on every backend.

use rand::{Rng, RngExt};
use temper_kernels::sum_of_exps;

/// How the next token is chosen from the model's distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampler {
    /// The most probable token, always.
    Greedy,
    /// At random, in proportion to softmax(logits / temperature) cut to `top_k` and `top_p`.
    Random {
        /// Divides the logits; above 0.
        temperature: f64,
        /// Keep this many most probable tokens; 0 keeps all.
        top_k: usize,
        /// Keep the fewest most probable tokens that together reach this probability; 1 keeps all.
        top_p: f64,
    },
}

impl Sampler {
    /// The model's own distribution: temperature 1, nothing cut. What PPO samples from.
    pub const PLAIN: Self = Self::Random { temperature: 1.0, top_k: 0, top_p: 1.0 };

    /// The temperature that the log-probabilities must be taken at.
    pub fn temperature(&self) -> f64 {
        match self {
            Self::Greedy => 1.0,
            Self::Random { temperature, .. } => *temperature,
        }
    }

    /// Whether every token can be chosen, so that the log-probabilities are those of the choice itself.
    pub fn keeps_all(&self) -> bool {
        matches!(self, Self::Random { top_k: 0, top_p, .. } if *top_p >= 1.0)
    }

    /// Picks a token given the log-probabilities of all, at [`Sampler::temperature`].
    ///
    /// Returns its index.
    pub fn choose(&self, logprobs: &[f32], rng: &mut impl Rng) -> usize {
        match *self {
            Self::Greedy => argmax(logprobs),
            Self::Random { .. } if self.keeps_all() => draw(logprobs, rng),
            Self::Random { top_k, top_p, .. } => {
                let (tokens, logprobs): (Vec<usize>, Vec<f32>) =
                    nucleus(logprobs, top_k, top_p).into_iter().unzip();
                tokens[draw(&logprobs, rng)]
            }
        }
    }
}

fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

/// The candidates that top-k and top-p leave, most probable first; never empty.
fn nucleus(logprobs: &[f32], top_k: usize, top_p: f64) -> Vec<(usize, f32)> {
    let mut candidates: Vec<(usize, f32)> = logprobs.iter().copied().enumerate().collect();
    if top_k > 0 {
        keep_most_probable(&mut candidates, top_k);
    }
    let probability = |(_, logprob): &(usize, f32)| f64::from(*logprob).exp();
    let total: f64 = candidates.iter().map(probability).sum();
    // Few tokens have most of the probability, and only those must be sorted.
    let mut n = 64;
    loop {
        let mut kept = candidates.clone();
        keep_most_probable(&mut kept, n);
        let mut mass = 0.0;
        let last = kept.iter().position(|candidate| {
            mass += probability(candidate) / total;
            mass >= top_p
        });
        if let Some(last) = last {
            kept.truncate(last + 1);
            return kept;
        }
        if n >= candidates.len() {
            return kept;
        }
        n *= 8;
    }
}

/// Keeps the `n` most probable candidates, most probable first; of equal ones those with lower ids.
fn keep_most_probable(candidates: &mut Vec<(usize, f32)>, n: usize) {
    let order = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if n < candidates.len() {
        candidates.select_nth_unstable_by(n, order);
        candidates.truncate(n);
    }
    candidates.sort_unstable_by(order);
}

/// Draws in proportion to exp(logprob), and returns the place. A candidate of probability 0 is never drawn, whatever the
/// rounding.
fn draw(logprobs: &[f32], rng: &mut impl Rng) -> usize {
    /// Candidates that are passed over together.
    const BLOCK: usize = 128;

    let blocks = logprobs.chunks(BLOCK);
    let masses: Vec<f64> = blocks.map(|block| f64::from(sum_of_exps(block))).collect();
    let mut left = rng.random::<f64>() * masses.iter().sum::<f64>();
    let mut first = 0;
    for mass in &masses[..masses.len() - 1] {
        if left < *mass {
            break;
        }
        left -= mass;
        first += BLOCK;
    }
    let mut last = None;
    for (i, logprob) in logprobs.iter().enumerate().skip(first) {
        let p = f64::from(logprob.exp());
        if p == 0.0 {
            continue;
        }
        last = Some(i);
        left -= p;
        if left < 0.0 {
            break;
        }
    }
    // Rounding may lead past the last candidate that has a probability.
    last.unwrap_or_else(|| argmax(logprobs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const FRACTIONS: [f32; 4] = [0.5, 0.3, 0.15, 0.05];

    fn counts(sampler: Sampler) -> [f64; 4] {
        let logprobs = FRACTIONS.map(f32::ln);
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let mut counts = [0.0; 4];
        for _ in 0..20_000 {
            counts[sampler.choose(&logprobs, &mut rng)] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn frequencies_are_the_probabilities() {
        for (found, expected) in counts(Sampler::PLAIN).iter().zip(FRACTIONS) {
            assert!((found - f64::from(expected)).abs() < 0.012, "{found} {expected}");
        }
    }

    #[test]
    fn top_p_keeps_the_fewest_that_reach_it() {
        let n_drawn = counts(Sampler::Random { temperature: 1.0, top_k: 0, top_p: 0.7 });
        assert!((n_drawn[0] - 0.625).abs() < 0.012 && (n_drawn[1] - 0.375).abs() < 0.012, "{n_drawn:?}");
        assert_eq!(n_drawn[2..], [0.0, 0.0]);
        assert_eq!(counts(Sampler::Random { temperature: 1.0, top_k: 0, top_p: 0.0 })[0].round(), 1.0);
    }

    #[test]
    fn top_k_keeps_k() {
        assert_eq!(counts(Sampler::Random { temperature: 1.0, top_k: 3, top_p: 1.0 })[3], 0.0);
        assert_eq!(counts(Sampler::Greedy)[1..], [0.0; 3]);
    }

    /// Of 300 tokens, in more than one block of them, and with the last block impossible.
    #[test]
    fn every_token_of_a_large_vocabulary_is_drawn_as_often_as_it_is_probable() {
        let weight = |i| {
            if i >= 250 {
                0.0
            } else if i % 7 == 3 {
                5.0
            } else {
                f64::from(i % 2)
            }
        };
        let weights: Vec<f64> = (0..300).map(weight).collect();
        let total: f64 = weights.iter().sum();
        let logprobs: Vec<f32> = weights.iter().map(|weight| (weight / total).ln() as f32).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut counts = vec![0.0; 300];
        for _ in 0..60_000 {
            counts[Sampler::PLAIN.choose(&logprobs, &mut rng)] += total / 60_000.0;
        }
        for (i, (found, expected)) in counts.iter().zip(&weights).enumerate() {
            // Five deviations of a count.
            let error = 5.0 * (expected * total / 60_000.0).sqrt();
            assert!((found - expected).abs() <= error, "token {i}: {found}, not {expected}");
        }
    }

    /// A nucleus of more tokens than are sorted at first.
    #[test]
    fn a_wide_nucleus_has_its_tokens_in_their_order() {
        let logprobs: Vec<f32> = (0..1000).map(|i| -((i * 7 % 1000) as f32) * 1e-3).collect();
        let mut sorted: Vec<(usize, f32)> = logprobs.iter().copied().enumerate().collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let kept = nucleus(&logprobs, 0, 0.5);
        assert!(kept.len() > 64 && kept.len() < 500, "{}", kept.len());
        assert_eq!(kept, sorted[..kept.len()]);
        assert_eq!(nucleus(&logprobs, 5, 1.0), sorted[..5]);
    }

    #[test]
    fn a_token_of_probability_zero_is_never_drawn() {
        let logprobs = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..1000).all(|_| Sampler::PLAIN.choose(&logprobs, &mut rng) == 1));
    }
}
