//! Settings of the reward-model stage.

use serde::{Deserialize, Serialize};
use temper_model::Pooling;
use temper_tokenizer::Overflow;
use temper_train::{AdamWConfig, Documented, Error, Schedule, require, require_count, require_positive};

/// Rows of a batch that no machine has; more is a typing mistake.
const MAX_BATCH: usize = 65536;

/// Settings of reward-model training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardConfig {
    /// Passes over the data (InstructGPT: 1; more overfits at once).
    pub epochs: usize,
    /// Stop after this many updates; 0 for no limit.
    pub max_steps: usize,
    /// Highest learning rate of the schedule.
    pub learning_rate: f64,
    /// Comparisons in one update, each with all its completions (InstructGPT: 64).
    pub batch_size: usize,
    /// Comparisons in one forward pass; 0 for the whole batch.
    pub microbatch_size: usize,
    /// Longest prompt and completion in tokens; 0 for the model's context.
    pub max_seq_len: usize,
    /// What happens to a longer one.
    pub overflow: Overflow,
    /// Which hidden states the score is read from.
    pub pooling: Pooling,
    /// How much further apart the scores of a pair must be for each unit that the data prefer one; 0 for none, as in
    /// InstructGPT.
    pub margin: f64,
    /// Weight of the squared sum of both scores of a pair, which keeps scores around 0; 0 for none, as in InstructGPT
    /// (TRL suggests 0.01).
    pub center: f64,
    /// Updates between checkpoints; 0 for none but the last.
    pub checkpoint_every: usize,
    /// Checkpoints that stay, the newest ones.
    pub keep_last: usize,
    /// Keep the model of the highest evaluation accuracy in `best/`.
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

impl Default for RewardConfig {
    /// The notebook's learning rate (N7), InstructGPT's batch, epochs and pooling.
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: 0,
            learning_rate: 1e-4,
            batch_size: 64,
            microbatch_size: 0,
            max_seq_len: 0,
            overflow: Overflow::Drop,
            pooling: Pooling::Last,
            margin: 0.0,
            center: 0.0,
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

impl RewardConfig {
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
        require(self.margin >= 0.0 && self.margin.is_finite(), "margin", self.margin, "0 or above")?;
        require(self.center >= 0.0 && self.center.is_finite(), "center", self.center, "0 or above")?;
        self.schedule.validate()?;
        self.optimizer.validate()
    }
}

impl Documented for RewardConfig {
    fn docs() -> &'static [(&'static str, &'static str)] {
        &[
            ("epochs", "passes over the data"),
            ("max_steps", "stop after this many updates; 0: no limit"),
            ("learning_rate", "highest learning rate of the schedule"),
            ("batch_size", "comparisons in one update"),
            ("microbatch_size", "comparisons in one forward pass, to save memory; 0: the whole batch"),
            ("max_seq_len", "longest prompt and completion in tokens; 0: the model's context"),
            ("overflow", "what happens to longer ones: drop | truncate_prompt"),
            ("pooling", "last: the end token, as InstructGPT | mean: over the completion, as the notebook"),
            (
                "margin",
                "how much further apart a pair's scores must be per unit of the data's own margin; 0: none",
            ),
            ("center", "weight of the squared sum of a pair's scores, which keeps them around 0; 0: none"),
            ("checkpoint_every", "updates between checkpoints; 0: none but the last"),
            ("keep_last", "checkpoints that stay, the newest ones"),
            ("keep_best", "keep the model of the highest evaluation accuracy in best/"),
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
        ]
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
