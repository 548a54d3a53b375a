//! Plain text as token rows: what PPO-ptx mixes into its updates.

use temper_tokenizer::{Example, Tokenizer, encode_text};

use super::fingerprint::fingerprint_rows;
use super::{Dataset, Encoding};
use crate::{Error, PlainText, RowReport, Rows};

/// Encoded plain text, all of it to be learned.
#[derive(Clone, Debug)]
pub struct Texts {
    /// One or more rows for each text.
    pub examples: Vec<Example>,
    /// Which of the given texts were left out.
    pub report: RowReport,
}

impl From<Vec<Example>> for Texts {
    fn from(examples: Vec<Example>) -> Self {
        Self { examples, report: RowReport::default() }
    }
}

impl Texts {
    /// Encodes texts as rows of at most `max_seq_len` tokens; a longer text continues in further rows.
    ///
    /// # Errors
    /// [`Error::NoText`] if no row has a token to learn.
    pub fn new(texts: &[PlainText], tokenizer: &Tokenizer, max_seq_len: usize) -> Result<Self, Error> {
        let mut data = Self { examples: Vec::new(), report: RowReport::default() };
        for (row, text) in texts.iter().enumerate() {
            let n_before = data.examples.len();
            let rows = encode_text(tokenizer, &text.text, max_seq_len).into_iter();
            data.examples.extend(rows.filter(|row| row.n_targets() > 0));
            if data.examples.len() == n_before {
                data.report.without_tokens.push(row);
            }
        }
        if data.examples.is_empty() {
            return Err(Error::NoText { rows: texts.len() });
        }
        Ok(data)
    }

    /// What a resumed run compares: that these are the same texts.
    pub fn fingerprint(&self) -> String {
        fingerprint_rows(self.examples.len(), self.examples.iter().map(|row| row.tokens.as_slice()))
    }
}

impl Dataset for Texts {
    type Record = PlainText;

    /// As [`Texts::new`]: plain text has no template, and it is never too long.
    fn encode(records: &[PlainText], encoding: &Encoding<'_>) -> Result<Self, Error> {
        Self::new(records, &encoding.text.tokenizer, encoding.max_len)
    }

    fn report(&self) -> &RowReport {
        &self.report
    }

    fn n_rows(&self) -> usize {
        self.examples.len()
    }

    fn n_tokens(&self) -> usize {
        self.examples.iter().map(|row| row.tokens.len()).sum()
    }

    fn notes(&self, rows: &Rows<PlainText>, max_len: usize) -> Vec<String> {
        self.report.notes(rows, &format!("{max_len} tokens"), "what would be learned")
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

    /// This tokenizer has a token for the letter `a` and for its end, and for nothing else.
    #[test]
    fn a_text_that_the_tokenizer_does_not_know_is_left_out_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let json = serde_json::json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "BPE", "vocab": {"a": 0, "<end>": 1}, "merges": []}});
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        std::fs::write(dir.path().join("config.json"), "{\"eos_token_id\": 1}").unwrap();
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        let texts = ["a a", "b", "a"].map(|text| PlainText { text: text.into() });
        let data = Texts::new(&texts, &tokenizer, 2).unwrap();
        assert_eq!(data.report.without_tokens, [1]);
    }
}
