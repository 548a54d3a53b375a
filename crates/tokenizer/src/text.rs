//! The text side of a model.

use std::path::Path;

use crate::{Error, Template, Tokenizer};

/// What a stage works on besides its model: the text side, stored with every checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Prompt and completion to text.
    pub template: &'a Template,
}

impl Text<'_> {
    /// Writes both into a model directory. With the byte tokenizer, `tokenizer_config.json` gets a chat template that
    /// puts text together as the template does.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        self.tokenizer.save_for(dir, Some(self.template))?;
        self.template.save(dir)
    }
}
