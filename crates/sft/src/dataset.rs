//! Demonstrations as token rows.

use temper_tokenizer::{Error, Example, Overflow, Template, Tokenizer, encode_text};
use temper_train::{Demonstration, Lesson, RowReport, fingerprint_rows};

use crate::loss::n_targets;

/// Encoded demonstrations, with what became of those that were too long.
#[derive(Clone, Debug)]
pub struct SftDataset {
    /// The examples that fit.
    pub examples: Vec<Example>,
    /// Which of the given rows were left out or lost a part of their prompt.
    pub report: RowReport,
}

impl SftDataset {
    /// Encodes demonstrations as `template` puts them together.
    ///
    /// A too long one is dropped or loses the left of its prompt, and is counted; its answer is never cut, so it
    /// never teaches a false end (D9).
    ///
    /// # Errors
    /// [`Error::NothingFits`] or [`Error::NothingToLearn`]; the template's special tokens may be unknown to the
    /// tokenizer.
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
        let encode = |lesson: &Lesson| -> Vec<Example> {
            match lesson {
                Lesson::Demonstration(d) | Lesson::Chosen(d) => template
                    .encode_example(tokenizer, &d.prompt, &d.completion, max_seq_len, overflow)
                    .into_iter()
                    .collect(),
                Lesson::PlainText(plain) => encode_text(tokenizer, &plain.text, max_seq_len),
            }
        };
        let mut examples = Vec::with_capacity(lessons.len());
        let mut report = RowReport { n_rows: lessons.len(), ..RowReport::default() };
        for (row, lesson) in lessons.iter().enumerate() {
            let mut encoded = encode(lesson);
            let is_too_long = encoded.is_empty() && !matches!(lesson, Lesson::PlainText(_));
            // A tokenizer may have no id for a text, and the mean over no token is not a number.
            encoded.retain(|example| n_targets(example) > 0);
            if is_too_long {
                report.too_long.push(row);
            } else if encoded.is_empty() {
                report.without_tokens.push(row);
            } else if encoded.iter().any(|example| example.n_cut > 0) {
                report.truncated.push(row);
            }
            examples.extend(encoded);
        }
        if examples.is_empty() && report.too_long.is_empty() {
            return Err(Error::NothingToLearn { what: "examples", rows: lessons.len() });
        }
        if examples.is_empty() {
            return Err(Error::NothingFits { what: "examples", rows: lessons.len(), max_seq_len });
        }
        Ok(Self { examples, report })
    }

    /// Examples that are encoded already, none of which was left out.
    pub fn of(examples: Vec<Example>) -> Self {
        let report = RowReport { n_rows: examples.len(), ..RowReport::default() };
        Self { examples, report }
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
