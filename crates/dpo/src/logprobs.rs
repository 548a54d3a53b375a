//! Log-probabilities of whole completions.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use temper_data::Ranking;
use temper_model::{CausalLm, Dropout, SharedPrompt, Span, TokenBatch, select_positions};
use temper_tensor::{floats, in_parallel, ints, shards, target_logprobs};

/// log π(completion | prompt) of every completion of some rankings, ranking after ranking, in nats: the sum over its
/// tokens, the end token included, without dropout.
///
/// Each completion is read once, and its prompt once for all of them where that is cheaper. A completion without a
/// prompt has nothing before its first token, which then does not count.
///
/// # Shapes
/// - output: `[completions]`; gradients flow into the model
pub fn completion_logprobs(model: &CausalLm, rankings: &[&Ranking]) -> Tensor<1> {
    // Inputs live on the plain side: nothing is recorded that needs no gradient.
    let device = model.device().inner();
    let d_model = model.config().d_model;
    let rows: Vec<SharedPrompt<'_>> =
        rankings.iter().flat_map(|ranking| SharedPrompt::rows_of(&ranking.parts(), d_model)).collect();
    let (batch, spans) = TokenBatch::shared_prompts(&rows, &device);
    let hidden = model.transformer.forward(&batch, &mut Dropout::off());

    let (mut positions, mut targets, mut lens) = (Vec::new(), Vec::new(), Vec::new());
    let completions = rows.iter().flat_map(|row| row.completions.iter().map(|ids| (row.prompt.len(), ids)));
    for (span, (prompt_len, ids)) in spans.iter().zip(completions) {
        let before = positions.len();
        for (i, &id) in ids.iter().enumerate() {
            if let Some(position) = predictor(span, prompt_len, i) {
                positions.push(position);
                targets.push(id as i32);
            }
        }
        lens.push(positions.len() - before);
    }
    if positions.is_empty() {
        // No completion counts this position, but a tensor needs at least one element.
        positions.push((0, 0));
        targets.push(0);
    }
    let n = targets.len();
    let targets = ints(targets, [n], &device);
    let logits = model.logits(select_positions(hidden, &positions));
    sums(target_logprobs(logits, targets, 1.0), &lens, &device)
}

/// Row and column of the hidden state that predicts the `i`th token of a completion: the token before it, and for the
/// first one the prompt's last.
fn predictor(span: &Span, prompt_len: usize, i: usize) -> Option<(usize, usize)> {
    let column = if i > 0 { span.start + i - 1 } else { prompt_len.checked_sub(1)? };
    Some((span.row, column))
}

/// Sums of consecutive pieces of the given lengths: `[pieces]`.
fn sums(values: Tensor<1>, lens: &[usize], device: &Device) -> Tensor<1> {
    let (rows, width) = (lens.len(), lens.iter().copied().max().unwrap_or(0).max(1));
    let (mut index, mut mask) = (vec![0i32; rows * width], vec![0f32; rows * width]);
    let mut first = 0;
    for (row, &len) in lens.iter().enumerate() {
        for i in 0..len {
            index[row * width + i] = (first + i) as i32;
            mask[row * width + i] = 1.0;
        }
        first += len;
    }
    let index = ints(index, [rows * width], device);
    let mask = floats(mask, [rows, width], device);
    (values.select(0, index).reshape([rows, width]) * mask).sum_dim(1).squeeze_dim(1)
}

/// [`completion_logprobs`] without gradients, `batch_size` rankings at a time: for each ranking the log-probability of each completion.
pub(crate) fn read_logprobs(model: &CausalLm, rankings: &[&Ranking], batch_size: usize) -> Vec<Vec<f32>> {
    let model = model.valid();
    let device = model.device();
    let mut by_ranking = vec![Vec::new(); rankings.len()];
    // Rankings of similar length share a batch: less padding.
    let longest = |i: usize| rankings[i].completions.iter().map(|c| c.tokens.len()).max();
    let mut order: Vec<usize> = (0..rankings.len()).collect();
    order.sort_by_key(|&i| longest(i));
    for batch in order.chunks(batch_size) {
        let parts = shards(batch, &device).into_iter().map(|(_, rows)| (model.clone(), rows));
        let read = in_parallel(parts.collect(), |(model, rows)| {
            let rankings: Vec<&Ranking> = rows.iter().map(|&i| rankings[i]).collect();
            let data = completion_logprobs(&model, &rankings).into_data();
            split(data.as_slice::<f32>().expect("the model computes in f32"), &rankings)
        });
        for (&i, logprobs) in batch.iter().zip(read.into_iter().flatten()) {
            by_ranking[i] = logprobs;
        }
    }
    by_ranking
}

/// One number per completion, cut into rankings.
pub(crate) fn split(mut numbers: &[f32], rankings: &[&Ranking]) -> Vec<Vec<f32>> {
    let cut = |ranking: &&Ranking| {
        let (own, others) = numbers.split_at(ranking.completions.len());
        numbers = others;
        own.to_vec()
    };
    rankings.iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;
    use temper_data::Pair;
    use temper_model::ModelConfig;
    use temper_tokenizer::Example;

    /// Sums of a dozen f32 numbers below 10.
    const TOLERANCE: f32 = 2e-5;

    fn model() -> CausalLm {
        let config = ModelConfig { n_layers: 2, ..ModelConfig::preset("tiny").unwrap() };
        CausalLm::new(&config, &mut ChaCha8Rng::seed_from_u64(0), &Device::flex())
    }

    fn ranking(prompt: &[u32], completions: &[&[u32]]) -> Ranking {
        let example = |completion: &&[u32]| Example::new([prompt, completion].concat(), prompt.len());
        let pairs = vec![Pair { chosen: 0, rejected: 1, gap: 1.0 }];
        Ranking { completions: completions.iter().map(example).collect(), pairs, row: 0 }
    }

    /// A completion by itself, token after token, from the logits of the whole sequence.
    fn alone(model: &CausalLm, example: &Example) -> f32 {
        let batch = TokenBatch::right_padded(&[example.tokens.as_slice()], &Device::flex());
        let [_, seq] = batch.dims();
        let logits = model.forward(&batch, &mut Dropout::off()).reshape([seq, model.config().vocab_size]);
        let logits = logits.into_data().as_slice::<f32>().unwrap().to_vec();
        let row = |i: usize| &logits[i * model.config().vocab_size..(i + 1) * model.config().vocab_size];
        let logprob = |i: usize| {
            let total: f32 = row(i - 1).iter().map(|x| x.exp()).sum();
            row(i - 1)[example.tokens[i] as usize] - total.ln()
        };
        (example.prompt_len.max(1)..example.tokens.len()).map(logprob).sum()
    }

    fn check(rankings: &[&Ranking]) {
        let model = model();
        let logprobs = completion_logprobs(&model, rankings).into_data().as_slice::<f32>().unwrap().to_vec();
        let expected: Vec<f32> =
            rankings.iter().flat_map(|r| &r.completions).map(|example| alone(&model, example)).collect();
        assert_eq!(logprobs.len(), expected.len());
        assert!(
            logprobs.iter().zip(&expected).all(|(a, b)| (a - b).abs() < TOLERANCE),
            "{logprobs:?} {expected:?}"
        );
        let read = read_logprobs(&model, rankings, 2).concat();
        assert!(read.iter().zip(&expected).all(|(a, b)| (a - b).abs() < TOLERANCE), "{read:?} {expected:?}");
    }

    /// The first token of every completion is predicted by the prompt's last, wherever the completion is.
    #[test]
    fn a_completion_in_a_shared_row_is_as_probable_as_alone() {
        let long = [70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81];
        let shared = ranking(&long, &[&[90, 91, 3], &[92, 3], &[93, 94, 95, 96, 3]]);
        assert_eq!(
            SharedPrompt::rows_of(&shared.parts(), model().config().d_model).len(),
            1,
            "the prompt is shared"
        );
        check(&[
            &shared,
            &ranking(&[1, 2], &[&[5, 6, 7, 3], &[3]]),
            &ranking(&[9; 20], &[&[4, 3], &[8, 8, 3]]),
        ]);
    }

    #[test]
    fn rows_of_their_own_are_read_alike() {
        let apart = ranking(&[70], &[&[90; 40], &[91; 30]]);
        assert_eq!(
            SharedPrompt::rows_of(&apart.parts(), model().config().d_model).len(),
            2,
            "nothing is shared"
        );
        check(&[&apart]);
    }

    #[test]
    fn a_token_without_one_before_it_does_not_count() {
        check(&[&ranking(&[], &[&[90, 91, 3], &[92, 3]])]);
        // One token and no prompt: nothing is predicted.
        let logprobs = completion_logprobs(&model(), &[&ranking(&[], &[&[90], &[91]])]);
        assert_eq!(logprobs.into_data().as_slice::<f32>().unwrap(), [0.0, 0.0]);
    }
}
