//! The settings that every stage has, and those of the stages that learn from a fixed set of rows.

use crate::guard::OnDivergence;
use crate::optim::AdamWConfig;
use crate::schedule::Schedule;
use crate::settings;
use crate::settings::MemoryLimit;

settings! {
    /// How a stage goes through its rows, and what it leaves on the way.
    ///
    /// A step is an update; in PPO it is a rollout with all its updates. A stage has these among its own keys, by
    /// `#[serde(flatten)]`, and says which defaults differ.
    pub struct TrainingConfig {
        /// Passes over the data.
        pub epochs: usize = 1, in 1..,
        /// Stop after this many steps; 0: no limit.
        pub max_steps: usize = 0,
        /// Highest learning rate of the schedule.
        pub learning_rate: f64 = 1e-4, in Positive,
        /// Rows in one step; in PPO prompts in one rollout, each answered rollout.samples_per_prompt times.
        ///
        /// No machine has room for more than the limit, so that is a typing mistake.
        pub batch_size: usize = 64, in 1..=65536,
        /// Longest row in tokens, prompt and completion together; 0: the model's context.
        pub max_seq_len: usize = 0, in ZeroOr(2..),
        /// Compute each block again for its gradients, which needs less memory and about 1.3 times the time.
        pub gradient_checkpointing: bool = false,
        /// The most memory that the run may need, such as 4GiB; none: no limit.
        ///
        /// Microbatches that are left to Temper follow from it. A run that needs more by its estimate is refused.
        pub memory: MemoryLimit = MemoryLimit::default(),
        /// Steps between checkpoints; 0: none but the last.
        pub checkpoint_every: usize = 500,
        /// How many of the newest checkpoints stay.
        pub keep_last: usize = 2, in 1..,
        /// Keep the best model in best/: by the lowest evaluation loss in SFT and DPO, the highest evaluation accuracy
        /// of a reward model, the highest mean score in PPO.
        ///
        /// With a gold judge PPO goes by its score, otherwise by the score after the rules for missing ends. It is the
        /// mean of an evaluation; or, without evaluation prompts, of the last `checkpoint_every` rollouts, compared
        /// whenever a checkpoint is due and at the end.
        pub keep_best: bool = true,
        /// Steps between evaluations on the evaluation data; 0: one at the end.
        pub eval_every: usize = 0,
        /// What is done about a loss, a gradient or a KL that explodes: warn | stop | rewind.
        ///
        /// `stop` saves a checkpoint and ends with an error. `rewind` goes back to the last checkpoint before the sign and
        /// continues with half the learning rate, five times at most.
        pub on_divergence: OnDivergence = OnDivergence::Warn,
        /// Everything random comes from it.
        pub seed: u64 = 0,
        /// Where to compute: auto | flex | ndarray | wgpu | vulkan | metal | cuda | rocm, with :N for a card.
        pub device: String = "auto".into(),
        /// The learning rate over time.
        section schedule: Schedule,
        /// AdamW and gradient clipping.
        section optimizer: AdamWConfig,
    }
}

settings! {
    /// How the rows of a data file become batches and forward passes.
    pub struct BatchingConfig {
        /// Rows in one forward pass, to save memory; 0: the whole batch.
        ///
        /// It changes the result up to rounding only. But with dropout each forward pass draws masks of its own, so
        /// that another size means other masks.
        pub microbatch_size: usize = 0,
        /// Batches of rows of similar length, which saves padding; false: rows at random.
        pub bucket_by_length: bool = true,
    }
}

impl BatchingConfig {
    /// Rows of one forward pass, of `rows` that are to go through.
    pub fn microbatch(&self, rows: usize) -> usize {
        if self.microbatch_size == 0 { rows } else { self.microbatch_size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, declaration_faults, resolve, to_commented_toml};

    settings! {
        /// A stage with a setting of its own.
        pub struct Stage {
            /// What every stage has.
            #[serde(flatten)]
            section training: TrainingConfig = TrainingConfig { epochs: 2, ..TrainingConfig::default() },
            /// What the stages over fixed rows have.
            #[serde(flatten)]
            section batching: BatchingConfig,
            /// Of this stage alone.
            pub dropout: bool = false,
        }
    }

    fn set(sets: &[&str]) -> Result<Stage, Error> {
        resolve(None, None, &sets.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_common_keys_are_among_those_of_the_stage() {
        assert_eq!(declaration_faults::<Stage>(), [""; 0]);
        let toml = to_commented_toml(&Stage::default()).unwrap();
        let keys: Vec<&str> = toml.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(keys[0], "epochs = 2");
        assert_eq!(keys[14..17], ["microbatch_size = 0", "bucket_by_length = true", "dropout = false"]);
        assert!(toml.contains("\n[optimizer]\n"), "{toml}");
    }

    #[test]
    fn a_mistake_in_a_common_key_is_named_like_any_other() {
        let stage = set(&["epochs=3", "schedule.kind=linear", "learning_rate=1", "dropout=true"]).unwrap();
        assert_eq!((stage.training.epochs, stage.training.learning_rate, stage.dropout), (3, 1.0, true));
        for (text, expected) in [
            ("epoch=3", "unknown key `epoch` in `--set`, did you mean `epochs`?"),
            ("training.epochs=3", "unknown key `training.epochs` in `--set`, did you mean `epochs`?"),
            (
                "epochs=many",
                "wrong value for `epochs` in `--set`: expected a whole number, not negative, got `\"many\"`",
            ),
            (
                "schedule.kind=spiral",
                "wrong value for `schedule.kind` in `--set`: expected one of `constant`, `linear`, `cosine`, \
                 got `\"spiral\"`",
            ),
        ] {
            assert_eq!(set(&[text]).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_range_of_a_section_is_refused_under_its_dotted_key() {
        let error = set(&["optimizer.beta_2=1"]).unwrap().validate().unwrap_err();
        assert_eq!(error.to_string(), "`optimizer.beta_2` must be at least 0 and below 1, got 1");
        let error = set(&["batch_size=0"]).unwrap().validate().unwrap_err();
        assert_eq!(error.to_string(), "`batch_size` must be 1 to 65536, got 0");
    }
}
