//! The updates from one rollout.

use burn::tensor::Device;
use temper_data::Texts;
use temper_tensor::{Gradients, Sum, Unread, World, accumulate_onto};
use temper_tokenizer::Example;
use temper_train::{Seed, moving_average, shuffled};

use super::losses::{Losses, Shares};
use super::{Learner, LossMeans};
use crate::Error;
use crate::advantage::Targets;
use crate::config::{PpoConfig, PtxConfig};
use crate::networks::Networks;
use crate::ptx::{draw, ptx_step};
use crate::rollout::Rollout;

/// Everything that the updates from one rollout read.
#[derive(Clone, Copy)]
pub struct UpdateInput<'a> {
    /// What was sampled.
    pub rollout: &'a Rollout,
    /// What is learned from it.
    pub targets: &'a Targets,
    /// Pretraining text that is mixed into the updates (PPO-ptx), if there is any.
    pub texts: Option<&'a Texts>,
    /// The learning rates of these updates.
    pub learning_rates: LearningRates,
    /// Which rollout of the run this is, counted from 0. It selects the random streams of minibatches and texts.
    pub step: usize,
    /// The seed of the run.
    pub seed: Seed,
}

/// Learning rates of the two networks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LearningRates {
    /// Of the policy and its value head.
    pub policy: f64,
    /// Of a critic that is a network of its own.
    pub critic: f64,
}

/// What the updates from one rollout report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateStats {
    /// Number of updates: minibatches times passes, or fewer where `max_approx_kl` ended them.
    pub n_updates: usize,
    /// Means over the minibatches.
    pub means: LossMeans,
    /// Variance of the mean ratio over the minibatches.
    pub ratio_var: f64,
    /// Greatest |ratio − 1| before the first update: rounding, or a bug.
    pub first_ratio_error: f64,
    /// Gradient norm of the policy before clipping, mean over the minibatches.
    pub grad_norm: f64,
    /// Loss per token on pretraining text in nats, mean over the minibatches, if there is text.
    pub ptx_loss: Option<f64>,
}

impl Learner {
    /// Makes `ppo_epochs` passes over the rollout in shuffled minibatches, with one update of policy and critic each
    /// (Schulman et al. 2017, Algorithm 1).
    ///
    /// It stops early after a minibatch whose `approx_kl` is above `max_approx_kl`.
    ///
    /// # Errors
    /// [`Error::NonFiniteLoss`] before anything is updated with that loss; [`Error::Train`] for a gradient norm that is not
    /// finite; if it is the critic's, the policy has already been updated. A learner is of no use after an error.
    pub fn update(&mut self, config: &PpoConfig, input: &UpdateInput<'_>) -> Result<UpdateStats, Error> {
        let settings = &config.update;
        let n_episodes = input.rollout.len();
        let size = if settings.minibatch_size == 0 { n_episodes } else { settings.minibatch_size };
        let size = size.min(n_episodes);
        let limit = if settings.max_approx_kl > 0.0 { settings.max_approx_kl } else { f64::INFINITY };
        let mut sums = Sums::default();
        for epoch in 0..settings.ppo_epochs {
            let pass = input.step * settings.ppo_epochs + epoch;
            let order = shuffled(n_episodes, &mut input.seed.stream_at("minibatches", pass as u64));
            for (i, minibatch) in order.chunks(size).enumerate() {
                let mut minibatch = minibatch.to_vec();
                if input.rollout.samples_per_prompt > 1 {
                    // Answers to one prompt share a row where they are neighbours.
                    minibatch.sort_unstable();
                }
                let mut text_gradients = Gradients::default();
                if let Some(texts) = input.texts {
                    let (start, n) = text_rows(&config.ptx, n_episodes, size, (pass, i));
                    let rows = draw(texts, start, n, input.seed);
                    let ptx_loss;
                    (ptx_loss, text_gradients) = self.text_gradients(config, &rows, input.step)?;
                    *sums.ptx_loss.get_or_insert(0.0) += ptx_loss;
                }
                let (losses, policy_gradients, critic_gradients) =
                    gradients(config, self.networks(), input, &minibatch, text_gradients);
                losses.check_finite(input.step)?;
                self.policy_optimizer.add(policy_gradients);
                self.critic_optimizer.add(critic_gradients);
                let grad_norm = self.step_networks(input.learning_rates)?;
                sums.add(losses, grad_norm);
                if losses.means.approx_kl > limit {
                    return Ok(sums.into_stats());
                }
            }
        }
        Ok(sums.into_stats())
    }

    /// The loss on these rows of pretraining text, and its gradients.
    fn text_gradients(
        &self,
        config: &PpoConfig,
        rows: &[&Example],
        step: usize,
    ) -> Result<(f64, Gradients), Error> {
        let (loss, gradients) = ptx_step(self.policy(), rows, config.ptx.coef, config.update.microbatch_size);
        if !loss.is_finite() {
            return Err(Error::NonFiniteLoss { which: "ptx", step: step + 1, loss });
        }
        Ok((loss, gradients))
    }

    /// Moves policy and critic along the gradients that were added, and the average along with the policy. Returns the
    /// gradient norm of the policy.
    fn step_networks(&mut self, learning_rates: LearningRates) -> Result<f64, Error> {
        let Networks { policy, critic } = self.networks.take().expect("the gradients are theirs");
        let (policy, grad_norm) = self.policy_optimizer.step(policy, learning_rates.policy)?;
        if let Some(average) = self.average.take() {
            self.average = Some(moving_average(average, &policy.lm, self.ema_decay));
        }
        let step_critic = |critic| self.critic_optimizer.step(critic, learning_rates.critic);
        let critic = critic.map(step_critic).transpose()?.map(|(critic, _)| critic);
        self.networks = Some(Networks { policy, critic });
        Ok(grad_norm)
    }
}

/// Losses, gradients of the policy and gradients of the critic.
type LossesAndGradients = (Unread<'static, MinibatchLosses>, Gradients, Gradients);

/// Losses and gradients of one minibatch, summed over microbatches and threads. The gradients of the policy are added to
/// those of the loss on text, so that one update follows both.
fn gradients(
    config: &PpoConfig,
    networks: &Networks,
    input: &UpdateInput<'_>,
    minibatch: &[usize],
    text_gradients: Gradients,
) -> (MinibatchLosses, Gradients, Gradients) {
    let microbatch_size = config.update.microbatch_size;
    let size = if microbatch_size == 0 { minibatch.len() } else { microbatch_size };
    let episodes = &input.rollout.episodes;
    let (n_tokens, n_values) = episodes.counts(minibatch);
    let start = (Unread::default(), text_gradients, Gradients::default());
    let (losses, policy_gradients, critic_gradients) =
        accumulate_onto(&World::alone(), start, networks, minibatch, size, |networks, microbatch, sums| {
            let (tokens, values) = episodes.counts(microbatch);
            let shares =
                Shares { tokens: tokens as f64 / n_tokens as f64, values: values as f64 / n_values as f64 };
            forward_backward(config, networks, input, microbatch, shares, sums);
        });
    (losses.read(), policy_gradients, critic_gradients)
}

/// Adds losses and gradients of one microbatch, weighted with its shares of the minibatch.
fn forward_backward(
    config: &PpoConfig,
    networks: &Networks,
    input: &UpdateInput<'_>,
    microbatch: &[usize],
    shares: Shares,
    (sums, policy_gradients, critic_gradients): &mut LossesAndGradients,
) {
    let Networks { policy, critic } = networks;
    let losses = Losses::forward(config, policy, critic.as_ref(), input, microbatch);
    let (means, ratio_error) = (losses.means(), losses.ratio_error.clone());
    let kl_coef = input.targets.kl_loss_coef;
    let (objective, value_objective) = losses.objectives(&config.update, kl_coef, shares, critic.is_none());
    if let Some((critic, objective)) = critic.as_ref().zip(value_objective) {
        critic_gradients.add(Gradients::of(critic, objective));
    }
    policy_gradients.add(Gradients::of(policy, objective));
    sums.push(means.with(ratio_error), move |sums, numbers| {
        let (means, ratio_error) = LossMeans::of(numbers);
        sums.add(MinibatchLosses { means: means.scale(shares.tokens, shares.values), ratio_error });
    });
}

/// The losses of one minibatch, or of a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct MinibatchLosses {
    /// Means over the minibatch; a part of it has its shares of them.
    means: LossMeans,
    /// Greatest |ratio − 1|.
    ratio_error: f64,
}

impl Sum for MinibatchLosses {
    fn add(&mut self, other: Self) {
        self.means += other.means;
        self.ratio_error = self.ratio_error.max(other.ratio_error);
    }

    fn sum_over_ranks(&mut self, world: &World, device: &Device) {
        self.means.sum_over_ranks(world, device);
        self.ratio_error = world.concat(vec![self.ratio_error]).into_iter().fold(0.0, f64::max);
    }
}

impl MinibatchLosses {
    /// Refuses losses that are NaN or infinite. `step` counts from 0.
    fn check_finite(&self, step: usize) -> Result<(), Error> {
        let LossMeans { policy_loss, value_loss, kl_loss, .. } = self.means;
        match [("policy", policy_loss), ("value", value_loss), ("KL", kl_loss)]
            .into_iter()
            .find(|(_, loss)| !loss.is_finite())
        {
            Some((which, loss)) => Err(Error::NonFiniteLoss { which, step: step + 1, loss }),
            None => Ok(()),
        }
    }
}

/// Sums over the minibatches of one rollout.
#[derive(Default)]
struct Sums {
    n_updates: usize,
    means: LossMeans,
    ratio_squares: f64,
    first_ratio_error: f64,
    grad_norm: f64,
    ptx_loss: Option<f64>,
}

impl Sums {
    fn add(&mut self, losses: MinibatchLosses, grad_norm: f64) {
        if self.n_updates == 0 {
            self.first_ratio_error = losses.ratio_error;
        }
        self.n_updates += 1;
        self.means += losses.means;
        self.ratio_squares += losses.means.ratio * losses.means.ratio;
        self.grad_norm += grad_norm;
    }

    fn into_stats(self) -> UpdateStats {
        let n = self.n_updates as f64;
        let means = self.means.divide(n);
        UpdateStats {
            n_updates: self.n_updates,
            means,
            ratio_var: (self.ratio_squares / n - means.ratio * means.ratio).max(0.0),
            first_ratio_error: self.first_ratio_error,
            grad_norm: self.grad_norm / n,
            ptx_loss: self.ptx_loss.map(|sum| sum / n),
        }
    }
}

/// First row and number of the rows of pretraining text that belong to minibatch `i` of pass `pass`.
///
/// Each episode of a minibatch brings `ptx.sequences_per_episode` rows. The place depends on these numbers alone, whether
/// or not earlier rollouts made all their updates, so a checkpoint need not store it.
fn text_rows(ptx: &PtxConfig, episodes: usize, size: usize, (pass, i): (usize, usize)) -> (usize, usize) {
    let rows_for = |episodes: usize| (episodes as f64 * ptx.sequences_per_episode).ceil() as usize;
    let in_last_minibatch = episodes % size;
    let rows_of_pass = episodes / size * rows_for(size) + rows_for(in_last_minibatch);
    let first = i * size;
    let n = rows_for(size.min(episodes - first));
    (pass * rows_of_pass + i * rows_for(size), n)
}

#[cfg(test)]
mod tests {
    use temper_tensor::Link;

    use super::*;

    /// Each minibatch has the rows of its own episodes, and consecutive passes leave no gap.
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
        // 10 episodes in minibatches of 4: the last minibatch has 2.
        assert_eq!(places(2.0, 10, 4), [(0, 8), (8, 8), (16, 4), (20, 8), (28, 8), (36, 4)]);
        assert_eq!(places(0.125, 12, 8), [(0, 1), (1, 1), (2, 1), (3, 1)]);
    }

    /// Two ranks with the same part.
    #[derive(Debug)]
    struct Twice;

    impl Link for Twice {
        fn rank(&self) -> usize {
            0
        }

        fn size(&self) -> usize {
            2
        }

        fn gather(&self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
            vec![bytes.clone(), bytes]
        }
    }

    /// Means are shares of the minibatch and add up; of the ratio errors the greatest is kept.
    #[test]
    fn losses_of_parts_add_up_over_microbatches_and_ranks() {
        let part = |policy_loss, value_clip_frac, ratio_error| MinibatchLosses {
            means: LossMeans { policy_loss, value_clip_frac, ..LossMeans::default() },
            ratio_error,
        };
        let mut sum = part(1.0, 0.25, 0.5);
        sum.add(part(2.0, 0.125, 0.25));
        assert_eq!(sum, part(3.0, 0.375, 0.5));
        sum.sum_over_ranks(&World::linked(Twice), &Device::flex());
        assert_eq!(sum, part(6.0, 0.75, 0.5));
    }
}
