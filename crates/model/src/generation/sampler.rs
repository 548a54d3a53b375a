//! Choosing the next token, on the host: the same choice on every backend.

use rand::{Rng, RngExt};

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
            Self::Random { .. } if self.keeps_all() => {
                draw((0..logprobs.len()).map(|i| (i, logprobs[i])), rng)
            }
            Self::Random { top_k, top_p, .. } => draw(nucleus(logprobs, top_k, top_p).into_iter(), rng),
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
    let mut kept: Vec<(usize, f32)> = logprobs.iter().copied().enumerate().collect();
    kept.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if top_k > 0 {
        kept.truncate(top_k);
    }
    let total: f64 = kept.iter().map(|(_, logprob)| f64::from(*logprob).exp()).sum();
    let mut mass = 0.0;
    let needed = kept.iter().position(|(_, logprob)| {
        mass += f64::from(*logprob).exp() / total;
        mass >= top_p
    });
    if let Some(last) = needed {
        kept.truncate(last + 1);
    }
    kept
}

/// Draws in proportion to exp(logprob). A candidate of probability 0 is never drawn, whatever the rounding.
fn draw(candidates: impl Iterator<Item = (usize, f32)> + Clone, rng: &mut impl Rng) -> usize {
    let total: f64 = candidates.clone().map(|(_, logprob)| f64::from(logprob.exp())).sum();
    let mut left = rng.random::<f64>() * total;
    let mut last = None;
    for (i, logprob) in candidates {
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
    last.expect("log-probabilities are finite somewhere")
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

    #[test]
    fn a_token_of_probability_zero_is_never_drawn() {
        let logprobs = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..1000).all(|_| Sampler::PLAIN.choose(&logprobs, &mut rng) == 1));
    }
}
