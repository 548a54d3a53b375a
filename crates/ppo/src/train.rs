//! The loop of PPO.

use std::time::Instant;

use burn::module::Module;
use rand::RngExt;
use serde::Serialize;
use temper_data::{EncodedPrompt, Prompts, Texts};
use temper_model::{CausalLm, GenerateOptions, generate, scale_to_unit_variance, whiten};
use temper_tokenizer::{TextSide, Tokenizer};
use temper_train::{Candidate, Run, Seed, shuffled};

use crate::advantage::of_groups;
use crate::checks::Checks;
use crate::critic::Critic;
use crate::gae::{Advantages, estimate_advantages};
use crate::learner::{Learner, Progress, Recorded};
use crate::metrics::{PpoMetrics, read_all};
use crate::rewards::{ShapedRewards, shape_rewards};
use crate::rollout::{Rollout, Scorers, ask, collect_rollout, condition_scores, generate_options, samples};
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

/// What the stage learns from; prompts alone are enough.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// What is answered.
    pub prompts: &'a Prompts,
    /// What is answered to see how far the policy is.
    pub eval_prompts: Option<&'a Prompts>,
    /// Pretraining text that is mixed into the updates (PPO-ptx).
    pub texts: Option<&'a Texts>,
}

impl<'a> From<&'a Prompts> for Data<'a> {
    fn from(prompts: &'a Prompts) -> Self {
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
/// Files, settings, prompts that leave no room for an answer, a scoring function that fails (the run has written a
/// checkpoint then), or a loss that is not finite. A scoring function that fails while the run is interrupted ends it as
/// an interrupt does: with a checkpoint and without an error.
pub fn train<'a>(
    config: &PpoConfig,
    models: Models,
    text: &TextSide,
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
    let n_tokens = text.tokenizer.vocab_size();
    let context = shortest_context(config, &models);
    let mut learner = Learner::new(config, models.policy, models.critic, n_tokens);
    for prompts in std::iter::once(prompts).chain(eval_prompts) {
        check_room(config, prompts, context)?;
    }
    let mut checks = Checks::new(config);
    let mut progress = Progress::default();
    if let Some((_, dir)) = run.resume_from() {
        progress = learner.resume(dir)?;
    }
    run.started(total_steps);

    // A scorer from outside may fail at any time, or be interrupted while it is waited for. What was learned until then
    // is kept in a checkpoint, unless that is there already. A policy that has diverged is not worth one.
    let stop_early = |error: Error, learner: &Learner, progress: Progress, run: &mut Run| {
        let is_saved = progress.is_evaluated && due(progress.step, config.checkpoint_every);
        if progress.step > 0 && !is_saved && !matches!(error, Error::Diverged { .. }) {
            run.save_checkpoint(progress.step, |dir| learner.save(dir, text, Some(progress)))?;
        }
        if run.interrupted() { Ok(learner.released()) } else { Err(error) }
    };
    while progress.step < total_steps || !progress.is_evaluated {
        // A run that was stopped during an evaluation is resumed with it.
        if progress.is_evaluated {
            let (step, started) = (progress.step, Instant::now());
            let batch = step_prompts(prompts, config.batch_size, step, seed);
            let sample_seed = seed.stream_at("sample", step as u64).random();
            let actors = learner.actors(&ref_policy, &text.tokenizer);
            let rollout = match collect_rollout(config, &actors, &batch, sample_seed, step + 1, &mut scorers)
            {
                Ok(rollout) => rollout,
                Err(error) => return stop_early(error, &learner, progress, run),
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
            let step = step + 1;
            progress = Progress { step, is_evaluated: false };

            update.fill(&mut metrics);
            metrics.episode = step * rollout.len();
            metrics.lr = lr;
            fill_times(&mut metrics, &rollout, rollout_seconds, started.elapsed().as_secs_f64());
            checks.look_at_scores(config, &read_all(vec![rollout.scores]), step, run);
            checks.look(&metrics, &read_all(vec![shaped.kl]), step, run);
            run.log(step, total_steps, &metrics)?;
            learner.remember_score(metrics.gold.unwrap_or(metrics.scores), config.checkpoint_every);
        }

        let step = progress.step;
        let last = step == total_steps;
        let mut candidate = None;
        if let Some(eval_prompts) = eval_prompts
            && (last || due(step, config.eval_every))
        {
            let policy = learner.released();
            let evaluation =
                match evaluate(config, &policy, &text.tokenizer, eval_prompts, step, &mut scorers) {
                    Ok(evaluation) => evaluation,
                    Err(error) => return stop_early(error, &learner, progress, run),
                };
            run.log_evaluation(step, &evaluation)?;
            candidate = Some(match evaluation.gold {
                Some(gold) => ("eval/gold", gold),
                None => ("eval/scores", evaluation.scores),
            });
        }
        progress.is_evaluated = true;
        if eval_prompts.is_none() && (last || due(step, config.checkpoint_every)) {
            let metric = if scorers.gold.is_some() { "objective/gold" } else { "objective/scores" };
            candidate = Some((metric, learner.mean_recent_score()));
        }
        if let Some((metric, value)) = candidate.filter(|_| config.keep_best) {
            let candidate = Candidate { step, metric, value, lower_is_better: false };
            run.save_best(&candidate, |dir| learner.save(dir, text, None))?;
        }
        let stop = run.interrupted();
        if !last && (stop || due(step, config.checkpoint_every)) {
            run.save_checkpoint(step, |dir| learner.save(dir, text, Some(progress)))?;
        }
        if stop && !last {
            return Ok(learner.released());
        }
    }
    let rows: Vec<&[u32]> = prompts.prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
    learner.check_finite(&rows)?;
    run.save_final(|dir| learner.save(dir, text, None))?;
    Ok(learner.released())
}

/// Tokens that prompt and answer share: the shortest context of the networks, or the setting where that is shorter.
fn shortest_context(config: &PpoConfig, models: &Models) -> usize {
    let critic = match &models.critic {
        Critic::Separate(critic) => critic.config().max_seq_len,
        Critic::ValueHead | Critic::None => usize::MAX,
    };
    let setting = if config.max_seq_len == 0 { usize::MAX } else { config.max_seq_len };
    [models.policy.config().max_seq_len, models.ref_policy.config().max_seq_len, critic, setting]
        .into_iter()
        .min()
        .expect("there are four")
}

/// Refuses prompts after which a whole answer does not fit: most of the answers to them would be cut.
fn check_room(config: &PpoConfig, prompts: &Prompts, max_seq_len: usize) -> Result<(), Error> {
    let limit = config.prompt_limit(max_seq_len)?;
    match prompts.prompts.iter().position(|prompt| prompt.tokens.len() > limit) {
        None => Ok(()),
        Some(index) => Err(Error::NoRoomForAnswer {
            index: index + 1,
            prompt_len: prompts.prompts[index].tokens.len(),
            max_new_tokens: config.rollout.max_new_tokens,
            max_seq_len,
        }),
    }
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
    /// Mean score after the rule for missing ends and the cut.
    #[serde(rename = "eval/scores")]
    pub scores: f64,
    /// Mean score, as the scoring function gave it.
    #[serde(rename = "eval/raw_scores")]
    pub raw_scores: f64,
    /// Mean score by an independent judge, if there is one.
    #[serde(rename = "eval/gold", skip_serializing_if = "Option::is_none")]
    pub gold: Option<f64>,
    /// Share of answers that ended by themselves.
    #[serde(rename = "eval/eos_rate")]
    pub eos_rate: f64,
    /// Tokens per answer.
    #[serde(rename = "eval/response_length")]
    pub length_mean: f64,
}

/// Samples one answer per prompt and scores it, `rollout.sampling_batch_size` prompts at a time, or `batch_size` where
/// that is 0. Every prompt has a random stream of its own, so the answers do not depend on these sizes.
///
/// # Errors
/// A scoring function that fails, or a model whose logits are not finite.
pub fn evaluate(
    config: &PpoConfig,
    policy: &CausalLm,
    tokenizer: &Tokenizer,
    prompts: &Prompts,
    step: usize,
    scorers: &mut Scorers<'_>,
) -> Result<PpoEvaluation, Error> {
    let options = generate_options(config, tokenizer, Seed(config.seed).stream("evaluate").random())?;
    let size = match config.rollout.sampling_batch_size {
        0 => config.batch_size,
        size => size,
    };
    let mean = |scores: &[f32]| scores.iter().map(|&s| f64::from(s)).sum::<f64>() / scores.len() as f64;
    let (mut raw, mut conditioned, mut gold) = (Vec::new(), Vec::new(), Vec::new());
    let (mut n_ended, mut n_tokens) = (0, 0);
    for (part, prompts) in prompts.prompts.chunks(size).enumerate() {
        let prompts: Vec<&EncodedPrompt> = prompts.iter().collect();
        let rows: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
        let options = GenerateOptions { first_stream: (part * size) as u64, ..options.clone() };
        let completions = generate(policy, &rows, &options).map_err(Error::in_step(step))?;
        let samples = samples(tokenizer, &prompts, &completions);
        let scores = ask(&samples, step, scorers.score)?;
        let ended: Vec<bool> = samples.iter().map(|sample| sample.ended).collect();
        conditioned.extend(condition_scores(&scores, &ended, &config.rollout));
        raw.extend(scores);
        if let Some(judge) = scorers.gold.as_mut() {
            gold.extend(ask(&samples, step, *judge)?);
        }
        n_ended += ended.iter().filter(|ended| **ended).count();
        n_tokens += completions.iter().map(|completion| completion.tokens.len()).sum::<usize>();
    }
    let n = prompts.prompts.len() as f64;
    Ok(PpoEvaluation {
        scores: mean(&conditioned),
        raw_scores: mean(&raw),
        gold: scorers.gold.is_some().then(|| mean(&gold)),
        eos_rate: n_ended as f64 / n,
        length_mean: n_tokens as f64 / n,
    })
}

/// The prompts of one rollout: every prompt once an epoch, in an order that seed and epoch decide.
///
/// The last rollout of an epoch takes the prompts that are missing from the epoch's own start.
fn step_prompts(prompts: &Prompts, batch_size: usize, step: usize, seed: Seed) -> Vec<&EncodedPrompt> {
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
