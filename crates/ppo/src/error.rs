//! What can go wrong in this stage.

use std::path::PathBuf;

/// Errors of the PPO stage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a setting, or the run directory.
    #[error(transparent)]
    Train(#[from] temper_train::Error),
    /// The model directory.
    #[error(transparent)]
    Model(#[from] temper_model::Error),
    /// A data file cannot be read, or none of its rows fits.
    #[error(transparent)]
    Data(#[from] temper_data::Error),
    /// The tokenizer or the template.
    #[error(transparent)]
    Tokenizer(#[from] temper_tokenizer::Error),
    /// What every stage shares when it runs from files.
    #[error(transparent)]
    Stage(#[from] temper_stage::Error),
    /// A model that scores answers, or its text side.
    #[error(transparent)]
    Assistant(#[from] temper_assistant::Error),
    /// The independent judge.
    #[error(transparent)]
    Judge(#[from] temper_eval::Error),
    /// The critic would start as a reward model that reads other ids than the policy writes.
    #[error("{} and {} have different {difference}s", policy.display(), reward.display())]
    CriticReadsOtherIds {
        /// The directory of the policy.
        policy: PathBuf,
        /// The directory of the reward model.
        reward: PathBuf,
        /// What differs: see [`TextSide::difference`](temper_tokenizer::TextSide::difference).
        difference: &'static str,
    },
    /// The critic would start as the reward model, and the scores come from elsewhere.
    #[error("the critic starts as a copy of the reward model, and no reward model is given")]
    NoModelForCritic,
    /// Answers that do not end would get a score that nobody has named, among scores of an unknown scale.
    #[error(
        "`rollout.missing_eos = \"replace\"` needs the score of an answer that does not end, because \
         `rollout.score_scale` is \"none\""
    )]
    NoScoreForMissingEos,
    /// A length setting leaves no room for the rest of prompt and answer.
    #[error("`{key}` must be at most {most}, got {value}: prompt and answer share {max_seq_len} tokens")]
    NoRoom {
        /// The setting.
        key: &'static str,
        /// Its value in tokens.
        value: usize,
        /// The greatest allowed value.
        most: usize,
        /// Tokens that prompt and answer share.
        max_seq_len: usize,
    },
    /// A prompt is too long for a whole answer after it.
    #[error(
        "prompt {index} has {prompt_len} tokens: with {max_new_tokens} new ones it does not fit into {max_seq_len}"
    )]
    NoRoomForAnswer {
        /// Which prompt, counted from 1.
        index: usize,
        /// Its tokens.
        prompt_len: usize,
        /// `rollout.max_new_tokens`.
        max_new_tokens: usize,
        /// The shortest context of policy, reference and critic, or `max_seq_len` where that is shorter.
        max_seq_len: usize,
    },
    /// The text of `rollout.stop_token` is not one token.
    #[error(
        "`rollout.stop_token` is {text:?}, which the tokenizer makes {n_tokens} tokens of; it must be one"
    )]
    StopToken {
        /// The text.
        text: String,
        /// Its tokens.
        n_tokens: usize,
    },
    /// The scoring function failed.
    #[error("the scoring function failed in step {step}: {source}")]
    Score {
        /// The step that needed the scores.
        step: usize,
        /// The error of the scoring function.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The scoring function returned unusable scores.
    #[error("the scoring function gave {problem} in step {step}")]
    BadScores {
        /// The step that needed the scores.
        step: usize,
        /// What is wrong with them.
        problem: String,
    },
    /// The estimator of advantages needs a critic.
    #[error("this `advantage.kind` needs a critic, and there is none")]
    NoCritic,
    /// The policy has diverged: its outputs are not finite, so it cannot sample.
    #[error("in step {step}, {source}")]
    Diverged {
        /// The step that failed.
        step: usize,
        /// The error of the model.
        source: temper_model::Error,
    },
    /// A loss became NaN or infinite; nothing was updated with it.
    #[error("the {which} loss of step {step} is {loss}")]
    NonFiniteLoss {
        /// `policy`, `value`, `ptx` or `KL`.
        which: &'static str,
        /// The step that failed.
        step: usize,
        /// Its value.
        loss: f64,
    },
}

impl Error {
    /// Names the step in which a model's output was not finite; other errors stay as they are.
    pub(crate) fn in_step(self, step: usize) -> Self {
        match self {
            Self::Model(source @ temper_model::Error::NonFiniteOutput) => Self::Diverged { step, source },
            other => other,
        }
    }
}
