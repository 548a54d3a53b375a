//! A reward model from files.

use std::path::PathBuf;

use temper_assistant::{Assistant, RewardModel, context_len};
use temper_data::{Demonstration, Rankings};
use temper_model::{Pooling, ScalarModel};
use temper_stage::{Error, Launch, Weights, model_fingerprint};
use temper_train::Seed;

use crate::{Normalize, RewardConfig, train};

/// What the reward model reads.
#[derive(Clone, Debug, Default)]
pub struct RewardFiles {
    /// The directory of the SFT model whose backbone it starts from.
    pub model: PathBuf,
    /// Comparisons to learn from.
    pub data: Vec<PathBuf>,
    /// Comparisons to measure the accuracy on; may be empty.
    pub eval_data: Vec<PathBuf>,
    /// Demonstrations whose scores are 0 on average in the end; may be empty.
    pub normalize_data: Vec<PathBuf>,
}

/// Trains a reward model on comparisons from files, and returns it with its text side.
///
/// An interrupted run has written a checkpoint. Launched again with the same settings and files and
/// [`Launch::resume`], it continues, and ends with the same model as a run without a break.
///
/// # Errors
/// Settings out of range, files that cannot be read or written, a resumed run that was started with something else, a
/// loss that is not finite, or a trained model that computes numbers that are not.
pub fn run(config: &RewardConfig, files: &RewardFiles, mut launch: Launch) -> Result<RewardModel, Error> {
    config.validate()?;
    let (template, options) = (&config.encoding.template, launch.model_options());
    let start = Assistant::load_to_train(&files.model, template, launch.device(), options)?;
    let Assistant { model: sft, mut text } = start;
    launch.freeze_date(&mut text)?;
    let max_len = context_len(config.training.max_seq_len, sft.config())?;
    let encoding = config.encoding.encoding(&text, max_len);
    let (mut data, eval_data): (Rankings, _) =
        launch.datasets(&files.data, &files.eval_data, config.training.seed, &encoding)?;
    let weights = Weights::of(&sft.transformer, sft.config(), false);
    let weights = weights.with_adapters(config.adapter.rank > 0).within(config.training.memory);
    let config = &launch.settle(config, |config, auto| config.choices(auto, &weights, &data))?;
    weights.check_memory_for_rankings(&config.training, &config.batching, &data)?;
    if !files.normalize_data.is_empty() {
        let purpose = "demonstrations to normalise on";
        let rows = launch.rows::<Demonstration>(&files.normalize_data, purpose)?;
        data = data.with_demonstrations(&rows.records, &config.encoding.encoding(&text, max_len))?;
        launch.note_all(&data.notes_of_demonstrations(&rows, max_len));
    }

    let mut head = Seed(config.training.seed).stream("reward_head");
    let mut model = ScalarModel::new(sft.transformer, config.pooling, &mut head);
    if let Some(lora) = config.adapter.lora(&files.model.display().to_string()) {
        model = model.with_adapters(&lora, &mut Seed(config.training.seed).stream("adapters"))?;
    }
    if config.pooling == Pooling::Mean {
        launch.note(
            "with `pooling = mean`, only Temper can compute the scores: transformers reads the last token",
        );
    }
    let idle = config.idle(text.has_template, !files.normalize_data.is_empty());
    launch.note_settings_without_effect(config, &idle)?;
    let given = [
        ("--model", Some(model_fingerprint(&files.model)?)),
        ("--data", Some(data.fingerprint())),
        ("--eval-data", eval_data.as_ref().map(Rankings::fingerprint)),
    ];
    launch.starts_from(&files.model);
    let mut run = launch.open("reward", config, &config.training, given)?;
    let model = train(config, model, &text, &data, eval_data.as_ref(), &mut run)?;
    Ok(RewardModel { model, text })
}

impl RewardConfig {
    /// The settings that the model and the files leave without effect, with the reason.
    fn idle(&self, has_template: bool, has_normalize_data: bool) -> Vec<(&'static str, &'static str)> {
        let template = has_template && self.encoding.template != "auto";
        let normalize = self.normalize != Normalize::None && !has_normalize_data;
        let why = "there is no `--normalize-data`, so scores stay as they are learned";
        let template = template.then_some(("template", "the model directory brings its own template.json"));
        template.into_iter().chain(normalize.then_some(("normalize", why))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation_needs_demonstrations() {
        let keys = |has_normalize_data| -> Vec<&str> {
            let idle = RewardConfig::default().idle(true, has_normalize_data);
            idle.into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(false), ["normalize"]);
        assert_eq!(keys(true), [""; 0]);
    }
}
