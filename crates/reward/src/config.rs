//! Settings of the reward-model stage.

use temper_data::EncodingConfig;
use temper_model::Pooling;
use temper_stage::AdapterConfig;
use temper_train::{BatchingConfig, TrainingConfig, settings};

use crate::Normalize;
use crate::auto::AUTO;

settings! {
    /// Settings of reward-model training.
    ///
    /// The defaults are the notebook's learning rate (N7) and InstructGPT's batch, epochs and pooling.
    pub struct RewardConfig {
        /// What every stage has. A row is a comparison with all its completions, and one pass is InstructGPT's: more
        /// overfits at once.
        #[serde(flatten)]
        section training: TrainingConfig = TrainingConfig {
            epochs: 1,
            learning_rate: 1e-4,
            batch_size: 64,
            ..TrainingConfig::default()
        },
        /// What every stage over fixed rows has.
        #[serde(flatten)]
        section batching: BatchingConfig,
        /// How rows become tokens.
        #[serde(flatten)]
        section encoding: EncodingConfig,
        /// Where the score is read: last (the end token, as InstructGPT) | mean (over the completion, as the notebook).
        pub pooling: Pooling = Pooling::Last,
        /// How much further apart the scores of a pair must be per unit of the data's own margin; 0: none.
        ///
        /// InstructGPT has none.
        pub margin: f64 = 0.0, in ZeroOr(Positive),
        /// What is made of the scores at the end by --normalize-data: none | mean (0 on average) | mean_std (and
        /// deviation 1).
        pub normalize: Normalize = Normalize::Mean,
        /// Weight of the squared sum of both scores of a pair, which keeps scores around 0; 0: none.
        ///
        /// InstructGPT has none; TRL suggests 0.01.
        pub center: f64 = 0.0, in ZeroOr(Positive),
        /// Low-rank adapters instead of training every weight.
        section adapter: AdapterConfig,
    }
    auto AUTO
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        assert_eq!(temper_train::declaration_faults::<RewardConfig>(), [""; 0]);
    }
}
