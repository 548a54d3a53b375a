//! How far two policies are apart on the answers of the first.

use burn::tensor::{Tensor, TensorData};
use temper_model::{CausalLm, Dropout, TokenBatch, select_positions};
use temper_tensor::{log_probs, token_logprobs};

/// Answer tokens of one forward: their logits over a whole vocabulary must fit into memory.
const MOST_TOKENS: usize = 1024;

/// Log-probability of each answer, summed over its tokens, at a temperature.
///
/// Both policies are read by this function, and not the first one by its sampler, so that two equal ones are 0 apart.
///
/// # Panics
/// If a prompt is empty, or a row longer than the context.
pub fn answer_logprobs(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    answers: &[&[u32]],
    temperature: f64,
) -> Vec<f64> {
    let device = model.device();
    let mut sums = Vec::with_capacity(answers.len());
    let longest = answers.iter().map(|answer| answer.len()).max().unwrap_or(0).max(1);
    let n_rows = (MOST_TOKENS / longest).max(1);
    for (prompts, answers) in prompts.chunks(n_rows).zip(answers.chunks(n_rows)) {
        let n_tokens: usize = answers.iter().map(|answer| answer.len()).sum();
        if n_tokens == 0 {
            sums.resize(sums.len() + answers.len(), 0.0);
            continue;
        }
        let rows: Vec<Vec<u32>> =
            prompts.iter().zip(answers).map(|(prompt, answer)| [prompt, *answer].concat()).collect();
        let batch = TokenBatch::right_padded(&rows, &device);
        let hidden = model.transformer.forward(&batch, &mut Dropout::off());
        let lens = prompts.iter().zip(answers).enumerate();
        let positions: Vec<(usize, usize)> = lens
            .flat_map(|(row, (prompt, answer))| (0..answer.len()).map(move |t| (row, prompt.len() - 1 + t)))
            .collect();
        let logprobs = log_probs(model.logits(select_positions(hidden, &positions)), temperature);
        let targets: Vec<i32> = answers.iter().flat_map(|answer| answer.iter().map(|&t| t as i32)).collect();
        let targets = Tensor::from_data(TensorData::new(targets, [n_tokens]), &device);
        let data = token_logprobs(logprobs, targets).into_data();
        let mut rest = data.as_slice::<f32>().expect("the model computes in f32");
        for answer in answers {
            let (own, others) = rest.split_at(answer.len());
            sums.push(own.iter().map(|&logprob| f64::from(logprob)).sum());
            rest = others;
        }
    }
    sums
}

/// Mean of the differences, an unbiased estimate of KL(first ∥ second) where the answers are the first's own, and its
/// standard error; none for a single answer.
pub fn estimate(first: &[f64], second: &[f64]) -> (f64, Option<f64>) {
    let n = first.len() as f64;
    let differences = || first.iter().zip(second).map(|(first, second)| first - second);
    let mean = differences().sum::<f64>() / n;
    let variance = differences().map(|difference| (difference - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (first.len() > 1).then(|| (variance / n).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Differences 1, 2 and 6: mean 3, variance 7, standard error √(7/3).
    #[test]
    fn the_standard_error_is_that_of_the_mean() {
        let (mean, error) = estimate(&[-1.0, -2.0, 0.0], &[-2.0, -4.0, -6.0]);
        assert_eq!(mean, 3.0);
        assert!((error.unwrap() - (7.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(estimate(&[-1.0], &[-1.5]), (0.5, None));
    }
}
