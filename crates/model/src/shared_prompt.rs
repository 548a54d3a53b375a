//! Several completions of one prompt in one row, so that the prompt is read once.

use burn::tensor::Device;
use temper_tensor::ints;

use crate::batch::TokenBatch;
use crate::visibility::{COMMON, Segments};

/// A prompt and several completions of it.
#[derive(Clone, Debug)]
pub struct SharedPrompt<'a> {
    /// What they have in common.
    pub prompt: &'a [u32],
    /// One or more.
    pub completions: Vec<&'a [u32]>,
}

/// Where a completion is in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Row of the batch.
    pub row: usize,
    /// Column of the first token; of an empty completion, the column after its prompt.
    pub start: usize,
    /// Number of tokens.
    pub len: usize,
}

impl<'a> SharedPrompt<'a> {
    /// The rows in which the completions of one prompt are read, in order: one row if all have the same prompt and
    /// sharing it is cheaper, and a row for each otherwise.
    ///
    /// Each completion comes with its prompt: a prompt that was cut for a longer completion is another prompt.
    ///
    /// # Panics
    /// If there is no completion.
    pub fn rows_of(completions: &[(&'a [u32], &'a [u32])], d_model: usize) -> Vec<Self> {
        let prompt = completions.first().expect("a prompt has at least one completion").0;
        let together = Self { prompt, completions: completions.iter().map(|(_, ids)| *ids).collect() };
        if completions.iter().all(|(other, _)| *other == prompt) && together.is_cheaper(d_model) {
            return vec![together];
        }
        completions.iter().map(|&(prompt, ids)| Self { prompt, completions: vec![ids] }).collect()
    }

    /// Whether one row for all completions is cheaper than a row for each.
    ///
    /// A token costs 24 d² multiplications and additions in the linear layers of a block (with a feed-forward width
    /// of 4 d), and 4 d in the attention for every column of its row.
    pub fn is_cheaper(&self, d_model: usize) -> bool {
        let cost = |len: usize| len * (6 * d_model + len);
        let apart: usize = self.completions.iter().map(|c| cost(self.prompt.len() + c.len())).sum();
        cost(self.len()) < apart
    }

    fn len(&self) -> usize {
        self.prompt.len() + self.completions.iter().map(|completion| completion.len()).sum::<usize>()
    }
}

impl TokenBatch {
    /// One row for each prompt: the prompt, then its completions one after the other.
    ///
    /// A completion sees the prompt and itself but none of the others, and counts its positions from the prompt's
    /// end: it is read as if it were alone after its prompt. Also returns where each completion is, in the
    /// order given.
    ///
    /// ```text
    /// tokens     a b | c d | e      c d e see a b; d sees c; e does not
    /// positions  0 1   2 3   2
    /// ```
    ///
    /// # Panics
    /// If there is no row, or one without tokens, or an empty completion of an empty prompt.
    pub fn shared_prompts(rows: &[SharedPrompt<'_>], device: &Device) -> (Self, Vec<Span>) {
        let lens: Vec<usize> = rows.iter().map(SharedPrompt::len).collect();
        assert!(lens.iter().all(|&len| len > 0), "a row without tokens: {lens:?}");
        let is_readable = |row: &SharedPrompt<'_>| {
            !row.prompt.is_empty() || row.completions.iter().all(|completion| !completion.is_empty())
        };
        assert!(rows.iter().all(is_readable), "an empty completion of an empty prompt");
        let seq = *lens.iter().max().expect("a batch has at least one row");
        let batch = rows.len();
        let mut tokens = vec![0; batch * seq];
        let mut positions = vec![0; batch * seq];
        let mut segments = Segments::of_pads(batch, seq);
        let mut spans = Vec::new();
        let mut n_positions = 0;
        for (row, shared) in rows.iter().enumerate() {
            let prompt_len = shared.prompt.len();
            let mut place = |segment: i32, start: usize, first_position: usize, ids: &[u32]| {
                for (i, &id) in ids.iter().enumerate() {
                    let column = row * seq + start + i;
                    tokens[column] = id as i32;
                    positions[column] = (first_position + i) as i32;
                }
                segments.set(row, start, ids.len(), segment);
                n_positions = n_positions.max(first_position + ids.len());
            };
            place(COMMON, 0, 0, shared.prompt);
            let mut start = prompt_len;
            for (segment, completion) in (1..).zip(&shared.completions) {
                place(segment, start, prompt_len, completion);
                // The column before an empty completion is read instead of it: that of the prompt's last token.
                let start_of_span = if completion.is_empty() { prompt_len } else { start };
                spans.push(Span { row, start: start_of_span, len: completion.len() });
                start += completion.len();
            }
        }
        let tokens = Self {
            tokens: ints(tokens, [batch, seq], device),
            positions: Some(ints(positions, [batch, seq], device)),
            attend_bias: segments.bias(device),
            lens,
            n_positions,
        };
        (tokens, spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_sees_its_prompt_and_itself() {
        let rows = [
            SharedPrompt { prompt: &[7, 8], completions: vec![&[4, 5], &[6]] },
            SharedPrompt { prompt: &[9], completions: vec![&[3]] },
        ];
        let (batch, spans) = TokenBatch::shared_prompts(&rows, &Device::flex());
        let span = |row, start, len| Span { row, start, len };
        assert_eq!(spans, [span(0, 2, 2), span(0, 4, 1), span(1, 1, 1)]);
        assert_eq!((batch.n_positions, batch.lens.as_slice()), (4, [5, 2].as_slice()));
        let ids = |tensor: burn::tensor::Tensor<2, burn::tensor::Int>| {
            tensor.into_data().as_slice::<i32>().unwrap().to_vec()
        };
        assert_eq!(ids(batch.tokens), [7, 8, 4, 5, 6, 9, 3, 0, 0, 0]);
        assert_eq!(ids(batch.positions.unwrap()), [0, 1, 2, 3, 2, 0, 1, 0, 0, 0]);
        let bias = batch.attend_bias.into_data();
        let visible: Vec<String> = (bias.as_slice::<f32>().unwrap().chunks(5))
            .map(|keys| keys.iter().map(|&bias| if bias == 0.0 { 'x' } else { '.' }).collect())
            .collect();
        assert_eq!(
            visible,
            ["x....", "xx...", "xxx..", "xxxx.", "xx..x", "x....", "xx...", "..x..", "...x.", "....x"]
        );
    }

    #[test]
    fn a_prompt_that_was_cut_for_the_longer_completion_is_not_shared() {
        let prompt = [7; 40];
        let rows = |cut: usize| {
            let completions: [(&[u32], &[u32]); 2] = [(&prompt, &[1, 3]), (&prompt[cut..], &[2, 4, 3])];
            let rows = SharedPrompt::rows_of(&completions, 32);
            let read: Vec<_> = (rows.iter())
                .flat_map(|row| row.completions.iter().map(|completion| (row.prompt, *completion)))
                .collect();
            assert_eq!(read, completions);
            rows.len()
        };
        assert_eq!([rows(0), rows(1)], [1, 2]);
    }

    #[test]
    fn sharing_is_cheaper_where_prompts_are_long_compared_with_completions() {
        let ids = [0; 400];
        let is_cheaper = |prompt: usize, completion: usize| {
            SharedPrompt { prompt: &ids[..prompt], completions: vec![&ids[..completion]; 4] }.is_cheaper(32)
        };
        assert!(is_cheaper(30, 15) && is_cheaper(200, 40));
        assert!(!is_cheaper(5, 200));
    }
}
