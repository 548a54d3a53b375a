//! The settings that decide how the rows of a data file become tokens.

use temper_tokenizer::{LearnedTurns, Overflow, TextSide};
use temper_train::settings;

use crate::Encoding;

settings! {
    /// How the rows of a data file become tokens.
    ///
    /// SFT, the reward model and DPO have these among their own keys, by `#[serde(flatten)]`.
    pub struct EncodingConfig {
        /// What happens to a longer row: drop | truncate_prompt.
        pub overflow: Overflow = Overflow::Drop,
        /// Dialogue template if the model brings none: auto | notebook | bare | plain | plain_eos (docs/templates.md).
        ///
        /// `auto` is the notebook's for our byte tokenizer; for any other it is prompt, completion and end token.
        pub template: String = "auto".into(),
        /// Which answers of a conversation are learned: all | last.
        pub learned_turns: LearnedTurns = LearnedTurns::All,
    }
}

impl EncodingConfig {
    /// These settings for rows of at most `max_len` tokens.
    pub fn encoding<'a>(&self, text: &'a TextSide, max_len: usize) -> Encoding<'a> {
        Encoding { overflow: self.overflow, learned: self.learned_turns, ..Encoding::new(text, max_len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        assert_eq!(temper_train::declaration_faults::<EncodingConfig>(), [""; 0]);
    }
}
