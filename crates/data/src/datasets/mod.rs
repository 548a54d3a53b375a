//! Records as token rows: what the stages train on.

mod accuracy;
mod demonstrations;
mod fingerprint;
mod pairs;
mod prompts;
mod ranking;
mod rankings;
mod texts;

use std::path::Path;

use temper_tokenizer::{Overflow, Template, TextSide, Tokenizer};

use crate::{Error, ReadOptions, Record, Rows, read_rows};

pub use accuracy::{accuracy, correctness};
pub use demonstrations::Demonstrations;
pub use pairs::ScorePairs;
pub use prompts::{EncodedPrompt, Prompts};
pub use ranking::{Pair, Ranking};
pub use rankings::Rankings;
pub use texts::Texts;

/// How texts become token rows.
#[derive(Clone, Copy, Debug)]
pub struct Encoding<'a> {
    /// The tokenizer, and the template that puts the texts of a row together.
    pub text: &'a TextSide,
    /// The most tokens of a row.
    pub max_len: usize,
    /// What happens to a longer row.
    pub overflow: Overflow,
}

/// Token rows of one kind, made from records of one kind.
pub trait Dataset: Sized {
    /// What it is made from.
    type Record: Record;

    /// Encodes records as rows of at most `max_len` tokens, put together by `template`; longer ones are left out or lose
    /// the left of their prompt, as `overflow` says.
    ///
    /// # Errors
    /// No row is left, or the template needs a special token that the tokenizer does not have.
    fn encode(
        records: &[Self::Record],
        tokenizer: &Tokenizer,
        template: &Template,
        max_len: usize,
        overflow: Overflow,
    ) -> Result<Self, Error>;

    /// Reads data files and encodes their rows. `note` gets a sentence for each file and each reason why some of its rows
    /// were left out, cut or changed; `purpose` says there what the rows are for.
    ///
    /// # Errors
    /// Those of [`read_rows`] and of [`Dataset::encode`].
    fn read(
        paths: &[impl AsRef<Path>],
        purpose: &'static str,
        options: impl Into<ReadOptions>,
        encoding: &Encoding<'_>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        let rows = read_rows::<Self::Record>(paths, options)?.with_purpose(purpose);
        rows.notes_of_skipped().iter().for_each(|sentence| note(sentence));
        let Encoding { text, max_len, overflow } = *encoding;
        let data = Self::encode(&rows.records, &text.tokenizer, &text.template, max_len, overflow)?;
        data.notes(&rows, max_len).iter().for_each(|sentence| note(sentence));
        Ok(data)
    }

    /// A sentence for each file and each reason why some of its rows were left out, cut or taken in another way than
    /// as they are. `rows` are those that were encoded, with the same `max_len`.
    fn notes(&self, rows: &Rows<Self::Record>, max_len: usize) -> Vec<String>;

    /// What a resumed run compares: that these are the same rows, whichever file they came from.
    fn fingerprint(&self) -> String;
}
