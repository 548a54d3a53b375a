//! DPO from files.

use std::path::PathBuf;

use temper_assistant::{Assistant, context_len};
use temper_data::Rankings;
use temper_stage::{Error, Launch, Weights, model_fingerprint};
use temper_train::Seed;

use crate::{DpoConfig, train};

/// Learning rate of a model of 100 million parameters, where it is left to Temper.
const RATE: f64 = 1e-5;

/// What DPO reads.
#[derive(Clone, Debug, Default)]
pub struct DpoFiles {
    /// The directory of the SFT model: policy and reference start there.
    pub model: PathBuf,
    /// Comparisons to learn from.
    pub data: Vec<PathBuf>,
    /// Comparisons to measure the loss on; may be empty.
    pub eval_data: Vec<PathBuf>,
}

/// Trains a policy on comparisons from files, and returns it with its text side.
///
/// An interrupted run has written a checkpoint. Launched again with the same settings and files and
/// [`Launch::resume`], it continues, and ends with the same policy as a run without a break.
///
/// # Errors
/// Settings out of range, files that cannot be read or written, a resumed run that was started with something else, a
/// loss that is not finite, or a trained policy that computes numbers that are not.
pub fn run(config: &DpoConfig, files: &DpoFiles, mut launch: Launch) -> Result<Assistant, Error> {
    config.validate()?;
    let (template, options) = (&config.encoding.template, launch.model_options());
    let start = Assistant::load_to_train(&files.model, template, launch.device(), options)?;
    let Assistant { model: mut policy, mut text } = start;
    launch.freeze_date(&mut text)?;
    let max_len = context_len(config.training.max_seq_len, policy.config())?;
    let encoding = config.encoding.encoding(&text, max_len);
    let (data, eval_data): (Rankings, _) =
        launch.datasets(&files.data, &files.eval_data, config.training.seed, &encoding)?;
    let weights = Weights::of(&policy, policy.config(), false);
    let weights = weights.with_adapters(config.adapter.rank > 0).within(config.training.memory);
    let config = &launch
        .settle(config, |config, auto| weights.choices_for_rankings(auto, &config.training, &data, RATE))?;
    weights.check_memory_for_rankings(&config.training, &config.batching, &data)?;
    let idle = text.has_template && config.encoding.template != "auto";
    let idle = idle.then_some(("template", "the model directory brings its own template.json"));
    let idle: Vec<_> = idle.into_iter().chain(config.shown.idle(eval_data.is_some())).collect();
    launch.note_settings_without_effect(config, &idle)?;
    let given = [
        ("--model", Some(model_fingerprint(&files.model)?)),
        ("--data", Some(data.fingerprint())),
        ("--eval-data", eval_data.as_ref().map(Rankings::fingerprint)),
    ];
    launch.starts_from(&files.model);
    if let Some(lora) = config.adapter.lora(&files.model.display().to_string()) {
        policy = policy.with_adapters(&lora, &mut Seed(config.training.seed).stream("adapters"))?;
    }
    let mut run = launch.open("dpo", config, &config.training, given)?;
    let model = train(config, policy, &text, &data, eval_data.as_ref(), &mut run)?;
    Ok(Assistant { model, text })
}
