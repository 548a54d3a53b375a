//! Log-probabilities of tokens: one place for sampling, for the reference and for the update.
//!
//! All come here, so that the importance ratio is 1 where the policies are equal.

use burn::tensor::{Int, Tensor};

/// Log-probabilities of every token under a temperature: log softmax(logits / temperature).
///
/// # Shapes
/// - `logits` and output: `[n, vocab]`
pub fn log_probs(logits: Tensor<2>, temperature: f64) -> Tensor<2> {
    temper_kernels::log_probs(logits, temperature)
}

/// The same, of one token in each row: what [`token_logprobs`] reads in [`log_probs`], in one pass over the logits.
///
/// # Shapes
/// - `logits`: `[n, vocab]`
/// - `targets` and output: `[n]`
pub fn target_logprobs(logits: Tensor<2>, targets: Tensor<1, Int>, temperature: f64) -> Tensor<1> {
    temper_kernels::target_log_probs(logits, targets, temperature)
}

/// The logits of the first `n` tokens: a model may have more embedding rows than its tokenizer has tokens, and no
/// policy may ever sample one of those.
///
/// # Shapes
/// - `logits`: `[rows, vocab]`
/// - output: `[rows, min(n, vocab)]`
pub fn first_columns(logits: Tensor<2>, n: usize) -> Tensor<2> {
    if n < logits.dims()[1] { logits.narrow(1, 0, n) } else { logits }
}

/// Log-probabilities of the given tokens.
///
/// # Shapes
/// - `logprobs`: `[n, vocab]`, from [`log_probs`]
/// - `targets` and output: `[n]`
pub fn token_logprobs(logprobs: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    temper_kernels::read_targets(logprobs, targets)
}

/// Whether [`target_logprobs`] and [`measured_entropy`] are one pass over the logits each, so that a table of all
/// log-probabilities need not be made.
pub fn reads_in_one_pass(logits: &Tensor<2>) -> bool {
    temper_kernels::has_kernels(logits)
}

/// Entropy of each distribution under a temperature, without gradients: what [`entropy`] makes of [`log_probs`].
///
/// # Shapes
/// - `logits`: `[n, vocab]`
/// - output: `[n]`
pub fn measured_entropy(logits: Tensor<2>, temperature: f64) -> Tensor<1> {
    let logits = if logits.is_autodiff() { logits.inner() } else { logits };
    temper_kernels::entropy(logits, temperature)
}

/// Entropy of each distribution in nats: −Σ p log p over the whole vocabulary, not of the taken token alone.
///
/// # Shapes
/// - `logprobs`: `[n, vocab]`
/// - output: `[n]`
pub fn entropy(logprobs: Tensor<2>) -> Tensor<1> {
    temper_kernels::entropy_of_log_probs(logprobs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn logits() -> Tensor<2> {
        // Probabilities 1/4, 3/4 and 1/2, 1/2.
        Tensor::from_data([[1f32.ln(), 3f32.ln()], [0.0, 0.0]], &Device::flex())
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().as_slice::<f32>().unwrap().to_vec()
    }

    fn close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
    }

    #[test]
    fn log_probs_of_known_fractions() {
        close(&values(log_probs(logits(), 1.0)), &[0.25f32.ln(), 0.75f32.ln(), 0.5f32.ln(), 0.5f32.ln()]);
        let targets = Tensor::from_data(TensorData::new(vec![1i32, 0], [2]), &Device::flex());
        close(&values(token_logprobs(log_probs(logits(), 1.0), targets)), &[0.75f32.ln(), 0.5f32.ln()]);
    }

    #[test]
    fn temperature_one_half_squares_the_odds() {
        // Odds 1 : 3 become 1 : 9.
        close(&values(log_probs(logits(), 0.5))[..2], &[0.1f32.ln(), 0.9f32.ln()]);
    }

    #[test]
    fn entropy_counts_the_whole_distribution() {
        let quarter = -(0.25 * 0.25f32.ln() + 0.75 * 0.75f32.ln());
        close(&values(entropy(log_probs(logits(), 1.0))), &[quarter, 2f32.ln()]);
    }
}
