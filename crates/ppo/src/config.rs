//! Settings of the PPO stage.

use serde::{Deserialize, Serialize};
use temper_stage::{AdapterConfig, SamplesConfig};
use temper_tokenizer::Overflow;
use temper_train::range::require;
use temper_train::{AdamWConfig, Error, TrainingConfig, settings};

use crate::advantage::AdvantageConfig;
use crate::auto::AUTO;

/// The most answers in a rollout. A larger number is almost certainly a typing mistake.
const MOST_ANSWERS: usize = 65536;

settings! {
    /// Settings of PPO against a score.
    ///
    /// The defaults are InstructGPT's β, clip and single epoch, and sizes for a small machine. Coefficients, scores and
    /// ranges beyond 1e9 are typing mistakes, and products of them leave the range of `f32`.
    pub struct PpoConfig {
        /// What every stage has. InstructGPT: rollouts of 512 prompts.
        #[serde(flatten)]
        section training: TrainingConfig = TrainingConfig {
            epochs: 1,
            learning_rate: 1e-5,
            batch_size: 64,
            checkpoint_every: 100,
            optimizer: AdamWConfig { epsilon: 1e-5, ..AdamWConfig::default() },
            ..TrainingConfig::default()
        },
        /// Answers that show what the policy says.
        #[serde(flatten)]
        section shown: SamplesConfig,
        /// Longest prompt in tokens; 0: the longest that leaves room for rollout.max_new_tokens in max_seq_len.
        pub max_prompt_len: usize = 0,
        /// What happens to a longer prompt: drop | truncate_prompt.
        pub overflow: Overflow = Overflow::Drop,
        /// Decay of a moving average of the policy's weights, which then is the final model; 0: none.
        ///
        /// It is taken after every update (InstructGPT: 0.992). The average is evaluated and kept as the best and the
        /// final model. Rollouts are always of the policy itself, so without evaluation prompts its scores decide which
        /// average is the best.
        pub ema_decay: f64 = 0.0, in 0.0..1.0,
        /// Sampling and scoring.
        section rollout: RolloutConfig,
        /// The penalty on leaving the reference.
        section kl: KlConfig,
        /// The updates from a rollout.
        section update: UpdateConfig, renamed_from "ppo",
        /// The value function.
        section critic: CriticConfig,
        /// Pretraining text in the updates, where some is given.
        section ptx: PtxConfig,
        /// What an answer is compared with.
        section advantage: AdvantageConfig,
        /// Low-rank adapters instead of training every weight, in the policy and in a critic of its own.
        section adapter: AdapterConfig,
    }
    auto AUTO first group_choices
    check Self::check_groups
}

settings! {
    /// Sampling and scoring.
    pub struct RolloutConfig {
        /// Answers to each prompt; at least 2 for rloo and grpo, where they are each other's baseline.
        pub samples_per_prompt: usize = 1, in 1..,
        /// Longest completion in tokens, the end token included.
        pub max_new_tokens: usize = 48, in 1..,
        /// Sampling temperature; it enters every log-probability.
        pub temperature: f64 = 1.0, in 0.01..=100.0,
        /// Text of one more token that ends an answer, such as "."; empty: none.
        ///
        /// Such an answer counts as ended (Ziegler et al. 2019: a full stop).
        pub stop_token: String = String::new(),
        /// Tokens that an answer has at least before stop_token ends it.
        ///
        /// Ziegler et al. 2019: 16.
        pub stop_after: usize = 0, only_with "rollout.stop_token != ''",
        /// Answers that are sampled at once, to save memory; 0: the whole rollout. The answers are the same.
        pub sampling_batch_size: usize = 0,
        /// Which scores set the scale, before anything else happens to a score: none | first_rollout.
        ///
        /// With first_rollout, every scorer has one scale: mean 0 and deviation 1 at the start.
        pub score_scale: ScaleFrom = ScaleFrom::None,
        /// What happens to the score of an answer that does not end: keep | subtract | replace.
        pub missing_eos: MissingEos = MissingEos::Subtract,
        /// What is subtracted from that score, or the score in its place.
        pub missing_eos_value: f64 = 1.0, in -1e9..=1e9, only_with "rollout.missing_eos != keep",
        /// Which token of an answer gets its score: end | past_end (one after it, as in TRL).
        pub score_at: ScoreAt = ScoreAt::End,
        /// Scores are cut to plus or minus this, after all of that; 0: never.
        ///
        /// InstructGPT and TRL never do; 5 in DeepSpeed-Chat, 10 in trlx.
        pub score_clip: f64 = 0.0, in 0.0..=1e9,
    }
}

/// Which scores set the scale of all scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleFrom {
    /// A score is what the scorer says.
    None,
    /// Scores are lowered by the mean of the first rollout's, and divided by their standard deviation (Ziegler et al. 2019,
    /// section 2.2, which does so with the scores of the untrained policy).
    FirstRollout,
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

settings! {
    /// The penalty on leaving the reference.
    pub struct KlConfig {
        /// Weight of the KL penalty: in the reward (gae, rloo) or in the loss (grpo).
        ///
        /// β of InstructGPT (0.02) and of GRPO's paper (0.04).
        pub coef: f64 = 0.02, in 0.0..=1e9,
        /// KL per answer, in nats, that an adaptive coefficient aims at; 0: the coefficient is fixed.
        pub target: f64 = 0.0, in 0.0..=1e9,
        /// Episodes over which an adaptive coefficient reacts.
        ///
        /// Ziegler et al. 2019: 10,000.
        pub horizon: f64 = 10_000.0, in 1.0..=1e18, only_with "kl.target != 0",
    }
}

settings! {
    /// The updates from a rollout.
    pub struct UpdateConfig {
        /// Passes over each rollout.
        ///
        /// InstructGPT: 1.
        pub ppo_epochs: usize = 1, in 1..,
        /// Episodes in one update; 0: the whole rollout.
        ///
        /// InstructGPT: 64.
        pub minibatch_size: usize = 0,
        /// Episodes in one forward pass (update, recording, scoring), to save memory; 0: the whole minibatch.
        ///
        /// Sampling has `rollout.sampling_batch_size`.
        pub microbatch_size: usize = 0,
        /// The ratio is clipped to 1 plus or minus this.
        ///
        /// ε of the clipped objective.
        pub clip_range: f64 = 0.2, in Above(0.0, 1e9),
        /// A token with a negative advantage costs at most this times the advantage; 0: no limit.
        ///
        /// c of dual-clip PPO: at most −c A, however large the ratio (3 in verl).
        pub dual_clip: f64 = 0.0, in ZeroOr(Above(1.0, 1e9)),
        /// No more updates from a rollout after a minibatch whose approxkl is above this; 0: never.
        pub max_approx_kl: f64 = 0.0, in 0.0..=1e9,
        /// A value is clipped to the rollout's plus or minus this, in score units.
        pub value_clip_range: f64 = 0.2, in Above(0.0, 1e9), only_with "advantage.kind = gae",
        /// Weight of the value loss where policy and critic share a network.
        pub vf_coef: f64 = 0.1, in 0.0..=1e9, only_with "advantage.kind = gae", only_with "critic.kind = value_head",
        /// Weight of the entropy bonus.
        pub entropy_coef: f64 = 0.0, in -1e9..=1e9,
        /// Discount of later rewards; 1: none.
        ///
        /// γ of InstructGPT: 1.
        pub gamma: f64 = 1.0, in 0.0..=1.0,
        /// Lambda of generalised advantage estimation.
        pub gae_lambda: f64 = 0.95, in 0.0..=1.0, only_with "advantage.kind = gae",
        /// Scale the rewards of a rollout to unit variance, and keep their mean.
        pub whiten_rewards: bool = false,
    }
}

settings! {
    /// The value function.
    pub struct CriticConfig {
        /// The critic: reward_model (a network that starts as the reward model) | value_head (a head on the policy).
        pub kind: CriticKind = CriticKind::RewardModel, only_with "advantage.kind = gae",
        /// Learning rate of a critic that is a network of its own.
        pub learning_rate: f64 = 1e-5, in Positive, only_with "advantage.kind = gae",
            only_with "critic.kind = reward_model",
    }
}

settings! {
    /// PPO-ptx: pretraining text mixed into the updates (InstructGPT section 3.5, Eq. (2)).
    ///
    /// The defaults are InstructGPT's, appendix C.4.
    pub struct PtxConfig {
        /// Weight of the mean loss per token of plain text, where some is given; 0: only measure it.
        pub coef: f64 = 27.8, in 0.0..=1e9,
        /// Rows of plain text in an update for each of its episodes; a fraction is allowed.
        ///
        /// InstructGPT: 8.
        pub sequences_per_episode: f64 = 8.0, in Above(0.0, 65536.0),
    }
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

impl PpoConfig {
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
        let sizes = [self.update.microbatch_size, self.update.minibatch_size];
        let rollout = self.training.batch_size * self.rollout.samples_per_prompt;
        sizes.into_iter().find(|&size| size > 0).unwrap_or(rollout)
    }

    /// Group baselines need two or more answers to a prompt, and refuse a `gamma` other than 1 and `whiten_rewards`, which
    /// need rewards per token.
    fn check_groups(&self) -> Result<(), Error> {
        let (key, samples) = ("rollout.samples_per_prompt", self.rollout.samples_per_prompt);
        let fits = samples <= MOST_ANSWERS / self.training.batch_size;
        require(fits, key, samples, "at most 65536 answers in a rollout")?;
        if !self.estimator().needs_groups() {
            return Ok(());
        }
        let kind = self.advantage.kind;
        let expected = |value: &str| format!("{value} with `advantage.kind` {kind}");
        require(samples >= 2, key, samples, &expected("at least 2"))?;
        let gamma = self.update.gamma;
        require(gamma == 1.0, "update.gamma", gamma, &expected("1"))?;
        let whiten_rewards = self.update.whiten_rewards;
        require(!whiten_rewards, "update.whiten_rewards", whiten_rewards, &expected("false"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AdvantageKind;

    #[test]
    fn the_declaration_is_sound() {
        assert_eq!(temper_train::declaration_faults::<PpoConfig>(), [""; 0]);
    }

    /// What only the stages over fixed rows have must not be accepted here.
    #[test]
    fn settings_of_fixed_rows_are_unknown() {
        for set in ["microbatch_size=1", "bucket_by_length=true"] {
            let error = temper_train::resolve::<PpoConfig>(None, None, &[set.into()]).unwrap_err();
            assert!(error.to_string().starts_with("unknown key"), "{error}");
        }
    }

    #[test]
    fn the_section_of_the_updates_may_have_its_old_name() {
        let sets = ["ppo.ppo_epochs=4", "ppo.gamma=0.5"].map(str::to_owned);
        let config: PpoConfig = temper_train::resolve(None, None, &sets).unwrap();
        assert_eq!((config.update.ppo_epochs, config.update.gamma), (4, 0.5));
        assert_eq!(temper_train::current_key::<PpoConfig>("ppo.vf_coef"), "update.vf_coef");
    }

    #[test]
    fn group_baselines_need_groups_and_refuse_what_only_a_critic_can_do() {
        let refused = |kind, samples_per_prompt, gamma, whiten_rewards| {
            let mut config = PpoConfig::default();
            (config.advantage.kind, config.rollout.samples_per_prompt) = (kind, samples_per_prompt);
            (config.update.gamma, config.update.whiten_rewards) = (gamma, whiten_rewards);
            config.validate().map_err(|error| error.to_string())
        };
        for kind in [AdvantageKind::Rloo, AdvantageKind::Grpo] {
            assert_eq!(refused(kind, 2, 1.0, false), Ok(()));
            let error = refused(kind, 1, 1.0, false).unwrap_err();
            assert!(error.starts_with("`rollout.samples_per_prompt` must be at least 2"), "{error}");
            let error = refused(kind, 2, 0.9, false).unwrap_err();
            assert!(error.starts_with("`update.gamma` must be 1 with"), "{error}");
            let error = refused(kind, 2, 1.0, true).unwrap_err();
            assert!(error.starts_with("`update.whiten_rewards` must be false with"), "{error}");
        }
        assert_eq!(refused(AdvantageKind::Gae, 3, 0.9, true), Ok(()));
        let error = refused(AdvantageKind::Gae, usize::MAX, 1.0, false).unwrap_err();
        assert!(error.contains("must be at most 65536 answers in a rollout, got"), "{error}");
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
        assert!(error.starts_with("`max_prompt_len` must be at most 512"), "{error}");
        let error = config.prompt_limit(53).unwrap_err().to_string();
        assert!(error.starts_with("`rollout.max_new_tokens` must be at most 52"), "{error}");
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
            ("update.clip_range", |c, x| c.update.clip_range = x),
            ("update.dual_clip", |c, x| c.update.dual_clip = x),
            ("update.value_clip_range", |c, x| c.update.value_clip_range = x),
            ("update.vf_coef", |c, x| c.update.vf_coef = x),
            ("update.entropy_coef", |c, x| c.update.entropy_coef = x),
            ("ptx.coef", |c, x| c.ptx.coef = x),
        ] {
            for value in [1e38, 1e308, f64::NAN, f64::INFINITY] {
                let error = refused(&|config| change(config, value));
                assert!(error.starts_with(&format!("`{key}` must be ")), "{key} = {value}: {error}");
            }
        }
        for tiny in [1e-40, 0.0, -1.0] {
            assert!(refused(&|c| c.rollout.temperature = tiny).starts_with("`rollout.temperature` must be"));
        }
        assert!(refused(&|c| c.kl.horizon = 1e-320).starts_with("`kl.horizon` must be"));
    }

    #[test]
    fn a_discount_above_1_is_refused() {
        let update = UpdateConfig { gamma: 1.5, ..UpdateConfig::default() };
        let error = PpoConfig { update, ..PpoConfig::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "`update.gamma` must be between 0 and 1, got 1.5");
    }
}
