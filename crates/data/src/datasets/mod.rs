//! Records as token rows: what the stages train on.

mod accuracy;
mod asked;
mod demonstrations;
mod fingerprint;
mod pairs;
mod prompts;
mod ranking;
mod rankings;
mod texts;

use std::path::Path;

use temper_tokenizer::{LearnedTurns, Overflow, TextSide};

use crate::{BadRows, Error, ReadOptions, RowReport, Rows, TrainingRecord, read_rows};

pub use accuracy::{accuracy, correctness};
pub use asked::MOST_ASKED;
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
    /// Which answers of a conversation are learned.
    pub learned: LearnedTurns,
    /// Whether plain text alone is packed into full rows, as in pretraining. Without it every text has rows of its own, as a
    /// model is asked.
    pub pack: bool,
}

impl<'a> Encoding<'a> {
    /// Rows of at most `max_len` tokens; longer ones are left out, and every answer of a conversation is learned.
    pub fn new(text: &'a TextSide, max_len: usize) -> Self {
        let (overflow, learned) = (Overflow::default(), LearnedTurns::default());
        Self { text, max_len, overflow, learned, pack: false }
    }
}

/// Token rows of one kind, made from records of one kind.
pub trait Dataset: Sized {
    /// What it is made from.
    type Record: TrainingRecord;

    /// Encodes records as rows of at most `max_len` tokens, put together by the template; longer ones are left out or
    /// lose the left of their prompt, as `overflow` says.
    ///
    /// # Errors
    /// No row is left, a row that the template refuses, or a special token that the tokenizer does not have.
    fn encode(records: &[Self::Record], encoding: &Encoding<'_>) -> Result<Self, Error>;

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
        let options = options.into();
        let bad_rows = options.bad_rows;
        let rows = read_rows::<Self::Record>(paths, options)?.with_purpose(purpose);
        rows.notes_of_skipped().iter().for_each(|sentence| note(sentence));
        Self::encode_rows(&rows, bad_rows, encoding, note)
    }

    /// Encodes rows that were read, with a note for each file and each reason why some of them were left out, cut or
    /// changed. `bad_rows` says what happens to rows that the template refuses.
    ///
    /// # Errors
    /// Those of [`Dataset::encode`].
    fn encode_rows(
        rows: &Rows<Self::Record>,
        bad_rows: BadRows,
        encoding: &Encoding<'_>,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        let data = Self::encode(&rows.records, encoding).map_err(|error| error.at(&rows.places))?;
        if bad_rows == BadRows::Refuse
            && let Some(refusal) = &data.report().first_refusal
        {
            return Err(refusal.error().at(&rows.places));
        }
        data.notes(rows, encoding.max_len).iter().for_each(|sentence| note(sentence));
        Ok(data)
    }

    /// Which records were left out or cut.
    fn report(&self) -> &RowReport;

    /// A sentence for each file and each reason why some of its rows were left out, cut or taken in another way than
    /// as they are. `rows` are those that were encoded, with the same `max_len`.
    fn notes(&self, rows: &Rows<Self::Record>, max_len: usize) -> Vec<String>;

    /// Rows that are left to learn from.
    fn n_rows(&self) -> usize;

    /// Tokens of all these rows, prompts included.
    fn n_tokens(&self) -> usize;

    /// What a resumed run compares: that these are the same rows, whichever file they came from.
    fn fingerprint(&self) -> String;
}
