//! Settings of the PPO stage.

use serde::{Deserialize, Serialize};
use temper_tokenizer::Overflow;
use temper_train::{
    AdamWConfig, Documented, Error, Schedule, require, require_count, require_fraction, require_positive,
};

/// Rows of a batch that no machine has; more is a typing mistake.
const MAX_BATCH: usize = 65536;
/// Coefficients, scores and ranges beyond this are typing mistakes, and products of them leave the range of `f32`.
const GREATEST: f64 = 1e9;

/// Settings of PPO against a score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// Passes over the prompts.
    pub epochs: usize,
    /// Stop after this many rollouts; 0 for no limit.
    pub max_steps: usize,
    /// Highest learning rate of the policy.
    pub learning_rate: f64,
    /// Prompts in one rollout (InstructGPT: 512), each answered `rollout.samples_per_prompt` times.
    pub batch_size: usize,
    /// Longest prompt and completion together in tokens; 0 for the model's context.
    pub max_seq_len: usize,
    /// Longest prompt in tokens; 0 for the longest that leaves room for `rollout.max_new_tokens` in `max_seq_len`.
    pub max_prompt_len: usize,
    /// What happens to a longer prompt.
    pub overflow: Overflow,
    /// Rollouts between checkpoints; 0 for none but the last.
    pub checkpoint_every: usize,
    /// Checkpoints that stay, the newest ones.
    pub keep_last: usize,
    /// Keep the policy of the highest mean score in `best/`: by the gold judge where there is one, otherwise by the score
    /// after the rules for missing ends. It is the mean of an evaluation; or, without evaluation prompts, of the last
    /// `checkpoint_every` rollouts, compared whenever a checkpoint is due and at the end.
    pub keep_best: bool,
    /// Rollouts between evaluations on the evaluation prompts; 0 for one at the end.
    pub eval_every: usize,
    /// Decay of a moving average of the policy's weights, taken after every update (InstructGPT: 0.992); 0 for none.
    /// With one, it is the average that is evaluated and kept as the best and the final model. Rollouts are always of
    /// the policy itself, so without evaluation prompts its scores decide which average is the best.
    pub ema_decay: f64,
    /// Everything random comes from it.
    pub seed: u64,
    /// Where to compute.
    pub device: String,
    /// Sampling and scoring.
    pub rollout: RolloutConfig,
    /// The penalty on leaving the reference.
    pub kl: KlConfig,
    /// The update.
    pub ppo: UpdateConfig,
    /// The value function.
    pub critic: CriticConfig,
    /// Pretraining text in the updates, where some is given.
    pub ptx: PtxConfig,
    /// What an answer is compared with.
    pub advantage: AdvantageConfig,
    /// Learning rate over time.
    pub schedule: Schedule,
    /// AdamW and clipping, of policy and critic.
    pub optimizer: AdamWConfig,
}

/// Sampling and scoring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RolloutConfig {
    /// Answers to each prompt; at least 2 where they are each other's baseline.
    pub samples_per_prompt: usize,
    /// Longest completion in tokens, the end token included.
    pub max_new_tokens: usize,
    /// Sampling temperature; enters every log-probability.
    pub temperature: f64,
    /// Text of one token that ends an answer, in addition to the end token; empty for none. Such an answer counts as
    /// ended (Ziegler et al. 2019: a full stop).
    pub stop_token: String,
    /// Tokens that an answer has at least before `stop_token` ends it (Ziegler et al. 2019: 16).
    pub stop_after: usize,
    /// Answers that are sampled at once, to save memory; 0 for the whole rollout. The answers are the same.
    pub sampling_batch_size: usize,
    /// What happens to the score of an answer that does not end.
    pub missing_eos: MissingEos,
    /// The penalty or the score for it.
    pub missing_eos_value: f64,
    /// Which token of an answer gets its score.
    pub score_at: ScoreAt,
    /// Scores are cut to ± this, after the rule for missing ends; 0 for never, as InstructGPT and TRL (5 in
    /// DeepSpeed-Chat, 10 in trlx).
    pub score_clip: f64,
}

/// What happens to the score of an answer that does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingEos {
    /// The score counts as it is.
    Keep,
    /// `missing_eos_value` is subtracted, as TRL does: for scores of unknown scale.
    Subtract,
    /// `missing_eos_value` takes its place, as OpenAI does: for normalised scores.
    Replace,
}

/// Which token of an answer gets its score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreAt {
    /// The last one: the end token, where there is one.
    End,
    /// One past the end token where there is room for it, with a value of its own that the critic learns, as
    /// Stiennon et al. 2020 and TRL do. An answer of `max_new_tokens` is scored at its last token.
    PastEnd,
}

/// The penalty on leaving the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KlConfig {
    /// β: weight of the per-token KL in the reward (InstructGPT: 0.02), or in the loss of GRPO (its paper: 0.04).
    pub coef: f64,
    /// KL per answer, in nats, that an adaptive β aims at; 0 keeps β fixed.
    pub target: f64,
    /// Episodes over which an adaptive β reacts.
    pub horizon: f64,
}

/// The update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpdateConfig {
    /// Passes over each rollout (InstructGPT: 1).
    pub ppo_epochs: usize,
    /// Episodes in one update (InstructGPT: 64); 0 for the whole rollout.
    pub minibatch_size: usize,
    /// Episodes in one forward pass, in the update and wherever answers are recorded or scored; 0 for the whole
    /// minibatch. Sampling has `rollout.sampling_batch_size`.
    pub microbatch_size: usize,
    /// ε of the clipped ratio.
    pub clip_range: f64,
    /// c: a token with a negative advantage costs at most −c A, however large its ratio; 0 for never (3 in verl).
    pub dual_clip: f64,
    /// No more updates from a rollout after a minibatch whose `approxkl` is above this; 0 for never.
    pub max_approx_kl: f64,
    /// How far a value may move from the rollout's, in score units.
    pub value_clip_range: f64,
    /// Weight of the value loss where policy and critic share a network.
    pub vf_coef: f64,
    /// Weight of the entropy bonus.
    pub entropy_coef: f64,
    /// γ: discount (InstructGPT: 1).
    pub gamma: f64,
    /// λ of GAE.
    pub gae_lambda: f64,
    /// Scale the rewards of a rollout to unit variance, their mean kept.
    pub whiten_rewards: bool,
}

/// What an answer is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdvantageConfig {
    /// Where the baseline comes from.
    pub kind: AdvantageKind,
    /// GRPO: divide by the standard deviation of the group; Dr. GRPO does not.
    pub scale_by_std: bool,
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

/// The value function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CriticConfig {
    /// Where it comes from.
    pub kind: CriticKind,
    /// Learning rate of a separate critic.
    pub learning_rate: f64,
}

/// PPO-ptx: pretraining text mixed into the updates (InstructGPT section 3.5, Eq. (2)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PtxConfig {
    /// γ: weight of the mean loss per token beside the policy loss; 0 only measures it.
    pub coef: f64,
    /// Rows of text in one update for each of its episodes (InstructGPT: 8); a fraction of one will do.
    pub sequences_per_episode: f64,
}

/// Where the value function comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CriticKind {
    /// A network of its own that starts as the reward model, as InstructGPT.
    RewardModel,
    /// A linear head on the policy's hidden states, zero at the start.
    ValueHead,
}

impl Default for PpoConfig {
    /// InstructGPT's β, clip and single epoch; sizes for a small machine.
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: 0,
            learning_rate: 1e-5,
            batch_size: 64,
            max_seq_len: 0,
            max_prompt_len: 0,
            overflow: Overflow::Drop,
            checkpoint_every: 100,
            keep_last: 2,
            keep_best: true,
            eval_every: 0,
            ema_decay: 0.0,
            seed: 0,
            device: "auto".into(),
            rollout: RolloutConfig::default(),
            kl: KlConfig::default(),
            ppo: UpdateConfig::default(),
            critic: CriticConfig::default(),
            ptx: PtxConfig::default(),
            advantage: AdvantageConfig::default(),
            schedule: Schedule::default(),
            optimizer: AdamWConfig { epsilon: 1e-5, ..AdamWConfig::default() },
        }
    }
}

impl Default for RolloutConfig {
    fn default() -> Self {
        Self {
            samples_per_prompt: 1,
            max_new_tokens: 48,
            temperature: 1.0,
            stop_token: String::new(),
            stop_after: 0,
            sampling_batch_size: 0,
            missing_eos: MissingEos::Subtract,
            missing_eos_value: 1.0,
            score_at: ScoreAt::End,
            score_clip: 0.0,
        }
    }
}

impl Default for KlConfig {
    fn default() -> Self {
        Self { coef: 0.02, target: 0.0, horizon: 10_000.0 }
    }
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            ppo_epochs: 1,
            minibatch_size: 0,
            microbatch_size: 0,
            clip_range: 0.2,
            dual_clip: 0.0,
            max_approx_kl: 0.0,
            value_clip_range: 0.2,
            vf_coef: 0.1,
            entropy_coef: 0.0,
            gamma: 1.0,
            gae_lambda: 0.95,
            whiten_rewards: false,
        }
    }
}

impl Default for AdvantageConfig {
    fn default() -> Self {
        Self { kind: AdvantageKind::Gae, scale_by_std: true }
    }
}

impl Default for CriticConfig {
    fn default() -> Self {
        Self { kind: CriticKind::RewardModel, learning_rate: 1e-5 }
    }
}

impl Default for PtxConfig {
    /// InstructGPT's, appendix C.4.
    fn default() -> Self {
        Self { coef: 27.8, sequences_per_episode: 8.0 }
    }
}

impl PpoConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] with the key.
    pub fn validate(&self) -> Result<(), Error> {
        require_count("epochs", self.epochs)?;
        require_count("keep_last", self.keep_last)?;
        require((1..=MAX_BATCH).contains(&self.batch_size), "batch_size", self.batch_size, "1 to 65536")?;
        require_positive("learning_rate", self.learning_rate)?;
        require(self.max_seq_len != 1, "max_seq_len", self.max_seq_len, "0 or at least 2")?;
        self.validate_groups()?;
        require_count("rollout.max_new_tokens", self.rollout.max_new_tokens)?;
        let temperature = self.rollout.temperature;
        require((0.01..=100.0).contains(&temperature), "rollout.temperature", temperature, "0.01 to 100")?;
        let signed = |key, x: f64| require(x.abs() <= GREATEST, key, x, "between -1e9 and 1e9");
        let weight = |key, x: f64| require((0.0..=GREATEST).contains(&x), key, x, "between 0 and 1e9");
        signed("rollout.missing_eos_value", self.rollout.missing_eos_value)?;
        weight("ppo.vf_coef", self.ppo.vf_coef)?;
        signed("ppo.entropy_coef", self.ppo.entropy_coef)?;
        weight("kl.coef", self.kl.coef)?;
        weight("kl.target", self.kl.target)?;
        let horizon = self.kl.horizon;
        require((1.0..=1e18).contains(&horizon), "kl.horizon", horizon, "between 1 and 1e18")?;
        require_count("ppo.ppo_epochs", self.ppo.ppo_epochs)?;
        let range = |key, x: f64| require(x > 0.0 && x <= GREATEST, key, x, "above 0, up to 1e9");
        range("ppo.clip_range", self.ppo.clip_range)?;
        let off_or = |key, x: f64, least: f64, expected| {
            require(x == 0.0 || x > least && x <= GREATEST, key, x, expected)
        };
        off_or("rollout.score_clip", self.rollout.score_clip, 0.0, "between 0 and 1e9")?;
        off_or("ppo.dual_clip", self.ppo.dual_clip, 1.0, "0, or above 1 and up to 1e9")?;
        off_or("ppo.max_approx_kl", self.ppo.max_approx_kl, 0.0, "between 0 and 1e9")?;
        range("ppo.value_clip_range", self.ppo.value_clip_range)?;
        require_fraction("ppo.gamma", self.ppo.gamma)?;
        require_fraction("ppo.gae_lambda", self.ppo.gae_lambda)?;
        require_positive("critic.learning_rate", self.critic.learning_rate)?;
        weight("ptx.coef", self.ptx.coef)?;
        let per_episode = self.ptx.sequences_per_episode;
        require(
            per_episode > 0.0 && per_episode <= MAX_BATCH as f64,
            "ptx.sequences_per_episode",
            per_episode,
            "above 0, up to 65536",
        )?;
        require((0.0..1.0).contains(&self.ema_decay), "ema_decay", self.ema_decay, "in [0, 1)")?;
        self.schedule.validate()?;
        self.optimizer.validate()
    }

    /// The longest prompt, in tokens, that leaves room for a whole answer within `max_seq_len` tokens.
    ///
    /// # Errors
    /// [`Error::NoRoom`](crate::Error::NoRoom) if no prompt does, or if `max_prompt_len` asks for a longer one.
    pub fn prompt_limit(&self, max_seq_len: usize) -> Result<usize, crate::Error> {
        let max_new_tokens = self.rollout.max_new_tokens;
        let no_room = |key, value, most| Err(crate::Error::NoRoom { key, value, most, max_seq_len });
        if max_new_tokens >= max_seq_len {
            return no_room("rollout.max_new_tokens", max_new_tokens, max_seq_len.saturating_sub(1));
        }
        let room = max_seq_len - max_new_tokens;
        if self.max_prompt_len > room {
            return no_room("max_prompt_len", self.max_prompt_len, room);
        }
        Ok(if self.max_prompt_len == 0 { room } else { self.max_prompt_len })
    }

    /// Episodes in one forward pass that learns nothing: as many as one of an update has, so that both need the same
    /// memory.
    pub fn forward_batch_size(&self) -> usize {
        let sizes = [self.ppo.microbatch_size, self.ppo.minibatch_size];
        let rollout = self.batch_size * self.rollout.samples_per_prompt;
        sizes.into_iter().find(|&size| size > 0).unwrap_or(rollout)
    }

    /// What comes of several answers to a prompt; a setting that a critic alone could follow is not passed over.
    fn validate_groups(&self) -> Result<(), Error> {
        let (key, samples) = ("rollout.samples_per_prompt", self.rollout.samples_per_prompt);
        require_count(key, samples)?;
        let fits = samples <= MAX_BATCH / self.batch_size;
        require(fits, key, samples, "at most 65536 answers in a rollout")?;
        if !self.advantage().needs_groups() {
            return Ok(());
        }
        require(samples >= 2, key, samples, "at least 2 with `advantage.kind` rloo or grpo")?;
        let (gamma, expected) = (self.ppo.gamma, "1 with `advantage.kind` rloo or grpo");
        require(gamma == 1.0, "ppo.gamma", gamma, expected)?;
        let expected = "false with `advantage.kind` rloo or grpo";
        require(!self.ppo.whiten_rewards, "ppo.whiten_rewards", self.ppo.whiten_rewards, expected)
    }
}

impl Documented for PpoConfig {
    fn docs() -> Vec<(&'static str, &'static str)> {
        vec![
            ("epochs", "passes over the prompts"),
            ("max_steps", "stop after this many rollouts; 0: no limit"),
            ("learning_rate", "highest learning rate of the policy"),
            ("batch_size", "prompts in one rollout, each answered samples_per_prompt times"),
            ("max_seq_len", "longest prompt and completion together in tokens; 0: the model's context"),
            (
                "max_prompt_len",
                "longest prompt in tokens; 0: the longest that leaves room for max_new_tokens",
            ),
            ("overflow", "what happens to a longer prompt: drop | truncate_prompt"),
            ("checkpoint_every", "rollouts between checkpoints; 0: none but the last"),
            ("keep_last", "checkpoints that stay, the newest ones"),
            (
                "keep_best",
                "keep the policy of the highest mean score in best/, by the gold judge where there is one",
            ),
            ("eval_every", "rollouts between evaluations; 0: one at the end"),
            ("ema_decay", "decay of a moving average of the policy, which is the final one then; 0: none"),
            ("seed", "everything random comes from it"),
            ("device", "auto | flex | ndarray | wgpu | vulkan | metal | cuda | rocm, with :N for a card"),
            ("rollout.samples_per_prompt", "answers to each prompt; at least 2 for rloo and grpo"),
            ("rollout.max_new_tokens", "longest completion in tokens, the end token included"),
            ("rollout.temperature", "sampling temperature; enters every log-probability"),
            ("rollout.stop_token", "text of one more token that ends an answer, such as \".\"; empty: none"),
            ("rollout.stop_after", "tokens that an answer has at least before stop_token ends it"),
            ("rollout.sampling_batch_size", "answers sampled at once, to save memory; 0: the whole rollout"),
            ("rollout.missing_eos", "score of an answer that does not end: keep | subtract | replace"),
            ("rollout.missing_eos_value", "what is subtracted, or the score in its place"),
            ("rollout.score_at", "which token gets the score: end | past_end, one behind it as TRL does"),
            ("rollout.score_clip", "scores are cut to plus or minus this; 0: never"),
            ("kl.coef", "weight of the per-token KL in the reward, with grpo in the loss"),
            ("kl.target", "KL per answer in nats that an adaptive coefficient aims at; 0: fixed"),
            ("kl.horizon", "episodes over which an adaptive coefficient reacts"),
            ("ppo.ppo_epochs", "passes over each rollout"),
            ("ppo.minibatch_size", "episodes in one update; 0: the whole rollout"),
            (
                "ppo.microbatch_size",
                "episodes in one forward pass (update, recording, scoring), to save memory; 0: the whole minibatch",
            ),
            ("ppo.clip_range", "the ratio is clipped to 1 ± this"),
            ("ppo.dual_clip", "a token with a negative advantage costs at most this times it; 0: never"),
            ("ppo.max_approx_kl", "no more updates from a rollout after a minibatch above this; 0: never"),
            ("ppo.value_clip_range", "values are clipped to the rollout's ± this, in score units"),
            ("ppo.vf_coef", "weight of the value loss where policy and critic share a network"),
            ("ppo.entropy_coef", "weight of the entropy bonus"),
            ("ppo.gamma", "discount"),
            ("ppo.gae_lambda", "lambda of generalised advantage estimation"),
            ("ppo.whiten_rewards", "scale the rewards of a rollout to unit variance, their mean kept"),
            (
                "critic.kind",
                "reward_model: a network that starts as the reward model | value_head: on the policy",
            ),
            ("critic.learning_rate", "learning rate of a separate critic"),
            ("ptx.coef", "weight of the loss on plain text, where some is given; 0: only measure it"),
            ("ptx.sequences_per_episode", "rows of plain text in an update for each of its episodes"),
            (
                "advantage.kind",
                "gae: PPO with a critic | rloo: the prompt's other answers | grpo: all of them, KL in the loss",
            ),
            ("advantage.scale_by_std", "grpo: divide by the group's standard deviation"),
            ("schedule.kind", "constant | linear | cosine, over rollouts"),
            ("schedule.warmup_steps", "rollouts until the highest learning rate"),
            (
                "schedule.warmup_from",
                "where the warm-up starts, as a fraction of the highest; 0: one step above 0",
            ),
            ("schedule.final_fraction", "where linear and cosine end, as a fraction of the highest"),
            ("optimizer.beta_1", "decay of the mean of gradients"),
            ("optimizer.beta_2", "decay of the mean of squared gradients"),
            ("optimizer.epsilon", "added to the root of the second moment"),
            (
                "optimizer.epsilon_style",
                "pytorch: after that root's bias correction | tensorflow: before, as lm-human-preferences",
            ),
            ("optimizer.weight_decay", "decoupled, on every parameter"),
            ("optimizer.max_grad_norm", "global gradient norm is clipped to this; 0: never"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        assert_eq!(temper_train::undocumented_keys::<PpoConfig>(), Vec::<String>::new());
    }

    #[test]
    fn group_baselines_need_groups_and_refuse_what_only_a_critic_can_do() {
        let refused = |kind, samples_per_prompt, gamma, whiten_rewards| {
            let mut config = PpoConfig::default();
            (config.advantage.kind, config.rollout.samples_per_prompt) = (kind, samples_per_prompt);
            (config.ppo.gamma, config.ppo.whiten_rewards) = (gamma, whiten_rewards);
            config.validate().map_err(|error| error.to_string())
        };
        for kind in [AdvantageKind::Rloo, AdvantageKind::Grpo] {
            assert_eq!(refused(kind, 2, 1.0, false), Ok(()));
            let error = refused(kind, 1, 1.0, false).unwrap_err();
            assert!(error.starts_with("`rollout.samples_per_prompt` is 1, it must be at least 2"), "{error}");
            let error = refused(kind, 2, 0.9, false).unwrap_err();
            assert!(error.starts_with("`ppo.gamma` is 0.9, it must be 1 with"), "{error}");
            let error = refused(kind, 2, 1.0, true).unwrap_err();
            assert!(error.starts_with("`ppo.whiten_rewards` is true, it must be false with"), "{error}");
        }
        assert_eq!(refused(AdvantageKind::Gae, 3, 0.9, true), Ok(()));
        let error = refused(AdvantageKind::Gae, usize::MAX, 1.0, false).unwrap_err();
        assert!(error.contains("it must be at most 65536 answers in a rollout"), "{error}");
    }

    #[test]
    fn a_prompt_leaves_room_for_a_whole_answer() {
        let mut config = PpoConfig::default();
        config.rollout.max_new_tokens = 53;
        // TL;DR: 512 and 53 tokens.
        assert_eq!(config.prompt_limit(565).unwrap(), 512);
        config.max_prompt_len = 100;
        assert_eq!(config.prompt_limit(565).unwrap(), 100);
        config.max_prompt_len = 513;
        let error = config.prompt_limit(565).unwrap_err().to_string();
        assert!(error.starts_with("`max_prompt_len` is 513, it must be at most 512"), "{error}");
        let error = config.prompt_limit(53).unwrap_err().to_string();
        assert!(error.starts_with("`rollout.max_new_tokens` is 53, it must be at most 52"), "{error}");
    }

    /// Numbers that `f32` cannot hold, or that no computation survives.
    #[test]
    fn values_that_make_nonsense_are_refused_by_their_key() {
        let refused = |change: &dyn Fn(&mut PpoConfig)| {
            let mut config = PpoConfig::default();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        for (key, change) in [
            ("rollout.temperature", (|c, x| c.rollout.temperature = x) as fn(&mut PpoConfig, f64)),
            ("rollout.missing_eos_value", |c, x| c.rollout.missing_eos_value = x),
            ("rollout.score_clip", |c, x| c.rollout.score_clip = x),
            ("kl.coef", |c, x| c.kl.coef = x),
            ("kl.target", |c, x| c.kl.target = x),
            ("kl.horizon", |c, x| c.kl.horizon = x),
            ("ppo.clip_range", |c, x| c.ppo.clip_range = x),
            ("ppo.dual_clip", |c, x| c.ppo.dual_clip = x),
            ("ppo.value_clip_range", |c, x| c.ppo.value_clip_range = x),
            ("ppo.vf_coef", |c, x| c.ppo.vf_coef = x),
            ("ppo.entropy_coef", |c, x| c.ppo.entropy_coef = x),
            ("ptx.coef", |c, x| c.ptx.coef = x),
        ] {
            for value in [1e38, 1e308, f64::NAN, f64::INFINITY] {
                let error = refused(&|config| change(config, value));
                assert!(error.starts_with(&format!("`{key}` is ")), "{key} = {value}: {error}");
            }
        }
        for tiny in [1e-40, 0.0, -1.0] {
            assert!(refused(&|c| c.rollout.temperature = tiny).starts_with("`rollout.temperature` is"));
        }
        assert!(refused(&|c| c.kl.horizon = 1e-320).starts_with("`kl.horizon` is"));
    }

    #[test]
    fn a_discount_above_1_is_refused() {
        let ppo = UpdateConfig { gamma: 1.5, ..UpdateConfig::default() };
        let error = PpoConfig { ppo, ..PpoConfig::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "`ppo.gamma` is 1.5, it must be between 0 and 1");
    }
}
