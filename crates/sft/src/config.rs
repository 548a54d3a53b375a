//! Settings of the SFT stage.

use serde::{Deserialize, Serialize};
use temper_tokenizer::Overflow;
use temper_train::{Documented, Error, TrainingConfig, TrainingDocs};

/// Settings of supervised fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SftConfig {
    /// What every stage over fixed rows has; InstructGPT: 16 epochs of batches of 32.
    #[serde(flatten)]
    pub training: TrainingConfig,
    /// What happens to an example that is too long.
    pub overflow: Overflow,
    /// The dialogue template, if the model directory brings none. `auto` is the notebook's for our byte tokenizer,
    /// and prompt, completion and end token for any other.
    pub template: String,
    /// Train with the dropout that the model's configuration names (InstructGPT: 0.2 on the residual stream).
    pub dropout: bool,
}

impl Default for SftConfig {
    /// The notebook's numbers (N4) with InstructGPT's batch.
    fn default() -> Self {
        Self {
            training: TrainingConfig {
                epochs: 3,
                learning_rate: 1e-3,
                batch_size: 32,
                ..TrainingConfig::default()
            },
            overflow: Overflow::Drop,
            template: "auto".into(),
            dropout: true,
        }
    }
}

impl SftConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] with the key.
    pub fn validate(&self) -> Result<(), Error> {
        self.training.validate()
    }
}

impl Documented for SftConfig {
    fn docs() -> Vec<(&'static str, &'static str)> {
        TrainingDocs {
            batch_size: "examples in one update",
            microbatch_size: "examples in one forward pass, to save memory; 0: the whole batch",
            max_seq_len: "longest example in tokens; 0: the model's context",
            own: &[
                ("overflow", "what happens to longer ones: drop | truncate_prompt"),
                (
                    "template",
                    "dialogue template if the model brings none: auto | notebook | bare | plain | plain_eos (docs/templates.md)",
                ),
                ("dropout", "train with the dropout of the model's configuration"),
            ],
            keep_best: "keep the model of the lowest evaluation loss in best/",
        }
        .all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented() {
        assert_eq!(temper_train::undocumented_keys::<SftConfig>(), Vec::<String>::new());
    }

    #[test]
    fn a_batch_of_nothing_is_refused() {
        let mut config = SftConfig::default();
        config.training.batch_size = 0;
        let error = config.validate().unwrap_err();
        assert_eq!(error.to_string(), "`batch_size` is 0, it must be 1 to 65536");
    }
}
