//! What the stages choose for settings that are left to Temper, and why. `docs/defaults.md` has the runs behind the numbers.

use burn::module::Module;
use temper_data::{Ranking, Rankings};
use temper_model::ModelConfig;
use temper_tensor::{is_host, n_threads};
use temper_train::{AutoKeys, BatchingConfig, Chosen, MemoryLimit, TrainingConfig};

use crate::Error;

mod memory;

/// The settings that may be `auto` in a stage that learns from rankings, and what their values follow from.
pub const AUTO_OF_RANKINGS: [(&str, &str); 8] = [
    ("epochs", "from the number of rows"),
    ("learning_rate", "from the number of parameters"),
    ("batch_size", "from the lengths of the rows"),
    ("microbatch_size", "from the memory that a row takes"),
    CHECKPOINTING_FOLLOWS,
    ("schedule.kind", "half a cosine, after a warm-up"),
    ("schedule.warmup_steps", "a twentieth of the updates, 100 at most"),
    OVERFLOW_FOLLOWS,
];

/// The setting that a [`Launch`](crate::Launch) chooses when it reads the rows, and what it follows from.
pub const OVERFLOW_FOLLOWS: (&str, &str) = (OVERFLOW, "from how many rows fit into the context");

/// The setting that [`Weights::with_checkpointing`] chooses, and what it follows from.
pub const CHECKPOINTING_FOLLOWS: (&str, &str) = (CHECKPOINTING, "whether a row fits into memory without it");

/// The name of that setting.
const CHECKPOINTING: &str = "gradient_checkpointing";

/// The name of the setting [`OVERFLOW_FOLLOWS`].
pub(crate) const OVERFLOW: &str = "overflow";

/// A model as the rules see it.
#[derive(Clone, Debug)]
pub struct Weights {
    config: ModelConfig,
    n_params: usize,
    are_fresh: bool,
    on_host: bool,
    /// Whether adapters are trained instead of them.
    have_adapters: bool,
    /// Threads that share the rows of an update.
    n_threads: usize,
    /// Another network that computes the same rows at the same time.
    beside: Option<ModelConfig>,
    /// Whether blocks are computed again for their gradients.
    recomputes_blocks: bool,
    /// The most memory that the run may need.
    limit: MemoryLimit,
    /// Parameters of networks that are kept in memory and not trained.
    n_frozen: usize,
    /// Parameters of another network that is trained.
    n_trained_beside: usize,
}

impl Weights {
    /// The weights of a network, which have been drawn at random or have learned something already.
    pub fn of(network: &impl Module, config: &ModelConfig, are_fresh: bool) -> Self {
        let on_host = network.devices().iter().all(is_host);
        Self {
            config: config.clone(),
            n_params: network.num_params(),
            are_fresh,
            on_host,
            have_adapters: false,
            n_threads: if on_host { n_threads() } else { 1 },
            beside: None,
            recomputes_blocks: false,
            limit: MemoryLimit::default(),
            n_frozen: 0,
            n_trained_beside: 0,
        }
    }

    /// The same weights; `have_adapters` says that adapters are trained instead of them.
    #[must_use]
    pub fn with_adapters(self, have_adapters: bool) -> Self {
        Self { have_adapters, ..self }
    }

    /// The same weights where an update computes another network, which has no vocabulary, on the same rows at the same time.
    #[must_use]
    pub fn beside(self, other: &ModelConfig) -> Self {
        Self { beside: Some(ModelConfig { vocab_size: 0, ..other.clone() }), ..self }
    }

    /// How many parameters there are.
    pub fn n_params(&self) -> usize {
        self.n_params
    }

    /// Whether they have been drawn at random.
    pub fn are_fresh(&self) -> bool {
        self.are_fresh
    }

    /// In words: "4.9M fresh parameters".
    pub fn in_words(&self) -> String {
        let fresh = if self.are_fresh { "fresh " } else { "" };
        format!("{} {fresh}parameters", rounded(self.n_params))
    }

    /// A learning rate that is `at_100m` for 100 million parameters, to two digits. Smaller models need larger ones: it grows
    /// with the square root of how many fewer parameters there are, and with the fourth root if they are fresh. Adapters
    /// learn best at about ten times the rate of all weights (Schulman et al. 2025, "LoRA Without Regret").
    pub fn learning_rate(&self, key: &str, at_100m: f64) -> Chosen {
        let power = if self.are_fresh { 0.25 } else { 0.5 };
        let (factor, adapters) = if self.have_adapters { (10.0, ", for adapters") } else { (1.0, "") };
        let rate = factor * at_100m * (1e8 / self.n_params as f64).powf(power);
        let digits = 10f64.powf(rate.log10().floor() - 1.0);
        let rate: f64 = format!("{:.1e}", (rate / digits).round() * digits).parse().expect("a number");
        Chosen::new(key, rate, self.in_words() + adapters)
    }

    /// About how many tokens an update takes. Smaller models learn more from more updates, and fresh weights from still more.
    pub fn tokens_of_update(&self) -> usize {
        let (at_100m, least) = if self.are_fresh { (4096.0, 1024) } else { (8192.0, 2048) };
        let tokens = at_100m * (self.n_params as f64 / 1e8).sqrt();
        (tokens as usize).clamp(least, 16384)
    }

    /// The values of [`AUTO_OF_RANKINGS`] but `overflow` for this model and these comparisons, with a learning rate that is
    /// `at_100m` for 100 million parameters.
    pub fn choices_for_rankings(
        &self,
        auto: &AutoKeys,
        training: &TrainingConfig,
        data: &Rankings,
        at_100m: f64,
    ) -> Vec<Chosen> {
        let lengths: Vec<usize> = data.rankings.iter().map(Ranking::n_tokens).collect();
        let passes = Passes {
            n_rows: lengths.len(),
            n_tokens: lengths.iter().sum(),
            tokens_of_update: self.tokens_of_update(),
            least_updates: 200,
            least_epochs: 1,
            most_epochs: 3,
        };
        let (mut choices, batch) = passes.choose(auto, training);
        choices.push(self.learning_rate("learning_rate", at_100m));
        let row_len = long_row(lengths);
        let (weights, checkpointing) = self.clone().with_checkpointing(auto, training, batch, row_len);
        choices.push(checkpointing);
        choices.push(weights.microbatch("microbatch_size", batch, row_len));
        choices
    }

    /// Whether a run that learns from these comparisons fits into the memory that it may need.
    ///
    /// # Errors
    /// [`Error::TooLittleMemory`].
    pub fn check_memory_for_rankings(
        &self,
        training: &TrainingConfig,
        batching: &BatchingConfig,
        data: &Rankings,
    ) -> Result<(), Error> {
        let row_len = long_row(data.rankings.iter().map(Ranking::n_tokens).collect());
        self.check_memory(training, training.batch_size, batching.microbatch_size, row_len)
    }
}

/// How a stage goes through a fixed set of rows.
#[derive(Clone, Copy, Debug)]
pub struct Passes {
    /// Rows to learn from.
    pub n_rows: usize,
    /// Tokens of all rows.
    pub n_tokens: usize,
    /// Tokens of an update, at best.
    pub tokens_of_update: usize,
    /// Updates that a run should have at least, if `most_epochs` allow it.
    pub least_updates: usize,
    /// The fewest passes.
    pub least_epochs: usize,
    /// The most passes: with more, a model learns the rows by heart.
    pub most_epochs: usize,
}

impl Passes {
    /// Rows in an update, passes, and the schedule: a warm-up, and then half a cosine to 0. It also returns the rows in an
    /// update that the run will have, chosen or not.
    pub fn choose(&self, auto: &AutoKeys, training: &TrainingConfig) -> (Vec<Chosen>, usize) {
        let mean_len = (self.n_tokens / self.n_rows.max(1)).max(1);
        let by_tokens = self.tokens_of_update / mean_len;
        // Few rows that are short: smaller batches, so that the updates are enough.
        let by_updates = self.n_rows * self.most_epochs / self.least_updates;
        let batch: usize = by_tokens.min(by_updates).clamp(4, 64).min(self.n_rows.max(1));
        let batch_reason = format!("{} of {mean_len} tokens on average", counted(self.n_rows, "row"));
        let batch_size = Chosen::new("batch_size", batch as i64, batch_reason);
        let batch = if auto.contains("batch_size") { batch } else { training.batch_size };
        let of_epoch = self.n_rows.div_ceil(batch).max(1);
        let epochs = self.least_updates.div_ceil(of_epoch).clamp(self.least_epochs, self.most_epochs);
        // More passes where somebody asks for more updates.
        let epochs = epochs.max(training.max_steps.div_ceil(of_epoch));
        let n_epochs =
            Chosen::new("epochs", epochs as i64, format!("{} in each", counted(of_epoch, "update")));
        let epochs = if auto.contains("epochs") { epochs } else { training.epochs };
        let limit = if training.max_steps == 0 { usize::MAX } else { training.max_steps };
        let updates = of_epoch.saturating_mul(epochs).min(limit);
        let warmup = (updates / 20).clamp(1, 100);
        let of_updates = counted(updates, "update");
        let kind = Chosen::new("schedule.kind", "cosine", of_updates.clone());
        let warmup_steps = Chosen::new("schedule.warmup_steps", warmup as i64, of_updates);
        (vec![batch_size, n_epochs, kind, warmup_steps], batch)
    }
}

/// A length that nearly all rows have at most: 95 % of them.
pub fn long_row(mut lengths: Vec<usize>) -> usize {
    lengths.sort_unstable();
    lengths.get((lengths.len() * 95 / 100).min(lengths.len().saturating_sub(1))).copied().unwrap_or(1).max(1)
}

/// "1 update", "2 updates".
fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A number in three digits: "870", "4.9k", "135M".
fn rounded(n: usize) -> String {
    let n = n as f64;
    let (scaled, unit) = match n {
        n if n < 1e3 => return n.to_string(),
        n if n < 1e6 => (n / 1e3, "k"),
        n if n < 1e9 => (n / 1e6, "M"),
        n => (n / 1e9, "B"),
    };
    if scaled < 9.95 { format!("{scaled:.1}{unit}") } else { format!("{scaled:.0}{unit}") }
}

#[cfg(test)]
mod tests {
    use toml::Value;

    use super::*;

    pub(super) fn weights(n_params: usize, are_fresh: bool) -> Weights {
        let config = ModelConfig::preset("small").unwrap();
        Weights {
            config,
            n_params,
            are_fresh,
            on_host: false,
            have_adapters: false,
            n_threads: 1,
            beside: None,
            recomputes_blocks: false,
            limit: MemoryLimit::default(),
            n_frozen: 0,
            n_trained_beside: 0,
        }
    }

    fn value<'c>(choices: &'c [Chosen], key: &str) -> &'c Value {
        &choices.iter().find(|choice| choice.key == key).unwrap().value
    }

    #[test]
    fn smaller_models_learn_at_larger_rates_from_smaller_batches() {
        let rate =
            |n_params, are_fresh| weights(n_params, are_fresh).learning_rate("learning_rate", 1e-4).value;
        assert_eq!([true, false].map(|fresh| rate(100_000_000, fresh)), [1e-4, 1e-4].map(Value::from));
        // A sixteenth of the parameters: twice the rate of fresh weights, and four times that of others.
        assert_eq!([true, false].map(|fresh| rate(6_250_000, fresh)), [2e-4, 4e-4].map(Value::from));
        let adapters = weights(100_000_000, false).with_adapters(true).learning_rate("learning_rate", 1e-4);
        assert_eq!(
            (adapters.value, adapters.reason.as_str()),
            (Value::from(1e-3), "100M parameters, for adapters")
        );
        // 1e-4 · (1e8 / 4.9e6)^(1/4) = 2.1254e-4.
        assert_eq!(rate(4_900_000, true), Value::from(2.1e-4));
        let tokens = |n_params, are_fresh| weights(n_params, are_fresh).tokens_of_update();
        assert_eq!([tokens(100_000_000, true), tokens(100_000_000, false)], [4096, 8192]);
        assert_eq!(
            [tokens(25_000_000, false), tokens(1_000_000, true), tokens(1_000_000, false)],
            [4096, 1024, 2048]
        );
    }

    #[test]
    fn numbers_have_three_digits_at_most() {
        let words = |n| weights(n, true).in_words();
        assert_eq!(words(870), "870 fresh parameters");
        assert_eq!(words(4_860_000), "4.9M fresh parameters");
        assert_eq!(words(134_515_008), "135M fresh parameters");
        assert_eq!(weights(9_960, false).in_words(), "10k parameters");
    }

    #[test]
    fn a_run_has_enough_updates_and_no_more_passes_than_it_may() {
        let passes = Passes {
            n_rows: 1000,
            n_tokens: 100_000,
            tokens_of_update: 1600,
            least_updates: 250,
            least_epochs: 2,
            most_epochs: 6,
        };
        let auto = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<AutoKeys>();
        let all = auto(&["batch_size", "epochs", "schedule.kind", "schedule.warmup_steps"]);
        let (choices, batch) = passes.choose(&all, &TrainingConfig::default());
        // 63 updates in a pass, and so four passes for 250 of them, with a warm-up of 252 / 20.
        assert_eq!((batch, value(&choices, "batch_size")), (16, &Value::from(16)));
        assert_eq!(value(&choices, "epochs"), &Value::from(4));
        assert_eq!(value(&choices, "schedule.warmup_steps"), &Value::from(12));
        // 100 rows would make 42 updates of 16 rows in six passes; batches of 4 make 150.
        let short = Passes { n_rows: 100, n_tokens: 10_000, ..passes };
        let (choices, batch) = short.choose(&all, &TrainingConfig::default());
        assert_eq!((batch, value(&choices, "epochs")), (4, &Value::from(6)));
        // 600 rows: 600 · 6 / 250 = 14.
        assert_eq!(
            Passes { n_rows: 600, n_tokens: 60_000, ..passes }.choose(&all, &TrainingConfig::default()).1,
            14
        );
        let few = Passes { n_rows: 10, n_tokens: 1000, ..passes };
        let (choices, _) = few.choose(&all, &TrainingConfig::default());
        assert_eq!(value(&choices, "epochs"), &Value::from(6));
        // As many passes as the updates need that somebody asks for: 10 rows in batches of 4 are three updates.
        let more = TrainingConfig { max_steps: 40, ..TrainingConfig::default() };
        assert_eq!(value(&few.choose(&all, &more).0, "epochs"), &Value::from(14));
        // What the user has said counts for the rest.
        let training = TrainingConfig { batch_size: 500, max_steps: 3, ..TrainingConfig::default() };
        let (choices, batch) = passes.choose(&auto(&["schedule.warmup_steps"]), &training);
        assert_eq!((batch, value(&choices, "schedule.warmup_steps")), (500, &Value::from(1)));
    }

    #[test]
    fn a_long_row_is_longer_than_95_of_100() {
        assert_eq!(long_row((1..=100).rev().collect()), 96);
        assert_eq!(long_row(vec![7]), 7);
        assert_eq!(long_row(vec![]), 1);
    }
}
