//! Stage 3 of InstructGPT: PPO against a score, near a reference.
//!
//! [`train`] samples answers, asks a scoring function for one number each, and moves the policy by PPO. Its parts
//! are pure functions that read like the paper: [`shape_rewards`], [`estimate_advantages`], [`policy_loss`],
//! [`value_loss`]. The score may be a reward model or any closure: this crate does not know the reward crate.
//!
//! `advantage.kind` of [`PpoConfig`] picks what an answer is compared with. `gae` is PPO with a critic; `rloo` and `grpo`
//! take the other answers to the same prompt ([`leave_one_out`], [`standardise_groups`]) and have no critic, and GRPO has
//! the KL in the loss ([`kl_loss`]). Rollouts, ratio and clip, metrics and resume are the same for all three. Advantages
//! are made before minibatches are drawn, so a minibatch may split a group.
//!
//! **Invariants:** log-probabilities of sampling, reference and update come from one function at one temperature;
//! masks are 1 where a token counts; no metric is averaged over padding; everything that is recorded in a rollout is
//! off the tape.
//!
//! ```
//! use burn::tensor::Device;
//! use temper_model::{CausalLm, ModelConfig};
//! use temper_data::{Prompt, Prompts};
//! use temper_ppo::{Critic, Models, PpoConfig, Sample, train};
//! use temper_tokenizer::{Overflow, Template, TextSide, Tokenizer};
//! use temper_train::{Run, Seed};
//!
//! # fn main() -> Result<(), temper_ppo::Error> {
//! let text = TextSide::new(Tokenizer::byte(), Template::notebook());
//! let prompts = [Prompt { prompt: "Say aaa".into() }];
//! let prompts = Prompts::new(&prompts, &text.tokenizer, &text.template, 64, Overflow::Drop)?;
//! let sft = CausalLm::new(&ModelConfig::preset("tiny")?, &mut Seed(0).stream("init"), &Device::flex());
//! let models = Models { policy: sft.clone(), ref_policy: sft, critic: Critic::ValueHead };
//! let mut count_a =
//!     |samples: &[Sample<'_>]| Ok(samples.iter().map(|s| s.completion.matches('a').count() as f32).collect());
//! let mut config = PpoConfig { batch_size: 4, max_steps: 1, ..PpoConfig::default() };
//! config.rollout.max_new_tokens = 8;
//! let policy = train(&config, models, &text, &prompts, &mut count_a, &mut Run::ephemeral()?)?;
//! # Ok(())
//! # }
//! ```

mod advantage;
mod checks;
mod config;
mod critic;
mod error;
mod gae;
mod kl;
mod learner;
mod loss;
mod metrics;
mod ptx;
mod rewards;
mod rollout;
mod train;

pub use advantage::{leave_one_out, standardise_groups};
pub use config::{
    AdvantageConfig, AdvantageKind, CriticConfig, CriticKind, KlConfig, MissingEos, PpoConfig, PtxConfig,
    RolloutConfig, ScoreAt, UpdateConfig,
};
pub use critic::{Critic, Policy};
pub use error::Error;
pub use gae::{Advantages, estimate_advantages};
pub use kl::{KlController, kl_loss};
pub use loss::{PolicyClip, PolicyLoss, ValueLoss, policy_loss, value_loss};
pub use metrics::PpoMetrics;
pub use rewards::{ShapedRewards, shape_rewards};
pub use rollout::{Rollout, Sample, ScoreError, ScoreFn, Scorers, TokenRewardFn, stop_token};
pub use train::{Data, Models, PpoEvaluation, evaluate, train};

#[cfg(test)]
mod tests;

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
