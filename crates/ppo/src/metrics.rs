//! The metrics of each rollout, under TRL's names and never averaged over padding.

use burn::tensor::Tensor;
use serde::Serialize;
use temper_tensor::{masked_variance, values_of};

use crate::advantage::Targets;
use crate::learner::UpdateStats;
use crate::rollout::Rollout;

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PpoMetrics {
    /// Answers sampled so far.
    pub episode: usize,
    /// Learning rate of the policy.
    pub lr: f64,
    /// Answers per second of this step.
    pub eps: f64,
    /// KL to the reference per answer, in nats: mean of sums.
    #[serde(rename = "objective/kl")]
    pub kl: f64,
    /// β of this step.
    #[serde(rename = "objective/kl_coef")]
    pub kl_coef: f64,
    /// −log π of the sampled tokens, summed per answer, in nats.
    #[serde(rename = "objective/entropy")]
    pub sampled_entropy: f64,
    /// −β KL per answer. With GRPO it is not part of the reward, because the penalty is in the loss.
    #[serde(rename = "objective/non_score_reward")]
    pub non_score_reward: f64,
    /// `objective/scores` plus `objective/non_score_reward`, the name and sum of TRL. Rewards of single tokens are not in it, and
    /// with GRPO the KL is not part of the reward.
    #[serde(rename = "objective/rlhf_reward")]
    pub rlhf_reward: f64,
    /// Mean score after the rule for missing ends and the clip, as in TRL and lm-human-preferences.
    #[serde(rename = "objective/scores")]
    pub scores: f64,
    /// Mean score as the scoring function gave it.
    #[serde(rename = "objective/raw_scores")]
    pub raw_scores: f64,
    /// Mean score by an independent judge, if there is one; never learned from.
    #[serde(rename = "objective/gold", skip_serializing_if = "Option::is_none")]
    pub gold: Option<f64>,
    /// Rewards of single tokens, summed per answer, if there are any.
    #[serde(rename = "objective/token_rewards", skip_serializing_if = "Option::is_none")]
    pub token_rewards: Option<f64>,
    /// Mean loss per token on pretraining text, in nats, before each update; left out without text.
    #[serde(rename = "ptx/loss", skip_serializing_if = "Option::is_none")]
    pub ptx_loss: Option<f64>,
    /// Updates from this rollout.
    #[serde(rename = "policy/updates")]
    pub updates: usize,
    /// ½ (log π − log π_old)² per token, over all minibatches.
    #[serde(rename = "policy/approxkl_avg")]
    pub approx_kl: f64,
    /// Share of tokens where clipping the ratio changed the loss.
    #[serde(rename = "policy/clipfrac_avg")]
    pub policy_clip_frac: f64,
    /// Policy loss.
    #[serde(rename = "loss/policy_avg")]
    pub policy_loss: f64,
    /// Value loss; left out without a critic.
    #[serde(rename = "loss/value_avg", skip_serializing_if = "Option::is_none")]
    pub value_loss: Option<f64>,
    /// The KL to the reference per token before it is weighted with β; left out where it is not part of the loss.
    #[serde(rename = "loss/kl_avg", skip_serializing_if = "Option::is_none")]
    pub kl_loss: Option<f64>,
    /// Share of values where clipping changed the loss; left out without a critic.
    #[serde(rename = "val/clipfrac_avg", skip_serializing_if = "Option::is_none")]
    pub value_clip_frac: Option<f64>,
    /// Entropy of the whole distribution per token, in nats.
    #[serde(rename = "policy/entropy_avg")]
    pub entropy: f64,
    /// Mean ratio.
    #[serde(rename = "val/ratio")]
    pub ratio: f64,
    /// Variance of the ratio over minibatches.
    #[serde(rename = "val/ratio_var")]
    pub ratio_var: f64,
    /// Number of answers that ended by themselves, by the end token or by `rollout.stop_token`.
    #[serde(rename = "val/num_eos_tokens")]
    pub num_eos_tokens: usize,
    /// 1 − Var(R − V) / Var(R); left out without a critic.
    #[serde(rename = "val/explained_var", skip_serializing_if = "Option::is_none")]
    pub explained_var: Option<f64>,
    /// Greatest |ratio − 1| before the first update of this rollout: rounding, or a bug.
    #[serde(rename = "val/first_ratio_error")]
    pub first_ratio_error: f64,
    /// Greatest difference between the sampler's log-probabilities and the update's.
    #[serde(rename = "val/sampler_error")]
    pub sampler_error: f64,
    /// Share of answers that ended by themselves.
    #[serde(rename = "response/eos_rate")]
    pub eos_rate: f64,
    /// Tokens per answer.
    #[serde(rename = "response_length/mean")]
    pub length_mean: f64,
    /// Shortest answer.
    #[serde(rename = "response_length/min")]
    pub length_min: usize,
    /// Longest answer.
    #[serde(rename = "response_length/max")]
    pub length_max: usize,
    /// Global gradient norm of the policy, mean over minibatches.
    #[serde(rename = "policy/grad_norm")]
    pub policy_grad_norm: f64,
    /// Seconds for sampling, scoring and recording.
    #[serde(rename = "time/rollout_seconds")]
    pub rollout_seconds: f64,
    /// Seconds for the updates.
    #[serde(rename = "time/update_seconds")]
    pub update_seconds: f64,
    /// Sampled tokens per second of the rollout.
    #[serde(rename = "time/rollout_tokens_per_second")]
    pub rollout_tokens_per_second: f64,
    /// Sampled tokens per second of the whole step.
    pub tokens_per_second: f64,
}

impl PpoMetrics {
    /// The metrics that a rollout and its targets determine. `kl_coef` is β of this step.
    pub(crate) fn of_rollout(rollout: &Rollout, targets: &Targets, kl_coef: f64) -> Self {
        let n = rollout.len() as f64;
        let unexplained = rollout.values.as_ref().zip(targets.returns.as_ref()).map(|(values, returns)| {
            let mask = rollout.value_mask.clone();
            let residual = masked_variance(returns.clone() - values.clone(), mask.clone());
            residual / masked_variance(returns.clone(), mask).clamp_min(1e-8)
        });
        let scalars =
            [rollout.kl().mean(), -rollout.old_logprobs.clone().sum() / n, rollout.scores.clone().mean()];
        let numbers = read_all(scalars.into_iter().chain(unexplained).collect());
        let (kl, sampled_entropy, scores) = (numbers[0], numbers[1], numbers[2]);
        let mean = |scores: &[f32]| scores.iter().map(|&s| f64::from(s)).sum::<f64>() / n;
        let token_rewards = rollout.token_rewards.as_ref().map(|x| x.clone().sum().into_scalar::<f64>() / n);
        let lengths = rollout.episodes.completion_lens();
        let num_eos_tokens = rollout.ended.iter().filter(|&&ended| ended).count();
        Self {
            kl,
            kl_coef,
            sampled_entropy,
            non_score_reward: -kl_coef * kl,
            // From its parts, as in TRL: the rewards themselves may have been scaled.
            rlhf_reward: scores - kl_coef * kl,
            scores,
            raw_scores: mean(&rollout.raw_scores),
            gold: rollout.gold_scores.as_deref().map(mean),
            token_rewards,
            explained_var: numbers.get(3).map(|unexplained| 1.0 - unexplained),
            sampler_error: rollout.sampler_error,
            num_eos_tokens,
            eos_rate: num_eos_tokens as f64 / n,
            length_mean: lengths.clone().sum::<usize>() as f64 / n,
            length_min: lengths.clone().min().unwrap_or(0),
            length_max: lengths.max().unwrap_or(0),
            ..Self::default()
        }
    }

    /// Enters what the updates from these targets reported.
    pub(crate) fn set_update(&mut self, stats: &UpdateStats, targets: &Targets) {
        let means = stats.means;
        let has_critic = targets.returns.is_some();
        self.updates = stats.n_updates;
        self.ptx_loss = stats.ptx_loss;
        self.policy_loss = means.policy_loss;
        self.value_loss = has_critic.then_some(means.value_loss);
        self.kl_loss = targets.kl_loss_coef.map(|_| means.kl_loss);
        self.policy_clip_frac = means.policy_clip_frac;
        self.value_clip_frac = has_critic.then_some(means.value_clip_frac);
        self.approx_kl = means.approx_kl;
        self.ratio = means.ratio;
        self.ratio_var = stats.ratio_var;
        self.entropy = means.entropy;
        self.policy_grad_norm = stats.grad_norm;
        self.first_ratio_error = stats.first_ratio_error;
    }

    /// Enters how long the step took: the rollout alone, and all of it.
    pub(crate) fn set_times(&mut self, n_episodes: usize, rollout_seconds: f64, step_seconds: f64) {
        let n = n_episodes as f64;
        let n_tokens = self.length_mean * n;
        self.eps = n / step_seconds;
        self.rollout_seconds = rollout_seconds;
        self.update_seconds = step_seconds - rollout_seconds;
        self.rollout_tokens_per_second = n_tokens / rollout_seconds;
        self.tokens_per_second = n_tokens / step_seconds;
    }
}

/// Reads scalars of shape `[1]` with one transfer from the device.
pub(crate) fn read_all(scalars: Vec<Tensor<1>>) -> Vec<f64> {
    values_of(Tensor::cat(scalars, 0)).into_iter().map(f64::from).collect()
}
