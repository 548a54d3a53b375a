//! The first prompts of a dataset, for answers that show what a model says.

use temper_tokenizer::Prompt;

use super::EncodedPrompt;

/// The most prompts of a dataset that are kept to be answered.
pub const MOST_ASKED: usize = 64;

/// Tokens of a plain text that are continued; fewer of a text that is shorter than twice as many.
const START_OF_TEXT: usize = 16;

/// Adds a prompt that is not there yet, up to [`MOST_ASKED`].
pub(super) fn ask(asked: &mut Vec<EncodedPrompt>, tokens: &[u32], prompt: impl FnOnce() -> Prompt) {
    let is_full = asked.len() >= MOST_ASKED;
    if is_full || tokens.is_empty() || asked.iter().any(|other| other.tokens == tokens) {
        return;
    }
    asked.push(EncodedPrompt::new(prompt(), tokens.to_vec()));
}

/// The start of a plain text, for a model to continue.
pub(super) fn start_of(tokens: &[u32]) -> &[u32] {
    &tokens[..START_OF_TEXT.min(tokens.len().div_ceil(2))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_asked_once() {
        let mut asked = Vec::new();
        for (tokens, text) in [(&[1, 2][..], "a"), (&[1, 2], "b"), (&[], "c"), (&[1, 2, 3], "d")] {
            ask(&mut asked, tokens, || text.into());
        }
        let texts: Vec<String> = asked.iter().map(|asked| asked.prompt.to_string()).collect();
        assert_eq!(texts, ["a", "d"]);
        for token in 0..100 {
            ask(&mut asked, &[token], || "x".into());
        }
        assert_eq!(asked.len(), 64);
    }

    #[test]
    fn a_text_is_cut_in_the_middle_or_after_16_tokens() {
        let tokens: Vec<u32> = (0..100).collect();
        assert_eq!(start_of(&tokens).len(), 16);
        assert_eq!(start_of(&tokens[..9]).len(), 5);
        assert_eq!(start_of(&tokens[..1]).len(), 1);
    }
}
