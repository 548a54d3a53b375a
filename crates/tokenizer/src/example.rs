//! A prompt and its completion as ids.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::Tokenizer;

/// A prompt and its completion as one sequence, or a conversation with several answers.
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
    /// How many of them, from the left, come before the first answer that is learned.
    pub prompt_len: usize,
    /// Ranges of `tokens` after that which are not learned either: what others say between the answers. Ascending, and
    /// empty for a prompt with one completion.
    pub between: Vec<Range<usize>>,
    /// How many tokens were cut off the left of the prompt to make it fit.
    pub n_cut: usize,
}

impl Example {
    /// A prompt of `prompt_len` tokens and its completion, uncut.
    #[must_use]
    pub fn new(tokens: Vec<u32>, prompt_len: usize) -> Self {
        Self { tokens, prompt_len, between: Vec::new(), n_cut: 0 }
    }

    /// The same tokens, all of them to be learned: the prompt and what others say between the answers, too.
    #[must_use]
    pub fn learned_whole(&self) -> Self {
        Self { prompt_len: 0, between: Vec::new(), ..self.clone() }
    }

    /// All token ids, and the number of them that belong to the prompt.
    pub fn row(&self) -> (&[u32], usize) {
        (&self.tokens, self.prompt_len)
    }

    /// The prompt's ids.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt_len]
    }

    /// The ids after the prompt, with the end token where the template has one.
    pub fn completion(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }

    /// How many tokens a language model learns from it: those of the completion that have a token before them.
    pub fn n_targets(&self) -> usize {
        let n_between: usize = self.between.iter().map(ExactSizeIterator::len).sum();
        self.tokens.len().saturating_sub(self.prompt_len.max(1) + n_between)
    }

    /// `true` for each token that counts in a loss: the completion's, from its first to its end token.
    ///
    /// Position i is about `tokens[i]` itself, so it selects the log-prob read at position i - 1.
    pub fn completion_mask(&self) -> Vec<bool> {
        let mut mask = vec![true; self.tokens.len()];
        mask[..self.prompt_len].fill(false);
        self.between.iter().for_each(|range| mask[range.clone()].fill(false));
        mask
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

/// Which answers of a conversation are learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnedTurns {
    /// Every turn of the assistant.
    #[default]
    All,
    /// The last one.
    Last,
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
    let row = |(i, row): (usize, &[u32])| Example::new(row.to_vec(), if i == 0 { n_start } else { 0 });
    tokens.chunks(max_len).enumerate().map(row).collect()
}

/// Plain texts as full rows of `max_len` ids, all of them to be learned but the start tokens, as in pretraining: the ids of
/// all texts, each with its start token and its end token, one after the other, cut into rows. Only the last row may be shorter. A text may
/// begin in the middle of a row, and then sees the end of the text before it, behind an end token. Texts that the
/// tokenizer has no id for are left out; their indices come second.
///
/// # Panics
/// If `max_len` is 0.
pub fn pack_texts<'t>(
    tokenizer: &Tokenizer,
    texts: impl IntoIterator<Item = &'t str>,
    max_len: usize,
) -> (Vec<Example>, Vec<usize>) {
    let special = tokenizer.special();
    let (mut ids, mut starts, mut without_tokens) = (Vec::new(), Vec::new(), Vec::new());
    for (idx, text) in texts.into_iter().enumerate() {
        let tokens = tokenizer.encode(text);
        if tokens.is_empty() {
            without_tokens.push(idx);
            continue;
        }
        starts.extend(special.bos.map(|_| ids.len()));
        ids.extend(special.bos.into_iter().chain(tokens).chain([special.eos]));
    }
    let row = |(idx, tokens): (usize, &[u32])| {
        let first = idx * max_len;
        // The first token of a row has none before it to be told by.
        let end = starts.partition_point(|start| *start < first + tokens.len());
        let inside = &starts[starts.partition_point(|start| *start <= first).min(end)..end];
        let between = inside.iter().map(|start| start - first..start - first + 1).collect();
        Example { between, ..Example::new(tokens.to_vec(), 0) }
    };
    (ids.chunks(max_len).enumerate().map(row).collect(), without_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_texts_fill_their_rows_and_all_but_their_starts_is_learned() {
        let byte = |byte: u8| u32::from(byte) + 4;
        let ([a, b, c], bos, eos) = ([b'a', b'b', b'c'].map(byte), 1, 3);
        let (rows, without_tokens) = pack_texts(&Tokenizer::byte(), ["ab", "", "c"], 3);
        let [first, mut second, last] =
            [vec![bos, a, b], vec![eos, bos, c], vec![eos]].map(|row| Example::new(row, 0));
        second.between.push(1..2);
        assert_eq!(rows, [first, second, last]);
        assert_eq!((without_tokens, rows[1].completion_mask()), (vec![1], vec![true, false, true]));
        // As many tokens as the texts have by themselves.
        let alone: usize = ["ab", "c"]
            .iter()
            .flat_map(|text| encode_text(&Tokenizer::byte(), text, 99))
            .map(|row| row.tokens.len())
            .sum();
        assert_eq!(rows.iter().map(|row| row.tokens.len()).sum::<usize>(), alone);
    }

    #[test]
    fn plain_text_is_learned_from_its_start_to_its_end_over_as_many_rows_as_it_takes() {
        let rows = encode_text(&Tokenizer::byte(), "abcd", 4);
        let row = |tokens: &[u32], prompt_len| Example::new(tokens.to_vec(), prompt_len);
        let [a, b, c, d] = [b'a', b'b', b'c', b'd'].map(|byte| u32::from(byte) + 4);
        let (bos, eos) = (1, 3);
        assert_eq!(rows, [row(&[bos, a, b, c], 1), row(&[d, eos], 0)]);
        assert_eq!(encode_text(&Tokenizer::byte(), "a", 9), [row(&[bos, a, eos], 1)]);
    }

    #[test]
    fn what_others_say_between_the_answers_is_not_learned() {
        let mut example = Example::new(vec![9; 8], 2);
        example.between.push(4..6);
        assert_eq!(example.completion_mask(), [false, false, true, true, false, false, true, true]);
        assert_eq!(example.n_targets(), 4);
        assert_eq!(Example::new(vec![9; 3], 0).n_targets(), 2);
    }

    #[test]
    fn overflow_is_written_in_snake_case() {
        assert_eq!(serde_json::to_string(&Overflow::TruncatePrompt).unwrap(), r#""truncate_prompt""#);
        assert_eq!(serde_json::from_str::<Overflow>(r#""drop""#).unwrap(), Overflow::Drop);
    }
}
