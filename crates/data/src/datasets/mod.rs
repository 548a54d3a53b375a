//! Records as token rows: what the stages train on.

mod accuracy;
mod demonstrations;
mod fingerprint;
mod pairs;
mod prompts;
mod ranking;
mod rankings;
mod texts;

use temper_tokenizer::{Overflow, Template, Tokenizer};

use crate::{Error, Record, Rows};

pub use accuracy::{accuracy, correctness};
pub use demonstrations::Demonstrations;
pub use pairs::ScorePairs;
pub use prompts::{EncodedPrompt, Prompts};
pub use ranking::{Pair, Ranking};
pub use rankings::Rankings;
pub use texts::Texts;

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

    /// A sentence for each file and each reason why some of its rows were left out, cut or taken in another way than
    /// as they are. `rows` are those that were encoded, with the same `max_len`.
    fn notes(&self, rows: &Rows<Self::Record>, max_len: usize) -> Vec<String>;

    /// What a resumed run compares: that these are the same rows, whichever file they came from.
    fn fingerprint(&self) -> String;
}
