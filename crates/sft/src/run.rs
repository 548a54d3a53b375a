//! SFT from files.

use std::path::{Path, PathBuf};

use temper_assistant::{Assistant, context_len};
use temper_data::{Demonstrations, Encoding};
use temper_stage::{Error, Launch, Weights, model_fingerprint};
use temper_train::Seed;

use crate::{SftConfig, train};

/// What SFT reads.
#[derive(Clone, Debug, Default)]
pub struct SftFiles {
    /// A model directory, or the name of a preset, which has fresh weights.
    pub model: String,
    /// Demonstrations to learn from.
    pub data: Vec<PathBuf>,
    /// Demonstrations to measure the loss on; may be empty.
    pub eval_data: Vec<PathBuf>,
}

/// Fine-tunes a model on demonstrations from files, and returns it with its text side.
///
/// An interrupted run has written a checkpoint. Launched again with the same settings and files and
/// [`Launch::resume`], it continues, and ends with the same model as a run without a break.
///
/// # Errors
/// Settings out of range, files that cannot be read or written, a resumed run that was started with something else, a
/// loss that is not finite, or a trained model that computes numbers that are not.
pub fn run(config: &SftConfig, files: &SftFiles, mut launch: Launch) -> Result<Assistant, Error> {
    config.validate()?;
    let mut init = Seed(config.training.seed).stream("init");
    let (template, options) = (&config.encoding.template, launch.model_options());
    let start = Assistant::start(&files.model, template, &mut init, launch.device(), options)?;
    let Assistant { mut model, mut text } = start;
    launch.freeze_date(&mut text)?;
    let max_len = context_len(config.training.max_seq_len, model.config())?;
    let encoding = Encoding { pack: true, ..config.encoding.encoding(&text, max_len) };
    let (data, eval_data): (Demonstrations, _) =
        launch.datasets(&files.data, &files.eval_data, config.training.seed, &encoding)?;
    let weights = Weights::of(&model, model.config(), Assistant::is_fresh(&files.model));
    let weights = weights.with_adapters(config.adapter.rank > 0).within(config.training.memory);
    let config = &launch.settle(config, |config, auto| config.choices(auto, &weights, &data))?;
    config.check_memory(&weights, &data)?;
    if let Some(longest) = data.longest_answers() {
        model.set_max_new_tokens(longest);
    }
    let mut idle = config.idle(text.has_template, model.config().dropout > 0.0);
    idle.extend(config.shown.idle(eval_data.is_some()));
    launch.note_settings_without_effect(config, &idle)?;
    let given = [
        ("--model", Some(model_fingerprint(Path::new(&files.model))?)),
        ("--data", Some(data.fingerprint())),
        ("--eval-data", eval_data.as_ref().map(Demonstrations::fingerprint)),
    ];
    launch.starts_from(Path::new(&files.model));
    if config.adapter.rank > 0 && Assistant::is_fresh(&files.model) {
        return Err(Error::AdaptersOnFreshWeights);
    }
    if let Some(lora) = config.adapter.lora(&files.model) {
        model = model.with_adapters(&lora, &mut Seed(config.training.seed).stream("adapters"))?;
    }
    let mut run = launch.open("sft", config, &config.training, given)?;
    let model = train(config, model, &text, &data, eval_data.as_ref(), &mut run)?;
    Ok(Assistant { model, text })
}

impl SftConfig {
    /// The settings that this model leaves without effect, with the reason.
    fn idle(&self, has_template: bool, has_dropout: bool) -> Vec<(&'static str, &'static str)> {
        let template = has_template && self.encoding.template != "auto";
        let dropout = self.dropout && !has_dropout;
        let why = "the model's config.json names no dropout";
        let template = template.then_some(("template", "the model directory brings its own template.json"));
        template.into_iter().chain(dropout.then_some(("dropout", why))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_and_template_depend_on_the_model() {
        let mut config = SftConfig::default();
        config.encoding.template = "bare".into();
        let keys = |has_template, has_dropout| -> Vec<&str> {
            config.idle(has_template, has_dropout).into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(true, false), ["template", "dropout"]);
        assert_eq!(keys(false, true), [""; 0]);
        assert_eq!(SftConfig::default().idle(true, true), []);
    }
}
