//! Prompts as token rows.

use temper_tokenizer::{Overflow, Template, Tokenizer};
use temper_train::{Prompt, fingerprint_rows};

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
    /// How many were dropped.
    pub n_dropped: usize,
}

impl PromptDataset {
    /// Encodes prompts of at most `max_prompt_len` tokens; longer ones are dropped or lose their left.
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
        let encode = |prompt: &Prompt| {
            let text = prompt.prompt.clone();
            let tokens = template.encode_prompt(tokenizer, &text);
            let tokens = match overflow {
                _ if (1..=max_prompt_len).contains(&tokens.len()) => Some(tokens),
                Overflow::Drop => None,
                Overflow::TruncatePrompt => {
                    template.encode_prompt_truncated(tokenizer, &text, max_prompt_len).ok()
                }
            };
            Some(EncodedPrompt { text, tokens: tokens? })
        };
        let encoded: Vec<EncodedPrompt> = prompts.iter().filter_map(encode).collect();
        if encoded.is_empty() {
            return Err(Error::NothingFits { rows: prompts.len(), max_seq_len: max_prompt_len + 1 });
        }
        let n_dropped = prompts.len() - encoded.len();
        Ok(Self { prompts: encoded, n_dropped })
    }

    /// What a resumed run compares: that these are the same prompts.
    pub fn fingerprint(&self) -> String {
        fingerprint_rows(self.prompts.len(), self.prompts.iter().map(|prompt| prompt.tokens.as_slice()))
    }
}
