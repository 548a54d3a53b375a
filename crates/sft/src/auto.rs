//! What SFT chooses for settings that are left to Temper.

use temper_data::Demonstrations;
use temper_stage::{CHECKPOINTING_FOLLOWS, Error, OVERFLOW_FOLLOWS, Passes, Weights, long_row};
use temper_train::{AutoKeys, Chosen};

use crate::SftConfig;

/// The settings that may be `auto`, and what their values follow from.
pub(crate) const AUTO: [(&str, &str); 10] = [
    ("epochs", "from the number of rows, and whether the weights are fresh"),
    ("learning_rate", "from the number of parameters, and whether they are fresh"),
    ("batch_size", "from the lengths of the rows"),
    ("microbatch_size", "from the memory that a row takes"),
    CHECKPOINTING_FOLLOWS,
    ("schedule.kind", "half a cosine, after a warm-up"),
    ("schedule.warmup_steps", "a twentieth of the updates, 100 at most"),
    ("optimizer.beta_2", "from whether the weights are fresh"),
    ("learn_prompts", "whether the weights are fresh"),
    OVERFLOW_FOLLOWS,
];

impl SftConfig {
    /// The values for this model and these rows.
    pub(crate) fn choices(&self, auto: &AutoKeys, weights: &Weights, data: &Demonstrations) -> Vec<Chosen> {
        let fresh = weights.are_fresh();
        let passes = Passes {
            n_rows: data.len(),
            n_tokens: data.lengths().iter().sum(),
            tokens_of_update: weights.tokens_of_update(),
            least_updates: if fresh { 500 } else { 100 },
            least_epochs: 2,
            most_epochs: if fresh { 20 } else { 3 },
        };
        let (mut choices, batch) = passes.choose(auto, &self.training);
        choices.push(weights.learning_rate("learning_rate", if fresh { 5e-4 } else { 1e-4 }));
        let row_len = long_row(data.lengths());
        let (settled, checkpointing) =
            weights.clone().with_checkpointing(auto, &self.training, batch, row_len);
        choices.push(checkpointing);
        choices.push(settled.microbatch("microbatch_size", batch, row_len));
        let beta_2 = if fresh { 0.95 } else { 0.999 };
        choices.push(Chosen::new("optimizer.beta_2", beta_2, weights.in_words()));
        choices.push(Chosen::new("learn_prompts", fresh, weights.in_words()));
        choices
    }

    /// Whether the run fits into the memory that it may need.
    ///
    /// # Errors
    /// [`Error::TooLittleMemory`].
    pub(crate) fn check_memory(&self, weights: &Weights, data: &Demonstrations) -> Result<(), Error> {
        let (batch, microbatch) = (self.training.batch_size, self.batching.microbatch_size);
        weights.check_memory(&self.training, batch, microbatch, long_row(data.lengths()))
    }
}
