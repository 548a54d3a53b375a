//! Prompts of data files, with the place of each.

use std::path::PathBuf;

use anyhow::Result;
use temper_assistant::Outline;
use temper_data::{Place, Prompt, read_rows};

use crate::failure::{hint_of_prompt, hinted};
use crate::session::{Session, bad_rows};

/// Prompts and where they are written.
pub struct PlacedPrompts {
    /// The prompts, in the order of the files.
    pub prompts: Vec<String>,
    places: Vec<Place>,
    skip_bad_rows: bool,
}

impl PlacedPrompts {
    /// Reads data files.
    pub fn read(session: &Session, paths: &[PathBuf], skip_bad_rows: bool) -> Result<Self> {
        let rows = read_rows::<Prompt>(paths, bad_rows(skip_bad_rows))?;
        session.note_count(rows.n_skipped(), "rows could not be read and were skipped");
        let prompts = rows.records.into_iter().map(|row| row.prompt).collect();
        Ok(Self { prompts, places: rows.places, skip_bad_rows })
    }

    /// Refuses the first prompt that a model cannot answer, before it has answered any. If bad rows are to be skipped,
    /// leaves out such prompts instead, and notes how many.
    pub fn check(&mut self, session: &Session, model: &Outline) -> Result<()> {
        let mut rows = Vec::new();
        let mut n_skipped = 0;
        for (place, prompt) in self.places.drain(..).zip(self.prompts.drain(..)) {
            match model.encode(&prompt) {
                Ok(_) => rows.push((place, prompt)),
                Err(_) if self.skip_bad_rows => n_skipped += 1,
                Err(fault) => {
                    let dir = model.text.dir.display();
                    return Err(hinted(format!("{place}: {fault} ({dir})"), hint_of_prompt(&fault)));
                }
            }
        }
        session.note_count(n_skipped, "prompts leave no room for an answer and were skipped");
        if rows.is_empty() {
            let context = model.config.max_seq_len;
            return Err(hinted(
                format!("none of the {n_skipped} prompts leaves room for an answer in {context} tokens"),
                "shorten the prompts, or use a model with a longer context",
            ));
        }
        (self.places, self.prompts) = rows.into_iter().unzip();
        Ok(())
    }
}
