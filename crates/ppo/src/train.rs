//! The loop of PPO.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Tensor;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use temper_model::{CausalLm, Pooling, ScalarModel, generate, masked_mean, scale_to_unit_variance, whiten};
use temper_tokenizer::{Template, Tokenizer};
use temper_train::{Optimizer, Run, Seed, TRAINING_DIR, load_json, save_json, shuffled};

use crate::critic::{Critic, Policy, critic_values, zero_head};
use crate::gae::{Advantages, estimate_advantages};
use crate::kl::KlController;
use crate::loss::{policy_loss, value_loss};
use crate::metrics::{PpoMetrics, read_all};
use crate::prompts::{EncodedPrompt, PromptDataset};
use crate::rewards::shape_rewards;
use crate::rollout::{
    Actors, Rollout, ScoreFn, collect_rollout, generate_options, score_completions, select_rows,
};
use crate::{Error, PpoConfig};

/// First-minibatch ratios further from 1 than this are no rounding.
const RATIO_TOLERANCE: f64 = 1e-3;

/// The networks of the stage. Policy and reference are two copies of the SFT model (D1).
#[derive(Debug)]
pub struct Models {
    /// Trained.
    pub policy: CausalLm,
    /// Frozen; what the KL is measured against.
    pub ref_policy: CausalLm,
    /// The value function.
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

/// Trains a policy against `score`, holding it near its reference.
///
/// Returns the policy off the tape. The run directory gets metrics, checkpoints and `final/`, with the critic in
/// `critic/`. An interrupted run has written a checkpoint; ask [`Run::interrupted`].
///
/// # Errors
/// Files, settings, a scoring function that fails, or a loss that is not finite.
pub fn train(
    config: &PpoConfig,
    models: Models,
    text: Text<'_>,
    prompts: &PromptDataset,
    eval_prompts: Option<&PromptDataset>,
    score: &mut ScoreFn<'_>,
    run: &mut Run,
) -> Result<CausalLm, Error> {
    config.validate()?;
    let seed = Seed(config.seed);
    let steps_per_epoch = prompts.prompts.len().div_ceil(config.batch_size);
    let all_steps = config.epochs * steps_per_epoch;
    let total_steps = if config.max_steps > 0 { all_steps.min(config.max_steps) } else { all_steps };

    let ref_policy = models.ref_policy.valid();
    let mut learner = Learner::new(config, models.policy, models.critic);
    let mut step = 0;
    if let Some((_, dir)) = run.resume_from() {
        step = learner.resume(dir)?;
    }
    run.started(total_steps);

    while step < total_steps {
        let started = Instant::now();
        let batch = step_prompts(prompts, config.batch_size, step, seed);
        let sample_seed = seed.stream_at("sample", step as u64).random();
        let rollout =
            collect_rollout(config, &learner.actors(&ref_policy, text.tokenizer), &batch, sample_seed, step + 1, score)?;

        let mask = rollout.completion_mask.clone();
        let kl_coef = learner.kl.coef;
        let mut shaped = shape_rewards(
            rollout.old_logprobs.clone(),
            rollout.ref_logprobs.clone(),
            rollout.scores.clone(),
            mask.clone(),
            kl_coef,
        );
        if config.ppo.whiten_rewards {
            shaped.rewards = scale_to_unit_variance(shaped.rewards, mask.clone());
        }
        let values = rollout.values.clone();
        let (gamma, gae_lambda) = (config.ppo.gamma, config.ppo.gae_lambda);
        let found = estimate_advantages(shaped.rewards.clone(), values, mask.clone(), gamma, gae_lambda);
        let mut metrics = PpoMetrics::of_rollout(&rollout, &shaped, &found, kl_coef);
        let advantages = Advantages { advantages: whiten(found.advantages, mask), returns: found.returns };
        let rollout_seconds = started.elapsed().as_secs_f64();

        let lr = config.schedule.learning_rate(config.learning_rate, step, total_steps);
        let scale = lr / config.learning_rate;
        let update = learner.update(config, &rollout, &advantages, (lr, config.critic.learning_rate * scale), step, seed)?;
        learner.kl.update(metrics.kl, rollout.len());
        step += 1;

        update.fill(&mut metrics);
        metrics.episode = step * config.batch_size;
        metrics.lr = lr;
        fill_times(&mut metrics, &rollout, rollout_seconds, started.elapsed().as_secs_f64());
        warn_about(&metrics, step, run);
        run.log(step, total_steps, &metrics)?;

        let last = step == total_steps;
        if let Some(eval_prompts) = eval_prompts
            && (last || due(step, config.eval_every))
        {
            let found = evaluate(config, &learner.policy.lm, text.tokenizer, eval_prompts, step, score)?;
            run.log_evaluation(step, &found)?;
        }
        let stop = run.interrupted();
        if !last && (stop || due(step, config.checkpoint_every)) {
            run.save_checkpoint(step, |dir| learner.save(dir, text, Some(step)))?;
        }
        if stop && !last {
            return Ok(learner.policy.lm.valid());
        }
    }
    run.save_final(|dir| learner.save(dir, text, None))?;
    Ok(learner.policy.lm.valid())
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
        let found = score_completions(tokenizer, &part, &completions, step, score)?;
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

/// What is trained, with its optimizers and the KL coefficient: all that a checkpoint holds.
struct Learner {
    policy: Policy,
    critic: Option<ScalarModel>,
    policy_optimizer: Optimizer,
    critic_optimizer: Optimizer,
    kl: KlController,
}

#[derive(Serialize, Deserialize)]
struct State {
    step: usize,
    kl_coef: f64,
}

impl Learner {
    fn new(config: &PpoConfig, policy: CausalLm, critic: Critic) -> Self {
        let (d_model, device) = (policy.config().d_model, policy.device().inner());
        let (value_head, critic) = match critic {
            Critic::Separate(critic) => (None, Some(critic.train())),
            Critic::ValueHead => (Some(zero_head(d_model, &device)), None),
        };
        Self {
            policy: Policy { lm: policy, value_head }.train(),
            critic,
            policy_optimizer: Optimizer::new(&config.optimizer),
            critic_optimizer: Optimizer::new(&config.optimizer),
            kl: KlController::new(&config.kl),
        }
    }

    fn actors<'a>(&'a self, ref_policy: &'a CausalLm, tokenizer: &'a Tokenizer) -> Actors<'a> {
        Actors { policy: &self.policy, ref_policy, critic: self.critic.as_ref(), tokenizer }
    }

    /// PPO epochs over shuffled minibatches of one rollout.
    fn update(
        &mut self,
        config: &PpoConfig,
        rollout: &Rollout,
        targets: &Advantages,
        learning_rates: (f64, f64),
        step: usize,
        seed: Seed,
    ) -> Result<UpdateStats, Error> {
        let size = if config.ppo.minibatch_size == 0 { rollout.len() } else { config.ppo.minibatch_size };
        let mut stats = UpdateStats::default();
        for epoch in 0..config.ppo.ppo_epochs {
            let index = (step * config.ppo.ppo_epochs + epoch) as u64;
            let order = shuffled(rollout.len(), &mut seed.stream_at("minibatches", index));
            for minibatch in order.chunks(size) {
                self.ppo_step(config, rollout, targets, minibatch, learning_rates, step, &mut stats)?;
            }
        }
        Ok(stats)
    }

    /// One update of policy and critic from one minibatch.
    #[allow(clippy::too_many_arguments)] // The algorithm's own inputs, each used once.
    fn ppo_step(
        &mut self,
        config: &PpoConfig,
        rollout: &Rollout,
        targets: &Advantages,
        minibatch: &[usize],
        (policy_lr, critic_lr): (f64, f64),
        step: usize,
        stats: &mut UpdateStats,
    ) -> Result<(), Error> {
        let settings = &config.ppo;
        let size = if settings.microbatch_size == 0 { minibatch.len() } else { settings.microbatch_size };
        let device = rollout.completion_mask.device();
        let total = n_tokens(rollout, minibatch);
        let mut sums = [0.0; 7];
        for micro in minibatch.chunks(size) {
            let pick = |x: &Tensor<2>| select_rows(x, micro);
            let mask = pick(&rollout.completion_mask);
            let weight = n_tokens(rollout, micro) as f64 / total as f64; // Every token weighs the same.
            let episodes = rollout.episodes(micro, &device);

            let output = self.policy.forward(&episodes, config.rollout.temperature, settings.entropy_coef != 0.0);
            let old_logprobs = pick(&rollout.old_logprobs);
            if stats.minibatches == 0 {
                stats.note_first_ratio(&output.logprobs, &old_logprobs, &mask);
            }
            let policy = policy_loss(
                output.logprobs,
                old_logprobs,
                pick(&targets.advantages),
                mask.clone(),
                settings.clip_range,
            );
            let entropy = masked_mean(output.entropy, mask.clone());
            let values = match &self.critic {
                Some(critic) => critic_values(critic, &episodes),
                None => output.values.expect("a policy without a critic carries a value head"),
            };
            let (old_values, returns) = (pick(&rollout.values), pick(&targets.returns));
            let value = value_loss(values, old_values, returns, mask, settings.value_clip_range);

            let read = read_all(
                [&policy.loss, &value.loss, &policy.clip_frac, &policy.approx_kl, &policy.ratio, &value.clip_frac, &entropy]
                    .map(|x| x.clone().inner())
                    .to_vec(),
            );
            for (which, loss) in [("policy", read[0]), ("value", read[1])] {
                if !loss.is_finite() {
                    return Err(Error::NonFiniteLoss { which, step: step + 1, loss });
                }
            }
            sums.iter_mut().zip(&read).for_each(|(sum, x)| *sum += weight * x);

            let mut policy_objective = policy.loss;
            if settings.entropy_coef != 0.0 {
                policy_objective = policy_objective - entropy.mul_scalar(settings.entropy_coef);
            }
            match &self.critic {
                Some(critic) => self.critic_optimizer.accumulate(critic, value.loss.mul_scalar(weight)),
                None => policy_objective = policy_objective + value.loss.mul_scalar(settings.vf_coef),
            }
            self.policy_optimizer.accumulate(&self.policy, policy_objective.mul_scalar(weight));
        }
        let (policy, grad_norm) = self.policy_optimizer.step(self.policy.clone(), policy_lr)?;
        self.policy = policy;
        if let Some(critic) = self.critic.take() {
            self.critic = Some(self.critic_optimizer.step(critic, critic_lr)?.0);
        }
        stats.add(sums, grad_norm);
        Ok(())
    }

    fn save(&self, dir: &Path, text: Text<'_>, step: Option<usize>) -> Result<(), Error> {
        let eos = text.tokenizer.special().eos;
        self.policy.lm.save(dir, eos)?;
        text.tokenizer.save(dir)?;
        text.template.save(dir)?;
        let critic_dir = dir.join("critic");
        std::fs::create_dir_all(&critic_dir)
            .map_err(|source| temper_model::Error::Io { path: critic_dir.clone(), source })?;
        match (&self.critic, &self.policy.value_head) {
            (Some(critic), _) => critic.save(&critic_dir, eos)?,
            (None, Some(head)) => {
                let backbone = self.policy.lm.transformer.clone();
                ScalarModel::from_parts(backbone, head.clone(), Pooling::Last).save(&critic_dir, eos)?;
            }
            (None, None) => unreachable!("a learner has one of the two critics"),
        }
        if let Some(step) = step {
            let dir = dir.join(TRAINING_DIR);
            self.policy_optimizer.save(&dir.join("policy_optimizer.safetensors"))?;
            if self.critic.is_some() {
                self.critic_optimizer.save(&dir.join("critic_optimizer.safetensors"))?;
            }
            save_json(&dir.join("state.json"), &State { step, kl_coef: self.kl.coef })?;
        }
        Ok(())
    }

    /// Puts everything back as a checkpoint left it, and returns its step.
    fn resume(&mut self, dir: &Path) -> Result<usize, Error> {
        let device = self.policy.lm.device().inner();
        let lm = CausalLm::load(dir, &device)?;
        let critic = ScalarModel::load(&dir.join("critic"), &device)?;
        let value_head = self.policy.value_head.as_ref().map(|_| critic.score.clone());
        self.policy = Policy { lm, value_head }.train();
        let training = dir.join(TRAINING_DIR);
        self.policy_optimizer.load(&training.join("policy_optimizer.safetensors"), &self.policy)?;
        if self.critic.is_some() {
            let critic = critic.train();
            self.critic_optimizer.load(&training.join("critic_optimizer.safetensors"), &critic)?;
            self.critic = Some(critic);
        }
        let state: State = load_json(&training.join("state.json"))?;
        self.kl.coef = state.kl_coef;
        Ok(state.step)
    }
}

fn n_tokens(rollout: &Rollout, episodes: &[usize]) -> usize {
    episodes.iter().map(|&i| rollout.rows[i].len() - rollout.prompt_lens[i]).sum()
}

/// Sums over the minibatches of one rollout.
#[derive(Default)]
struct UpdateStats {
    minibatches: usize,
    sums: [f64; 7],
    ratio_squares: f64,
    grad_norm: f64,
    first_ratio_error: f64,
}

impl UpdateStats {
    /// Oracle 1: before the first update of a rollout, policy and sampling policy are the same.
    fn note_first_ratio(&mut self, logprobs: &Tensor<2>, old_logprobs: &Tensor<2>, mask: &Tensor<2>) {
        let ratio = ((logprobs.clone().inner() - old_logprobs.clone()) * mask.clone()).exp();
        let error: f64 = (ratio - 1.0).abs().max().into_scalar();
        self.first_ratio_error = self.first_ratio_error.max(error);
    }

    fn add(&mut self, read: [f64; 7], grad_norm: f64) {
        self.minibatches += 1;
        self.sums.iter_mut().zip(read).for_each(|(sum, x)| *sum += x);
        self.ratio_squares += read[4] * read[4];
        self.grad_norm += grad_norm;
    }

    fn fill(&self, metrics: &mut PpoMetrics) {
        let n = self.minibatches as f64;
        let [policy_loss, value_loss, clip_frac, approx_kl, ratio, value_clip_frac, entropy] =
            self.sums.map(|sum| sum / n);
        metrics.policy_loss = policy_loss;
        metrics.value_loss = value_loss;
        metrics.policy_clip_frac = clip_frac;
        metrics.approx_kl = approx_kl;
        metrics.ratio = ratio;
        metrics.ratio_var = (self.ratio_squares / n - ratio * ratio).max(0.0);
        metrics.value_clip_frac = value_clip_frac;
        metrics.entropy = entropy;
        metrics.policy_grad_norm = self.grad_norm / n;
        metrics.first_ratio_error = self.first_ratio_error;
    }
}

fn fill_times(metrics: &mut PpoMetrics, rollout: &Rollout, rollout_seconds: f64, seconds: f64) {
    let tokens = metrics.length_mean * rollout.len() as f64;
    metrics.eps = rollout.len() as f64 / seconds;
    metrics.rollout_seconds = rollout_seconds;
    metrics.update_seconds = seconds - rollout_seconds;
    metrics.rollout_tokens_per_second = tokens / rollout_seconds;
    metrics.tokens_per_second = tokens / seconds;
}

fn warn_about(metrics: &PpoMetrics, step: usize, run: &mut Run) {
    if metrics.first_ratio_error > RATIO_TOLERANCE {
        run.warn(&format!(
            "step {step}: before the first update the ratio is off 1 by {:.1e}: sampling and update disagree \
             (dropout on, another temperature, or a changed policy)",
            metrics.first_ratio_error
        ));
    }
}

fn due(step: usize, every: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}
