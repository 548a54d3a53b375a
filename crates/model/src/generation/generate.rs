//! Batched generation through the KV cache.

use burn::module::Module;
use burn::tensor::Tensor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Error;
use crate::batch::TokenBatch;
use crate::generation::cache::{KvCache, Place};
use crate::generation::sampler::Sampler;
use crate::generation::step::Stepper;
use crate::heads::CausalLm;
use temper_tensor::{first_columns, floats, in_parallel, ints, log_probs, shards, values_of};

/// What to generate, and when to stop.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Longest completion, in tokens, the end token included. A shorter context ends it earlier.
    pub max_new_tokens: usize,
    /// Longest prompt and completion together, in tokens; never more than the model's context.
    pub max_seq_len: usize,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// Each of them ends a completion and is kept as its last token.
    pub end_tokens: Vec<u32>,
    /// Another token that ends a completion, once it is long enough.
    pub stop: Option<StopToken>,
    /// Only ids below this are sampled. A model may have more embedding rows than its tokenizer has tokens; their
    /// probability is 0 here, and the log-probabilities are those of the tokens that are left.
    pub n_tokens: usize,
    /// Ids below `n_tokens` that are not sampled either: gaps in the vocabulary of the tokenizer. Unlike ids above, they
    /// keep their share in the log-probabilities, which is close to 0 in a trained model.
    pub missing_tokens: Vec<u32>,
    /// Row i of a call draws from stream `first_stream + i` of this seed: its neighbours cannot change it.
    pub seed: u64,
    /// The random stream of the first row. Calls that share a seed and continue each other's rows count on.
    pub first_stream: u64,
}

impl Default for GenerateOptions {
    /// 64 tokens of the model's own distribution, without any end.
    fn default() -> Self {
        Self {
            max_new_tokens: 64,
            max_seq_len: usize::MAX,
            sampler: Sampler::PLAIN,
            end_tokens: Vec::new(),
            stop: None,
            n_tokens: usize::MAX,
            missing_tokens: Vec::new(),
            seed: 0,
            first_stream: 0,
        }
    }
}

/// A token that ends a completion in addition to the end token; it is kept as the last token.
///
/// Ziegler et al. 2019 end a continuation at its first full stop after 16 tokens (lm-human-preferences, `lm_tasks.py`:
/// `truncate_token`, `truncate_after`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopToken {
    /// Its id.
    pub token: u32,
    /// Tokens that come before it at least; an earlier one does not end the completion.
    pub after: usize,
}

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// With an end token or the stop token.
    Stop,
    /// At the length limit.
    Length,
}

/// One generated completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// Token ids, the end token included.
    pub tokens: Vec<u32>,
    /// Log-probability of each token under the model at the sampler's temperature, before any top-k or top-p cut.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// Completes every prompt.
///
/// The prompts are read in one pass; then each step costs one column. Rows that have ended leave the batch, on a graphics
/// card when half of the rows have, and the last one to end ends the work.
///
/// # Errors
/// [`Error::PromptTooLong`] for a prompt that fills the context; [`Error::NonFiniteOutput`] if the model answers with
/// NaN or infinity.
///
/// # Panics
/// If a prompt is empty.
pub fn generate(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Completion>, Error> {
    let max_seq_len = model.config().max_seq_len.min(options.max_seq_len);
    if let Some(index) = prompts.iter().position(|prompt| prompt.len() >= max_seq_len) {
        return Err(Error::PromptTooLong { index, prompt_len: prompts[index].len(), max_seq_len });
    }
    if prompts.is_empty() || options.max_new_tokens == 0 {
        let nothing = Completion { tokens: vec![], logprobs: vec![], finish: Finish::Length };
        return Ok(vec![nothing; prompts.len()]);
    }
    generate_at(Place::of(&model.device()), model, prompts, options)
}

/// [`generate`], with at least one prompt and one token.
fn generate_at(
    place: Place,
    model: &CausalLm,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Completion>, Error> {
    // Adapters are folded in once, and not computed beside the weights for every token.
    let model = model.valid().merged();
    let parts = shards(prompts, &model.device());
    let parts = parts.into_iter().map(|(first, prompts)| (model.clone(), first, prompts)).collect();
    let completions =
        in_parallel(parts, |(model, first, prompts)| generate_shard(place, &model, first, prompts, options));
    Ok(completions.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Completes some rows of a call, from row `first` on.
fn generate_shard(
    place: Place,
    model: &CausalLm,
    first: usize,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
) -> Result<Vec<Completion>, Error> {
    let max_seq_len = model.config().max_seq_len.min(options.max_seq_len);
    let n_tokens = model.config().vocab_size.min(options.n_tokens);
    let device = model.device();
    // Neighbours with the same prompt read it once.
    let distinct: Vec<&[u32]> = prompts.chunk_by(|a, b| a == b).map(|same| same[0].as_slice()).collect();
    let batch = TokenBatch::left_padded(&distinct, &device);
    let [_, seq] = batch.dims();
    let pads: Vec<usize> = batch.lens.iter().map(|len| seq - len).collect();
    let capacity = (seq + options.max_new_tokens.min(max_seq_len)).min(2 * max_seq_len);
    let mut cache = KvCache::new(place, model.config(), &pads, capacity, &device);
    let mut rows: Vec<Row> = prompts
        .iter()
        .enumerate()
        .map(|(i, prompt)| Row::new(first + i, prompt, max_seq_len, options))
        .collect();
    let mut active: Vec<usize> = (0..rows.len()).collect();

    let decode = Decode::new(place, model);
    let mut logits = model.prefill(&batch, &mut cache);
    if distinct.len() < prompts.len() {
        let groups = prompts.chunk_by(|a, b| a == b).enumerate();
        let source: Vec<usize> = groups.flat_map(|(i, same)| vec![i; same.len()]).collect();
        cache.repeat_rows(&source);
        let source: Vec<i32> = source.iter().map(|&i| i as i32).collect();
        let n = source.len();
        logits = logits.select(0, ints(source, [n], &device));
    }
    let chooses_on_device = place == Place::Device && options.sampler.is_for_devices();
    loop {
        let logits_of_tokens = first_columns(logits, n_tokens);
        let logprobs = log_probs(logits_of_tokens, options.sampler.temperature()); // [active, n_tokens]
        if chooses_on_device {
            take_from_device(logprobs, &active, &mut rows, options)?;
        } else {
            take_from_host(logprobs, &active, &mut rows, options)?;
        }
        let running: Vec<usize> = (0..active.len()).filter(|&i| rows[active[i]].finish.is_none()).collect();
        if running.is_empty() {
            break;
        }
        // On a card, removing rows copies all others, so it happens only when half of them have ended.
        let worth = match place {
            Place::Host => running.len() < active.len(),
            Place::Device => 2 * running.len() <= active.len(),
        };
        if worth {
            cache.keep_rows(&running);
            active = running.iter().map(|&i| active[i]).collect();
        }
        let tokens: Vec<u32> = active.iter().map(|&row| rows[row].last_token()).collect();
        let positions: Vec<usize> = active.iter().map(|&row| rows[row].last_position()).collect();
        logits = decode.logits(&tokens, &positions, &mut cache);
    }
    Ok(rows.into_iter().map(Row::into_completion).collect())
}

/// Chooses the next token of the rows in `active` from their log-probabilities `[active, n_tokens]`, in host memory.
fn take_from_host(
    logprobs: Tensor<2>,
    active: &[usize],
    rows: &mut [Row],
    options: &GenerateOptions,
) -> Result<(), Error> {
    let n_tokens = logprobs.dims()[1];
    let logprobs = values_of(logprobs);
    for (&row, logprobs) in active.iter().zip(logprobs.chunks_exact(n_tokens)) {
        if rows[row].finish.is_none() {
            rows[row].take(logprobs, options)?;
        }
    }
    Ok(())
}

/// The same on the device of the log-probabilities. Two numbers of each row come to the host.
fn take_from_device(
    logprobs: Tensor<2>,
    active: &[usize],
    rows: &mut [Row],
    options: &GenerateOptions,
) -> Result<(), Error> {
    let allowed = without_missing(logprobs.clone(), &options.missing_tokens);
    let tokens = options.sampler.choose_on_device(allowed, |i| rows[active[i]].rng.random());
    let chosen = Tensor::cat(vec![tokens.clone().float(), logprobs.gather(1, tokens)], 1);
    for (&row, chosen) in active.iter().zip(values_of(chosen).chunks_exact(2)) {
        if rows[row].finish.is_some() {
            continue;
        }
        if chosen[1].is_nan() {
            return Err(Error::NonFiniteOutput);
        }
        rows[row].push(chosen[0] as u32, chosen[1], options); // Exact: no vocabulary has 2^24 tokens.
    }
    Ok(())
}

/// Log-probabilities `[rows, n_tokens]` that are −∞ for some tokens.
fn without_missing(logprobs: Tensor<2>, missing: &[u32]) -> Tensor<2> {
    let n_tokens = logprobs.dims()[1];
    let missing: Vec<usize> = missing.iter().map(|&id| id as usize).filter(|&id| id < n_tokens).collect();
    if missing.is_empty() {
        return logprobs;
    }
    let mut bias = vec![0.0; n_tokens];
    for id in missing {
        bias[id] = f32::NEG_INFINITY;
    }
    let bias = floats(bias, [1, n_tokens], &logprobs.device());
    logprobs + bias
}

/// Steps of a model: on rows of numbers where that is possible, which is faster, and otherwise on tensors.
struct Decode<'a> {
    model: &'a CausalLm,
    stepper: Option<Stepper>,
}

impl<'a> Decode<'a> {
    fn new(place: Place, model: &'a CausalLm) -> Self {
        let stepper = if place == Place::Host { Stepper::of(model) } else { None };
        Self { model, stepper }
    }

    /// Reads one more token per row; gives the logits `[batch, vocab]` of the next one.
    fn logits(&self, tokens: &[u32], positions: &[usize], cache: &mut KvCache) -> Tensor<2> {
        if let Some(stepper) = &self.stepper {
            let logits = stepper.logits(tokens, positions, cache);
            let dims = [tokens.len(), self.model.config().vocab_size];
            return floats(logits, dims, &self.model.device());
        }
        self.model.decode(tokens, positions, cache)
    }
}

/// One row while it is being written.
struct Row {
    prompt_len: usize,
    max_len: usize,
    rng: ChaCha8Rng,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    finish: Option<Finish>,
}

impl Row {
    fn new(index: usize, prompt: &[u32], max_seq_len: usize, options: &GenerateOptions) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(options.first_stream.wrapping_add(index as u64));
        let max_len = options.max_new_tokens.min(max_seq_len - prompt.len());
        Self {
            prompt_len: prompt.len(),
            max_len,
            rng,
            tokens: Vec::with_capacity(max_len),
            logprobs: Vec::with_capacity(max_len),
            finish: None,
        }
    }

    fn take(&mut self, logprobs: &[f32], options: &GenerateOptions) -> Result<(), Error> {
        // One logit that is NaN or infinite makes all of a row's log-probabilities NaN.
        if logprobs[0].is_nan() {
            return Err(Error::NonFiniteOutput);
        }
        let token = if options.missing_tokens.is_empty() {
            options.sampler.choose(logprobs, &mut self.rng)
        } else {
            let mut allowed = logprobs.to_vec();
            for &id in &options.missing_tokens {
                if let Some(logprob) = allowed.get_mut(id as usize) {
                    *logprob = f32::NEG_INFINITY;
                }
            }
            options.sampler.choose(&allowed, &mut self.rng)
        };
        self.push(token as u32, logprobs[token], options);
        Ok(())
    }

    fn push(&mut self, token: u32, logprob: f32, options: &GenerateOptions) {
        self.tokens.push(token);
        self.logprobs.push(logprob);
        let stops = |stop: StopToken| stop.token == token && self.tokens.len() > stop.after;
        if options.end_tokens.contains(&token) || options.stop.is_some_and(stops) {
            self.finish = Some(Finish::Stop);
        } else if self.tokens.len() == self.max_len {
            self.finish = Some(Finish::Length);
        }
    }

    fn last_token(&self) -> u32 {
        *self.tokens.last().expect("a row is asked for after its first token")
    }

    fn last_position(&self) -> usize {
        self.prompt_len + self.tokens.len() - 1
    }

    fn into_completion(self) -> Completion {
        let finish = self.finish.expect("the loop ends when every row has");
        Completion { tokens: self.tokens, logprobs: self.logprobs, finish }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dropout, ModelConfig, select_positions};
    use burn::tensor::{Device, Tensor, TensorData};
    use temper_tensor::token_logprobs;

    fn model(preset: &str) -> CausalLm {
        let config = ModelConfig { d_model: 48, n_layers: 3, ..ModelConfig::preset(preset).unwrap() };
        CausalLm::new(&config.without_dropout(), &mut ChaCha8Rng::seed_from_u64(5), &Device::flex())
    }

    fn options(sampler: Sampler) -> GenerateOptions {
        GenerateOptions {
            max_new_tokens: 24,
            sampler,
            end_tokens: vec![3],
            seed: 11,
            ..GenerateOptions::default()
        }
    }

    const SAMPLER: Sampler = Sampler::Random { temperature: 0.8, top_k: 0, top_p: 1.0 };

    fn prompts() -> Vec<Vec<u32>> {
        vec![vec![1, 70, 80, 2], vec![1, 90, 91, 92, 93, 94, 95, 2], vec![1], vec![7, 8, 9]]
    }

    /// Oracle 6: the log-probabilities of the cached path equal those of one forward over everything.
    #[test]
    fn cached_log_probs_equal_the_full_forward() {
        for preset in ["notebook", "tiny"] {
            let model = model(preset);
            let completions = generate(&model, &prompts(), &options(SAMPLER)).unwrap();
            for (prompt, completion) in prompts().iter().zip(&completions) {
                let row = [prompt.clone(), completion.tokens.clone()].concat();
                let batch = TokenBatch::right_padded(&[&row], &Device::flex());
                let hidden = model.transformer.forward(&batch, &mut Dropout::off());
                let columns: Vec<_> =
                    (0..completion.tokens.len()).map(|t| (0, prompt.len() - 1 + t)).collect();
                let targets: Vec<i32> = completion.tokens.iter().map(|&t| t as i32).collect();
                let n = targets.len();
                let targets = Tensor::from_data(TensorData::new(targets, [n]), &Device::flex());
                let logits = model.logits(select_positions(hidden, &columns));
                let full = token_logprobs(log_probs(logits, 0.8), targets).into_data();
                for (cached, full) in completion.logprobs.iter().zip(full.as_slice::<f32>().unwrap()) {
                    assert!((cached - full).abs() < 1e-4, "{preset}: {cached} {full}");
                }
            }
        }
    }

    /// D14: the notebook reads the whole sequence again for every token. Here the past comes from the cache, which
    /// holds as many rows as there are prompts, and one new column per step gives what all of them would.
    #[test]
    fn d14_one_new_column_gives_what_the_whole_sequence_would() {
        let (model, prompts) = (model("tiny"), prompts());
        let batch = TokenBatch::left_padded(&prompts, &Device::flex());
        let [_, seq] = batch.dims();
        let pads: Vec<usize> = batch.lens.iter().map(|len| seq - len).collect();
        let mut cache = KvCache::new(Place::Host, model.config(), &pads, seq + 2, &Device::flex());
        model.prefill(&batch, &mut cache);
        for (step, new) in [[40, 41, 42, 43], [50, 51, 52, 53]].iter().enumerate() {
            let positions: Vec<usize> = prompts.iter().map(|prompt| prompt.len() + step).collect();
            let logits = model.decode(new, &positions, &mut cache);
            let so_far = [[40, 41, 42, 43], [50, 51, 52, 53]];
            for (i, prompt) in prompts.iter().enumerate() {
                let whole: Vec<u32> =
                    prompt.iter().copied().chain(so_far[..=step].iter().map(|new| new[i])).collect();
                let n = whole.len();
                let batch = TokenBatch::right_padded(&[whole], &Device::flex());
                let full = model.forward(&batch, &mut Dropout::off()).narrow(1, n - 1, 1).squeeze_dim::<2>(1);
                let difference: f32 = (logits.clone().narrow(0, i, 1) - full).abs().max().into_scalar();
                assert!(difference < 1e-4, "step {step}, row {i}: {difference}");
            }
        }
    }

    #[test]
    fn neighbours_do_not_change_a_row() {
        let model = model("tiny");
        let together = generate(&model, &prompts(), &options(Sampler::Greedy)).unwrap();
        for (prompt, expected) in prompts().iter().zip(&together) {
            let alone = generate(&model, std::slice::from_ref(prompt), &options(Sampler::Greedy)).unwrap();
            assert_eq!(alone[0].tokens, expected.tokens);
        }
    }

    /// Four answers to one prompt, two to another, with other random numbers each: as if every prompt had been read for
    /// its own answer.
    #[test]
    fn answers_to_one_prompt_are_those_of_rows_of_their_own() {
        let model = model("tiny");
        let repeated: Vec<Vec<u32>> = [0, 0, 0, 0, 1, 1].map(|i| prompts()[i].clone()).into();
        // All on one thread: others would cut the batch.
        let together = generate_shard(Place::Host, &model, 0, &repeated, &options(SAMPLER)).unwrap();
        for (i, together) in together.iter().enumerate() {
            let alone = GenerateOptions { first_stream: i as u64, ..options(SAMPLER) };
            let alone = &generate(&model, &repeated[i..=i], &alone).unwrap()[0];
            assert_eq!(alone.tokens, together.tokens);
        }
        assert_ne!(together[0].tokens, together[1].tokens);
    }

    /// The way of a graphics card, in operations that the CPU knows too: shared prompts, rows that end at different times,
    /// ids that are missing, more columns than one stretch, and samplers that are and are not for devices.
    #[test]
    fn a_device_completes_as_the_host_does() {
        let model = model("tiny");
        let mut prompts = prompts();
        prompts.extend([prompts[1].clone(), prompts[3].clone(), prompts[3].clone()]);
        // Two candidates: among many, rounding decides the order of some.
        let top_two = Sampler::Random { temperature: 0.8, top_k: 2, top_p: 1.0 };
        for (sampler, missing) in [(Sampler::Greedy, 70), (SAMPLER, 71), (top_two, 72)] {
            let free = GenerateOptions { max_new_tokens: 80, end_tokens: vec![], ..options(sampler) };
            let unlimited = generate_at(Place::Host, &model, &prompts, &free).unwrap();
            let options = GenerateOptions {
                end_tokens: [3, 40].iter().map(|&i| unlimited[0].tokens[i]).collect(),
                missing_tokens: vec![missing, 10_000],
                ..free
            };
            let expected = generate_at(Place::Host, &model, &prompts, &options).unwrap();
            let on_device = generate_at(Place::Device, &model, &prompts, &options).unwrap();
            for (found, expected) in on_device.iter().zip(&expected) {
                assert_eq!((&found.tokens, found.finish), (&expected.tokens, expected.finish), "{sampler:?}");
                let pairs = found.logprobs.iter().zip(&expected.logprobs);
                assert!(pairs.into_iter().all(|(found, expected)| (found - expected).abs() < 1e-4));
            }
        }
    }

    #[test]
    fn one_seed_gives_one_text() {
        let model = model("tiny");
        let run = |seed| generate(&model, &prompts(), &GenerateOptions { seed, ..options(SAMPLER) }).unwrap();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn a_row_stops_at_the_end_token_or_at_the_limit() {
        let model = model("tiny");
        let free = generate(&model, &prompts(), &options(SAMPLER)).unwrap();
        let end = free[0].tokens[4];
        let with_ends = |end_tokens| GenerateOptions { end_tokens, ..options(SAMPLER) };
        let stopped = generate(&model, &prompts(), &with_ends(vec![end])).unwrap();
        assert_eq!(stopped[0].tokens.last(), Some(&end));
        assert_eq!(stopped[0].finish, Finish::Stop);
        assert!(stopped[0].tokens.len() <= 5);
        // Of several end tokens, the first that is sampled ends the row.
        let earlier = free[0].tokens[2];
        let stopped = generate(&model, &prompts(), &with_ends(vec![end, 999, earlier])).unwrap();
        let len = 1 + free[0].tokens.iter().position(|token| [end, earlier].contains(token)).unwrap();
        assert_eq!((&stopped[0].tokens[..], stopped[0].finish), (&free[0].tokens[..len], Finish::Stop));
        assert!(len <= 3);
        let unused = with_ends(vec![999]);
        let cut = generate(&model, &prompts(), &unused).unwrap();
        assert!(cut.iter().all(|c| c.finish == Finish::Length && c.tokens.len() == 24));
    }

    #[test]
    fn a_stop_token_ends_a_row_once_enough_tokens_came_before_it() {
        let model = model("tiny");
        let endless = GenerateOptions { end_tokens: vec![999], ..options(SAMPLER) };
        let free = generate(&model, &prompts(), &endless).unwrap();
        let token = free[0].tokens[4];
        let first_from = |after: usize| free[0].tokens.iter().skip(after).position(|t| *t == token);
        for after in [0, 4, 5] {
            let stop = Some(StopToken { token, after });
            let stopped = generate(&model, &prompts(), &GenerateOptions { stop, ..endless.clone() }).unwrap();
            let (len, finish) = match first_from(after) {
                Some(place) => (after + place + 1, Finish::Stop),
                None => (24, Finish::Length),
            };
            assert_eq!(stopped[0].tokens, free[0].tokens[..len], "after {after}");
            assert_eq!(stopped[0].finish, finish, "after {after}");
        }
    }

    /// A model whose embedding is padded, as GPT-2's often is to a multiple of 64.
    #[test]
    fn ids_that_the_tokenizer_does_not_have_are_never_sampled() {
        let model = model("tiny");
        let few = GenerateOptions { n_tokens: 5, ..options(Sampler::PLAIN) };
        let completions = generate(&model, &prompts(), &few).unwrap();
        assert!(completions.iter().all(|c| c.tokens.iter().all(|token| *token < 5)), "{completions:?}");
        // The log-probabilities are those of the choice among the five: about ln 1/5, and not ln 1/260.
        let logprobs: Vec<f32> = completions.iter().flat_map(|c| c.logprobs.clone()).collect();
        let mean = logprobs.iter().sum::<f32>() / logprobs.len() as f32;
        assert!(mean > -2.5, "{mean}");
    }

    #[test]
    fn ids_in_a_gap_of_the_vocabulary_are_never_sampled() {
        let model = model("tiny");
        for sampler in [SAMPLER, Sampler::Greedy] {
            let free = generate(&model, &prompts(), &options(sampler)).unwrap();
            let missing_tokens: Vec<u32> = free[0].tokens[..3].to_vec();
            let gaps = GenerateOptions { missing_tokens: missing_tokens.clone(), ..options(sampler) };
            let completions = generate(&model, &prompts(), &gaps).unwrap();
            let has_missing = |completion: &Completion| {
                completion.tokens.iter().any(|token| missing_tokens.contains(token))
            };
            assert!(free.iter().any(has_missing) && !completions.iter().any(has_missing));
        }
    }

    #[test]
    fn a_batch_in_parts_gives_the_same_rows_where_its_streams_count_on() {
        let model = model("tiny");
        let whole = generate(&model, &prompts(), &options(SAMPLER)).unwrap();
        let part = |first: usize, len: usize| {
            let options = GenerateOptions { first_stream: first as u64, ..options(SAMPLER) };
            generate(&model, &prompts()[first..first + len], &options).unwrap()
        };
        let parts = [part(0, 3), part(3, 1)].concat();
        for (part, whole) in parts.iter().zip(&whole) {
            assert_eq!(part.tokens, whole.tokens);
        }
    }

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        let mut model = model("tiny");
        // Finite weights, whose products are not.
        let norm = model.transformer.final_norm.as_mut().unwrap();
        norm.gamma = norm.gamma.clone().map(|gamma| gamma.mul_scalar(3e38));
        let error = generate(&model, &prompts(), &options(SAMPLER)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the model computes numbers that are not finite, though its weights are"
        );
    }

    #[test]
    fn the_context_ends_a_completion_and_a_prompt_that_fills_it_is_refused() {
        let model = model("tiny");
        let nearly = vec![5; 126];
        let unused = GenerateOptions { end_tokens: vec![999], ..options(SAMPLER) };
        assert_eq!(generate(&model, &[nearly], &unused).unwrap()[0].tokens.len(), 2);
        let error = generate(&model, &[vec![1], vec![5; 128]], &options(SAMPLER)).unwrap_err();
        assert!(matches!(error, Error::PromptTooLong { index: 1, prompt_len: 128, .. }));
        let short = GenerateOptions { max_seq_len: 9, ..unused };
        assert_eq!(generate(&model, &[vec![5; 6]], &short).unwrap()[0].tokens.len(), 3);
        let error = generate(&model, &[vec![5; 9]], &short).unwrap_err();
        assert!(matches!(error, Error::PromptTooLong { index: 0, prompt_len: 9, max_seq_len: 9 }));
    }
}
