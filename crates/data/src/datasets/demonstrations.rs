//! Demonstrations as token rows: what SFT trains on.

use temper_tokenizer::{Example, Overflow, Template, Tokenizer, encode_text};

use super::Dataset;
use super::fingerprint::fingerprint_rows;
use crate::{Demonstration, Error, RowReport, Rows, SftRow};

/// Encoded demonstrations, and plain text among them.
#[derive(Clone, Debug)]
pub struct Demonstrations {
    /// The examples that fit.
    pub examples: Vec<Example>,
    /// Which of the given rows were left out or lost a part of their prompt.
    pub report: RowReport,
}

/// What is learned of a row.
enum Learned<'a> {
    Completion(&'a Demonstration),
    Text(&'a str),
}

impl Demonstrations {
    /// Encodes demonstrations as `template` puts them together.
    ///
    /// A demonstration that is too long is dropped, or loses the left of its prompt, and is counted; its answer is
    /// never cut, so it never teaches a false end (D9).
    ///
    /// # Errors
    /// [`Error::NothingFits`] or [`Error::NothingToLearn`]; the tokenizer may lack a special token of the template.
    pub fn new(
        demonstrations: &[Demonstration],
        tokenizer: &Tokenizer,
        template: &Template,
        max_seq_len: usize,
        overflow: Overflow,
    ) -> Result<Self, Error> {
        let learned = demonstrations.iter().map(Learned::Completion);
        Self::of_learned(learned, tokenizer, template, max_seq_len, overflow)
    }

    /// Encodes rows for SFT: demonstrations, and plain text mixed in among them, as InstructGPT does for the policies
    /// that PPO starts from (appendix C.4: 10 % pretraining data). A plain text that is too long continues in further
    /// rows.
    ///
    /// # Errors
    /// Those of [`Demonstrations::new`].
    pub fn of_rows(
        rows: &[SftRow],
        tokenizer: &Tokenizer,
        template: &Template,
        max_seq_len: usize,
        overflow: Overflow,
    ) -> Result<Self, Error> {
        let learned = rows.iter().map(|row| match row {
            SftRow::Demonstration(demonstration) | SftRow::Chosen(demonstration) => {
                Learned::Completion(demonstration)
            }
            SftRow::PlainText(plain) => Learned::Text(&plain.text),
        });
        Self::of_learned(learned, tokenizer, template, max_seq_len, overflow)
    }

    fn of_learned<'a>(
        rows: impl ExactSizeIterator<Item = Learned<'a>>,
        tokenizer: &Tokenizer,
        template: &Template,
        max_seq_len: usize,
        overflow: Overflow,
    ) -> Result<Self, Error> {
        template.check(tokenizer)?;
        let n_rows = rows.len();
        let mut examples = Vec::with_capacity(n_rows);
        let mut report = RowReport::default();
        for (idx, row) in rows.enumerate() {
            let mut encoded: Vec<Example> = match row {
                Learned::Completion(Demonstration { prompt, completion }) => template
                    .encode_example(tokenizer, prompt, completion, max_seq_len, overflow)
                    .into_iter()
                    .collect(),
                Learned::Text(text) => encode_text(tokenizer, text, max_seq_len),
            };
            let is_too_long = encoded.is_empty() && matches!(row, Learned::Completion(_));
            // A tokenizer may have no id for a text, and the mean over no token is not a number.
            encoded.retain(|example| example.n_targets() > 0);
            if is_too_long {
                report.too_long.push(idx);
            } else if encoded.is_empty() {
                report.without_tokens.push(idx);
            } else if encoded.iter().any(|example| example.n_cut > 0) {
                report.truncated.push(idx);
            }
            examples.extend(encoded);
        }
        if examples.is_empty() && report.too_long.is_empty() {
            return Err(Error::NothingToLearn { what: "examples", rows: n_rows });
        }
        if examples.is_empty() {
            return Err(Error::NothingFits { what: "examples", rows: n_rows, max_seq_len });
        }
        Ok(Self { examples, report })
    }

    /// Makes a dataset of examples that are already encoded. It leaves none out.
    pub fn of(examples: Vec<Example>) -> Self {
        Self { report: RowReport::default(), examples }
    }

    /// What a resumed run compares: that these are the same examples.
    pub fn fingerprint(&self) -> String {
        fingerprint_rows(self.len(), self.examples.iter().flat_map(|e| [e.prompt(), e.completion()]))
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is none; never true for a dataset that [`Demonstrations::new`] made.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Tokens of each example, for length-bucketed batches.
    pub fn lengths(&self) -> Vec<usize> {
        self.examples.iter().map(|example| example.tokens.len()).collect()
    }
}

impl Dataset for Demonstrations {
    type Record = SftRow;

    fn encode(
        records: &[SftRow],
        tokenizer: &Tokenizer,
        template: &Template,
        max_len: usize,
        overflow: Overflow,
    ) -> Result<Self, Error> {
        Self::of_rows(records, tokenizer, template, max_len, overflow)
    }

    fn n_rows(&self) -> usize {
        self.examples.len()
    }

    fn notes(&self, rows: &Rows<SftRow>, max_len: usize) -> Vec<String> {
        let is_chosen = |(idx, row): (usize, &SftRow)| matches!(row, SftRow::Chosen(_)).then_some(idx);
        let chosen: Vec<usize> = rows.records.iter().enumerate().filter_map(is_chosen).collect();
        let mut notes = rows.notes(&chosen, |rows| {
            format!("{rows} are comparisons: their chosen side is taken as a demonstration")
        });
        notes.extend(self.report.notes(rows, &format!("{max_len} tokens"), "what would be learned"));
        notes
    }

    fn fingerprint(&self) -> String {
        self.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BadRows, Rows};
    use std::path::Path;

    #[test]
    fn the_notes_say_which_rows_were_taken_in_another_way_or_left_out() {
        let lines = [
            r#"{"prompt": "p", "completion": "c"}"#.to_owned(),
            r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#.into(),
            format!(r#"{{"prompt": "p", "completion": "{}"}}"#, "c".repeat(40)),
            "{}".into(),
        ];
        let lines = lines.join("\n");
        let rows = Rows::from_reader(Path::new("a.jsonl"), lines.as_bytes(), BadRows::Skip).unwrap();
        let (tokenizer, template) = (Tokenizer::byte(), Template::bare());
        let data = Demonstrations::encode(&rows.records, &tokenizer, &template, 32, Overflow::Drop).unwrap();
        assert_eq!(
            data.notes(&rows, 32),
            [
                "1 of 3 rows of a.jsonl are comparisons: their chosen side is taken as a demonstration (first: line 2)",
                "left out 1 of 3 rows of a.jsonl: they do not fit into 32 tokens (first: line 3)",
            ]
        );
    }
}
