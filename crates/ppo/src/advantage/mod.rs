//! Advantages: how much better an answer is than what it is compared with.
//!
//! [`Advantage`] says which estimator is used, and each estimator is one file: [`Gae`] (PPO), [`Rloo`] and [`Grpo`].
//! An estimator answers three questions and has one formula, the methods of [`Estimator`], and nothing outside of this
//! folder asks which one it is. A new one is a new file, a variant of [`Advantage`] and of [`AdvantageKind`], and an arm
//! in [`PpoConfig::advantage`].

mod gae;
mod grpo;
mod rloo;

use burn::tensor::Tensor;

use crate::config::{AdvantageKind, PpoConfig};
use crate::rollout::Rollout;

pub use gae::{Advantages, Gae, estimate_advantages};
pub use grpo::{Grpo, standardise_groups};
pub use rloo::{Rloo, leave_one_out};

/// The estimator of advantages, and with it the algorithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Advantage {
    /// Generalised advantage estimation with a critic: PPO as in InstructGPT.
    Gae(Gae),
    /// The mean of the prompt's other answers is the baseline.
    Rloo(Rloo),
    /// The mean of all answers to the prompt is the baseline, and the KL is part of the loss.
    Grpo(Grpo),
}

/// Where the penalty β KL(π, π_ref) takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KlPlacement {
    /// It is subtracted from the rewards (InstructGPT, RLOO).
    InReward,
    /// It is added to the policy loss (GRPO).
    InLoss,
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

impl Advantage {
    /// Whether the estimator reads and trains a value function.
    pub fn needs_critic(&self) -> bool {
        self.estimator().needs_critic()
    }

    /// Whether the answers to one prompt are compared with each other, so that there must be at least two of them.
    pub fn needs_groups(&self) -> bool {
        self.estimator().needs_groups()
    }

    /// Where the KL penalty takes effect.
    pub fn kl(&self) -> KlPlacement {
        self.estimator().kl()
    }

    /// Computes what the updates learn from a rollout, with KL coefficient β = `kl_coef`.
    ///
    /// # Panics
    /// If the estimator needs a critic and the rollout has no values, or if it needs groups and the rollout has only one
    /// answer per prompt.
    pub fn targets(&self, rollout: &Rollout, kl_coef: f64) -> Targets {
        let (reward_coef, kl_loss_coef) = match self.kl() {
            KlPlacement::InReward => (kl_coef, None),
            KlPlacement::InLoss => (0.0, Some(kl_coef)),
        };
        let Estimate { advantages, returns } = self.estimator().estimate(rollout, reward_coef);
        Targets { advantages, returns, kl_loss_coef }
    }

    /// Picks the estimator.
    fn estimator(&self) -> &dyn Estimator {
        match self {
            Self::Gae(gae) => gae,
            Self::Rloo(rloo) => rloo,
            Self::Grpo(grpo) => grpo,
        }
    }
}

/// The answers that each estimator gives about itself, and its formula.
trait Estimator {
    /// See [`Advantage::needs_critic`].
    fn needs_critic(&self) -> bool;

    /// See [`Advantage::needs_groups`].
    fn needs_groups(&self) -> bool;

    /// See [`Advantage::kl`].
    fn kl(&self) -> KlPlacement;

    /// Advantages and returns. `kl_coef` is β of the penalty in the rewards, and 0 where the penalty is in the loss.
    fn estimate(&self, rollout: &Rollout, kl_coef: f64) -> Estimate;
}

/// What an estimator computes from a rollout.
struct Estimate {
    /// See [`Targets::advantages`].
    advantages: Tensor<2>,
    /// See [`Targets::returns`].
    returns: Option<Tensor<2>>,
}

impl PpoConfig {
    /// The estimator that `advantage.kind` names, with its settings.
    pub fn advantage(&self) -> Advantage {
        match self.advantage.kind {
            AdvantageKind::Gae => Advantage::Gae(Gae {
                gamma: self.update.gamma,
                lambda: self.update.gae_lambda,
                whiten_rewards: self.update.whiten_rewards,
            }),
            AdvantageKind::Rloo => Advantage::Rloo(Rloo),
            AdvantageKind::Grpo => Advantage::Grpo(Grpo { scale_by_std: self.advantage.scale_by_std }),
        }
    }
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
