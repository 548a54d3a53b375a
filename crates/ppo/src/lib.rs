//! Stage 3 of InstructGPT: PPO against a score, with a penalty that keeps the policy near a reference.
//!
//! [`train`] is the loop: it samples answers, asks a scoring function for one number each, and updates the policy. The
//! score may come from a reward model or from any closure: this crate does not know the reward crate. [`run`] reads models
//! and prompts from files, opens what scores, and trains.
//!
//! Read `train.rs` first, then follow one rollout:
//!
//! - [`collect_rollout`] samples, scores and records: a [`Rollout`];
//! - [`Estimator::targets`] turns it into [`Targets`]; [`Gae`], [`Rloo`] and [`Grpo`] are one file each;
//! - [`Learner::update`] makes passes over minibatches, with [`policy_loss`], [`value_loss`] and [`kl_loss`].
//!
//! `advantage.kind` of [`PpoConfig`] picks the estimator. `gae` is PPO with a critic; `rloo` and `grpo` compare the
//! answers to one prompt with each other and need no critic. Rollouts, ratio and clip, metrics and resume are the same
//! for all of them. Advantages are computed before minibatches are drawn, so a minibatch may split a group.
//!
//! The same parts serve a loop of your own: see `examples/own_algorithm.rs`.
//!
//! **Invariants:** log-probabilities of sampling, reference and update come from one function at one temperature;
//! masks are 1 where a token counts; no metric is averaged over padding; nothing in a rollout carries gradients.
//!
//! ```
//! use burn::tensor::Device;
//! use temper_model::{CausalLm, ModelConfig};
//! use temper_data::{Encoding, PromptRow, Prompts};
//! use temper_ppo::{Critic, Models, PpoConfig, Sample, train};
//! use temper_tokenizer::{Template, TextSide, Tokenizer};
//! use temper_train::{Run, Seed};
//!
//! # fn main() -> Result<(), temper_ppo::Error> {
//! let text = TextSide::new(Tokenizer::byte(), Template::notebook());
//! let prompts = [PromptRow::new("Say aaa")];
//! let prompts = Prompts::new(&prompts, &Encoding::new(&text, 64))?;
//! let sft = CausalLm::new(&ModelConfig::preset("tiny")?, &mut Seed(0).stream("init"), &Device::flex());
//! let models = Models { policy: sft.clone(), ref_policy: sft, critic: Critic::ValueHead };
//! let mut count_a =
//!     |samples: &[Sample<'_>]| Ok(samples.iter().map(|s| s.completion.matches('a').count() as f32).collect());
//! let mut config = PpoConfig::default();
//! (config.training.batch_size, config.training.max_steps) = (4, 1);
//! config.rollout.max_new_tokens = 8;
//! let policy = train(&config, models, &text, &prompts, &mut count_a, &mut Run::ephemeral()?)?;
//! # Ok(())
//! # }
//! ```

mod advantage;
mod auto;
mod checks;
mod config;
mod episodes;
mod error;
mod evaluation;
mod guard;
mod kl;
mod learner;
mod loss;
mod metrics;
mod networks;
mod ptx;
mod rewards;
mod rollout;
mod run;
mod scale;
mod scores;
mod train;

pub use advantage::{
    AdvantageConfig, AdvantageKind, Advantages, Estimate, Estimator, Gae, Grpo, KlPlacement, Rloo, Targets,
    estimate_advantages, leave_one_out, standardise_groups,
};
pub use config::{
    CriticConfig, CriticKind, KlConfig, MissingEos, PpoConfig, PtxConfig, RolloutConfig, ScaleFrom, ScoreAt,
    UpdateConfig,
};
pub use episodes::{EpisodeBatch, Episodes, select_rows};
pub use error::Error;
pub use evaluation::{PpoEvaluation, evaluate};
pub use kl::{KlController, kl_loss, token_kl};
pub use learner::{Learner, LearningRates, LossMeans, UpdateInput, UpdateStats};
pub use loss::{PolicyClip, PolicyLoss, ValueLoss, policy_loss, value_loss};
pub use metrics::PpoMetrics;
pub use networks::{Critic, Entropy, Policy, PolicyOutput, critic_values};
pub use rewards::shape_rewards;
pub use rollout::{Rollout, RolloutModels, collect_rollout, stop_token};
pub use run::{PpoFiles, run};
pub use scale::ScoreScale;
pub use scores::{Sample, ScoreError, ScoreFn, Scorers, TokenRewardFn};
pub use train::{Data, Models, train};

#[cfg(test)]
mod tests;

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
