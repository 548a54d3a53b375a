//! What is trained: policy and critic with their optimizers, one update at a time, and what a checkpoint holds.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use temper_data::Texts;
use temper_model::{CausalLm, Pooling, ScalarModel, in_parallel, masked_mean, shards};
use temper_tokenizer::{TextSide, Tokenizer};
use temper_train::{
    Exact, Gradients, Optimizer, Seed, TRAINING_DIR, load_json, moving_average, save_json, shuffled,
};

use crate::config::PtxConfig;
use crate::critic::{Critic, Entropy, Policy, critic_values, zero_head};
use crate::gae::Advantages;
use crate::kl::{KlController, kl_loss};
use crate::loss::{PolicyClip, policy_loss, value_loss};
use crate::metrics::{PpoMetrics, read_all};
use crate::ptx::{draw, ptx_step};
use crate::rollout::{Actors, Rollout, select_rows};
use crate::{Error, PpoConfig};

/// Where a checkpoint keeps the averaged policy.
const EMA_DIR: &str = "ema";

/// What is trained, with its optimizers, the KL coefficient and the last scores: all that a checkpoint holds.
pub(crate) struct Learner {
    pub(crate) policy: Policy,
    /// The moving average of the policy's weights, off the tape, if one is asked for.
    average: Option<CausalLm>,
    ema_decay: f64,
    critic: Option<ScalarModel>,
    policy_optimizer: Optimizer,
    critic_optimizer: Optimizer,
    pub(crate) kl: KlController,
    /// Mean scores of the last rollouts, by which the best policy is chosen.
    recent_scores: VecDeque<f64>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Rollouts that were learned from.
    pub(crate) step: usize,
    /// Whether the evaluation that may be due after this step is over.
    pub(crate) is_evaluated: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { step: 0, is_evaluated: true }
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    step: usize,
    /// Only where the run was stopped during the evaluation of this step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    evaluation_is_due: bool,
    kl_coef: Exact,
    recent_scores: Vec<Exact>,
}

impl Learner {
    /// A learner whose policy samples the first `n_tokens` ids of its model.
    pub(crate) fn new(config: &PpoConfig, policy: CausalLm, critic: Critic, n_tokens: usize) -> Self {
        let (d_model, device) = (policy.config().d_model, policy.device().inner());
        let (value_head, critic) = match critic {
            _ if !config.advantage.kind.has_critic() => (None, None),
            Critic::None => (None, None),
            Critic::Separate(critic) => (None, Some(critic.train())),
            Critic::ValueHead => (Some(zero_head(d_model, &device)), None),
        };
        Self {
            average: (config.ema_decay > 0.0).then(|| policy.valid()),
            ema_decay: config.ema_decay,
            policy: Policy::new(policy, value_head, n_tokens).train(),
            critic,
            policy_optimizer: Optimizer::new(&config.optimizer),
            critic_optimizer: Optimizer::new(&config.optimizer),
            kl: KlController::new(&config.kl),
            recent_scores: VecDeque::new(),
        }
    }

    fn has_critic(&self) -> bool {
        self.critic.is_some() || self.policy.value_head.is_some()
    }

    /// Takes in the mean score of a rollout; only the last `n` count, or all for 0.
    pub(crate) fn remember_score(&mut self, score: f64, n: usize) {
        self.recent_scores.push_back(score);
        if n > 0 && self.recent_scores.len() > n {
            self.recent_scores.pop_front();
        }
    }

    /// Mean of the scores that count.
    pub(crate) fn mean_recent_score(&self) -> f64 {
        self.recent_scores.iter().sum::<f64>() / self.recent_scores.len() as f64
    }

    pub(crate) fn actors<'a>(&'a self, ref_policy: &'a CausalLm, tokenizer: &'a Tokenizer) -> Actors<'a> {
        Actors { policy: &self.policy, ref_policy, critic: self.critic.as_ref(), tokenizer }
    }

    /// The policy to be used, off the tape: the average if there is one.
    pub(crate) fn released(&self) -> CausalLm {
        self.average.clone().unwrap_or_else(|| self.policy.lm.valid())
    }

    /// Refuses to release a policy or a critic whose numbers are not finite on some rows: the last update may diverge,
    /// and no later loss tells.
    pub(crate) fn check_finite(&self, rows: &[&[u32]]) -> Result<(), Error> {
        self.released().check_finite(rows)?;
        Ok(self.critic.as_ref().map_or(Ok(()), |critic| critic.check_finite(rows))?)
    }

    /// PPO epochs over shuffled minibatches of one rollout, until the policy is too far from the one that sampled.
    pub(crate) fn update(
        &mut self,
        config: &PpoConfig,
        recorded: &Recorded<'_>,
        learning_rates: (f64, f64),
        step: usize,
        seed: Seed,
    ) -> Result<UpdateStats, Error> {
        let rollout = recorded.rollout;
        let size = if config.ppo.minibatch_size == 0 { rollout.len() } else { config.ppo.minibatch_size };
        let size = size.min(rollout.len());
        let mut stats = UpdateStats {
            has_values: rollout.has_values,
            has_kl_loss: recorded.kl_in_loss.is_some(),
            ..UpdateStats::default()
        };
        let limit = if config.ppo.max_approx_kl > 0.0 { config.ppo.max_approx_kl } else { f64::INFINITY };
        for epoch in 0..config.ppo.ppo_epochs {
            let index = (step * config.ppo.ppo_epochs + epoch) as u64;
            let order = shuffled(rollout.len(), &mut seed.stream_at("minibatches", index));
            for (i, minibatch) in order.chunks(size).enumerate() {
                let texts = text_rows(&config.ptx, rollout.len(), size, (index as usize, i));
                self.add_ptx(config, recorded.texts, texts, step, seed, &mut stats)?;
                self.ppo_step(config, recorded, minibatch, learning_rates, step, &mut stats)?;
                if stats.last_approx_kl > limit {
                    return Ok(stats);
                }
            }
        }
        Ok(stats)
    }

    /// Adds the gradient of the loss on plain text to what the next update is made from.
    fn add_ptx(
        &mut self,
        config: &PpoConfig,
        texts: Option<&Texts>,
        (place, n): (usize, usize),
        step: usize,
        seed: Seed,
        stats: &mut UpdateStats,
    ) -> Result<(), Error> {
        let Some(texts) = texts else { return Ok(()) };
        let rows = draw(texts, place, n, seed);
        let (loss, gradients) = ptx_step(&self.policy, &rows, config.ptx.coef, config.ppo.microbatch_size);
        if !loss.is_finite() {
            return Err(Error::NonFiniteLoss { which: "ptx", step: step + 1, loss });
        }
        self.policy_optimizer.add(gradients);
        stats.ptx_loss = Some(stats.ptx_loss.unwrap_or(0.0) + loss);
        Ok(())
    }

    /// One update of policy and critic from one minibatch, computed in shards and microbatches.
    fn ppo_step(
        &mut self,
        config: &PpoConfig,
        recorded: &Recorded<'_>,
        minibatch: &[usize],
        (policy_lr, critic_lr): (f64, f64),
        step: usize,
        stats: &mut UpdateStats,
    ) -> Result<(), Error> {
        let size = if config.ppo.microbatch_size == 0 { minibatch.len() } else { config.ppo.microbatch_size };
        let device = self.policy.lm.device();
        let total = recorded.rollout.counts(minibatch);
        let networks = || (self.policy.clone().fork(&device), self.critic.clone().map(|c| c.fork(&device)));
        let parts = shards(minibatch, &device).into_iter().map(|(_, episodes)| (networks(), episodes));
        let check_ratio = stats.minibatches == 0;
        let found = in_parallel(parts.collect(), |((policy, critic), episodes)| {
            let micro_step = |micro| {
                // Every token weighs the same, and so does every value.
                let (tokens, values) = recorded.rollout.counts(micro);
                let weights = (tokens as f64 / total.0 as f64, values as f64 / total.1 as f64);
                micro_step(config, &policy, critic.as_ref(), recorded, micro, weights, check_ratio)
            };
            episodes.chunks(size).map(micro_step).collect::<Vec<_>>()
        });
        let mut sums = [0.0; N_MEANS];
        for part in found.into_iter().flatten() {
            sums.iter_mut().zip(part.means).for_each(|(sum, mean)| *sum += mean);
            stats.first_ratio_error = stats.first_ratio_error.max(part.ratio_error);
            self.policy_optimizer.add(part.policy_gradients);
            self.critic_optimizer.add(part.critic_gradients);
        }
        for (which, loss) in [("policy", sums[0]), ("value", sums[1]), ("KL", sums[7])] {
            if !loss.is_finite() {
                return Err(Error::NonFiniteLoss { which, step: step + 1, loss });
            }
        }
        let (policy, grad_norm) = self.policy_optimizer.step(self.policy.clone(), policy_lr)?;
        self.policy = policy;
        if let Some(average) = self.average.take() {
            self.average = Some(moving_average(average, &self.policy.lm, self.ema_decay));
        }
        if let Some(critic) = self.critic.take() {
            self.critic = Some(self.critic_optimizer.step(critic, critic_lr)?.0);
        }
        stats.add(sums, grad_norm);
        Ok(())
    }

    /// Writes the model that is released into `dir`; or, for a resume at `progress`, the policy as it is, its average in
    /// `ema/`, and the state of the training. The critic goes into `critic/`.
    pub(crate) fn save(&self, dir: &Path, text: &TextSide, progress: Option<Progress>) -> Result<(), Error> {
        let eos = text.eos();
        let lm = if progress.is_some() { self.policy.lm.valid() } else { self.released() };
        lm.save(dir, eos)?;
        text.save(dir)?;
        if let Some(average) = self.average.as_ref().filter(|_| progress.is_some()) {
            average.save(&create_dir(dir.join(EMA_DIR))?, eos)?;
        }
        let critic_dir = dir.join("critic");
        if self.has_critic() {
            create_dir(critic_dir.clone())?;
        }
        match (&self.critic, &self.policy.value_head) {
            (Some(critic), _) => critic.save(&critic_dir, eos)?,
            (None, Some(head)) => {
                let backbone = self.policy.lm.transformer.clone();
                ScalarModel::from_parts(backbone, head.clone(), Pooling::Last).save(&critic_dir, eos)?;
            }
            (None, None) => {}
        }
        if let Some(Progress { step, is_evaluated }) = progress {
            let dir = dir.join(TRAINING_DIR);
            self.policy_optimizer.save(&dir.join("policy_optimizer.safetensors"))?;
            if self.critic.is_some() {
                self.critic_optimizer.save(&dir.join("critic_optimizer.safetensors"))?;
            }
            let recent_scores = self.recent_scores.iter().map(|&score| Exact(score)).collect();
            let kl_coef = Exact(self.kl.coef);
            let state = State { step, evaluation_is_due: !is_evaluated, kl_coef, recent_scores };
            save_json(&dir.join("state.json"), &state)?;
        }
        Ok(())
    }

    /// Puts everything back as a checkpoint left it, and returns how far it was.
    pub(crate) fn resume(&mut self, dir: &Path) -> Result<Progress, Error> {
        let device = self.policy.lm.device().inner();
        let lm = CausalLm::load(dir, &device)?;
        let load_critic = || ScalarModel::load(&dir.join("critic"), &device);
        let critic = self.has_critic().then(load_critic).transpose()?;
        for config in [Some(lm.config()), critic.as_ref().map(ScalarModel::config)].into_iter().flatten() {
            config.check_context(self.policy.lm.config().max_seq_len)?;
        }
        if self.average.is_some() {
            let average = CausalLm::load(&dir.join(EMA_DIR), &device)?;
            average.config().check_context(self.policy.lm.config().max_seq_len)?;
            self.average = Some(average);
        }
        let head = critic.as_ref().map(|critic| critic.score.clone());
        let value_head = head.filter(|_| self.policy.value_head.is_some());
        self.policy = Policy::new(lm, value_head, self.policy.n_tokens).train();
        let training = dir.join(TRAINING_DIR);
        self.policy_optimizer.load(&training.join("policy_optimizer.safetensors"), &self.policy)?;
        if let Some(critic) = critic.filter(|_| self.critic.is_some()) {
            let critic = critic.train();
            self.critic_optimizer.load(&training.join("critic_optimizer.safetensors"), &critic)?;
            self.critic = Some(critic);
        }
        let path = training.join("state.json");
        let state: State = load_json(&path)?;
        let kl_coef = state.kl_coef.0;
        if !kl_coef.is_finite() || kl_coef < 0.0 {
            let message = format!("`kl_coef` is {kl_coef}, it must be 0 or above");
            return Err(temper_train::Error::BadState { path, message }.into());
        }
        self.kl.coef = kl_coef;
        self.recent_scores = state.recent_scores.iter().map(|score| score.0).collect();
        Ok(Progress { step: state.step, is_evaluated: !state.evaluation_is_due })
    }
}

fn create_dir(dir: PathBuf) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(&dir).map_err(|source| temper_model::Error::Io { path: dir.clone(), source })?;
    Ok(dir)
}

/// A rollout and what it teaches, and text to be learned beside it.
pub(crate) struct Recorded<'a> {
    pub(crate) rollout: &'a Rollout,
    pub(crate) targets: &'a Advantages,
    pub(crate) texts: Option<&'a Texts>,
    /// β, where the KL to the reference is part of the loss.
    pub(crate) kl_in_loss: Option<f64>,
}

/// Means of a minibatch, as [`MicroStep`] names them.
const N_MEANS: usize = 8;

/// Losses and gradients of one microbatch, already weighted by its share of the minibatch's tokens and values.
struct MicroStep {
    /// Policy loss, value loss, policy clip fraction, approximate KL, ratio, value clip fraction, entropy, KL loss; 0
    /// where there is none.
    means: [f64; N_MEANS],
    /// Greatest |ratio − 1|, if it was asked for; otherwise 0.
    ratio_error: f64,
    policy_gradients: Gradients,
    critic_gradients: Gradients,
}

/// Forward and backward of policy and critic over some episodes.
fn micro_step(
    config: &PpoConfig,
    policy: &Policy,
    critic: Option<&ScalarModel>,
    recorded: &Recorded<'_>,
    micro: &[usize],
    (weight, value_weight): (f64, f64),
    check_ratio: bool,
) -> MicroStep {
    let (settings, rollout) = (&config.ppo, recorded.rollout);
    let pick = |x: &Tensor<2>| select_rows(x, micro);
    let mask = pick(&rollout.completion_mask);
    let value_mask = pick(&rollout.value_mask);
    let episodes = rollout.episodes(micro, &mask.device());

    let entropy = if settings.entropy_coef == 0.0 { Entropy::Measured } else { Entropy::Learned };
    let output = policy.forward(&episodes, config.rollout.temperature, entropy);
    let old_logprobs = pick(&rollout.old_logprobs);
    let ratio_error = check_ratio.then(|| greatest_ratio_error(&output.logprobs, &old_logprobs, &mask));
    let advantages = pick(&recorded.targets.advantages);
    let kl_part = recorded
        .kl_in_loss
        .map(|coef| (coef, kl_loss(output.logprobs.clone(), pick(&rollout.ref_logprobs), mask.clone())));
    let policy_part = policy_loss(
        output.logprobs,
        old_logprobs,
        advantages,
        mask.clone(),
        PolicyClip { range: settings.clip_range, dual: settings.dual_clip },
    );
    let entropy = masked_mean(output.entropy.expect("it was asked for"), mask);

    let values = match critic {
        Some(critic) => Some(critic_values(critic, &episodes)),
        None => output.values,
    };
    let value_part = values.map(|values| {
        let (old_values, returns) = (pick(&rollout.values), pick(&recorded.targets.returns));
        value_loss(values, old_values, returns, value_mask, settings.value_clip_range)
    });

    let nothing = entropy.zeros_like();
    let means: [_; N_MEANS] = [
        &policy_part.loss,
        value_part.as_ref().map_or(&nothing, |part| &part.loss),
        &policy_part.clip_frac,
        &policy_part.approx_kl,
        &policy_part.ratio,
        value_part.as_ref().map_or(&nothing, |part| &part.clip_frac),
        &entropy,
        kl_part.as_ref().map_or(&nothing, |(_, loss)| loss),
    ];
    let scalars: Vec<Tensor<1>> = means.map(|x| x.clone().inner()).into_iter().chain(ratio_error).collect();

    let mut objective = policy_part.loss;
    if settings.entropy_coef != 0.0 {
        objective = objective - entropy.mul_scalar(settings.entropy_coef);
    }
    if let Some((coef, loss)) = kl_part {
        objective = objective + loss.mul_scalar(coef);
    }
    objective = objective.mul_scalar(weight);
    let value_objective = value_part.map(|part| part.loss.mul_scalar(value_weight));
    let critic_gradients = match (critic, value_objective) {
        (Some(critic), Some(loss)) => Gradients::of(critic, loss),
        (None, Some(loss)) => {
            objective = objective + loss.mul_scalar(settings.vf_coef);
            Gradients::default()
        }
        (_, None) => Gradients::default(),
    };
    let policy_gradients = Gradients::of(policy, objective);
    // One transfer, after both backward passes are queued.
    let scalars = read_all(scalars);
    let weights = [weight, value_weight, weight, weight, weight, value_weight, weight, weight];
    MicroStep {
        means: std::array::from_fn(|i| weights[i] * scalars[i]),
        ratio_error: scalars.get(N_MEANS).copied().unwrap_or(0.0),
        policy_gradients,
        critic_gradients,
    }
}

/// Greatest |ratio − 1|, `[1]`: before the first update of a rollout, policy and sampling policy are the same (oracle 1).
fn greatest_ratio_error(logprobs: &Tensor<2>, old_logprobs: &Tensor<2>, mask: &Tensor<2>) -> Tensor<1> {
    let ratio = ((logprobs.clone().inner() - old_logprobs.clone()) * mask.clone()).exp();
    (ratio - 1.0).abs().max()
}

/// First row and number of the rows of plain text that go with minibatch `i` of pass `pass` over a rollout: as many as
/// `ptx.sequences_per_episode` says for each of the minibatch's own episodes.
///
/// The place follows from the numbers alone, whether or not earlier rollouts made all their updates: nothing to store.
fn text_rows(ptx: &PtxConfig, episodes: usize, size: usize, (pass, i): (usize, usize)) -> (usize, usize) {
    let rows_for = |episodes: usize| (episodes as f64 * ptx.sequences_per_episode).ceil() as usize;
    let ragged = episodes % size;
    let rows_of_pass = episodes / size * rows_for(size) + rows_for(ragged);
    let first = i * size;
    let n = rows_for(size.min(episodes - first));
    (pass * rows_of_pass + i * rows_for(size), n)
}

/// Sums over the minibatches of one rollout.
#[derive(Default)]
pub(crate) struct UpdateStats {
    has_values: bool,
    has_kl_loss: bool,
    minibatches: usize,
    sums: [f64; N_MEANS],
    ratio_squares: f64,
    grad_norm: f64,
    first_ratio_error: f64,
    last_approx_kl: f64,
    /// Sum of the losses on plain text, if there is any.
    ptx_loss: Option<f64>,
}

impl UpdateStats {
    fn add(&mut self, read: [f64; N_MEANS], grad_norm: f64) {
        self.minibatches += 1;
        self.sums.iter_mut().zip(read).for_each(|(sum, x)| *sum += x);
        self.ratio_squares += read[4] * read[4];
        self.grad_norm += grad_norm;
        self.last_approx_kl = read[3];
    }

    pub(crate) fn fill(&self, metrics: &mut PpoMetrics) {
        let n = self.minibatches as f64;
        let [policy_loss, value_loss, clip_frac, approx_kl, ratio, value_clip_frac, entropy, kl_loss] =
            self.sums.map(|sum| sum / n);
        metrics.updates = self.minibatches;
        metrics.ptx_loss = self.ptx_loss.map(|sum| sum / n);
        metrics.policy_loss = policy_loss;
        metrics.value_loss = self.has_values.then_some(value_loss);
        metrics.kl_loss = self.has_kl_loss.then_some(kl_loss);
        metrics.policy_clip_frac = clip_frac;
        metrics.approx_kl = approx_kl;
        metrics.ratio = ratio;
        metrics.ratio_var = (self.ratio_squares / n - ratio * ratio).max(0.0);
        metrics.value_clip_frac = self.has_values.then_some(value_clip_frac);
        metrics.entropy = entropy;
        metrics.policy_grad_norm = self.grad_norm / n;
        metrics.first_ratio_error = self.first_ratio_error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each minibatch has the rows of its own episodes, and the places of one pass after another leave no gap.
    #[test]
    fn every_episode_brings_its_own_share_of_text() {
        let places = |per_episode: f64, episodes: usize, size: usize| -> Vec<(usize, usize)> {
            let ptx = PtxConfig { sequences_per_episode: per_episode, ..PtxConfig::default() };
            let minibatches = episodes.div_ceil(size);
            (0..2 * minibatches)
                .map(|i| text_rows(&ptx, episodes, size, (i / minibatches, i % minibatches)))
                .collect()
        };
        // InstructGPT's 8 for each of 8 episodes, in one update.
        assert_eq!(places(8.0, 8, 8), [(0, 64), (64, 64)]);
        // 10 episodes in minibatches of 4: the last has 2.
        assert_eq!(places(2.0, 10, 4), [(0, 8), (8, 8), (16, 4), (20, 8), (28, 8), (36, 4)]);
        assert_eq!(places(0.125, 12, 8), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    }
}
