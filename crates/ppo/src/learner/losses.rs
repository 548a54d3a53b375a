//! The losses of some episodes of a rollout, with gradients.

use burn::tensor::Tensor;
use temper_model::ScalarModel;
use temper_tensor::masked_mean;

use super::{LossMeans, UpdateInput};
use crate::config::{PpoConfig, UpdateConfig};
use crate::episodes::select_rows;
use crate::kl::kl_loss;
use crate::loss::{PolicyClip, PolicyLoss, ValueLoss, policy_loss, value_loss};
use crate::networks::{Entropy, Policy, critic_values};

/// A microbatch's share of its minibatch: every token weighs the same, and so does every value.
#[derive(Clone, Copy)]
pub(super) struct Shares {
    pub(super) tokens: f64,
    pub(super) values: f64,
}

/// The losses of a microbatch. Means over its completion tokens, or over its values, `[1]`.
pub(super) struct Losses {
    policy: PolicyLoss,
    /// `None` without a critic.
    value: Option<ValueLoss>,
    /// The KL to the reference before it is weighted with β, where it is part of the loss.
    kl: Option<Tensor<1>>,
    entropy: Tensor<1>,
    /// Greatest |ratio − 1|, without gradients.
    pub(super) ratio_error: Tensor<1>,
}

impl Losses {
    /// Runs policy and critic over the episodes at these places of the rollout.
    pub(super) fn forward(
        config: &PpoConfig,
        policy: &Policy,
        critic: Option<&ScalarModel>,
        input: &UpdateInput<'_>,
        episodes: &[usize],
    ) -> Self {
        let (settings, rollout, targets) = (&config.update, input.rollout, input.targets);
        let pick = |x: &Tensor<2>| select_rows(x, episodes);
        let mask = pick(&rollout.completion_mask);
        let batch = rollout.batch(episodes, policy.lm.config().d_model, &mask.device());

        let entropy = if settings.entropy_coef == 0.0 { Entropy::Measured } else { Entropy::Learned };
        let output = policy.forward(&batch, config.rollout.temperature, entropy);
        let (logprobs, old_logprobs) = (output.logprobs, pick(&rollout.old_logprobs));
        let kl = targets
            .kl_loss_coef
            .map(|_| kl_loss(logprobs.clone(), pick(&rollout.ref_logprobs), mask.clone()));
        let ratio_error = greatest_ratio_error(&logprobs, &old_logprobs, &mask);
        let clip = PolicyClip { range: settings.clip_range, dual: settings.dual_clip };
        let policy = policy_loss(logprobs, old_logprobs, pick(&targets.advantages), mask.clone(), clip);
        let entropy = masked_mean(output.entropy.expect("it was asked for"), mask);

        // Without returns a critic has nothing to learn, so it does not run.
        let value = match (&rollout.values, &targets.returns) {
            (Some(old_values), Some(returns)) => {
                let values = match critic {
                    Some(critic) => Some(critic_values(critic, &batch)),
                    None => output.values,
                };
                let (mask, range) = (pick(&rollout.value_mask), settings.value_clip_range);
                values.map(|values| value_loss(values, pick(old_values), pick(returns), mask, range))
            }
            _ => None,
        };
        Self { policy, value, kl, entropy, ratio_error }
    }

    /// The means that are reported, without gradients.
    pub(super) fn means(&self) -> LossMeans<Tensor<1>> {
        let read = |x: &Tensor<1>| x.clone().inner();
        let nothing = read(&self.entropy).zeros_like();
        let of_values = |x: fn(&ValueLoss) -> &Tensor<1>| {
            self.value.as_ref().map_or_else(|| nothing.clone(), |value| read(x(value)))
        };
        LossMeans {
            policy_loss: read(&self.policy.loss),
            value_loss: of_values(|value| &value.loss),
            kl_loss: self.kl.as_ref().map_or_else(|| nothing.clone(), read),
            policy_clip_frac: read(&self.policy.clip_frac),
            value_clip_frac: of_values(|value| &value.clip_frac),
            approx_kl: read(&self.policy.approx_kl),
            ratio: read(&self.policy.ratio),
            entropy: read(&self.entropy),
        }
    }

    /// What policy and critic minimise, weighted with the microbatch's shares of the minibatch.
    ///
    /// The policy minimises policy loss − `entropy_coef` · entropy + β · KL loss. A critic of its own minimises the value
    /// loss; where `critic_shares_policy` says that it is a head, `vf_coef` times that loss is added to the policy's.
    pub(super) fn objectives(
        self,
        settings: &UpdateConfig,
        kl_coef: Option<f64>,
        shares: Shares,
        critic_shares_policy: bool,
    ) -> (Tensor<1>, Option<Tensor<1>>) {
        let mut objective = self.policy.loss;
        if settings.entropy_coef != 0.0 {
            objective = objective - self.entropy.mul_scalar(settings.entropy_coef);
        }
        if let Some((coef, kl)) = kl_coef.zip(self.kl) {
            objective = objective + kl.mul_scalar(coef);
        }
        objective = objective.mul_scalar(shares.tokens);
        let value_objective = self.value.map(|value| value.loss.mul_scalar(shares.values));
        match value_objective {
            Some(loss) if critic_shares_policy => (objective + loss.mul_scalar(settings.vf_coef), None),
            other => (objective, other),
        }
    }
}

/// Greatest |ratio − 1|, `[1]`. Before the first update of a rollout it is 0 up to rounding, because policy and sampling
/// policy are the same (oracle 1).
fn greatest_ratio_error(logprobs: &Tensor<2>, old_logprobs: &Tensor<2>, mask: &Tensor<2>) -> Tensor<1> {
    let ratio = ((logprobs.clone().inner() - old_logprobs.clone()) * mask.clone()).exp();
    (ratio - 1.0).abs().max()
}
