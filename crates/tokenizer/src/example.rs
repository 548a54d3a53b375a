//! A prompt and its completion as ids.

use serde::{Deserialize, Serialize};

use crate::{Error, Piece, Template, Tokenizer};

/// A prompt and its completion as one sequence.
///
/// ```text
/// tokens           [BOS] I n s t r u c t : h i [SEP] H e l l o [EOS]
/// completion_mask    0   0 0 0 0 0 0 0 0 0 0 0   0   1 1 1 1 1   1
///                                                ^ prompt_len = 13 tokens up to here
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Example {
    /// The ids, without padding.
    pub tokens: Vec<u32>,
    /// How many of them, from the left, are the prompt's.
    pub prompt_len: usize,
    /// How many tokens of the prompt's own text were cut off to make it fit.
    pub n_cut: usize,
}

impl Example {
    /// All token ids, and the number of them that belong to the prompt.
    pub fn row(&self) -> (&[u32], usize) {
        (&self.tokens, self.prompt_len)
    }

    /// The prompt's ids.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_len]
    }

    /// The completion's ids, with the end token where the template has one.
    pub fn completion(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// How many tokens a language model learns from it: those of the completion that have a token before them.
    pub fn n_targets(&self) -> usize {
        self.tokens.len().saturating_sub(self.prompt_len.max(1))
    }

    /// `true` for each token that counts in a loss: the completion's, from its first to its end token.
    ///
    /// Position i is about `tokens[i]` itself, so it selects the log-prob read at position i - 1.
    pub fn completion_mask(&self) -> Vec<bool> {
        (0..self.tokens.len()).map(|idx| idx >= self.prompt_len).collect()
    }
}

/// What becomes of an example that is too long. Its completion is never cut: that would teach a false end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// It is left out.
    #[default]
    Drop,
    /// The text of its prompt is cut on the left; it is left out only if that is not enough.
    TruncatePrompt,
}

impl Template {
    /// The ids of a prompt, up to where generation starts: for the notebook's template, after `[SEP]`.
    pub fn encode_prompt(&self, tokenizer: &Tokenizer, prompt: &str) -> Vec<u32> {
        encode(self.prompt(), tokenizer, &tokenizer.encode(prompt))
    }

    /// The ids of a completion, with the end token where the template has one.
    pub fn encode_completion(&self, tokenizer: &Tokenizer, completion: &str) -> Vec<u32> {
        encode(self.completion(), tokenizer, &tokenizer.encode(completion))
    }

    /// The ids of an answer that may have been stopped by its length: those of a completion if it `ended`, and only
    /// as far as its own text if not, so that it gets no end that it did not have.
    pub fn encode_answer(&self, tokenizer: &Tokenizer, answer: &str, ended: bool) -> Vec<u32> {
        let pieces = self.completion();
        let (before, after) = pieces.split_at(place_of_completion(pieces) + 1);
        let pieces = if ended { [before, after].concat() } else { before.to_vec() };
        encode(&pieces, tokenizer, &tokenizer.encode(answer))
    }

    /// What a policy said without the text that the template itself has around a completion, which the policy has
    /// learned to say too. Another template puts its own text there.
    pub fn completion_of<'a>(&self, answer: &'a str) -> &'a str {
        let text = |piece: &'_ Piece| match piece {
            Piece::Text(text) => text.clone(),
            _ => String::new(),
        };
        let (before, after) = self.completion().split_at(place_of_completion(self.completion()));
        let before: String = before.iter().map(text).collect();
        let after: String = after.iter().map(text).collect();
        let answer = answer.strip_prefix(before.as_str()).unwrap_or(answer);
        answer.strip_suffix(after.as_str()).unwrap_or(answer)
    }

    /// As [`Template::encode_prompt`], with at most `max_len` ids: what is too much is cut from the left
    /// of the prompt's own text, never from the template around it.
    ///
    /// # Errors
    ///
    /// If not even one token of the prompt's text would be left.
    pub fn encode_prompt_truncated(
        &self,
        tokenizer: &Tokenizer,
        prompt: &str,
        max_len: usize,
    ) -> Result<Vec<u32>, Error> {
        match self.fit_prompt(tokenizer, &tokenizer.encode(prompt), max_len) {
            Ok((tokens, _)) => Ok(tokens),
            Err(needed) => Err(Error::PromptTooLong { template: self.name().to_owned(), needed, max_len }),
        }
    }

    /// A prompt with its completion in at most `max_len` ids; `None` if it does not fit and is dropped.
    pub fn encode_example(
        &self,
        tokenizer: &Tokenizer,
        prompt: &str,
        completion: &str,
        max_len: usize,
        overflow: Overflow,
    ) -> Option<Example> {
        let completion = self.encode_completion(tokenizer, completion);
        let prompt_max_len = max_len.checked_sub(completion.len())?;
        let (mut tokens, n_cut) =
            self.fit_prompt(tokenizer, &tokenizer.encode(prompt), prompt_max_len).ok()?;
        if n_cut > 0 && overflow == Overflow::Drop {
            return None;
        }
        let prompt_len = tokens.len();
        tokens.extend(completion);
        Some(Example { tokens, prompt_len, n_cut })
    }

    /// The ids of the prompt and how many of its text were cut, or the length that it needs at least.
    fn fit_prompt(
        &self,
        tokenizer: &Tokenizer,
        text: &[u32],
        max_len: usize,
    ) -> Result<(Vec<u32>, usize), usize> {
        let n_fixed = encode(self.prompt(), tokenizer, &[]).len();
        let needed = n_fixed + text.len().min(1);
        if needed > max_len {
            return Err(needed);
        }
        let n_cut = text.len().saturating_sub(max_len - n_fixed);
        Ok((encode(self.prompt(), tokenizer, &text[n_cut..]), n_cut))
    }
}

/// Plain text as rows of at most `max_len` ids, all of it to be learned: the start token if the tokenizer has one, the
/// text, the end token. What does not fit continues in the next row, without a start of its own.
///
/// No template: it has no prompt. In an [`Example`] the start token alone counts as one.
///
/// # Panics
/// If `max_len` is 0.
pub fn encode_text(tokenizer: &Tokenizer, text: &str, max_len: usize) -> Vec<Example> {
    let special = tokenizer.special();
    let mut tokens: Vec<u32> = special.bos.into_iter().collect();
    let n_start = tokens.len();
    tokens.extend(tokenizer.encode(text));
    tokens.push(special.eos);
    let row = |(i, row): (usize, &[u32])| Example {
        tokens: row.to_vec(),
        prompt_len: if i == 0 { n_start } else { 0 },
        n_cut: 0,
    };
    tokens.chunks(max_len).enumerate().map(row).collect()
}

fn place_of_completion(pieces: &[Piece]) -> usize {
    pieces.iter().position(|piece| *piece == Piece::Completion).expect("checked when the template was made")
}

/// Puts `text` where the pieces have their prompt or completion. A token that the tokenizer lacks is left
/// out; `Template::check` is where that is an error.
fn encode(pieces: &[Piece], tokenizer: &Tokenizer, text: &[u32]) -> Vec<u32> {
    let special = tokenizer.special();
    let mut tokens = Vec::with_capacity(text.len() + 16);
    for piece in pieces {
        match piece {
            Piece::Text(fixed) => tokens.extend(tokenizer.encode(fixed)),
            Piece::Bos => tokens.extend(special.bos),
            Piece::Sep => tokens.extend(special.sep),
            Piece::Eos => tokens.push(special.eos),
            Piece::Prompt | Piece::Completion => tokens.extend(text),
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOS: u32 = 1;
    const SEP: u32 = 2;
    const EOS: u32 = 3;

    #[test]
    fn plain_text_is_learned_from_its_start_to_its_end_over_as_many_rows_as_it_takes() {
        let rows = encode_text(&Tokenizer::byte(), "abcd", 4);
        let row = |tokens: &[u32], prompt_len| Example { tokens: tokens.to_vec(), prompt_len, n_cut: 0 };
        let [a, b, c, d] = [b'a', b'b', b'c', b'd'].map(|byte| u32::from(byte) + 4);
        assert_eq!(rows, [row(&[BOS, a, b, c], 1), row(&[d, EOS], 0)]);
        assert_eq!(encode_text(&Tokenizer::byte(), "a", 9), [row(&[BOS, a, EOS], 1)]);
    }

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(|byte| u32::from(byte) + 4).collect()
    }

    #[test]
    fn d7_a_prompt_ends_at_sep() {
        let expected = [vec![BOS], bytes("Instruct:hi"), vec![SEP]].concat();
        assert_eq!(Template::notebook().encode_prompt(&Tokenizer::byte(), "hi"), expected);
    }

    /// The notebook's label at `[EOS]` is `[PAD]`; here nothing after `[EOS]` exists, and the first token
    /// of the answer counts, which the notebook never trains.
    #[test]
    fn d8_the_mask_counts_the_completion_with_its_end_and_no_padding() {
        let example =
            Template::bare().encode_example(&Tokenizer::byte(), "hi", "yo", 64, Overflow::Drop).unwrap();
        assert_eq!(example.tokens, [vec![BOS], bytes("hi"), vec![SEP], bytes("yo"), vec![EOS]].concat());
        assert_eq!(example.completion_mask(), [false, false, false, false, true, true, true]);
        assert_eq!(example.completion(), [bytes("yo"), vec![EOS]].concat());
        assert_eq!(example.prompt(), Template::bare().encode_prompt(&Tokenizer::byte(), "hi"));
    }

    #[test]
    fn d9_an_over_long_example_is_dropped_or_its_prompt_is_cut_on_the_left() {
        let (template, tokenizer) = (Template::notebook(), Tokenizer::byte());
        let encode =
            |max_len, overflow| template.encode_example(&tokenizer, "abcdef", "yes", max_len, overflow);
        // 1 + 9 + 6 + 1 for the prompt, 3 + 1 for the completion.
        assert_eq!(encode(21, Overflow::Drop).unwrap().n_cut, 0);
        assert_eq!(encode(20, Overflow::Drop), None);
        let cut = encode(18, Overflow::TruncatePrompt).unwrap();
        let expected = [vec![BOS], bytes("Instruct:def"), vec![SEP], bytes("yes"), vec![EOS]].concat();
        assert_eq!(cut, Example { tokens: expected, prompt_len: 14, n_cut: 3 });
        // The last that fits has one letter of the prompt; the completion is never cut.
        assert_eq!(encode(16, Overflow::TruncatePrompt).unwrap().n_cut, 5);
        for max_len in 0..16 {
            assert_eq!(encode(max_len, Overflow::TruncatePrompt), None);
        }
    }

    #[test]
    fn d9_a_long_prompt_keeps_its_bos_its_sep_and_its_last_words() {
        let (template, tokenizer) = (Template::bare(), Tokenizer::byte());
        let tokens = template.encode_prompt_truncated(&tokenizer, "one two", 5).unwrap();
        assert_eq!(tokens, [vec![BOS], bytes("two"), vec![SEP]].concat());
        let whole = template.encode_prompt_truncated(&tokenizer, "one two", 9).unwrap();
        assert_eq!(whole, template.encode_prompt(&tokenizer, "one two"));
        let error = template.encode_prompt_truncated(&tokenizer, "one two", 2).unwrap_err().to_string();
        assert_eq!(error, "a prompt needs at least 3 tokens in template `bare`, but only 2 fit");
        assert_eq!(template.encode_prompt_truncated(&tokenizer, "", 2).unwrap(), [BOS, SEP]);
    }

    #[test]
    fn plain_adds_nothing_and_plain_eos_only_the_end() {
        let tokenizer = Tokenizer::byte();
        for (template, end) in [(Template::plain(), vec![]), (Template::plain_eos(), vec![EOS])] {
            assert_eq!(template.encode_prompt(&tokenizer, "hi"), bytes("hi"));
            assert_eq!(template.encode_completion(&tokenizer, "yo"), [bytes("yo"), end].concat());
        }
    }

    #[test]
    fn an_answer_without_its_end_gets_none_and_one_with_it_is_a_completion() {
        let json = r#"{"name":"qa","prompt":["<prompt>"],"completion":[{"text":"A: "},"<completion>",{"text":"!"},"<eos>"]}"#;
        let template: Template = serde_json::from_str(json).unwrap();
        let encode = |ended| template.encode_answer(&Tokenizer::byte(), "yo", ended);
        assert_eq!(encode(true), [bytes("A: yo!"), vec![EOS]].concat());
        assert_eq!(encode(false), bytes("A: yo"));
        assert_eq!(Template::plain().encode_answer(&Tokenizer::byte(), "yo", true), bytes("yo"));
        // What the policy of that template says, whole, without its own text, and as another policy says it.
        for (said, completion) in [("A: yo!", "yo"), ("A: yo", "yo"), ("yo", "yo"), ("A:", "A:"), ("", "")] {
            assert_eq!(template.completion_of(said), completion);
            assert_eq!(Template::bare().completion_of(said), said);
        }
    }

    #[test]
    fn special_looking_text_stays_text() {
        let tokens = Template::notebook().encode_prompt(&Tokenizer::byte(), "[SEP]<eos>[EOS]");
        assert_eq!(tokens.iter().filter(|&&id| id < 4).count(), 2);
    }

    #[test]
    fn overflow_is_written_in_snake_case() {
        assert_eq!(serde_json::to_string(&Overflow::TruncatePrompt).unwrap(), r#""truncate_prompt""#);
        assert_eq!(serde_json::from_str::<Overflow>(r#""drop""#).unwrap(), Overflow::Drop);
    }

    proptest! {
        #[test]
        fn d9_what_is_kept_fits_and_ends_as_it_should(prompt in ".*", completion in ".*", max_len in 0usize..96) {
            let (template, tokenizer) = (Template::notebook(), Tokenizer::byte());
            let encode = |overflow| template.encode_example(&tokenizer, &prompt, &completion, max_len, overflow);
            if let Some(example) = encode(Overflow::TruncatePrompt) {
                prop_assert!(example.tokens.len() <= max_len);
                prop_assert_eq!(example.completion(), template.encode_completion(&tokenizer, &completion));
                prop_assert_eq!(example.tokens[example.prompt_len - 1], SEP);
                prop_assert_eq!(encode(Overflow::Drop).is_some(), example.n_cut == 0);
            } else {
                prop_assert_eq!(encode(Overflow::Drop), None);
            }
        }
    }
}
