//! What is trained: the networks, their optimizers, the moving average and the KL coefficient.

mod checkpoint;
mod loss_means;
mod losses;
mod update;

use burn::module::Module;
use temper_data::Prompts;
use temper_model::CausalLm;
use temper_tokenizer::Tokenizer;
use temper_train::Optimizer;

use crate::config::{PpoConfig, ScaleFrom};
use crate::kl::KlController;
use crate::networks::{Critic, Networks, Policy, zero_head};
use crate::rollout::RolloutModels;
use crate::scale::RunScale;
use crate::{Error, ScoreScale};

pub(crate) use checkpoint::Progress;
pub use loss_means::LossMeans;
pub use update::{LearningRates, UpdateInput, UpdateStats};

/// Policy and critic with their optimizers, the moving average of the policy, and the KL coefficient.
///
/// [`Learner::models`] lends the networks to a rollout, and [`Learner::update`] trains them on it. A step is a function
/// of the learner and its input alone, so a loop of your own can use both.
pub struct Learner {
    /// `None` only while an update changes them, and after one that failed: a second owner of the weights would force
    /// the optimizer to copy them.
    networks: Option<Networks>,
    policy_optimizer: Optimizer,
    critic_optimizer: Optimizer,
    /// The moving average of the policy's weights, without gradients, if `ema_decay` asks for one.
    average: Option<CausalLm>,
    ema_decay: f64,
    /// The coefficient β of the KL penalty, fixed or adaptive.
    pub kl: KlController,
    scale_from: ScaleFrom,
    scale: RunScale,
}

impl Learner {
    /// A learner that has not been updated yet. Its policy samples the first `n_tokens` ids of the model.
    ///
    /// The critic is ignored where `advantage.kind` needs none.
    pub fn new(config: &PpoConfig, policy: CausalLm, critic: Critic, n_tokens: usize) -> Self {
        let (d_model, device) = (policy.config().d_model, policy.device().inner());
        let critic = if config.estimator().needs_critic() { critic } else { Critic::None };
        let recomputes_blocks = config.training.gradient_checkpointing;
        let policy = policy.with_gradient_checkpointing(recomputes_blocks);
        let (value_head, critic) = match critic {
            Critic::Separate(critic) => {
                (None, Some(critic.with_gradient_checkpointing(recomputes_blocks).train()))
            }
            Critic::ValueHead => (Some(zero_head(d_model, &device)), None),
            Critic::None => (None, None),
        };
        Self {
            average: (config.ema_decay > 0.0).then(|| policy.valid()),
            ema_decay: config.ema_decay,
            networks: Some(Networks { policy: Policy::new(policy, value_head, n_tokens).train(), critic }),
            policy_optimizer: Optimizer::new(&config.training.optimizer),
            critic_optimizer: Optimizer::new(&config.training.optimizer),
            kl: KlController::new(&config.kl),
            scale_from: config.rollout.score_scale,
            scale: RunScale::new(config.rollout.score_scale),
        }
    }

    /// The policy as it is trained, with its value head if it has one.
    ///
    /// # Panics
    /// After an update that failed.
    pub fn policy(&self) -> &Policy {
        &self.networks().policy
    }

    /// The networks that are trained.
    fn networks(&self) -> &Networks {
        self.networks.as_ref().expect("a learner is of no use after an update that failed")
    }

    /// The policy that is evaluated and kept, without gradients: the moving average if there is one.
    pub fn evaluated_policy(&self) -> CausalLm {
        self.average.clone().unwrap_or_else(|| self.policy().lm.valid())
    }

    /// The models of a rollout against this reference.
    ///
    /// # Panics
    /// After an update that failed.
    pub fn models<'a>(&'a self, ref_policy: &'a CausalLm, tokenizer: &'a Tokenizer) -> RolloutModels<'a> {
        RolloutModels {
            policy: self.policy(),
            ref_policy,
            critic: self.networks().critic.as_ref(),
            tokenizer,
            scale: self.scale(),
        }
    }

    /// The scale of the scores.
    pub fn scale(&self) -> ScoreScale {
        self.scale.current()
    }

    /// Lets these scores set the scale, if the settings ask for one and there is none yet. A critic that is a network of its
    /// own then gives its values on the new scale. Returns the scale if it is new.
    ///
    /// # Panics
    /// After an update that failed.
    pub fn set_scale(&mut self, raw_scores: &[f32]) -> Option<ScoreScale> {
        if self.scale != RunScale::Unknown {
            return None;
        }
        let scale = ScoreScale::of(raw_scores)?;
        let (gain, shift) = scale.gain_and_shift();
        let Networks { policy, critic } =
            self.networks.take().expect("a learner is of no use after an update that failed");
        let critic = critic.map(|critic| critic.valid().rescaled(gain, shift).train());
        self.networks = Some(Networks { policy, critic });
        self.scale = RunScale::Known(scale);
        Some(scale)
    }

    /// Refuses a policy, or a critic of its own, whose outputs are not finite on these prompts.
    ///
    /// The last update of a run may diverge, and no later loss shows it.
    pub(crate) fn check_finite(&self, prompts: &Prompts) -> Result<(), Error> {
        let rows: Vec<&[u32]> = prompts.prompts.iter().map(|prompt| prompt.tokens.as_slice()).collect();
        self.evaluated_policy().check_finite(&rows)?;
        Ok(self.networks().critic.as_ref().map_or(Ok(()), |critic| critic.check_finite(&rows))?)
    }
}
