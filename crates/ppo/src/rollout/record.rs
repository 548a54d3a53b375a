//! The last part of a rollout: what policy, reference and critic say about each completion token.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use temper_model::ScalarModel;
use temper_tensor::{in_parallel, shards};

use super::RolloutModels;
use crate::config::PpoConfig;
use crate::episodes::Episodes;
use crate::networks::{Entropy, Policy, critic_values};

/// Log-probabilities and values of all episodes, without gradients.
pub(super) struct Recorded {
    /// Of the policy that sampled: `[batch, completion_len]`.
    pub(super) old_logprobs: Tensor<2>,
    /// Of the reference: `[batch, completion_len]`.
    pub(super) ref_logprobs: Tensor<2>,
    /// Of the critic, if there is one: `[batch, completion_len]`.
    pub(super) values: Option<Tensor<2>>,
}

impl Recorded {
    /// Runs the models over all episodes, on several cores and in batches of [`PpoConfig::forward_batch_size`].
    ///
    /// The old log-probabilities come from the same forward pass as those of the update and not from the sampler, so
    /// that the first ratio is 1 on every backend.
    pub(super) fn forward(
        config: &PpoConfig,
        models: &RolloutModels<'_>,
        episodes: &Episodes,
        device: &Device,
    ) -> Self {
        let policy = models.policy.valid();
        let ref_policy = Policy::new(models.ref_policy.valid(), None, policy.n_tokens);
        let critic = models.critic.map(ScalarModel::valid);
        // As many episodes at a time as an update takes, so that both need the same memory.
        let size = config.forward_batch_size();
        let all: Vec<usize> = (0..episodes.len()).collect();
        let parts = shards(&all, device)
            .into_iter()
            .map(|(_, index)| (policy.clone(), ref_policy.clone(), critic.clone(), index));
        let parts = in_parallel(parts.collect(), |(policy, ref_policy, critic, index)| {
            let forward = |index: &[usize]| {
                let batch = episodes.batch(index, policy.lm.config().d_model, device);
                let output = policy.forward(&batch, config.rollout.temperature, Entropy::Skipped);
                let values = match &critic {
                    Some(critic) => Some(critic_values(critic, &batch)),
                    None => output.values,
                };
                let reference = ref_policy.forward(&batch, config.rollout.temperature, Entropy::Skipped);
                Self { old_logprobs: output.logprobs, ref_logprobs: reference.logprobs, values }
            };
            index.chunks(size).map(forward).collect::<Vec<_>>()
        });
        Self::join(parts.into_iter().flatten().collect())
    }

    /// Puts batches together, in their order.
    fn join(parts: Vec<Self>) -> Self {
        let join = |rows: fn(&Self) -> Tensor<2>| Tensor::cat(parts.iter().map(rows).collect(), 0);
        let values: Option<Vec<Tensor<2>>> = parts.iter().map(|part| part.values.clone()).collect();
        Self {
            old_logprobs: join(|part| part.old_logprobs.clone()),
            ref_logprobs: join(|part| part.ref_logprobs.clone()),
            values: values.map(|values| Tensor::cat(values, 0)),
        }
    }
}
