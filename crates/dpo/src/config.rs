//! Settings of the DPO stage.

use temper_data::EncodingConfig;
use temper_stage::{AUTO_OF_RANKINGS, AdapterConfig, SamplesConfig};
use temper_train::{BatchingConfig, TrainingConfig, settings};

settings! {
    /// Settings of direct preference optimisation.
    ///
    /// The defaults are the paper's β, batch (64) and learning rate (1e-6, for models of 2.8 billion parameters and
    /// more).
    pub struct DpoConfig {
        /// What every stage has. A row is a comparison with all its completions.
        #[serde(flatten)]
        section training: TrainingConfig = TrainingConfig {
            epochs: 1,
            learning_rate: 1e-6,
            batch_size: 64,
            ..TrainingConfig::default()
        },
        /// What every stage over fixed rows has.
        #[serde(flatten)]
        section batching: BatchingConfig,
        /// How rows become tokens.
        #[serde(flatten)]
        section encoding: EncodingConfig,
        /// Answers that show what the policy says.
        #[serde(flatten)]
        section shown: SamplesConfig,
        /// Reward per nat of log-probability; the smaller, the further the policy may leave its reference.
        ///
        /// β of the paper: 0.1 in its dialogue task and in TRL.
        pub beta: f64 = 0.1, in Positive,
        /// Share of pairs that are taken to be in the wrong order, below 0.5; 0: none.
        ///
        /// Conservative DPO. At one half both orders of a pair would cost the same.
        pub label_smoothing: f64 = 0.0, in 0.0..0.5,
        /// Low-rank adapters instead of training every weight.
        section adapter: AdapterConfig,
    }
    auto AUTO_OF_RANKINGS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        assert_eq!(temper_train::declaration_faults::<DpoConfig>(), [""; 0]);
    }

    #[test]
    fn a_coin_toss_for_a_label_is_refused() {
        let config = DpoConfig { label_smoothing: 0.5, ..DpoConfig::default() };
        let message = config.validate().unwrap_err().to_string();
        assert_eq!(message, "`label_smoothing` must be at least 0 and below 0.5, got 0.5");
    }
}
