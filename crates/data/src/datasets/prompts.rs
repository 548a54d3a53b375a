//! Prompts as token rows: what PPO samples completions for.

use std::sync::Arc;

use serde_json::Value;
use temper_tokenizer::{Overflow, Prompt};

use super::fingerprint::{fingerprint_rows, fingerprint_texts};
use super::{Dataset, Encoding};
use crate::{Error, PromptRow, Row, RowReport, Rows};

/// A prompt, as text and as ids.
#[derive(Clone, Debug)]
pub struct EncodedPrompt {
    /// As it was given.
    pub prompt: Prompt,
    /// As the template puts it; ends where the answer starts (D7).
    pub tokens: Vec<u32>,
    /// The other columns of its row, which scoring programs read. All answers to the prompt share them.
    pub columns: Arc<Row>,
}

impl EncodedPrompt {
    /// A prompt without other columns.
    pub fn new(prompt: impl Into<Prompt>, tokens: Vec<u32>) -> Self {
        Self { prompt: prompt.into(), tokens, columns: Arc::default() }
    }
}

/// Encoded prompts.
#[derive(Clone, Debug)]
pub struct Prompts {
    /// The prompts that leave room for an answer.
    pub prompts: Vec<EncodedPrompt>,
    /// Which of the given prompts were left out or lost their left part.
    pub report: RowReport,
}

impl From<Vec<EncodedPrompt>> for Prompts {
    fn from(prompts: Vec<EncodedPrompt>) -> Self {
        Self { report: RowReport::default(), prompts }
    }
}

impl Prompts {
    /// Encodes prompts of at most `max_len` tokens; longer ones are dropped or lose their left. The limit should leave room
    /// for a whole answer in the context of the models.
    ///
    /// # Errors
    /// [`Error::NoPromptFits`]; [`Error::NothingToLearn`] if the tokenizer has no token for any prompt; the tokenizer may lack a special token of the template.
    pub fn new(prompts: &[PromptRow], encoding: &Encoding<'_>) -> Result<Self, Error> {
        let Encoding { text, max_len, overflow, .. } = *encoding;
        text.template.check(&text.tokenizer)?;
        let mut report = RowReport::default();
        let mut encode = |(i, row): (usize, &PromptRow)| {
            let PromptRow { prompt, columns } = row;
            let encoded =
                |tokens| EncodedPrompt { prompt: prompt.clone(), tokens, columns: Arc::new(columns.clone()) };
            let tokens = report.accepted(i, text.encode_prompt(prompt))?;
            if tokens.is_empty() {
                // A tokenizer may have no id for a text; cutting would not give it one.
                report.without_tokens.push(i);
                return None;
            }
            if tokens.len() <= max_len {
                return Some(encoded(tokens));
            }
            let cut = match overflow {
                Overflow::Drop => None,
                Overflow::TruncatePrompt => text.encode_prompt_truncated(prompt, max_len).ok(),
            };
            if cut.is_some() {
                report.truncated.push(i)
            } else {
                report.too_long.push(i)
            }
            cut.map(encoded)
        };
        let encoded: Vec<EncodedPrompt> = prompts.iter().enumerate().filter_map(&mut encode).collect();
        if encoded.is_empty() {
            report.refuses_all()?;
        }
        if encoded.is_empty() && report.too_long.is_empty() {
            return Err(Error::NothingToLearn { what: "prompts", rows: prompts.len() });
        }
        if encoded.is_empty() {
            return Err(Error::NoPromptFits { rows: prompts.len(), max_prompt_len: max_len });
        }
        Ok(Self { prompts: encoded, report })
    }

    /// What a resumed run compares: that these are the same prompts.
    pub fn fingerprint(&self) -> String {
        fingerprint_rows(self.prompts.len(), self.prompts.iter().map(|prompt| prompt.tokens.as_slice()))
    }

    /// The same prompts without the other columns of their rows, where nobody reads these.
    #[must_use]
    pub fn without_columns(mut self) -> Self {
        self.prompts.iter_mut().for_each(|prompt| prompt.columns = Arc::default());
        self
    }

    /// What a resumed run compares in addition, because its scores may depend on the other columns of the rows; `None` if
    /// no row has any.
    pub fn fingerprint_of_columns(&self) -> Option<String> {
        let rows = self.prompts.iter().map(|prompt| &*prompt.columns);
        let has_columns = rows.clone().any(|row| !row.is_empty());
        has_columns.then(|| fingerprint_texts(rows.map(|row| Value::from(row.clone()).to_string())))
    }
}

impl Dataset for Prompts {
    type Record = PromptRow;

    fn encode(records: &[PromptRow], encoding: &Encoding<'_>) -> Result<Self, Error> {
        Self::new(records, encoding)
    }

    fn report(&self) -> &RowReport {
        &self.report
    }

    fn n_rows(&self) -> usize {
        self.prompts.len()
    }

    fn n_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.tokens.len()).sum()
    }

    fn notes(&self, rows: &Rows<PromptRow>, max_len: usize) -> Vec<String> {
        let room = format!("the {max_len} tokens that leave room for an answer");
        self.report.notes(rows, &room, "them")
    }

    fn fingerprint(&self) -> String {
        self.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_tokenizer::{Template, TextSide, Tokenizer};

    fn dataset(prompts: &[&str], max_prompt_len: usize, overflow: Overflow) -> Result<Prompts, Error> {
        let prompts: Vec<PromptRow> = prompts.iter().copied().map(PromptRow::new).collect();
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        Prompts::new(&prompts, &Encoding { overflow, ..Encoding::new(&text, max_prompt_len) })
    }

    /// D7: the notebook's prompts end with `[EOS]`, after which there is nothing left to say.
    #[test]
    fn d7_a_prompt_ends_where_the_answer_starts() {
        let data = dataset(&["hi"], 64, Overflow::Drop).unwrap();
        assert_eq!(data.prompts[0].tokens, [1, 104 + 4, 105 + 4, 2]);
    }

    #[test]
    fn the_other_columns_of_a_row_stay_with_its_prompt() {
        let row = |prompt: &str, id: Option<u8>| PromptRow {
            columns: id.map(|id| ("id".to_owned(), id.into())).into_iter().collect(),
            ..PromptRow::new(prompt)
        };
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let encode = |ids: [Option<u8>; 3], overflow| {
            let rows = [row("hi", ids[0]), row("too long", ids[1]), row("ho", ids[2])];
            Prompts::new(&rows, &Encoding { overflow, ..Encoding::new(&text, 4) }).unwrap()
        };
        let ids = |data: &Prompts| -> Vec<Option<u64>> {
            data.prompts.iter().map(|prompt| prompt.columns.get("id")?.as_u64()).collect()
        };
        let [one, two, three] = [Some(1), Some(2), Some(3)];
        assert_eq!(ids(&encode([one, two, three], Overflow::Drop)), [Some(1), Some(3)]);
        assert_eq!(ids(&encode([one, two, None], Overflow::TruncatePrompt)), [Some(1), Some(2), None]);
        // They count for whoever scores by them, and change nothing else.
        let prints = |ids| {
            let data = encode(ids, Overflow::Drop);
            (data.fingerprint(), data.fingerprint_of_columns())
        };
        let [plain, some, other] = [[None, two, None], [one, two, three], [three, two, one]].map(prints);
        assert_eq!((&plain.0, &plain.1), (&some.0, &None));
        let dropped = encode([one, two, three], Overflow::Drop).without_columns();
        assert_eq!((dropped.fingerprint(), dropped.fingerprint_of_columns()), plain);
        assert!(some.1.is_some() && some.0 == other.0 && some.1 != other.1, "{some:?}, {other:?}");
    }

    /// D9.
    #[test]
    fn d9_a_long_prompt_is_dropped_and_counted_or_loses_its_left() {
        let dropped = dataset(&["hi", "too long"], 4, Overflow::Drop).unwrap();
        assert_eq!(dropped.prompts.len(), 1);
        assert_eq!(dropped.report, RowReport { too_long: vec![1], ..RowReport::default() });
        let cut = dataset(&["hi", "too long"], 4, Overflow::TruncatePrompt).unwrap();
        assert_eq!(cut.prompts.len(), 2);
        assert_eq!(cut.report, RowReport { truncated: vec![1], ..RowReport::default() });
        assert_eq!(cut.prompts[1].tokens, [1, 110 + 4, 103 + 4, 2], "`ng` between the template's tokens");
        let error = dataset(&["too long"], 4, Overflow::Drop).unwrap_err();
        assert_eq!(
            error.to_string(),
            "none of the 1 prompts fits into 4 tokens, which leave room for an answer"
        );
    }
}
