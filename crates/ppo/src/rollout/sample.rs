//! The first part of a rollout: sampling answers.

use burn::module::Module;
use burn::tensor::Tensor;
use temper_data::EncodedPrompt;
use temper_model::{CausalLm, Completion, Finish, GenerateOptions, Sampler, StopToken, generate};
use temper_tokenizer::Tokenizer;

use super::RolloutModels;
use crate::Error;
use crate::config::{PpoConfig, RolloutConfig, ScoreAt};
use crate::episodes::Episodes;
use crate::scores::Sample;

/// Sampled completions next to their prompts.
pub(crate) struct Answers<'a> {
    /// The prompt of each completion.
    pub(crate) prompts: Vec<&'a EncodedPrompt>,
    /// One per prompt.
    pub(crate) completions: Vec<Completion>,
}

impl<'a> Answers<'a> {
    /// Samples `rollout.samples_per_prompt` completions of each prompt; those of one prompt are neighbours.
    pub(super) fn sample(
        config: &PpoConfig,
        models: &RolloutModels<'_>,
        prompts: &[&'a EncodedPrompt],
        seed: u64,
    ) -> Result<Self, Error> {
        let repeat = |prompt: &&'a EncodedPrompt| vec![*prompt; config.rollout.samples_per_prompt];
        let prompts: Vec<&EncodedPrompt> = prompts.iter().flat_map(repeat).collect();
        let options = sampling_options(config, models.tokenizer, seed)?;
        let lm = models.policy.lm.valid();
        let completions = generate_in_parts(&lm, &prompts, &options, config.rollout.sampling_batch_size)?;
        Ok(Self { prompts, completions })
    }

    /// The answers as a scoring function reads them.
    pub(crate) fn samples(&self, tokenizer: &Tokenizer) -> Vec<Sample<'_>> {
        self.prompts
            .iter()
            .zip(&self.completions)
            .map(|(prompt, completion)| Sample {
                prompt: (&prompt.prompt).into(),
                row: &prompt.columns,
                prompt_tokens: &prompt.tokens,
                completion: tokenizer.decode(&completion.tokens),
                completion_tokens: &completion.tokens,
                ended: completion.finish == Finish::Stop,
            })
            .collect()
    }

    /// Whether each answer ended by itself.
    pub(crate) fn ended(&self) -> Vec<bool> {
        self.completions.iter().map(|completion| completion.finish == Finish::Stop).collect()
    }

    /// Prompts and completions as rows of tokens.
    pub(super) fn episodes(&self, config: &RolloutConfig) -> Episodes {
        let value_lens: Vec<usize> = self.completions.iter().map(|c| value_len(c, config)).collect();
        let answers = self.prompts.iter().zip(&self.completions);
        Episodes {
            rows: answers.map(|(prompt, c)| [&prompt.tokens[..], &c.tokens[..]].concat()).collect(),
            prompt_lens: self.prompts.iter().map(|prompt| prompt.tokens.len()).collect(),
            completion_len: *value_lens.iter().max().expect("a rollout has prompts"),
            value_lens,
        }
    }

    /// Greatest difference between the sampler's log-probabilities and recorded ones, in nats.
    ///
    /// # Shapes
    /// - `logprobs`: `[batch, completion_len]`
    pub(super) fn greatest_error(&self, logprobs: &Tensor<2>) -> f64 {
        let [_, columns] = logprobs.dims();
        let data = logprobs.to_data();
        let rows = data.as_slice::<f32>().expect("the model computes in f32").chunks_exact(columns);
        let error = |(completion, row): (&Completion, &[f32])| {
            completion.logprobs.iter().zip(row).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
        };
        self.completions.iter().zip(rows).map(error).fold(0.0, f64::max)
    }
}

/// The options of sampling that the settings ask for.
///
/// There is no top-k and no top-p, so that tokens are drawn from the distribution whose log-probabilities are recorded
/// (D5: the notebook samples from a nucleus and reads the full softmax).
pub(crate) fn sampling_options(
    config: &PpoConfig,
    tokenizer: &Tokenizer,
    seed: u64,
) -> Result<GenerateOptions, Error> {
    Ok(GenerateOptions {
        max_new_tokens: config.rollout.max_new_tokens,
        max_seq_len: if config.training.max_seq_len == 0 { usize::MAX } else { config.training.max_seq_len },
        sampler: Sampler::Random { temperature: config.rollout.temperature, top_k: 0, top_p: 1.0 },
        end_tokens: tokenizer.end_tokens(),
        stop: stop_token(&config.rollout, tokenizer)?,
        n_tokens: tokenizer.vocab_size(),
        missing_tokens: tokenizer.missing_ids(),
        seed,
        first_stream: 0,
    })
}

/// The token of `rollout.stop_token`, if there is one.
///
/// # Errors
/// [`Error::StopToken`] if the text is not a single token of the tokenizer.
pub fn stop_token(config: &RolloutConfig, tokenizer: &Tokenizer) -> Result<Option<StopToken>, Error> {
    if config.stop_token.is_empty() {
        return Ok(None);
    }
    match tokenizer.encode(&config.stop_token)[..] {
        [token] => Ok(Some(StopToken { token, after: config.stop_after })),
        ref tokens => Err(Error::StopToken { text: config.stop_token.clone(), n_tokens: tokens.len() }),
    }
}

/// Calls [`generate()`] with at most `size` prompts at a time, or with all of them for 0.
///
/// Every row draws from its own random stream, so the size changes the memory of the cache and not the answers.
fn generate_in_parts(
    lm: &CausalLm,
    prompts: &[&EncodedPrompt],
    options: &GenerateOptions,
    size: usize,
) -> Result<Vec<Completion>, temper_model::Error> {
    // Adapters are folded in once, and not for every part.
    let lm = &lm.valid().merged();
    let prompts: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
    let size = if size == 0 { prompts.len().max(1) } else { size };
    let mut completions = Vec::with_capacity(prompts.len());
    for (part, rows) in prompts.chunks(size).enumerate() {
        let first_stream = options.first_stream + (part * size) as u64;
        completions.extend(generate(lm, rows, &GenerateOptions { first_stream, ..options.clone() })?);
    }
    Ok(completions)
}

/// Values that a completion has: one per token, plus one past the end where its score is placed there.
fn value_len(completion: &Completion, config: &RolloutConfig) -> usize {
    let len = completion.tokens.len();
    let is_scored_past_end = config.score_at == ScoreAt::PastEnd
        && completion.finish == Finish::Stop
        && len < config.max_new_tokens;
    len + usize::from(is_scored_past_end)
}
