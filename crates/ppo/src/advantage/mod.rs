//! Advantages: how much better an answer is than what it is compared with.
//!
//! Each estimator is one file and implements [`Estimator`]: [`Gae`] (PPO), [`Rloo`] and [`Grpo`]. It answers three
//! questions about itself and has one formula, and nothing outside this folder asks which one it is.
//!
//! A new estimator is a new file, a variant of [`AdvantageKind`] and its arm in [`PpoConfig::estimator`].

mod gae;
mod grpo;
mod rloo;

use std::fmt::{Display, Formatter};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use temper_train::settings;

use crate::config::PpoConfig;
use crate::rollout::Rollout;

pub use gae::{Advantages, Gae, estimate_advantages};
pub use grpo::{Grpo, standardise_groups};
pub use rloo::{Rloo, leave_one_out};

settings! {
    /// What an answer is compared with.
    pub struct AdvantageConfig {
        /// The baseline: gae (a critic: PPO) | rloo (the prompt's other answers) | grpo (all of them, KL in the loss).
        pub kind: AdvantageKind = AdvantageKind::Gae,
        /// In grpo: divide by the standard deviation of the group.
        ///
        /// Dr. GRPO does not.
        pub scale_by_std: bool = true, only_with "advantage.kind = grpo",
    }
}

/// Where the baseline comes from, and with it the algorithm. All share rollout, ratio and clip, and average the loss
/// over tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageKind {
    /// A critic, by generalised advantage estimation: PPO as InstructGPT.
    #[default]
    Gae,
    /// The other answers to the prompt, the KL in the reward, the whole answer as one action (arXiv 2402.14740).
    ///
    /// With one minibatch and one pass it is REINFORCE: the gradient is Σ A ∇ log π over the batch's answers, divided
    /// by its number of tokens.
    Rloo,
    /// All answers to the prompt, the KL to the reference as a part of the loss (arXiv 2402.03300).
    ///
    /// The paper averages the loss over each answer and then over answers, which makes a token of a long wrong answer
    /// cost less (arXiv 2503.20783); here, as in TRL's default, every token weighs the same.
    Grpo,
}

/// The name in the settings.
impl Display for AdvantageKind {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl PpoConfig {
    /// The estimator that `advantage.kind` names, with its settings.
    pub fn estimator(&self) -> Box<dyn Estimator> {
        match self.advantage.kind {
            AdvantageKind::Gae => Box::new(Gae {
                gamma: self.update.gamma,
                lambda: self.update.gae_lambda,
                whiten_rewards: self.update.whiten_rewards,
            }),
            AdvantageKind::Rloo => Box::new(Rloo),
            AdvantageKind::Grpo => Box::new(Grpo { scale_by_std: self.advantage.scale_by_std }),
        }
    }
}

/// How advantages are estimated, and with it the algorithm.
pub trait Estimator {
    /// Whether it reads and trains a value function.
    fn needs_critic(&self) -> bool;

    /// Whether it compares the answers to one prompt with each other, so that there must be at least two of them.
    fn needs_groups(&self) -> bool;

    /// Where the KL penalty takes effect.
    fn kl(&self) -> KlPlacement;

    /// Computes advantages and returns. `kl_coef` is β of the penalty in the rewards, and 0 where the penalty is in the
    /// loss.
    ///
    /// # Panics
    /// If it needs a critic and the rollout has no values, or if it needs groups and the rollout has only one answer per
    /// prompt.
    fn estimate(&self, rollout: &Rollout, kl_coef: f64) -> Estimate;

    /// Computes what the updates learn from a rollout, with KL coefficient β = `kl_coef`.
    ///
    /// # Panics
    /// As [`Estimator::estimate`].
    fn targets(&self, rollout: &Rollout, kl_coef: f64) -> Targets {
        let (reward_coef, kl_loss_coef) = match self.kl() {
            KlPlacement::InReward => (kl_coef, None),
            KlPlacement::InLoss => (0.0, Some(kl_coef)),
        };
        let Estimate { advantages, returns } = self.estimate(rollout, reward_coef);
        Targets { advantages, returns, kl_loss_coef }
    }
}

/// Where the penalty β KL(π, π_ref) takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KlPlacement {
    /// It is subtracted from the rewards (InstructGPT, RLOO).
    InReward,
    /// It is added to the policy loss (GRPO).
    InLoss,
}

/// What an estimator computes from a rollout.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// See [`Targets::advantages`].
    pub advantages: Tensor<2>,
    /// See [`Targets::returns`].
    pub returns: Option<Tensor<2>>,
}

/// What the updates learn from a rollout.
#[derive(Clone, Debug)]
pub struct Targets {
    /// Aₜ, by which the policy loss weights each token; 0 outside `completion_mask`: `[batch, completion_len]`.
    pub advantages: Tensor<2>,
    /// Rₜ, which the critic learns: `[batch, completion_len]`. `None` without a critic, or to leave the critic as it is.
    pub returns: Option<Tensor<2>>,
    /// Coefficient β of [`kl_loss`](crate::kl_loss) in the policy loss; `None` where the loss has no such term.
    pub kl_loss_coef: Option<f64>,
}

/// Subtracts from each entry the mean of its group.
///
/// # Shapes
/// - `x`: `[batch]`, where `group_size` neighbours are one group
/// - output: `[groups, group_size]`
///
/// # Panics
/// If `group_size` is below 2 or does not divide the batch.
fn subtract_group_means(x: Tensor<1>, group_size: usize) -> Tensor<2> {
    let [batch] = x.dims();
    assert!(group_size >= 2 && batch.is_multiple_of(group_size), "{batch} answers in groups of {group_size}");
    let x = x.reshape([batch / group_size, group_size]);
    // The first entry is subtracted before the mean is taken, so that equal numbers give exactly 0 despite rounding.
    let x = x.clone() - x.narrow(1, 0, 1);
    x.clone() - x.mean_dim(1)
}
