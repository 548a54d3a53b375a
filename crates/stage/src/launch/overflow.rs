//! What happens to rows that do not fit into the context, where that is left to Temper.

use std::path::PathBuf;

use temper_data::{Dataset, Encoding, Rows};
use temper_tokenizer::Overflow;
use temper_train::Chosen;

use super::{Launch, TRAINING};
use crate::Error;
use crate::auto::OVERFLOW;

impl Launch {
    /// Encodes rows to learn from, and says what happens to those that are too long: what `encoding` says, or, where the
    /// setting `overflow` is left to Temper, what [`overflow_choice`] says.
    pub(super) fn encode_to_learn<D: Dataset>(
        &mut self,
        paths: &[PathBuf],
        rows: &Rows<D::Record>,
        encoding: &Encoding<'_>,
    ) -> Result<(D, Overflow), Error> {
        let overflow = match self.settings_at_the_start()? {
            _ if !self.is_open(OVERFLOW) => encoding.overflow,
            Some(start) => {
                let (chosen, given) = (start.chosen(&self.auto), start.given(&self.auto));
                let truncates = chosen.iter().chain(&given).any(is_truncated);
                if truncates { Overflow::TruncatePrompt } else { Overflow::Drop }
            }
            None => {
                let (bad_rows, whole) =
                    (self.read.bad_rows, Encoding { overflow: Overflow::Drop, ..*encoding });
                let mut notes = Vec::new();
                let data = D::encode_rows(rows, bad_rows, &whole, &mut |note| notes.push(note.to_owned()));
                let n_rows = rows.records.len();
                let n_too_long = match &data {
                    Ok(data) => data.report().too_long.len(),
                    Err(temper_data::Error::NothingFits { .. } | temper_data::Error::NoPromptFits { .. }) => {
                        n_rows
                    }
                    Err(_) => 0,
                };
                let choice = overflow_choice(n_too_long, n_rows, encoding.max_len);
                let is_truncated = is_truncated(&choice);
                self.of_rows.push(choice);
                if !is_truncated {
                    let data = data?;
                    self.note_all(&notes);
                    self.note_of_use(&data, paths, rows, TRAINING);
                    return Ok((data, Overflow::Drop));
                }
                Overflow::TruncatePrompt
            }
        };
        let data = self.encode(paths, rows, TRAINING, &Encoding { overflow, ..*encoding })?;
        Ok((data, overflow))
    }
}

/// Too long prompts are cut where more than a twentieth of the rows would be lost without it. Otherwise such rows are left
/// out: a prompt often has its question at the start, which is what would be cut.
fn overflow_choice(n_too_long: usize, n_rows: usize, max_len: usize) -> Chosen {
    let value = if 20 * n_too_long > n_rows { "truncate_prompt" } else { "drop" };
    let reason = match n_too_long {
        0 => format!("all {n_rows} rows fit into {max_len} tokens"),
        n => format!("{n} of {n_rows} rows do not fit into {max_len} tokens"),
    };
    Chosen::new(OVERFLOW, value, reason)
}

fn is_truncated(choice: &Chosen) -> bool {
    choice.key == OVERFLOW && choice.value.as_str() == Some("truncate_prompt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_prompts_are_cut_only_where_many_rows_would_be_lost() {
        let choice = |n_too_long, n_rows| {
            let Chosen { value, reason, .. } = overflow_choice(n_too_long, n_rows, 512);
            (value.as_str().unwrap().to_owned(), reason)
        };
        assert_eq!(choice(0, 100), ("drop".into(), "all 100 rows fit into 512 tokens".into()));
        assert_eq!(choice(5, 100).0, "drop");
        let cut = ("truncate_prompt".into(), "6 of 100 rows do not fit into 512 tokens".into());
        assert_eq!(choice(6, 100), cut);
    }
}
