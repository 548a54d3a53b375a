//! Finished models with their text side, as directories that other tools open too.

use std::path::Path;

use burn::module::Module;
use temper_model::{ADAPTER_DIR, CausalLm, ScalarModel, TokenIds};
use temper_tokenizer::TextSide;

use crate::Error;
use crate::assistant::FRESH;

/// A model that can be written for use.
pub trait Export: Module {
    /// Writes a model directory for use, which transformers opens where it knows the family.
    ///
    /// # Errors
    /// Files that cannot be written, and weights that are not finite.
    fn export(&self, text: &TextSide, dir: &Path) -> Result<(), Error>;
}

impl Export for CausalLm {
    fn export(&self, text: &TextSide, dir: &Path) -> Result<(), Error> {
        CausalLm::export(self, dir, &ids(text, text.tokenizer.special().pad)).map_err(Error::Model)?;
        if self.transformer.lora().is_some() {
            text.save(&dir.join(ADAPTER_DIR))?;
        }
        Ok(text.save(dir)?)
    }
}

impl Export for ScalarModel {
    fn export(&self, text: &TextSide, dir: &Path) -> Result<(), Error> {
        let pad = text.tokenizer.score_padding(self.config().vocab_size);
        ScalarModel::export(self, dir, &ids(text, pad)).map_err(Error::Model)?;
        if self.transformer.lora().is_some() {
            text.save(&dir.join(ADAPTER_DIR))?;
        }
        Ok(text.save_for_scores(dir, pad)?)
    }
}

/// Writes a model that has not been trained, without what a stage decides about its template.
pub(crate) fn export_fresh(model: &CausalLm, text: &TextSide, dir: &Path) -> Result<(), Error> {
    model.export(dir, &ids(text, text.tokenizer.special().pad)).map_err(Error::Model)?;
    if text.has_template && text.template.chat_template().is_none() {
        text.save(dir)?;
    } else {
        text.tokenizer.save(dir)?;
    }
    let path = dir.join(FRESH);
    std::fs::write(&path, "{\"fresh\": true}\n")
        .map_err(|source| Error::Model(temper_model::Error::Io { path, source }))
}

fn ids(text: &TextSide, pad: Option<u32>) -> TokenIds {
    TokenIds { eos: text.eos(), end_tokens: text.end_tokens(), bos: text.tokenizer.special().bos, pad }
}
