//! Prompts as token rows.

use temper_tokenizer::{Overflow, Template, Tokenizer};
use temper_train::{Prompt, RowReport, fingerprint_rows};

use crate::Error;

/// A prompt, as text and as ids.
#[derive(Clone, Debug)]
pub struct EncodedPrompt {
    /// As it was given.
    pub text: String,
    /// As the template puts it; ends where the answer starts (D7).
    pub tokens: Vec<u32>,
}

/// Encoded prompts, with what became of those that were too long.
#[derive(Clone, Debug)]
pub struct PromptDataset {
    /// The prompts that leave room for an answer.
    pub prompts: Vec<EncodedPrompt>,
    /// What became of the others.
    pub report: RowReport,
}

impl From<Vec<EncodedPrompt>> for PromptDataset {
    fn from(prompts: Vec<EncodedPrompt>) -> Self {
        let report = RowReport { n_rows: prompts.len(), ..RowReport::default() };
        Self { prompts, report }
    }
}

impl PromptDataset {
    /// Encodes prompts of at most `max_prompt_len` tokens; longer ones are dropped or lose their left.
    /// [`PpoConfig::prompt_limit`](crate::PpoConfig::prompt_limit) gives the limit that leaves room for a whole answer.
    ///
    /// # Errors
    /// [`Error::NothingFits`]; the template's special tokens may be unknown to the tokenizer.
    pub fn new(
        prompts: &[Prompt],
        tokenizer: &Tokenizer,
        template: &Template,
        max_prompt_len: usize,
        overflow: Overflow,
    ) -> Result<Self, Error> {
        template.check(tokenizer)?;
        let mut report = RowReport { n_rows: prompts.len(), ..RowReport::default() };
        let mut encode = |(i, prompt): (usize, &Prompt)| {
            let text = prompt.prompt.clone();
            let tokens = template.encode_prompt(tokenizer, &text);
            if tokens.is_empty() {
                // A tokenizer may have no id for a text; cutting would not give it one.
                report.without_tokens.push(i);
                return None;
            }
            if tokens.len() <= max_prompt_len {
                return Some(EncodedPrompt { text, tokens });
            }
            let cut = match overflow {
                Overflow::Drop => None,
                Overflow::TruncatePrompt => {
                    template.encode_prompt_truncated(tokenizer, &text, max_prompt_len).ok()
                }
            };
            if cut.is_some() {
                report.truncated.push(i)
            } else {
                report.too_long.push(i)
            }
            Some(EncodedPrompt { text, tokens: cut? })
        };
        let encoded: Vec<EncodedPrompt> = prompts.iter().enumerate().filter_map(&mut encode).collect();
        if encoded.is_empty() {
            return Err(Error::NothingFits { rows: prompts.len(), max_prompt_len });
        }
        Ok(Self { prompts: encoded, report })
    }

    /// What a resumed run compares: that these are the same prompts.
    pub fn fingerprint(&self) -> String {
        fingerprint_rows(self.prompts.len(), self.prompts.iter().map(|prompt| prompt.tokens.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(prompts: &[&str], max_prompt_len: usize, overflow: Overflow) -> Result<PromptDataset, Error> {
        let prompts: Vec<Prompt> = prompts.iter().map(|&prompt| Prompt { prompt: prompt.into() }).collect();
        PromptDataset::new(&prompts, &Tokenizer::byte(), &Template::bare(), max_prompt_len, overflow)
    }

    /// D7: the notebook's prompts end with `[EOS]`, behind which nothing is left to say.
    #[test]
    fn d7_a_prompt_ends_where_the_answer_starts() {
        let data = dataset(&["hi"], 64, Overflow::Drop).unwrap();
        assert_eq!(data.prompts[0].tokens, [1, 104 + 4, 105 + 4, 2]);
    }

    /// D9.
    #[test]
    fn d9_a_long_prompt_is_dropped_and_counted_or_loses_its_left() {
        let dropped = dataset(&["hi", "too long"], 4, Overflow::Drop).unwrap();
        assert_eq!(dropped.prompts.len(), 1);
        assert_eq!(dropped.report, RowReport { n_rows: 2, too_long: vec![1], ..RowReport::default() });
        let cut = dataset(&["hi", "too long"], 4, Overflow::TruncatePrompt).unwrap();
        assert_eq!(cut.prompts.len(), 2);
        assert_eq!(cut.report, RowReport { n_rows: 2, truncated: vec![1], ..RowReport::default() });
        assert_eq!(cut.prompts[1].tokens, [1, 110 + 4, 103 + 4, 2], "`ng` between the template's tokens");
        let error = dataset(&["too long"], 4, Overflow::Drop).unwrap_err();
        assert_eq!(
            error.to_string(),
            "none of the 1 prompts fits into 4 tokens, which leave room for an answer"
        );
    }
}
