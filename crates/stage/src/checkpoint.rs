//! Checkpoints of a stage that trains one model.

use std::path::Path;

use burn::tensor::Device;
use temper_assistant::Export;
use temper_model::{CausalLm, ModelConfig, ScalarModel};
use temper_tokenizer::TextSide;
use temper_train::Progress;

use crate::Error;

/// A model that a stage trains: one that predicts tokens, or one that scores them.
pub trait StageModel: Export {
    /// Reads a model directory.
    ///
    /// # Errors
    /// Files that are missing or damaged, and a model with another head.
    fn load(dir: &Path, device: &Device) -> Result<Self, temper_model::Error>;

    /// Writes a model directory as a checkpoint needs it. Its texts end with the token `eos`.
    ///
    /// # Errors
    /// Files that cannot be written, and weights that are not finite.
    fn save(&self, dir: &Path, eos: u32) -> Result<(), temper_model::Error>;

    /// The shape of the network.
    fn config(&self) -> &ModelConfig;

    /// Where the weights are; with the autodiff mark while training.
    fn device(&self) -> Device;
}

macro_rules! stage_model {
    ($model:ty) => {
        impl StageModel for $model {
            fn load(dir: &Path, device: &Device) -> Result<Self, temper_model::Error> {
                <$model>::load(dir, device)
            }

            fn save(&self, dir: &Path, eos: u32) -> Result<(), temper_model::Error> {
                <$model>::save(self, dir, eos)
            }

            fn config(&self) -> &ModelConfig {
                <$model>::config(self)
            }

            fn device(&self) -> Device {
                <$model>::device(self)
            }
        }
    };
}

stage_model!(CausalLm);
stage_model!(ScalarModel);

/// Writes a model directory: one for use, or if there is `progress`, a checkpoint with what a resumed run needs.
///
/// # Errors
/// Files that cannot be written, and weights that are not finite.
pub fn save(
    dir: &Path,
    model: &impl StageModel,
    text: &TextSide,
    progress: Option<&Progress>,
) -> Result<(), Error> {
    let Some(progress) = progress else { return Ok(model.export(text, dir)?) };
    model.save(dir, text.eos())?;
    text.save(dir)?;
    Ok(progress.save(dir)?)
}

/// Reads a checkpoint that [`save`] wrote: the progress, and the model in place of `started_from`, ready to be trained.
///
/// # Errors
/// Files that are missing or damaged, an optimizer state of another model, and a model with another context than
/// `started_from`.
pub fn resume<M: StageModel>(dir: &Path, progress: &mut Progress, started_from: &M) -> Result<M, Error> {
    let model = M::load(dir, &started_from.device().inner())?.train();
    model.config().check_context(started_from.config().max_seq_len)?;
    progress.load(dir, &model, temper_model::former_path)?;
    Ok(model)
}
