//! What a checkpoint holds: the networks, their optimizers, and how far the run is.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use burn::module::Module;
use serde::{Deserialize, Serialize};
use temper_assistant::Export;
use temper_model::{Linear, Pooling, ScalarModel, former_path};
use temper_stage::{load_like, save_weights};
use temper_tokenizer::TextSide;
use temper_train::{Exact, TRAINING_DIR, load_json, save_json};

use super::Learner;
use crate::guard::StoredGuard;
use crate::networks::{Networks, Policy};
use crate::scale::{RunScale, StoredScale};
use crate::{Error, ScoreScale};

/// Where a checkpoint keeps the averaged policy.
const EMA_DIR: &str = "ema";
/// Where a checkpoint keeps the critic.
const CRITIC_DIR: &str = "critic";
const POLICY_OPTIMIZER: &str = "policy_optimizer.safetensors";
const CRITIC_OPTIMIZER: &str = "critic_optimizer.safetensors";
const STATE: &str = "state.json";

/// How far a run is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Progress {
    /// Rollouts that were learned from.
    pub(crate) step: usize,
    /// Whether the evaluation that may be due after this step has been done.
    pub(crate) is_evaluated: bool,
    /// Means of the last rollouts by which the best policy is chosen without evaluation prompts: of the scores, or of the
    /// independent judge's where there is one.
    recent_scores: VecDeque<f64>,
    /// What watches the KL, where the run may go back.
    pub(crate) guard: Option<StoredGuard>,
}

impl Default for Progress {
    /// The start of a run.
    fn default() -> Self {
        Self { step: 0, is_evaluated: true, recent_scores: VecDeque::new(), guard: None }
    }
}

impl Progress {
    /// Counts a rollout with this mean score. Only the scores of the last `n_recent` rollouts are kept, or all for 0.
    pub(crate) fn complete_rollout(&mut self, mean_score: f64, n_recent: usize) {
        self.step += 1;
        self.is_evaluated = false;
        self.recent_scores.push_back(mean_score);
        if n_recent > 0 && self.recent_scores.len() > n_recent {
            self.recent_scores.pop_front();
        }
    }

    /// Mean of the kept scores.
    pub(crate) fn mean_recent_score(&self) -> f64 {
        self.recent_scores.iter().sum::<f64>() / self.recent_scores.len() as f64
    }
}

/// The file `training/state.json`.
#[derive(Serialize, Deserialize)]
struct State {
    step: usize,
    /// Written only where the run was stopped during the evaluation of this step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    evaluation_is_due: bool,
    kl_coef: Exact,
    recent_scores: Vec<Exact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guard: Option<StoredGuard>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score_scale: Option<StoredScale>,
}

impl Learner {
    /// Writes the model that is kept into `dir`, and its critic into `critic/`.
    ///
    /// # Errors
    /// Files that cannot be written.
    pub fn save(&self, dir: &Path, text: &TextSide) -> Result<(), Error> {
        Export::export(&self.evaluated_policy(), text, dir)?;
        if let Some(critic) = self.critic() {
            Export::export(&critic, text, &create_dir(dir.join(CRITIC_DIR))?)?;
        }
        Ok(())
    }

    /// Writes all that a resumed run needs: the policy as it is trained, the critic in `critic/`, the average of the policy
    /// in `ema/`, and the state of the training in `training/`.
    pub(crate) fn save_checkpoint(
        &self,
        dir: &Path,
        text: &TextSide,
        progress: &Progress,
    ) -> Result<(), Error> {
        let eos = text.eos();
        save_weights(dir, &self.policy().lm.valid(), eos)?;
        text.save(dir)?;
        if let Some(critic) = self.critic() {
            save_weights(&create_dir(dir.join(CRITIC_DIR))?, &critic, eos)?;
        }
        if let Some(average) = &self.average {
            save_weights(&create_dir(dir.join(EMA_DIR))?, average, eos)?;
        }
        let training = dir.join(TRAINING_DIR);
        self.policy_optimizer.save(&training.join(POLICY_OPTIMIZER))?;
        if self.networks().critic.is_some() {
            self.critic_optimizer.save(&training.join(CRITIC_OPTIMIZER))?;
        }
        let state = State {
            step: progress.step,
            evaluation_is_due: !progress.is_evaluated,
            kl_coef: Exact(self.kl.coef),
            recent_scores: progress.recent_scores.iter().map(|&score| Exact(score)).collect(),
            guard: progress.guard,
            score_scale: self.scale.to_store(),
        };
        Ok(save_json(&training.join(STATE), &state)?)
    }

    /// The critic as a model of its own: where it is a head on the policy, with the backbone of the policy that is trained.
    fn critic(&self) -> Option<ScalarModel> {
        let policy = self.policy();
        let with_backbone = |head: &Linear| {
            ScalarModel::from_parts(policy.lm.transformer.clone(), head.clone(), Pooling::Last)
        };
        let critic = self.networks().critic.clone();
        critic.or_else(|| policy.value_head.as_ref().map(with_backbone))
    }

    /// Restores what [`Learner::save_checkpoint`] wrote, and returns how far the run was.
    pub(crate) fn resume(&mut self, dir: &Path) -> Result<Progress, Error> {
        self.resume_networks(dir)?;
        let path = dir.join(TRAINING_DIR).join(STATE);
        let state: State = load_json(&path)?;
        let kl_coef = state.kl_coef.0;
        if !kl_coef.is_finite() || kl_coef < 0.0 {
            let message = format!("`kl_coef` is {kl_coef}, it must be 0 or above");
            return Err(temper_train::Error::BadState { path, message }.into());
        }
        let scale = RunScale::resume(self.scale_from, state.score_scale);
        let ScoreScale { mean, deviation } = scale.current();
        if !mean.is_finite() || !deviation.is_finite() || deviation <= 0.0 {
            let message = format!(
                "`score_scale` has the mean {mean} and the deviation {deviation}: both must be finite, the deviation above 0"
            );
            return Err(temper_train::Error::BadState { path, message }.into());
        }
        (self.kl.coef, self.scale) = (kl_coef, scale);
        Ok(Progress {
            step: state.step,
            is_evaluated: !state.evaluation_is_due,
            recent_scores: state.recent_scores.iter().map(|score| score.0).collect(),
            guard: state.guard,
        })
    }

    /// Restores networks, moving average and optimizers.
    fn resume_networks(&mut self, dir: &Path) -> Result<(), Error> {
        let lm = load_like(&self.policy().lm, dir)?;
        let load_critic = |started_from| load_like(&started_from, &dir.join(CRITIC_DIR));
        let critic = self.critic().map(load_critic).transpose()?;
        if let Some(average) = &self.average {
            self.average = Some(load_like(average, &dir.join(EMA_DIR))?);
        }
        let head = critic.as_ref().map(|critic| critic.score.clone());
        let value_head = head.filter(|_| self.policy().value_head.is_some());
        let policy = Policy::new(lm, value_head, self.policy().n_tokens).train();
        let training = dir.join(TRAINING_DIR);
        self.policy_optimizer.load_renamed(&training.join(POLICY_OPTIMIZER), &policy, former_path)?;
        let critic = critic.filter(|_| self.networks().critic.is_some()).map(Module::train);
        if let Some(critic) = &critic {
            self.critic_optimizer.load_renamed(&training.join(CRITIC_OPTIMIZER), critic, former_path)?;
        }
        self.networks = Some(Networks { policy, critic });
        Ok(())
    }
}

fn create_dir(dir: PathBuf) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(&dir).map_err(|source| temper_model::Error::Io { path: dir.clone(), source })?;
    Ok(dir)
}
