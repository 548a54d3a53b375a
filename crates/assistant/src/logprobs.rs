//! Log-probabilities of completions that are given as ids.

use temper_model::{CausalLm, Dropout, TargetLogits, TargetRow};
use temper_tensor::{first_columns, target_logprobs, values_of};

/// Log-probability of each completion token given everything before it, in nats, from one forward pass without dropout.
///
/// Each row is a prompt with its completion. The distribution is over the first `n_tokens` ids of the vocabulary: sampling
/// chooses among those of the tokenizer. The logits are divided by `temperature`. The result has one list for each row, with one
/// number for each token of its completion.
///
/// # Panics
/// If a prompt is empty, or a row longer than the model's context.
pub fn answer_logprobs(
    model: &CausalLm,
    rows: &[(&[u32], &[u32])],
    n_tokens: usize,
    temperature: f64,
) -> Vec<Vec<f32>> {
    if rows.iter().all(|(_, completion)| completion.is_empty()) {
        return vec![Vec::new(); rows.len()];
    }
    assert!(rows.iter().all(|(prompt, _)| !prompt.is_empty()), "nothing predicts the first token of a row");
    let whole: Vec<Vec<u32>> =
        rows.iter().map(|(prompt, completion)| [*prompt, *completion].concat()).collect();
    let with_targets: Vec<TargetRow<'_>> =
        whole.iter().zip(rows).map(|(row, (prompt, _))| (row.as_slice(), prompt.len()).into()).collect();
    let output = TargetLogits::new(model, &with_targets, &model.device(), &mut Dropout::off());
    let logits = first_columns(output.logits, n_tokens);
    let all = values_of(target_logprobs(logits, output.targets, temperature));
    let mut rest = all.as_slice();
    let mut take = |n: usize| {
        let (own, others) = rest.split_at(n);
        rest = others;
        own.to_vec()
    };
    rows.iter().map(|(_, completion)| take(completion.len())).collect()
}
