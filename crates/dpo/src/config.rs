//! Settings of the DPO stage.

use serde::{Deserialize, Serialize};
use temper_tokenizer::Overflow;
use temper_train::{Documented, Error, TrainingConfig, TrainingDocs, require, require_positive};

/// Settings of direct preference optimisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DpoConfig {
    /// What every stage over fixed rows has. A row is a comparison with all its completions.
    #[serde(flatten)]
    pub training: TrainingConfig,
    /// What happens to a prompt and completion that are too long.
    pub overflow: Overflow,
    /// The dialogue template, if the model directory brings none, as in SFT. `auto` is the notebook's for our byte
    /// tokenizer, and prompt, completion and end token for any other.
    pub template: String,
    /// β: how much a change of log-probability counts as reward. The smaller, the further the policy may leave its
    /// reference (0.1 in the paper's dialogue task and in TRL).
    pub beta: f64,
    /// Share of pairs that are taken to be in the wrong order, as in conservative DPO; 0 for none.
    pub label_smoothing: f64,
}

impl Default for DpoConfig {
    /// The paper's β, batch (64) and learning rate (1e-6, for models of 2.8 billion parameters and more).
    fn default() -> Self {
        Self {
            training: TrainingConfig {
                epochs: 1,
                learning_rate: 1e-6,
                batch_size: 64,
                ..TrainingConfig::default()
            },
            overflow: Overflow::Drop,
            template: "auto".into(),
            beta: 0.1,
            label_smoothing: 0.0,
        }
    }
}

impl DpoConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] with the key.
    pub fn validate(&self) -> Result<(), Error> {
        self.training.validate()?;
        require_positive("beta", self.beta)?;
        let smoothing = self.label_smoothing;
        // At one half both orders of a pair would cost the same.
        require((0.0..0.5).contains(&smoothing), "label_smoothing", smoothing, "0 or above, and below 0.5")
    }
}

impl Documented for DpoConfig {
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
                ("beta", "reward per nat of log-probability; the smaller, the further the policy may go"),
                ("label_smoothing", "share of pairs taken to be in the wrong order, below 0.5; 0: none"),
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
        assert_eq!(temper_train::undocumented_keys::<DpoConfig>(), Vec::<String>::new());
    }

    #[test]
    fn a_coin_toss_for_a_label_is_refused() {
        let config = DpoConfig { label_smoothing: 0.5, ..DpoConfig::default() };
        let message = config.validate().unwrap_err().to_string();
        assert_eq!(message, "`label_smoothing` is 0.5, it must be 0 or above, and below 0.5");
    }
}
