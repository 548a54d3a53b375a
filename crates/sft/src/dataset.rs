//! Demonstrations as token rows.

use temper_tokenizer::{Error, Example, Overflow, Template, Tokenizer, encode_text};
use temper_train::{Demonstration, Lesson, fingerprint_rows};

use crate::loss::n_targets;

/// Encoded demonstrations, with what became of those that were too long.
#[derive(Clone, Debug)]
pub struct SftDataset {
    /// The examples that fit.
    pub examples: Vec<Example>,
    /// How many were dropped: they did not fit, or have no token to learn.
    pub n_dropped: usize,
    /// How many lost a part of their prompt to fit.
    pub n_truncated: usize,
}

impl SftDataset {
    /// Encodes demonstrations as `template` puts them together.
    ///
    /// A too long one is dropped or loses the left of its prompt, and is counted; its answer is never cut, so it
    /// never teaches a false end (D9).
    ///
    /// # Errors
    /// [`Error::NothingFits`]; the template's special tokens may be unknown to the tokenizer.
    pub fn new(
        demonstrations: &[Demonstration],
        tokenizer: &Tokenizer,
        template: &Template,
        max_seq_len: usize,
        overflow: Overflow,
    ) -> Result<Self, Error> {
        let lessons: Vec<Lesson> = demonstrations.iter().cloned().map(Lesson::Demonstration).collect();
        Self::of_lessons(&lessons, tokenizer, template, max_seq_len, overflow)
    }

    /// Encodes demonstrations, and plain text mixed in among them, as InstructGPT does for the policies that PPO
    /// starts from (appendix C.4: 10 % pretraining data). A plain text that is too long goes on in a further row.
    ///
    /// # Errors
    /// Those of [`SftDataset::new`].
    pub fn of_lessons(
        lessons: &[Lesson],
        tokenizer: &Tokenizer,
        template: &Template,
        max_seq_len: usize,
        overflow: Overflow,
    ) -> Result<Self, Error> {
        template.check(tokenizer)?;
        let encode = |lesson: &Lesson| {
            let mut rows = match lesson {
                Lesson::Demonstration(d) => template
                    .encode_example(tokenizer, &d.prompt, &d.completion, max_seq_len, overflow)
                    .into_iter()
                    .collect(),
                Lesson::PlainText(plain) => encode_text(tokenizer, &plain.text, max_seq_len),
            };
            // A tokenizer may have no id for a text, and the mean over no token is not a number.
            rows.retain(|example| n_targets(example) > 0);
            rows
        };
        let encoded: Vec<Vec<Example>> = lessons.iter().map(encode).collect();
        let n_dropped = encoded.iter().filter(|rows| rows.is_empty()).count();
        let examples: Vec<Example> = encoded.into_iter().flatten().collect();
        if examples.is_empty() {
            return Err(Error::NothingFits { what: "examples", rows: lessons.len(), max_seq_len });
        }
        let n_truncated = examples.iter().filter(|example| example.n_cut > 0).count();
        Ok(Self { examples, n_dropped, n_truncated })
    }

    /// What a resumed run compares: that these are the same examples.
    pub fn fingerprint(&self) -> String {
        fingerprint_rows(self.len(), self.examples.iter().flat_map(|e| [e.prompt(), e.completion()]))
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there is none; never true for a dataset that [`SftDataset::new`] made.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Tokens of each example, for length-bucketed batches.
    pub fn lengths(&self) -> Vec<usize> {
        self.examples.iter().map(|example| example.tokens.len()).collect()
    }
}
