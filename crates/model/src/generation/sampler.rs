//! Choosing the next token: on the host, or on a graphics card where all tokens can be chosen.

use burn::tensor::{Int, Tensor};
use rand::{Rng, RngExt};
use temper_kernels::sum_of_exps;
use temper_tensor::floats;

/// Candidates that are passed over together while one is drawn.
const BLOCK: usize = 128;

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

    /// Whether [`Sampler::choose_on_device`] can make the choice. Sorting a vocabulary is left to the host.
    pub fn is_for_devices(&self) -> bool {
        self.keeps_all() || matches!(self, Self::Greedy)
    }

    /// What [`Sampler::choose`] picks for each row, up to rounding, without a transfer of the log-probabilities.
    ///
    /// # Shapes
    /// - `logprobs`: `[rows, n_tokens]`, at [`Sampler::temperature`]
    /// - `uniform`: gives a random number from 0 to 1 for each row
    /// - output: `[rows, 1]`
    ///
    /// # Panics
    /// Unless [`Sampler::is_for_devices`].
    pub fn choose_on_device(&self, logprobs: Tensor<2>, uniform: impl FnMut(usize) -> f64) -> Tensor<2, Int> {
        assert!(self.is_for_devices(), "{self:?} sorts the vocabulary");
        if matches!(self, Self::Greedy) {
            return logprobs.argmax(1);
        }
        let rows = logprobs.dims()[0];
        let uniforms: Vec<f32> = (0..rows).map(uniform).map(|uniform| uniform as f32).collect();
        let uniforms = floats(uniforms, [rows, 1], &logprobs.device());
        draw_on_device(logprobs, uniforms)
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

/// [`draw`] for each row by operations on tensors: first a block of candidates, then one of the block.
///
/// A sum over all candidates before each one would take a card as many steps as there are candidates.
///
/// # Shapes
/// - `logprobs`: `[rows, n_tokens]`
/// - `uniforms`: `[rows, 1]`, at least 0 and at most 1
/// - output: `[rows, 1]`
fn draw_on_device(logprobs: Tensor<2>, uniforms: Tensor<2>) -> Tensor<2, Int> {
    /// A draw stays this far below the end, more than rounding can add: a candidate of probability 0 may be the last.
    const BELOW_THE_END: f64 = 1.0 - 1e-6;

    let [rows, n_tokens] = logprobs.dims();
    let n_blocks = n_tokens.div_ceil(BLOCK);
    let missing = n_blocks * BLOCK - n_tokens;
    let mut probs = logprobs.exp();
    if missing > 0 {
        let zeros = Tensor::zeros([rows, missing], &probs.device());
        probs = Tensor::cat(vec![probs, zeros], 1);
    }
    let blocks = probs.reshape([rows, n_blocks, BLOCK]);
    let masses = blocks.clone().sum_dim(2).reshape([rows, n_blocks]);
    let ends = masses.clone().cumsum(1);
    let total = ends.clone().narrow(1, n_blocks - 1, 1);
    let target = uniforms.mul_scalar(BELOW_THE_END) * total;
    let block = passed(ends.clone(), target.clone());

    let mass = masses.gather(1, block.clone());
    let left = target - (ends.gather(1, block.clone()) - mass.clone());
    let share = (left / mass).clamp(0.0, BELOW_THE_END);
    let of_block = block.clone().reshape([rows, 1, 1]).expand([rows, 1, BLOCK]);
    let ends = blocks.gather(1, of_block).reshape([rows, BLOCK]).cumsum(1);
    let target = share * ends.clone().narrow(1, BLOCK - 1, 1);
    block.mul_scalar(BLOCK as i64) + passed(ends, target)
}

/// How many of the ascending `ends` are not above the target, `[rows, 1]`: the place of the first one that is.
fn passed(ends: Tensor<2>, target: Tensor<2>) -> Tensor<2, Int> {
    ends.lower_equal(target).int().sum_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use temper_tensor::{log_probs, values_of};

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

    /// With the same streams. A draw that falls between two tokens, up to rounding, may go to either.
    #[test]
    fn a_device_draws_what_the_host_draws() {
        let (rows, n) = (400, 300);
        let logits: Vec<f32> = (0..rows * n).map(|i| ((i * i) as f32 * 0.37).sin() * 3.0).collect();
        let logits = Tensor::<2>::from_data(TensorData::new(logits, [rows, n]), &Device::flex());
        let logprobs = log_probs(logits, 1.0);
        let stream = |row: usize| {
            let mut generator = ChaCha8Rng::seed_from_u64(3);
            generator.set_stream(row as u64);
            generator
        };
        let choose =
            |sampler: Sampler| ids(sampler.choose_on_device(logprobs.clone(), |row| stream(row).random()));
        let (drawn, greedy) = (choose(Sampler::PLAIN), choose(Sampler::Greedy));
        let mut n_other = 0;
        for (row, logprobs) in values_of(logprobs.clone()).chunks(n).enumerate() {
            assert_eq!(greedy[row], Sampler::Greedy.choose(logprobs, &mut stream(row)));
            n_other += usize::from(drawn[row] != Sampler::PLAIN.choose(logprobs, &mut stream(row)));
        }
        assert!(n_other <= 1, "{n_other} of {rows} draws differ");
    }

    /// Whatever the draw, also at both ends.
    #[test]
    fn a_device_never_draws_a_token_of_probability_zero() {
        let device = Device::flex();
        let mut logprobs = vec![f32::NEG_INFINITY; 300];
        for token in [131, 132, 260] {
            logprobs[token] = (1.0_f32 / 3.0).ln();
        }
        let rows: Vec<f32> = (0..5).flat_map(|_| logprobs.clone()).collect();
        let rows = Tensor::<2>::from_data(TensorData::new(rows, [5, 300]), &device);
        let uniforms = Tensor::from_data([[0.0_f32], [0.3333], [0.3334], [0.9999], [1.0]], &device);
        assert_eq!(ids(draw_on_device(rows, uniforms)), [131, 131, 132, 260, 260]);
    }

    fn ids(tokens: Tensor<2, Int>) -> Vec<usize> {
        values_of(tokens.float()).into_iter().map(|id| id as usize).collect()
    }

    #[test]
    fn a_token_of_probability_zero_is_never_drawn() {
        let logprobs = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..1000).all(|_| Sampler::PLAIN.choose(&logprobs, &mut rng) == 1));
    }
}
