//! What reward-model training chooses for settings that are left to Temper.

use temper_data::{Ranking, Rankings};
use temper_stage::{Passes, Weights, long_row};
use temper_train::{AutoKeys, Chosen};

use crate::RewardConfig;

/// The settings that may be `auto`, and what their values follow from.
pub(crate) const AUTO: [(&str, &str); 6] = [
    ("epochs", "from the number of rows"),
    ("learning_rate", "from the number of parameters"),
    ("batch_size", "from the lengths of the rows"),
    ("microbatch_size", "from the memory that a row takes"),
    ("schedule.kind", "half a cosine, after a warm-up"),
    ("schedule.warmup_steps", "a twentieth of the updates, 100 at most"),
];

impl RewardConfig {
    /// The values for this model and these comparisons.
    pub(crate) fn choices(&self, auto: &AutoKeys, weights: &Weights, data: &Rankings) -> Vec<Chosen> {
        let lengths: Vec<usize> = data.rankings.iter().map(Ranking::n_tokens).collect();
        let passes = Passes {
            n_rows: lengths.len(),
            n_tokens: lengths.iter().sum(),
            tokens_of_update: 8192,
            least_updates: 100,
            least_epochs: 1,
            most_epochs: 3,
        };
        let (mut choices, batch) = passes.choose(auto, &self.training);
        choices.push(weights.learning_rate("learning_rate", 5e-5));
        choices.push(weights.microbatch("microbatch_size", batch, long_row(lengths)));
        choices
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use temper_data::{Comparison, Encoding};
    use temper_model::{CausalLm, ModelConfig};
    use temper_tokenizer::{Template, TextSide, Tokenizer};
    use temper_train::Seed;

    use super::*;

    #[test]
    fn every_setting_that_may_be_auto_is_chosen_once_and_in_range() {
        let auto = AutoKeys::all::<RewardConfig>();
        let config = RewardConfig::default();
        let mut rng = Seed(0).stream("init");
        let model = CausalLm::new(&ModelConfig::preset("tiny").unwrap(), &mut rng, &Device::flex());
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let data = Rankings::new(&[Comparison::pair("a", "b", "c")], &Encoding::new(&text, 64)).unwrap();
        let choices = config.choices(&auto, &Weights::of(&model, model.config(), false), &data);
        let mut chosen: Vec<String> = choices.iter().map(|choice| choice.key.clone()).collect();
        let mut keys = AUTO.map(|(key, _)| key);
        chosen.sort_unstable();
        keys.sort_unstable();
        assert_eq!(chosen, keys);
        let (settled, _) = auto.fill(&config, choices).unwrap();
        settled.validate().unwrap();
    }
}
