//! What is logged for each rollout, under TRL's names and never averaged over padding.

use burn::tensor::Tensor;
use serde::Serialize;
use temper_tensor::masked_variance;

use crate::gae::Advantages;
use crate::rewards::ShapedRewards;
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
    /// −β KL per answer, which GRPO has in the loss.
    #[serde(rename = "objective/non_score_reward")]
    pub non_score_reward: f64,
    /// `objective/scores` plus `objective/non_score_reward`.
    #[serde(rename = "objective/rlhf_reward")]
    pub rlhf_reward: f64,
    /// Mean score after the rule for missing ends and the cut, as in TRL and lm-human-preferences.
    #[serde(rename = "objective/scores")]
    pub scores: f64,
    /// Mean score as the scoring function gave it.
    #[serde(rename = "objective/raw_scores")]
    pub raw_scores: f64,
    /// Mean score by an independent judge, if one was asked; never learned from.
    #[serde(rename = "objective/gold", skip_serializing_if = "Option::is_none")]
    pub gold: Option<f64>,
    /// Rewards of single tokens, summed per answer, if there are any.
    #[serde(rename = "objective/token_rewards", skip_serializing_if = "Option::is_none")]
    pub token_rewards: Option<f64>,
    /// Mean loss per token on plain text, in nats, before each update, if some is given.
    #[serde(rename = "ptx/loss", skip_serializing_if = "Option::is_none")]
    pub ptx_loss: Option<f64>,
    /// Updates from this rollout.
    #[serde(rename = "policy/updates")]
    pub updates: usize,
    /// ½ (log π − log π_old)² per token, over all minibatches.
    #[serde(rename = "policy/approxkl_avg")]
    pub approx_kl: f64,
    /// Share of tokens with a clipped ratio.
    #[serde(rename = "policy/clipfrac_avg")]
    pub policy_clip_frac: f64,
    /// Policy loss.
    #[serde(rename = "loss/policy_avg")]
    pub policy_loss: f64,
    /// Value loss; left out without a critic.
    #[serde(rename = "loss/value_avg", skip_serializing_if = "Option::is_none")]
    pub value_loss: Option<f64>,
    /// The KL to the reference per token, where it is part of the loss; before it is weighted by β.
    #[serde(rename = "loss/kl_avg", skip_serializing_if = "Option::is_none")]
    pub kl_loss: Option<f64>,
    /// Share of tokens with a clipped value; left out without a critic.
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
    /// Answers that ended by themselves.
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
    /// The part that the rollout alone tells.
    pub(crate) fn of_rollout(
        rollout: &Rollout,
        shaped: &ShapedRewards,
        found: &Advantages,
        kl_coef: f64,
    ) -> Self {
        let n = rollout.len() as f64;
        let mask = rollout.value_mask.clone();
        let returns = found.returns.clone();
        let residual = masked_variance(returns.clone() - rollout.values.clone(), mask.clone());
        let spread = masked_variance(returns, mask).clamp_min(1e-8);
        let read = read_all(vec![
            shaped.kl.clone().mean(),
            -rollout.old_logprobs.clone().sum() / n,
            rollout.scores.clone().mean(),
            residual / spread,
        ]);
        let mean = |scores: &[f32]| scores.iter().map(|&s| f64::from(s)).sum::<f64>() / n;
        let token_rewards = rollout.token_rewards.as_ref().map(|x| x.clone().sum().into_scalar::<f64>() / n);
        let lengths = rollout.rows.iter().zip(&rollout.prompt_lens).map(|(row, prompt)| row.len() - prompt);
        let num_eos_tokens = rollout.ended.iter().filter(|&&ended| ended).count();
        Self {
            kl: read[0],
            kl_coef,
            sampled_entropy: read[1],
            non_score_reward: -kl_coef * read[0],
            // From the parts, as TRL does: the rewards themselves may have been scaled.
            rlhf_reward: read[2] - kl_coef * read[0],
            scores: read[2],
            raw_scores: mean(&rollout.raw_scores),
            gold: rollout.gold_scores.as_deref().map(mean),
            token_rewards,
            explained_var: rollout.has_values.then_some(1.0 - read[3]),
            sampler_error: rollout.sampler_error,
            num_eos_tokens,
            eos_rate: num_eos_tokens as f64 / n,
            length_mean: lengths.clone().sum::<usize>() as f64 / n,
            length_min: lengths.clone().min().unwrap_or(0),
            length_max: lengths.max().unwrap_or(0),
            ..Self::default()
        }
    }
}

/// Reads scalars with one transfer.
pub(crate) fn read_all(scalars: Vec<Tensor<1>>) -> Vec<f64> {
    let data = Tensor::cat(scalars, 0).into_data();
    data.as_slice::<f32>().expect("the model computes in f32").iter().map(|&x| f64::from(x)).collect()
}
