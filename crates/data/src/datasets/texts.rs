//! Plain text as token rows: what PPO-ptx mixes into its updates.

use temper_tokenizer::{Example, Overflow, Template, Tokenizer, encode_text};

use super::Dataset;
use super::fingerprint::fingerprint_rows;
use crate::{Error, PlainText, Rows};

/// Encoded plain text, all of it to be learned.
#[derive(Clone, Debug)]
pub struct Texts {
    /// One or more rows for each text.
    pub examples: Vec<Example>,
}

impl Texts {
    /// Encodes texts as rows of at most `max_seq_len` tokens; a longer text continues in further rows.
    ///
    /// # Errors
    /// [`Error::NoText`] if no row has a token to learn.
    pub fn new(texts: &[PlainText], tokenizer: &Tokenizer, max_seq_len: usize) -> Result<Self, Error> {
        let rows = texts.iter().flat_map(|text| encode_text(tokenizer, &text.text, max_seq_len));
        let examples: Vec<Example> = rows.filter(|row| row.n_targets() > 0).collect();
        if examples.is_empty() {
            return Err(Error::NoText { rows: texts.len() });
        }
        Ok(Self { examples })
    }

    /// What a resumed run compares: that these are the same texts.
    pub fn fingerprint(&self) -> String {
        fingerprint_rows(self.examples.len(), self.examples.iter().map(|row| row.tokens.as_slice()))
    }
}

impl Dataset for Texts {
    type Record = PlainText;

    /// As [`Texts::new`]: plain text has no template, and it is never too long.
    fn encode(
        records: &[PlainText],
        tokenizer: &Tokenizer,
        _: &Template,
        max_len: usize,
        _: Overflow,
    ) -> Result<Self, Error> {
        Self::new(records, tokenizer, max_len)
    }

    fn notes(&self, _: &Rows<PlainText>, _: usize) -> Vec<String> {
        Vec::new()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_a_token_to_learn_is_refused() {
        // The empty text still teaches its end: it has a start token and an end token. Rows of one token teach nothing.
        let texts = [PlainText { text: "ab".into() }];
        let error = Texts::new(&texts, &Tokenizer::byte(), 1).unwrap_err();
        assert_eq!(error.to_string(), "none of the 1 plain texts has a token to learn");
    }
}
