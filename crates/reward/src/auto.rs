//! What reward-model training chooses for settings that are left to Temper.

use temper_data::Rankings;
use temper_stage::{AUTO_OF_RANKINGS, Weights};
use temper_train::{AutoKeys, Chosen};

use crate::RewardConfig;

const POOLING: (&str, &str) = ("pooling", "from the number of parameters");

/// The settings that may be `auto`, and what their values follow from.
pub(crate) const AUTO: [(&str, &str); 8] = {
    let [a, b, c, d, e, f, g] = AUTO_OF_RANKINGS;
    [a, b, c, d, e, f, g, POOLING]
};

/// Learning rate of a model of 100 million parameters.
const RATE: f64 = 6e-5;

/// Below so many parameters, a model has little about an answer in the state of its last token, and learns to put it there
/// only from more pairs than people have.
const SMALL: usize = 50_000_000;

impl RewardConfig {
    /// The values for a reward model with this backbone, and for these comparisons.
    pub(crate) fn choices(&self, auto: &AutoKeys, backbone: &Weights, data: &Rankings) -> Vec<Chosen> {
        let mut choices = backbone.choices_for_rankings(auto, &self.training, data, RATE);
        let pooling = if backbone.n_params() < SMALL { "mean" } else { "last" };
        choices.push(Chosen::new(POOLING.0, pooling, backbone.in_words()));
        choices
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use temper_data::{Comparison, Encoding};
    use temper_model::{Decoder, ModelConfig, Pooling};
    use temper_tokenizer::{Template, TextSide, Tokenizer};
    use temper_train::Seed;

    use super::*;

    #[test]
    fn every_setting_that_may_be_auto_is_chosen_once_and_in_range() {
        let auto = AutoKeys::all::<RewardConfig>();
        let config = RewardConfig::default();
        let shape = ModelConfig::preset("tiny").unwrap();
        let backbone = Decoder::new(&shape, &mut Seed(0).stream("init"), &Device::flex());
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let data = Rankings::new(&[Comparison::pair("a", "b", "c")], &Encoding::new(&text, 64)).unwrap();
        let choices = config.choices(&auto, &Weights::of(&backbone, &shape, false), &data);
        let mut chosen: Vec<String> = choices.iter().map(|choice| choice.key.clone()).collect();
        chosen.push("overflow".into());
        let mut keys = AUTO.map(|(key, _)| key);
        chosen.sort_unstable();
        keys.sort_unstable();
        assert_eq!(chosen, keys);
        let (settled, _) = auto.fill(&config, choices).unwrap();
        settled.validate().unwrap();
        assert_eq!(settled.pooling, Pooling::Mean);
    }
}
