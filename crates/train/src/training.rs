//! The settings that the stages which learn from a fixed set of rows have in common.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::optim::AdamWConfig;
use crate::range::{require, require_count, require_positive};
use crate::schedule::Schedule;

/// Rows of a batch that no machine has; more is a typing mistake.
const MAX_BATCH: usize = 65536;

/// How a stage goes through its rows, and what it leaves on the way.
///
/// A stage's settings have these among their own keys, by `#[serde(flatten)]`. None has a default of its own when it is
/// read, because [`crate::resolve`] starts from the whole default of the stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingConfig {
    /// Passes over the data.
    pub epochs: usize,
    /// Stop after this many updates; 0 for no limit.
    pub max_steps: usize,
    /// Highest learning rate of the schedule.
    pub learning_rate: f64,
    /// Rows in one update.
    pub batch_size: usize,
    /// Rows in one forward pass; 0 for the whole batch. Changes memory, and the result up to rounding only; but with
    /// dropout each forward pass draws masks of its own, so that another size means other masks.
    pub microbatch_size: usize,
    /// Whether the rows of a batch have about the same length, which saves padding. Otherwise they are drawn at random.
    pub bucket_by_length: bool,
    /// Longest row in tokens; 0 for the model's context.
    pub max_seq_len: usize,
    /// Updates between checkpoints; 0 for none but the last.
    pub checkpoint_every: usize,
    /// Checkpoints that stay, the newest ones.
    pub keep_last: usize,
    /// Keep the best model by the evaluation data in `best/`.
    pub keep_best: bool,
    /// Updates between evaluations on the evaluation data; 0 for one at the end.
    pub eval_every: usize,
    /// Everything random comes from it.
    pub seed: u64,
    /// Where to compute.
    pub device: String,
    /// Learning rate over time.
    pub schedule: Schedule,
    /// AdamW and clipping.
    pub optimizer: AdamWConfig,
}

impl Default for TrainingConfig {
    /// One pass; each stage says what it wants to be different.
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: 0,
            learning_rate: 1e-4,
            batch_size: 64,
            microbatch_size: 0,
            bucket_by_length: true,
            max_seq_len: 0,
            checkpoint_every: 500,
            keep_last: 2,
            keep_best: true,
            eval_every: 0,
            seed: 0,
            device: "auto".into(),
            schedule: Schedule::default(),
            optimizer: AdamWConfig::default(),
        }
    }
}

impl TrainingConfig {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] with the key.
    pub fn validate(&self) -> Result<(), Error> {
        require_count("epochs", self.epochs)?;
        require_count("keep_last", self.keep_last)?;
        require((1..=MAX_BATCH).contains(&self.batch_size), "batch_size", self.batch_size, "1 to 65536")?;
        require_positive("learning_rate", self.learning_rate)?;
        require(self.max_seq_len != 1, "max_seq_len", self.max_seq_len, "0 or at least 2")?;
        self.schedule.validate()?;
        self.optimizer.validate()
    }

    /// Rows of one forward pass, of `rows` that are to go through.
    pub fn microbatch(&self, rows: usize) -> usize {
        if self.microbatch_size == 0 { rows } else { self.microbatch_size }
    }
}

/// The comments of [`TrainingConfig`], for [`crate::Documented`], where the words depend on the stage.
#[derive(Clone, Copy, Debug)]
pub struct TrainingDocs {
    /// What a row is: `batch_size`.
    pub batch_size: &'static str,
    /// And `microbatch_size`.
    pub microbatch_size: &'static str,
    /// And `max_seq_len`.
    pub max_seq_len: &'static str,
    /// What the stage has besides, with their comments.
    pub own: &'static [(&'static str, &'static str)],
    /// By what the best model is judged.
    pub keep_best: &'static str,
}

impl TrainingDocs {
    /// Every key with its comment, in the order in which they are printed.
    pub fn all(&self) -> Vec<(&'static str, &'static str)> {
        let mut docs = vec![
            ("epochs", "passes over the data"),
            ("max_steps", "stop after this many updates; 0: no limit"),
            ("learning_rate", "highest learning rate of the schedule"),
            ("batch_size", self.batch_size),
            ("microbatch_size", self.microbatch_size),
            (
                "bucket_by_length",
                "batches of rows of similar length, which saves padding; false: rows at random",
            ),
            ("max_seq_len", self.max_seq_len),
        ];
        docs.extend(self.own);
        docs.extend([
            ("checkpoint_every", "updates between checkpoints; 0: none but the last"),
            ("keep_last", "checkpoints that stay, the newest ones"),
            ("keep_best", self.keep_best),
            ("eval_every", "updates between evaluations; 0: one at the end"),
            ("seed", "everything random comes from it"),
            ("device", "auto | flex | ndarray | wgpu | vulkan | metal | cuda | rocm, with :N for a card"),
            ("schedule.kind", "constant | linear | cosine"),
            ("schedule.warmup_steps", "updates until the highest learning rate"),
            (
                "schedule.warmup_from",
                "where the warm-up starts, as a fraction of the highest; 0: one step above 0",
            ),
            ("schedule.final_fraction", "where linear and cosine end, as a fraction of the highest"),
            ("optimizer.beta_1", "decay of the mean of gradients"),
            ("optimizer.beta_2", "decay of the mean of squared gradients"),
            ("optimizer.epsilon", "added to the root of the second moment"),
            (
                "optimizer.epsilon_style",
                "pytorch: after that root's bias correction | tensorflow: before, as lm-human-preferences",
            ),
            ("optimizer.weight_decay", "decoupled, on every parameter"),
            ("optimizer.max_grad_norm", "global gradient norm is clipped to this; 0: never"),
        ]);
        docs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Documented, resolve, to_commented_toml, undocumented_keys};

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Stage {
        #[serde(flatten)]
        training: TrainingConfig,
        dropout: bool,
    }

    impl Documented for Stage {
        fn docs() -> Vec<(&'static str, &'static str)> {
            TrainingDocs {
                batch_size: "rows in one update",
                microbatch_size: "rows at once",
                max_seq_len: "longest row",
                own: &[("dropout", "of this stage alone")],
                keep_best: "keep the best one",
            }
            .all()
        }
    }

    fn set(sets: &[&str]) -> Result<Stage, Error> {
        resolve(None, None, &sets.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_common_keys_stand_beside_those_of_the_stage() {
        assert_eq!(undocumented_keys::<Stage>(), [""; 0]);
        let toml = to_commented_toml(&Stage::default()).unwrap();
        let keys: Vec<&str> = toml.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(keys[6..9], ["max_seq_len = 0", "dropout = false", "checkpoint_every = 500"]);
        assert!(toml.contains("\n[optimizer]\n"), "{toml}");
    }

    #[test]
    fn a_mistake_in_a_common_key_is_named_like_any_other() {
        let found = set(&["epochs=3", "schedule.kind=linear", "learning_rate=1", "dropout=true"]).unwrap();
        assert_eq!((found.training.epochs, found.training.learning_rate, found.dropout), (3, 1.0, true));
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
}
