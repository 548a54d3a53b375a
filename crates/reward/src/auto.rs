//! What reward-model training chooses for settings that are left to Temper.

use temper_data::Rankings;
use temper_stage::{AUTO_OF_RANKINGS, Weights};
use temper_train::{AutoKeys, Chosen};

use crate::RewardConfig;

const POOLING: (&str, &str) = ("pooling", "from the number of parameters");

/// The settings that may be `auto`, and what their values follow from.
pub(crate) const AUTO: [(&str, &str); 9] = {
    let [a, b, c, d, e, f, g, h] = AUTO_OF_RANKINGS;
    [a, b, c, d, e, f, g, h, POOLING]
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
