//! Settings of the SFT stage.

use std::borrow::Cow;

use temper_data::EncodingConfig;
use temper_stage::{AdapterConfig, SamplesConfig};
use temper_tokenizer::Example;
use temper_train::{BatchingConfig, TrainingConfig, settings};

use crate::auto::AUTO;

settings! {
    /// Settings of supervised fine-tuning.
    ///
    /// The defaults are the notebook's numbers (N4) with InstructGPT's batch.
    pub struct SftConfig {
        /// What every stage has. InstructGPT: 16 epochs of batches of 32.
        #[serde(flatten)]
        section training: TrainingConfig = TrainingConfig {
            epochs: 3,
            learning_rate: 1e-3,
            batch_size: 32,
            ..TrainingConfig::default()
        },
        /// What every stage over fixed rows has.
        #[serde(flatten)]
        section batching: BatchingConfig,
        /// How rows become tokens.
        #[serde(flatten)]
        section encoding: EncodingConfig,
        /// Answers that show what the model says.
        #[serde(flatten)]
        section shown: SamplesConfig,
        /// Train with the dropout of the model's configuration.
        ///
        /// InstructGPT: 0.2 on the residual stream.
        pub dropout: bool = true,
        /// Learn the prompts as well as the answers; evaluations count the answers alone.
        ///
        /// Weights that know no language yet have twice as much to learn from then.
        pub learn_prompts: bool = false,
        /// Low-rank adapters instead of training every weight.
        section adapter: AdapterConfig,
    }
    auto AUTO
}

impl SftConfig {
    /// An example with what is to be learned of it.
    pub(crate) fn lesson<'e>(&self, example: &'e Example) -> Cow<'e, Example> {
        if self.learn_prompts { Cow::Owned(example.learned_whole()) } else { Cow::Borrowed(example) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        assert_eq!(temper_train::declaration_faults::<SftConfig>(), [""; 0]);
    }

    #[test]
    fn a_batch_of_nothing_is_refused() {
        let mut config = SftConfig::default();
        config.training.batch_size = 0;
        let error = config.validate().unwrap_err();
        assert_eq!(error.to_string(), "`batch_size` must be 1 to 65536, got 0");
    }
}
