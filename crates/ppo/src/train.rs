//! The loop of PPO.

use std::time::Instant;

use burn::module::Module;
use rand::RngExt;
use serde::Serialize;
use temper_model::{CausalLm, generate, scale_to_unit_variance, whiten};
use temper_tokenizer::{Template, Tokenizer};
use temper_train::{Candidate, Run, Seed, shuffled};

use crate::advantage::of_groups;
use crate::checks::Checks;
use crate::critic::Critic;
use crate::gae::{Advantages, estimate_advantages};
use crate::learner::{Learner, Recorded};
use crate::metrics::{PpoMetrics, read_all};
use crate::prompts::{EncodedPrompt, PromptDataset};
use crate::ptx::TextDataset;
use crate::rewards::{ShapedRewards, shape_rewards};
use crate::rollout::{Rollout, ScoreFn, Scorers, ask, collect_rollout, generate_options, samples};
use crate::{AdvantageKind, Error, PpoConfig};

/// The networks of the stage. Policy and reference are two copies of the SFT model (D1).
#[derive(Debug)]
pub struct Models {
    /// Trained.
    pub policy: CausalLm,
    /// Frozen; what the KL is measured against.
    pub ref_policy: CausalLm,
    /// The value function, where `advantage.kind` needs one.
    pub critic: Critic,
}

/// What the stage works on besides the models: the text side, stored with every checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Prompt and completion to text.
    pub template: &'a Template,
}

/// What the stage learns from; prompts alone are enough.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// What is answered.
    pub prompts: &'a PromptDataset,
    /// What is answered to see how far the policy is.
    pub eval_prompts: Option<&'a PromptDataset>,
    /// Pretraining text that is mixed into the updates (PPO-ptx).
    pub texts: Option<&'a TextDataset>,
}

impl<'a> From<&'a PromptDataset> for Data<'a> {
    fn from(prompts: &'a PromptDataset) -> Self {
        Self { prompts, eval_prompts: None, texts: None }
    }
}

/// Trains a policy against a scoring function, holding it near its reference.
///
/// Returns the policy off the tape, or its moving average if the settings ask for one. The run directory gets metrics,
/// checkpoints and `final/`, with the critic, if there is one, in `critic/`. An interrupted run has written a
/// checkpoint; ask [`Run::interrupted`].
///
/// # Errors
/// Files, settings, a scoring function that fails (the run has written a checkpoint then), or a loss that is not finite.
pub fn train<'a>(
    config: &PpoConfig,
    models: Models,
    text: Text<'_>,
    data: impl Into<Data<'a>>,
    scorers: impl Into<Scorers<'a>>,
    run: &mut Run,
) -> Result<CausalLm, Error> {
    config.validate()?;
    if config.advantage.kind.has_critic() && matches!(models.critic, Critic::None) {
        return Err(Error::NoCritic);
    }
    let Data { prompts, eval_prompts, texts } = data.into();
    let mut scorers = scorers.into();
    let seed = Seed(config.seed);
    let steps_per_epoch = prompts.prompts.len().div_ceil(config.batch_size);
    let all_steps = config.epochs.saturating_mul(steps_per_epoch);
    let total_steps = if config.max_steps > 0 { all_steps.min(config.max_steps) } else { all_steps };

    let ref_policy = models.ref_policy.valid();
    if let Some(dir) = run.finished() {
        return Ok(CausalLm::load(&dir, &ref_policy.device())?);
    }
    let mut learner = Learner::new(config, models.policy, models.critic);
    let mut checks = Checks::new(config);
    let mut step = 0;
    if let Some((_, dir)) = run.resume_from() {
        step = learner.resume(dir)?;
    }
    run.started(total_steps);

    while step < total_steps {
        let started = Instant::now();
        let batch = step_prompts(prompts, config.batch_size, step, seed);
        let sample_seed = seed.stream_at("sample", step as u64).random();
        let actors = learner.actors(&ref_policy, text.tokenizer);
        let rollout = match collect_rollout(config, &actors, &batch, sample_seed, step + 1, &mut scorers) {
            Ok(rollout) => rollout,
            Err(error) => {
                // A scorer from outside may fail at any time; what was learned until then must not be lost.
                if step > 0 && !due(step, config.checkpoint_every) {
                    run.save_checkpoint(step, |dir| learner.save(dir, text, Some(step)))?;
                }
                return Err(error);
            }
        };

        let Targets { shaped, advantages } = targets(config, &rollout, learner.kl.coef);
        let mut metrics = PpoMetrics::of_rollout(&rollout, &shaped, &advantages, learner.kl.coef);
        let rollout_seconds = started.elapsed().as_secs_f64();

        let lr = config.schedule.learning_rate(config.learning_rate, step, total_steps);
        let scale = lr / config.learning_rate;
        let learning_rates = (lr, config.critic.learning_rate * scale);
        let kl_in_loss = (config.advantage.kind == AdvantageKind::Grpo).then_some(learner.kl.coef);
        let recorded = Recorded { rollout: &rollout, targets: &advantages, texts, kl_in_loss };
        let update = learner.update(config, &recorded, learning_rates, step, seed)?;
        learner.kl.update(metrics.kl, rollout.len());
        step += 1;

        update.fill(&mut metrics);
        metrics.episode = step * rollout.len();
        metrics.lr = lr;
        fill_times(&mut metrics, &rollout, rollout_seconds, started.elapsed().as_secs_f64());
        checks.look_at_scores(config, &read_all(vec![rollout.scores]), step, run);
        checks.look(&metrics, &read_all(vec![shaped.kl]), step, run);
        run.log(step, total_steps, &metrics)?;
        learner.remember_score(metrics.scores, config.checkpoint_every);

        let last = step == total_steps;
        let mut candidate = None;
        if let Some(eval_prompts) = eval_prompts
            && (last || due(step, config.eval_every))
        {
            let policy = learner.released();
            let found = evaluate(config, &policy, text.tokenizer, eval_prompts, step, scorers.score)?;
            run.log_evaluation(step, &found)?;
            candidate = Some(("eval/scores", found.scores));
        }
        if eval_prompts.is_none() && (last || due(step, config.checkpoint_every)) {
            candidate = Some(("objective/scores", learner.mean_recent_score()));
        }
        if let Some((metric, value)) = candidate.filter(|_| config.keep_best) {
            let candidate = Candidate { step, metric, value, lower_is_better: false };
            run.save_best(&candidate, |dir| learner.save(dir, text, None))?;
        }
        let stop = run.interrupted();
        if !last && (stop || due(step, config.checkpoint_every)) {
            run.save_checkpoint(step, |dir| learner.save(dir, text, Some(step)))?;
        }
        if stop && !last {
            return Ok(learner.released());
        }
    }
    run.save_final(|dir| learner.save(dir, text, None))?;
    Ok(learner.released())
}

/// What a rollout teaches.
pub(crate) struct Targets {
    /// Rewards per token, scaled where the configuration says so.
    pub(crate) shaped: ShapedRewards,
    /// With a critic whitened advantages, and returns of the plain ones.
    pub(crate) advantages: Advantages,
}

/// From what was recorded to what the update learns from.
pub(crate) fn targets(config: &PpoConfig, rollout: &Rollout, kl_coef: f64) -> Targets {
    let mask = rollout.completion_mask.clone();
    let (old_logprobs, ref_logprobs) = (rollout.old_logprobs.clone(), rollout.ref_logprobs.clone());
    let value_mask = rollout.value_mask.clone();
    let scores = rollout.scores.clone();
    let mut shaped =
        shape_rewards(old_logprobs, ref_logprobs, scores, mask.clone(), value_mask.clone(), kl_coef);
    if !config.advantage.kind.has_critic() {
        let advantages = of_groups(config, rollout, &shaped.kl, kl_coef);
        return Targets { shaped, advantages };
    }
    if let Some(token_rewards) = &rollout.token_rewards {
        shaped.rewards = shaped.rewards + token_rewards.clone();
    }
    if config.ppo.whiten_rewards {
        shaped.rewards = scale_to_unit_variance(shaped.rewards, value_mask.clone());
    }
    let (rewards, values) = (shaped.rewards.clone(), rollout.values.clone());
    let (gamma, gae_lambda) = (config.ppo.gamma, config.ppo.gae_lambda);
    let found = estimate_advantages(rewards, values, value_mask, gamma, gae_lambda);
    let advantages = Advantages { advantages: whiten(found.advantages, mask), returns: found.returns };
    Targets { shaped, advantages }
}

/// Score and form of answers to held-out prompts.
#[derive(Clone, Debug, Serialize)]
pub struct PpoEvaluation {
    /// Mean score, as the scoring function gave it.
    #[serde(rename = "eval/scores")]
    pub scores: f64,
    /// Share of answers that ended by themselves.
    #[serde(rename = "eval/eos_rate")]
    pub eos_rate: f64,
    /// Tokens per answer.
    #[serde(rename = "eval/response_length")]
    pub length_mean: f64,
}

/// Samples one answer per prompt and scores it.
///
/// # Errors
/// A scoring function that fails.
pub fn evaluate(
    config: &PpoConfig,
    policy: &CausalLm,
    tokenizer: &Tokenizer,
    prompts: &PromptDataset,
    step: usize,
    score: &mut ScoreFn<'_>,
) -> Result<PpoEvaluation, Error> {
    let options = generate_options(config, tokenizer, Seed(config.seed).stream("evaluate").random());
    let (mut scores, mut ended, mut tokens) = (0.0, 0, 0);
    for part in prompts.prompts.chunks(config.batch_size) {
        let part: Vec<&EncodedPrompt> = part.iter().collect();
        let rows: Vec<Vec<u32>> = part.iter().map(|prompt| prompt.tokens.clone()).collect();
        let completions = generate(policy, &rows, &options)?;
        let found = ask(&samples(tokenizer, &part, &completions), step, score)?;
        scores += found.iter().map(|&s| f64::from(s)).sum::<f64>();
        ended += completions.iter().filter(|c| c.finish == temper_model::Finish::Stop).count();
        tokens += completions.iter().map(|c| c.tokens.len()).sum::<usize>();
    }
    let n = prompts.prompts.len() as f64;
    Ok(PpoEvaluation { scores: scores / n, eos_rate: ended as f64 / n, length_mean: tokens as f64 / n })
}

/// The prompts of one rollout: every prompt once an epoch, in an order that seed and epoch decide.
///
/// The last rollout of an epoch takes the prompts that are missing from the epoch's own start.
fn step_prompts(prompts: &PromptDataset, batch_size: usize, step: usize, seed: Seed) -> Vec<&EncodedPrompt> {
    let n = prompts.prompts.len();
    let steps_per_epoch = n.div_ceil(batch_size);
    let (epoch, position) = (step / steps_per_epoch, step % steps_per_epoch);
    let order = shuffled(n, &mut seed.stream_at("prompts", epoch as u64));
    (0..batch_size).map(|i| &prompts.prompts[order[(position * batch_size + i) % n]]).collect()
}

fn fill_times(metrics: &mut PpoMetrics, rollout: &Rollout, rollout_seconds: f64, seconds: f64) {
    let tokens = metrics.length_mean * rollout.len() as f64;
    metrics.eps = rollout.len() as f64 / seconds;
    metrics.rollout_seconds = rollout_seconds;
    metrics.update_seconds = seconds - rollout_seconds;
    metrics.rollout_tokens_per_second = tokens / rollout_seconds;
    metrics.tokens_per_second = tokens / seconds;
}

fn due(step: usize, every: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}
