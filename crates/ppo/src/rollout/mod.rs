//! Rollouts: sample completions, score them, and record log-probabilities and values.

mod record;
mod sample;

use burn::tensor::{Device, Tensor};
use temper_data::EncodedPrompt;
use temper_model::{CausalLm, ScalarModel};
use temper_tensor::floats;
use temper_tokenizer::Tokenizer;

use crate::config::PpoConfig;
use crate::episodes::Episodes;
use crate::kl::token_kl;
use crate::networks::Policy;
use crate::rewards::shape_rewards;
use crate::scores::{Scored, Scorers, ask_token_rewards, condition_scores, score_answers};
use crate::{EpisodeBatch, Error, ScoreScale};

use record::Recorded;
pub use sample::stop_token;
pub(crate) use sample::{Answers, sampling_options};

/// Sampled completions, and everything that was recorded about them, without gradients.
///
/// The completions of one prompt are `samples_per_prompt` neighbouring rows.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Prompts and completions as rows of tokens.
    pub episodes: Episodes,
    /// Completions of each prompt.
    pub samples_per_prompt: usize,
    /// Whether each completion ended by itself.
    pub ended: Vec<bool>,
    /// 1 on completion tokens, the end token included: `[batch, completion_len]`.
    pub completion_mask: Tensor<2>,
    /// 1 where there is a value: as `completion_mask`, and one past the end where the score is placed there:
    /// `[batch, completion_len]`.
    pub value_mask: Tensor<2>,
    /// log π of the policy that sampled, 0 outside `completion_mask`: `[batch, completion_len]`.
    pub old_logprobs: Tensor<2>,
    /// log π of the frozen reference, 0 outside `completion_mask`: `[batch, completion_len]`.
    pub ref_logprobs: Tensor<2>,
    /// V of the state before each token, 0 outside `value_mask`, if there is a critic: `[batch, completion_len]`.
    pub values: Option<Tensor<2>>,
    /// Scores as the scoring function gave them: `[batch]`.
    pub raw_scores: Vec<f32>,
    /// Scores after scale, rule for missing ends and clip: `[batch]`.
    pub scores: Tensor<1>,
    /// Scores of an independent judge, if there is one; never learned from: `[batch]`.
    pub gold_scores: Option<Vec<f32>>,
    /// Rewards of single tokens, if there are any: `[batch, completion_len]`.
    pub token_rewards: Option<Tensor<2>>,
    /// Greatest difference between the sampler's log-probabilities and `old_logprobs`, in nats.
    pub sampler_error: f64,
}

/// The models that take part in a rollout. None of them changes while it is collected.
pub struct RolloutModels<'a> {
    /// Samples, and gives `old_logprobs`; with a value head also the values.
    pub policy: &'a Policy,
    /// Gives `ref_logprobs`.
    pub ref_policy: &'a CausalLm,
    /// Gives the values, where the critic is a network of its own.
    pub critic: Option<&'a ScalarModel>,
    /// Turns completions into text, and knows the end tokens.
    pub tokenizer: &'a Tokenizer,
    /// The scale of the scores.
    pub scale: ScoreScale,
}

/// Samples `rollout.samples_per_prompt` completions of each prompt, scores them, and records log-probabilities and
/// values (InstructGPT section 3.5).
///
/// `seed` decides what is sampled. `step` counts from 1 and only appears in errors.
///
/// # Errors
/// A scoring function that fails or gives unusable scores, or a policy whose logits are not finite.
pub fn collect_rollout(
    config: &PpoConfig,
    models: &RolloutModels<'_>,
    prompts: &[&EncodedPrompt],
    scorers: &mut Scorers<'_>,
    seed: u64,
    step: usize,
) -> Result<Rollout, Error> {
    Ok(ScoredAnswers::collect(config, models, prompts, scorers, seed, step)?.record(config, models))
}

/// The first half of a rollout: answers that were sampled and scored. The scale of the scores does not matter yet.
pub(crate) struct ScoredAnswers<'a> {
    answers: Answers<'a>,
    scored: Scored,
    token_rewards: Option<Vec<Vec<f32>>>,
}

impl<'a> ScoredAnswers<'a> {
    /// Samples and scores, with the arguments and errors of [`collect_rollout`].
    pub(crate) fn collect(
        config: &PpoConfig,
        models: &RolloutModels<'_>,
        prompts: &[&'a EncodedPrompt],
        scorers: &mut Scorers<'_>,
        seed: u64,
        step: usize,
    ) -> Result<Self, Error> {
        let answers = Answers::sample(config, models, prompts, seed).map_err(|error| error.in_step(step))?;
        let samples = answers.samples(models.tokenizer);
        let scored = score_answers(&samples, scorers, step)?;
        let ask = |token_rewards: &mut &mut _| ask_token_rewards(&samples, *token_rewards, step);
        let token_rewards = scorers.token_rewards.as_mut().map(ask).transpose()?;
        Ok(Self { answers, scored, token_rewards })
    }

    /// The scores as the scoring function gave them.
    pub(crate) fn raw_scores(&self) -> &[f32] {
        &self.scored.raw_scores
    }

    /// The second half: what policy, reference and critic say about each token.
    pub(crate) fn record(self, config: &PpoConfig, models: &RolloutModels<'_>) -> Rollout {
        Rollout::record(config, models, &self.answers, self.scored, self.token_rewards)
    }
}

impl Rollout {
    /// Puts answers and scores together with what policy, reference and critic say about each token.
    fn record(
        config: &PpoConfig,
        models: &RolloutModels<'_>,
        answers: &Answers<'_>,
        scored: Scored,
        token_rewards: Option<Vec<Vec<f32>>>,
    ) -> Self {
        let device = models.policy.lm.device().inner();
        let episodes = answers.episodes(&config.rollout);
        let columns = episodes.completion_len;
        let completion_mask = mask(episodes.completion_lens(), columns, &device);
        let value_mask = mask(episodes.value_lens.iter().copied(), columns, &device);
        let ended = answers.ended();
        let scores = condition_scores(&scored.raw_scores, &ended, models.scale, &config.rollout);
        let recorded = Recorded::forward(config, models, &episodes, &device);
        let old_logprobs = recorded.old_logprobs * completion_mask.clone();
        Self {
            sampler_error: answers.greatest_error(&old_logprobs),
            ref_logprobs: recorded.ref_logprobs * completion_mask.clone(),
            values: recorded.values.map(|values| values * value_mask.clone()),
            old_logprobs,
            scores: floats(scores, [episodes.len()], &device),
            raw_scores: scored.raw_scores,
            gold_scores: scored.gold_scores,
            token_rewards: token_rewards.map(|rows| pad(&rows, columns, &device)),
            ended,
            samples_per_prompt: config.rollout.samples_per_prompt,
            episodes,
            completion_mask,
            value_mask,
        }
    }

    /// Number of episodes.
    pub fn len(&self) -> usize {
        self.episodes.len()
    }

    /// Whether there is no episode; never true for a rollout that was collected.
    pub fn is_empty(&self) -> bool {
        self.episodes.is_empty()
    }

    /// The episodes at these places, ready for one forward pass of a model of width `d_model`.
    pub fn batch(&self, index: &[usize], d_model: usize, device: &Device) -> EpisodeBatch {
        self.episodes.batch(index, d_model, device)
    }

    /// Σₜ dₜ of [`token_kl`]: an estimate of each answer's KL to the reference, in nats.
    ///
    /// # Shapes
    /// - output: `[batch]`
    pub fn kl(&self) -> Tensor<1> {
        let (old, reference) = (self.old_logprobs.clone(), self.ref_logprobs.clone());
        token_kl(old, reference, self.completion_mask.clone()).sum_dim(1).squeeze_dim(1)
    }

    /// The reward of each token: that of [`shape_rewards`] with KL coefficient β = `kl_coef`, plus the token's own where
    /// there are rewards of single tokens.
    ///
    /// # Shapes
    /// - output: `[batch, completion_len]`
    pub fn rewards(&self, kl_coef: f64) -> Tensor<2> {
        let rewards = shape_rewards(
            self.old_logprobs.clone(),
            self.ref_logprobs.clone(),
            self.scores.clone(),
            self.completion_mask.clone(),
            self.value_mask.clone(),
            kl_coef,
        );
        match &self.token_rewards {
            Some(token_rewards) => rewards + token_rewards.clone(),
            None => rewards,
        }
    }

    /// What each whole answer earned: its score plus the rewards of its tokens.
    ///
    /// # Shapes
    /// - output: `[batch]`
    pub fn total_scores(&self) -> Tensor<1> {
        match &self.token_rewards {
            None => self.scores.clone(),
            Some(token_rewards) => self.scores.clone() + token_rewards.clone().sum_dim(1).squeeze_dim(1),
        }
    }

    /// Repeats one number per answer on each of its tokens, with 0 on padding.
    ///
    /// # Shapes
    /// - `x`: `[batch]`
    /// - output: `[batch, completion_len]`
    pub fn on_every_token(&self, x: Tensor<1>) -> Tensor<2> {
        self.completion_mask.clone() * x.unsqueeze_dim::<2>(1)
    }
}

/// 1 on the first `lens[i]` columns of row `i`: `[batch, columns]`.
fn mask(lens: impl Iterator<Item = usize>, columns: usize, device: &Device) -> Tensor<2> {
    let rows: Vec<Vec<f32>> = lens.map(|len| vec![1.0; len]).collect();
    pad(&rows, columns, device)
}

/// Rows of different lengths, filled up with 0: `[batch, columns]`.
fn pad(rows: &[Vec<f32>], columns: usize, device: &Device) -> Tensor<2> {
    let cells = |row: &Vec<f32>| {
        let mut row = row.clone();
        row.resize(columns, 0.0);
        row
    };
    let cells: Vec<f32> = rows.iter().flat_map(cells).collect();
    floats(cells, [rows.len(), columns], device)
}
