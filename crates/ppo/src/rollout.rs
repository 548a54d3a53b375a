//! Sampling completions, and everything that is recorded about them.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use temper_data::EncodedPrompt;
use temper_model::{
    CausalLm, Completion, Finish, GenerateOptions, Sampler, ScalarModel, StopToken, generate, in_parallel,
    shards,
};
use temper_tokenizer::Tokenizer;

use crate::Error;
use crate::config::{MissingEos, PpoConfig, RolloutConfig, ScoreAt};
use crate::critic::{Entropy, EpisodeBatch, Policy, critic_values};

/// An answer to be scored.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// The prompt as it was given.
    pub prompt: &'a str,
    /// The prompt as the template puts it.
    pub prompt_tokens: &'a [u32],
    /// The answer as text, without the end token.
    pub completion: String,
    /// The answer as ids, the end token included where there is one.
    pub completion_tokens: &'a [u32],
    /// Whether it ended by itself.
    pub ended: bool,
}

/// What a scoring function may fail with.
pub type ScoreError = Box<dyn std::error::Error + Send + Sync>;

/// Gives one score per sample: a reward model, a rule, anything.
pub type ScoreFn<'a> = dyn FnMut(&[Sample<'_>]) -> Result<Vec<f32>, ScoreError> + 'a;

/// Gives one reward for each of a sample's `completion_tokens`.
pub type TokenRewardFn<'a> = dyn FnMut(&[Sample<'_>]) -> Result<Vec<Vec<f32>>, ScoreError> + 'a;

/// Who says how good an answer is.
///
/// A scoring function alone becomes one by `(&mut score).into()`, and [`train`](crate::train) does that itself.
pub struct Scorers<'a> {
    /// Its scores are what the policy is trained for.
    pub score: &'a mut ScoreFn<'a>,
    /// Rewards of single tokens, which come on top of score and penalty.
    pub token_rewards: Option<&'a mut TokenRewardFn<'a>>,
    /// An independent judge, only recorded: it shows when the score goes on rising and the answers get worse (Gao et
    /// al., arXiv 2210.10760).
    pub gold: Option<&'a mut ScoreFn<'a>>,
}

impl<'a, F> From<&'a mut F> for Scorers<'a>
where
    F: FnMut(&[Sample<'_>]) -> Result<Vec<f32>, ScoreError> + 'a,
{
    fn from(score: &'a mut F) -> Self {
        Self { score, token_rewards: None, gold: None }
    }
}

/// Prompts, sampled completions, and everything recorded about them, off the tape.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Prompt and completion of each episode, not padded.
    pub rows: Vec<Vec<u32>>,
    /// Tokens of each prompt.
    pub prompt_lens: Vec<usize>,
    /// Whether each completion ended by itself.
    pub ended: Vec<bool>,
    /// Values of each completion: one for each token, and one past the end where the score stands there.
    pub value_lens: Vec<usize>,
    /// Columns: the longest completion, and one more if a score stands behind it.
    pub completion_len: usize,
    /// 1 on completion tokens up to the end: `[batch, completion_len]`.
    pub completion_mask: Tensor<2>,
    /// 1 where there is a value: on the same, and one past the end where the score stands there.
    pub value_mask: Tensor<2>,
    /// Of the policy that sampled: `[batch, completion_len]`.
    pub old_logprobs: Tensor<2>,
    /// Of the frozen reference: `[batch, completion_len]`.
    pub ref_logprobs: Tensor<2>,
    /// Of the critic, at the state before each token; 0 outside `value_mask`, and without a critic:
    /// `[batch, completion_len]`.
    pub values: Tensor<2>,
    /// Whether a critic gave the values.
    pub has_values: bool,
    /// As the scoring function gave them: `[batch]`.
    pub raw_scores: Vec<f32>,
    /// What another judge says, if one was asked; never learned from: `[batch]`.
    pub gold_scores: Option<Vec<f32>>,
    /// Rewards of single tokens, if something gives them: `[batch, completion_len]`.
    pub token_rewards: Option<Tensor<2>>,
    /// After the rule for missing ends: `[batch]`.
    pub scores: Tensor<1>,
    /// Greatest difference between the sampler's log-probabilities and `old_logprobs`.
    pub sampler_error: f64,
}

/// Who takes part in a rollout. All are frozen while it lasts.
pub(crate) struct Actors<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) ref_policy: &'a CausalLm,
    pub(crate) critic: Option<&'a ScalarModel>,
    pub(crate) tokenizer: &'a Tokenizer,
}

/// Samples completions of each prompt, scores them, and records log-probabilities and values.
///
/// The completions of a prompt are neighbours, `rollout.samples_per_prompt` rows each.
///
/// Old log-probabilities come from the same forward as the update's, not from the sampler, so that the first
/// ratio is 1 on every backend.
pub(crate) fn collect_rollout(
    config: &PpoConfig,
    actors: &Actors<'_>,
    prompts: &[&EncodedPrompt],
    sample_seed: u64,
    step: usize,
    scorers: &mut Scorers<'_>,
) -> Result<Rollout, Error> {
    let policy = actors.policy.valid();
    let device = policy.lm.device();
    let samples_per_prompt = config.rollout.samples_per_prompt;
    let prompts: Vec<&EncodedPrompt> =
        prompts.iter().flat_map(|prompt| std::iter::repeat_n(*prompt, samples_per_prompt)).collect();
    let tokens: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
    let options = generate_options(config, actors.tokenizer, sample_seed)?;
    let completions = generate_in_parts(&policy.lm, &tokens, &options, config.rollout.sampling_batch_size)
        .map_err(Error::in_step(step))?;

    let samples = samples(actors.tokenizer, &prompts, &completions);
    let raw_scores = ask(&samples, step, scorers.score)?;
    let gold_scores = scorers.gold.as_mut().map(|gold| ask(&samples, step, *gold)).transpose()?;
    let token_rewards =
        scorers.token_rewards.as_mut().map(|rewards| ask_tokens(&samples, step, *rewards)).transpose()?;
    let ended: Vec<bool> = completions.iter().map(|c| c.finish == Finish::Stop).collect();
    let scores = condition_scores(&raw_scores, &ended, &config.rollout);

    let rows: Vec<Vec<u32>> =
        tokens.iter().zip(&completions).map(|(p, c)| [&p[..], &c.tokens[..]].concat()).collect();
    let prompt_lens: Vec<usize> = tokens.iter().map(Vec::len).collect();
    let value_lens: Vec<usize> = completions.iter().map(|c| value_len(c, &config.rollout)).collect();
    let completion_len = *value_lens.iter().max().expect("a rollout has prompts");
    let batch = rows.len();
    let columns = |values: Vec<f32>| -> Tensor<2> {
        Tensor::from_data(TensorData::new(values, [batch, completion_len]), &device)
    };
    let mask_of = |lens: &mut dyn Iterator<Item = usize>| {
        columns(lens.flat_map(|len| (0..completion_len).map(move |t| f32::from(t < len))).collect())
    };
    let completion_mask = mask_of(&mut completions.iter().map(|c| c.tokens.len()));
    let value_mask = mask_of(&mut value_lens.iter().copied());
    let token_rewards = token_rewards.map(|rows: Vec<Vec<f32>>| {
        let padded =
            |row: &Vec<f32>| (0..completion_len).map(|t| row.get(t).copied().unwrap_or(0.0)).collect();
        columns(rows.iter().flat_map::<Vec<f32>, _>(padded).collect())
    });

    let ref_policy = Policy::new(actors.ref_policy.valid(), None, policy.n_tokens);
    let critic = actors.critic.map(ScalarModel::valid);
    // As many episodes at once as an update takes, so that both need the same memory.
    let size = config.forward_batch_size();
    let parts = shards(&rows, &device)
        .into_iter()
        .map(|(first, rows)| (policy.clone(), ref_policy.clone(), critic.clone(), first, rows));
    let recorded = in_parallel(parts.collect(), |(policy, ref_policy, critic, first, rows)| {
        let record = |(i, rows): (usize, &[Vec<u32>])| {
            let start = first + i * size;
            let tokens: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
            let end = start + rows.len();
            let (prompt_lens, value_lens) = (&prompt_lens[start..end], &value_lens[start..end]);
            let episodes = EpisodeBatch::new(&tokens, prompt_lens, value_lens, completion_len, &device);
            let output = policy.forward(&episodes, config.rollout.temperature, Entropy::Skipped);
            let values = match &critic {
                Some(critic) => critic_values(critic, &episodes),
                None => output.values.unwrap_or_else(|| output.logprobs.zeros_like()),
            };
            let reference = ref_policy.forward(&episodes, config.rollout.temperature, Entropy::Skipped);
            [output.logprobs, reference.logprobs, values]
        };
        rows.chunks(size).enumerate().map(record).collect::<Vec<_>>()
    });
    let recorded: Vec<[Tensor<2>; 3]> = recorded.into_iter().flatten().collect();
    let join = |which: usize, mask: &Tensor<2>| {
        let parts = recorded.iter().map(|parts| parts[which].clone()).collect();
        Tensor::cat(parts, 0) * mask.clone()
    };
    let old_logprobs = join(0, &completion_mask);
    Ok(Rollout {
        sampler_error: sampler_error(&completions, &old_logprobs, completion_len),
        ref_logprobs: join(1, &completion_mask),
        values: join(2, &value_mask),
        has_values: actors.critic.is_some() || actors.policy.value_head.is_some(),
        old_logprobs,
        scores: Tensor::from_data(TensorData::new(scores, [batch]), &device),
        rows,
        prompt_lens,
        ended,
        value_lens,
        completion_len,
        completion_mask,
        value_mask,
        raw_scores,
        gold_scores,
        token_rewards,
    })
}

/// Sampling as the configuration says: no top-k or top-p, so that log-probabilities are those of the choice (D5).
pub(crate) fn generate_options(
    config: &PpoConfig,
    tokenizer: &Tokenizer,
    seed: u64,
) -> Result<GenerateOptions, Error> {
    Ok(GenerateOptions {
        max_new_tokens: config.rollout.max_new_tokens,
        max_seq_len: if config.max_seq_len == 0 { usize::MAX } else { config.max_seq_len },
        sampler: Sampler::Random { temperature: config.rollout.temperature, top_k: 0, top_p: 1.0 },
        eos: tokenizer.special().eos,
        stop: stop_token(&config.rollout, tokenizer)?,
        n_tokens: tokenizer.vocab_size(),
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

/// [`generate()`] in calls of at most `size` rows, 0 for one call. Every row draws from its own random stream, so the
/// answers do not depend on the size; the memory of the cache does.
pub(crate) fn generate_in_parts(
    model: &CausalLm,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    size: usize,
) -> Result<Vec<Completion>, temper_model::Error> {
    let size = if size == 0 { prompts.len().max(1) } else { size };
    let mut completions = Vec::with_capacity(prompts.len());
    for (part, rows) in prompts.chunks(size).enumerate() {
        let first_stream = options.first_stream + (part * size) as u64;
        completions.extend(generate(model, rows, &GenerateOptions { first_stream, ..options.clone() })?);
    }
    Ok(completions)
}

/// Columns of an answer that have a value: its tokens, and one past the end where its score stands there.
fn value_len(completion: &Completion, config: &RolloutConfig) -> usize {
    let len = completion.tokens.len();
    let past_end = config.score_at == ScoreAt::PastEnd
        && completion.finish == Finish::Stop
        && len < config.max_new_tokens;
    len + usize::from(past_end)
}

/// Answers as a scoring function reads them.
pub(crate) fn samples<'a>(
    tokenizer: &Tokenizer,
    prompts: &[&'a EncodedPrompt],
    completions: &'a [Completion],
) -> Vec<Sample<'a>> {
    prompts
        .iter()
        .zip(completions)
        .map(|(prompt, completion)| Sample {
            prompt: &prompt.text,
            prompt_tokens: &prompt.tokens,
            completion: tokenizer.decode(&completion.tokens),
            completion_tokens: &completion.tokens,
            ended: completion.finish == Finish::Stop,
        })
        .collect()
}

/// Scores beyond this are mistakes of the scorer. Sums of their squares would leave the range of `f32`, and every weight
/// of the policy would become NaN.
const GREATEST_SCORE: f32 = 1e9;
const LEARNABLE: &str = "which is not between -1e9 and 1e9";

fn is_learnable(score: f32) -> bool {
    score.abs() <= GREATEST_SCORE
}

/// Asks for the score of each answer, and checks what comes back.
pub(crate) fn ask(samples: &[Sample<'_>], step: usize, score: &mut ScoreFn<'_>) -> Result<Vec<f32>, Error> {
    let scores = score(samples).map_err(|source| Error::Score { step, source })?;
    if scores.len() != samples.len() {
        let problem = format!("{} scores for {} answers", scores.len(), samples.len());
        return Err(Error::BadScores { step, problem });
    }
    if let Some(bad) = scores.iter().find(|score| !is_learnable(**score)) {
        return Err(Error::BadScores { step, problem: format!("the score {bad:e}, {LEARNABLE}") });
    }
    Ok(scores)
}

/// Asks for the rewards of each token, and checks what comes back.
fn ask_tokens(
    samples: &[Sample<'_>],
    step: usize,
    rewards: &mut TokenRewardFn<'_>,
) -> Result<Vec<Vec<f32>>, Error> {
    let rows = rewards(samples).map_err(|source| Error::Score { step, source })?;
    let bad = |problem: String| Error::BadScores { step, problem };
    if rows.len() != samples.len() {
        return Err(bad(format!("token rewards of {} answers for {}", rows.len(), samples.len())));
    }
    for (row, sample) in rows.iter().zip(samples) {
        let n = sample.completion_tokens.len();
        if row.len() != n {
            return Err(bad(format!("{} token rewards for an answer of {n} tokens", row.len())));
        }
        if let Some(reward) = row.iter().find(|reward| !is_learnable(**reward)) {
            return Err(bad(format!("the token reward {reward:e}, {LEARNABLE}")));
        }
    }
    Ok(rows)
}

/// The rule for missing ends, then the cut.
pub(crate) fn condition_scores(scores: &[f32], ended: &[bool], config: &RolloutConfig) -> Vec<f32> {
    let value = config.missing_eos_value as f32;
    let rule = |(score, ended): (&f32, &bool)| match config.missing_eos {
        _ if *ended => *score,
        MissingEos::Keep => *score,
        MissingEos::Subtract => score - value,
        MissingEos::Replace => value,
    };
    let limit = if config.score_clip > 0.0 { config.score_clip as f32 } else { f32::INFINITY };
    scores.iter().zip(ended).map(rule).map(|score| score.clamp(-limit, limit)).collect()
}

fn sampler_error(completions: &[Completion], old_logprobs: &Tensor<2>, completion_len: usize) -> f64 {
    let data = old_logprobs.to_data();
    let rows = data.as_slice::<f32>().expect("the model computes in f32").chunks_exact(completion_len);
    let error = |(c, row): (&Completion, &[f32])| {
        c.logprobs.iter().zip(row).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
    };
    completions.iter().zip(rows).map(error).fold(0.0, f64::max)
}

impl Rollout {
    /// Number of episodes.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no episode; never true for a rollout that was collected.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Completion tokens and values of these episodes.
    pub(crate) fn counts(&self, episodes: &[usize]) -> (usize, usize) {
        let tokens = |&i: &usize| self.rows[i].len() - self.prompt_lens[i];
        let values = |&i: &usize| self.value_lens[i];
        (episodes.iter().map(tokens).sum(), episodes.iter().map(values).sum())
    }

    /// These episodes for one forward pass.
    pub(crate) fn episodes(&self, index: &[usize], device: &Device) -> EpisodeBatch {
        let rows: Vec<&[u32]> = index.iter().map(|&i| self.rows[i].as_slice()).collect();
        let prompt_lens: Vec<usize> = index.iter().map(|&i| self.prompt_lens[i]).collect();
        let value_lens: Vec<usize> = index.iter().map(|&i| self.value_lens[i]).collect();
        EpisodeBatch::new(&rows, &prompt_lens, &value_lens, self.completion_len, device)
    }
}

/// These rows of a recorded tensor.
pub(crate) fn select_rows(x: &Tensor<2>, index: &[usize]) -> Tensor<2> {
    let rows: Vec<i32> = index.iter().map(|&i| i as i32).collect();
    x.clone().select(0, Tensor::<1, Int>::from_data(TensorData::new(rows, [index.len()]), &x.device()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle 10.
    #[test]
    fn only_answers_without_an_end_are_penalised() {
        let config =
            |missing_eos| RolloutConfig { missing_eos, missing_eos_value: 1.5, ..RolloutConfig::default() };
        let scores = |rule| condition_scores(&[2.0, 2.0], &[true, false], &config(rule));
        assert_eq!(scores(MissingEos::Keep), [2.0, 2.0]);
        assert_eq!(scores(MissingEos::Subtract), [2.0, 0.5]);
        assert_eq!(scores(MissingEos::Replace), [2.0, 1.5]);
    }

    #[test]
    fn scores_are_cut_behind_the_rule_for_missing_ends() {
        let config = RolloutConfig {
            missing_eos: MissingEos::Subtract,
            missing_eos_value: 4.0,
            score_clip: 2.5,
            ..RolloutConfig::default()
        };
        let found = condition_scores(&[3.0, 1.0, 6.0, -7.0], &[true, true, false, false], &config);
        assert_eq!(found, [2.5, 1.0, 2.0, -2.5]);
    }
}
