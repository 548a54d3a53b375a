//! Settings of the reward-model stage.

use serde::{Deserialize, Serialize};
use temper_model::Pooling;
use temper_tokenizer::Overflow;
use temper_train::{Documented, Error, TrainingConfig, TrainingDocs, require_coefficient};

use crate::Normalize;

/// Settings of reward-model training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardConfig {
    /// What every stage over fixed rows has. A row is a comparison with all its completions, and one pass is
    /// InstructGPT's: more overfits at once.
    #[serde(flatten)]
    pub training: TrainingConfig,
    /// What happens to a prompt and completion that are too long.
    pub overflow: Overflow,
    /// The dialogue template, if the model directory brings none, as in SFT. `auto` is the notebook's for our byte
    /// tokenizer, and prompt, completion and end token for any other.
    pub template: String,
    /// Which hidden states the score is read from.
    pub pooling: Pooling,
    /// How much further apart the scores of a pair must be for each unit that the data prefer one; 0 for none, as in
    /// InstructGPT.
    pub margin: f64,
    /// Weight of the squared sum of both scores of a pair, which keeps scores around 0; 0 for none, as in InstructGPT
    /// (TRL suggests 0.01).
    pub center: f64,
    /// What is made of the scores at the end, where there are demonstrations to go by.
    pub normalize: Normalize,
}

impl Default for RewardConfig {
    /// The notebook's learning rate (N7), InstructGPT's batch, epochs and pooling.
    fn default() -> Self {
        Self {
            training: TrainingConfig {
                epochs: 1,
                learning_rate: 1e-4,
                batch_size: 64,
                ..TrainingConfig::default()
            },
            overflow: Overflow::Drop,
            template: "auto".into(),
            pooling: Pooling::Last,
            margin: 0.0,
            center: 0.0,
            normalize: Normalize::Mean,
        }
    }
}

impl RewardConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] with the key.
    pub fn validate(&self) -> Result<(), Error> {
        self.training.validate()?;
        require_coefficient("margin", self.margin)?;
        require_coefficient("center", self.center)
    }
}

impl Documented for RewardConfig {
    fn docs() -> Vec<(&'static str, &'static str)> {
        TrainingDocs {
            batch_size: "comparisons in one update",
            microbatch_size: "comparisons in one forward pass, to save memory; 0: the whole batch",
            max_seq_len: "longest prompt and completion in tokens; 0: the model's context",
            own: &[
                ("overflow", "what happens to longer ones: drop | truncate_prompt"),
                (
                    "template",
                    "dialogue template if the model brings none: auto | notebook | bare | plain | plain_eos",
                ),
                ("pooling", "last: the end token, as InstructGPT | mean: over the completion, as the notebook"),
                (
                    "margin",
                    "how much further apart a pair's scores must be per unit of the data's own margin; 0: none",
                ),
                (
                    "normalize",
                    "scores of --normalize-data at the end: none | mean: 0 on average | mean_std: and deviation 1",
                ),
                ("center", "weight of the squared sum of a pair's scores, which keeps them around 0; 0: none"),
            ],
            keep_best: "keep the model of the highest evaluation accuracy in best/",
        }
        .all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        assert_eq!(temper_train::undocumented_keys::<RewardConfig>(), Vec::<String>::new());
    }
}
