//! Checkpoints of a stage that trains one model.

use std::path::Path;

use burn::tensor::Device;
use temper_assistant::Export;
use temper_model::{CausalLm, ModelConfig, ScalarModel};
use temper_tokenizer::TextSide;
use temper_train::{Progress, Run};

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

    /// Whether it has adapters, which are all that is trained of its decoder.
    fn is_adapted(&self) -> bool;

    /// Writes the adapters, and the head of a model that scores.
    ///
    /// # Errors
    /// Files that cannot be written, and numbers that are not finite.
    fn save_adapters(&self, dir: &Path) -> Result<(), temper_model::Error>;

    /// The same model with the adapters in `dir`.
    ///
    /// # Errors
    /// Files that are missing or damaged, and adapters of another model.
    fn with_stored_adapters(self, dir: &Path) -> Result<Self, temper_model::Error>;

    /// Whether blocks are computed again for their gradients.
    fn has_gradient_checkpointing(&self) -> bool;

    /// The same model, whose blocks are computed again for their gradients, or are not.
    #[must_use]
    fn with_gradient_checkpointing(self, recomputes_blocks: bool) -> Self;

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

            fn is_adapted(&self) -> bool {
                self.transformer.lora().is_some()
            }

            fn save_adapters(&self, dir: &Path) -> Result<(), temper_model::Error> {
                <$model>::save_adapters(self, dir)
            }

            fn with_stored_adapters(self, dir: &Path) -> Result<Self, temper_model::Error> {
                <$model>::with_stored_adapters(self, dir)
            }

            fn has_gradient_checkpointing(&self) -> bool {
                self.transformer.has_gradient_checkpointing()
            }

            fn with_gradient_checkpointing(self, recomputes_blocks: bool) -> Self {
                <$model>::with_gradient_checkpointing(self, recomputes_blocks)
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

/// Writes a model directory: one for use, or if there is `progress`, a checkpoint with what a resumed run needs. The
/// checkpoint of a model with adapters has these alone.
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
    save_weights(dir, model, text.eos())?;
    text.save(dir)?;
    Ok(progress.save(dir)?)
}

/// Writes the weights that a checkpoint needs: all of them, or the adapters where there are any. Its texts end with the
/// token `eos`.
///
/// # Errors
/// Files that cannot be written, and weights that are not finite.
pub fn save_weights(dir: &Path, model: &impl StageModel, eos: u32) -> Result<(), temper_model::Error> {
    if model.is_adapted() { model.save_adapters(dir) } else { model.save(dir, eos) }
}

/// Reads what [`save_weights`] wrote of the model that `started_from` was at the start, off the tape.
///
/// # Errors
/// Files that are missing or damaged, and a model with another context than `started_from`.
pub fn load_like<M: StageModel>(started_from: &M, dir: &Path) -> Result<M, temper_model::Error> {
    if started_from.is_adapted() {
        return started_from.valid().with_stored_adapters(dir);
    }
    let model = M::load(dir, &started_from.device().inner())?;
    model.config().check_context(started_from.config().max_seq_len)?;
    Ok(model.with_gradient_checkpointing(started_from.has_gradient_checkpointing()))
}

/// Ends a run that is to stop before an update, with a checkpoint of the last one.
///
/// # Errors
/// That of the sign at which the run stops.
pub fn stop_before_update(
    run: &mut Run,
    model: &impl StageModel,
    text: &TextSide,
    progress: &Progress,
) -> Result<(), Error> {
    let saved = run.save_checkpoint(progress.step, |dir| save(dir, model, text, Some(progress)));
    // Weights that are not finite cannot be saved. Then the error of the loss is the one to report.
    progress.guard.rewinds.check()?;
    saved.map(drop)
}

/// Reads a checkpoint that [`save`] wrote: the progress, and the model in place of `started_from`, ready to be trained.
///
/// # Errors
/// Files that are missing or damaged, an optimizer state of another model, and a model with another context than
/// `started_from`.
pub fn resume<M: StageModel>(dir: &Path, progress: &mut Progress, started_from: &M) -> Result<M, Error> {
    let model = load_like(started_from, dir)?.train();
    progress.load(dir, &model, temper_model::former_path)?;
    Ok(model)
}
