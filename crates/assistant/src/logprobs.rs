//! Log-probabilities of completions that are given as ids.

use burn::tensor::{Tensor, TensorData};
use temper_model::{CausalLm, Dropout, TokenBatch, select_positions};
use temper_tensor::{log_probs, token_logprobs};

/// Log-probability of each completion token given everything before it, in nats, from one forward pass without dropout.
///
/// Each row is a prompt with its completion. The logits are divided by `temperature`. The result has one list for each
/// row, with one number for each token of its completion.
///
/// # Panics
/// If a prompt is empty, or a row longer than the model's context.
pub fn answer_logprobs(model: &CausalLm, rows: &[(&[u32], &[u32])], temperature: f64) -> Vec<Vec<f32>> {
    let n_tokens: usize = rows.iter().map(|(_, completion)| completion.len()).sum();
    if n_tokens == 0 {
        return vec![Vec::new(); rows.len()];
    }
    let device = model.device();
    let whole: Vec<Vec<u32>> =
        rows.iter().map(|(prompt, completion)| [*prompt, *completion].concat()).collect();
    let batch = TokenBatch::right_padded(&whole, &device);
    let hidden = model.transformer.forward(&batch, &mut Dropout::off());
    let positions: Vec<(usize, usize)> = (rows.iter().enumerate())
        .flat_map(|(row, (prompt, completion))| {
            (0..completion.len()).map(move |t| (row, prompt.len() - 1 + t))
        })
        .collect();
    let logprobs = log_probs(model.logits(select_positions(hidden, &positions)), temperature);
    let targets: Vec<i32> =
        rows.iter().flat_map(|(_, completion)| completion.iter().map(|&token| token as i32)).collect();
    let targets = Tensor::from_data(TensorData::new(targets, [n_tokens]), &device);
    let data = token_logprobs(logprobs, targets).into_data();
    let mut rest = data.as_slice::<f32>().expect("the model computes in f32");
    let mut take = |n: usize| {
        let (own, others) = rest.split_at(n);
        rest = others;
        own.to_vec()
    };
    rows.iter().map(|(_, completion)| take(completion.len())).collect()
}
