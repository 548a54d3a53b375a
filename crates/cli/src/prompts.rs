//! Prompts of data files, with the place of each.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use temper_assistant::{Outline, PromptOfRow};
use temper_data::{BadRows, Place, PromptRow, ReadOptions};
use temper_tokenizer::Prompt;

use crate::failure::hint_of_prompt;
use crate::session::Session;

/// Prompts and where they are written.
pub struct PlacedPrompts {
    /// The prompts, in the order of the files.
    pub prompts: Vec<PromptOfRow>,
    places: Vec<Place>,
    skip_bad_rows: bool,
}

impl PlacedPrompts {
    /// Reads data files.
    pub fn read(session: &Session, paths: &[PathBuf], options: impl Into<ReadOptions>) -> Result<Self> {
        let options = options.into();
        let skip_bad_rows = options.bad_rows == BadRows::Skip;
        let rows = session.rows::<PromptRow>(paths, options)?;
        let asked = |PromptRow { prompt, columns }| PromptOfRow { prompt, row: Arc::new(columns) };
        let prompts = rows.records.into_iter().map(asked).collect();
        Ok(Self { prompts, places: rows.places, skip_bad_rows })
    }

    /// Refuses the first prompt that a model cannot answer, before it has answered any. If bad rows are to be skipped,
    /// leaves out such prompts instead, with a note.
    pub fn check(&mut self, session: &Session, model: &Outline) -> Result<()> {
        let dir = model.text.dir.display();
        let rows = self.places.drain(..).zip(self.prompts.drain(..)).collect();
        let encode = |prompt: &PromptOfRow| {
            let fault = |fault| (format!("{fault} ({dir})"), hint_of_prompt(&fault));
            model.encode(prompt).map(drop).map_err(fault)
        };
        let rows = session.encode_rows(rows, self.skip_bad_rows, encode)?;
        (self.places, self.prompts) = rows.into_iter().map(|(place, prompt, ())| (place, prompt)).unzip();
        Ok(())
    }

    /// The prompts without the other columns of their rows.
    pub fn alone(self) -> Vec<Prompt> {
        self.prompts.into_iter().map(|asked| asked.prompt).collect()
    }
}
