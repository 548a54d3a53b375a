//! Episodes as rows of tokens, and as batches that read only the places where a completion token is chosen.

use burn::tensor::{Device, Int, Tensor};
use temper_model::{SharedPrompt, Span, TokenBatch, select_positions};
use temper_tensor::ints;

/// Prompts with one completion each, as rows of tokens without padding.
#[derive(Clone, Debug)]
pub struct Episodes {
    /// Prompt and completion of each episode.
    pub rows: Vec<Vec<u32>>,
    /// Tokens of each prompt.
    pub prompt_lens: Vec<usize>,
    /// Values of each completion: one per token, plus one past the end where the score is placed there.
    pub value_lens: Vec<usize>,
    /// Columns of every `[batch, completion_len]` tensor: the greatest of `value_lens`.
    pub completion_len: usize,
}

impl Episodes {
    /// Number of episodes.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no episodes.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Completion tokens of each episode.
    pub fn completion_lens(&self) -> impl Iterator<Item = usize> + Clone {
        self.rows.iter().zip(&self.prompt_lens).map(|(row, prompt_len)| row.len() - prompt_len)
    }

    /// How many completion tokens and how many values these episodes have.
    pub fn counts(&self, index: &[usize]) -> (usize, usize) {
        let tokens = |&i: &usize| self.rows[i].len() - self.prompt_lens[i];
        let values = |&i: &usize| self.value_lens[i];
        (index.iter().map(tokens).sum(), index.iter().map(values).sum())
    }

    /// The episodes at these places, ready for one forward pass of a model of width `d_model`.
    pub fn batch(&self, index: &[usize], d_model: usize, device: &Device) -> EpisodeBatch {
        let rows: Vec<&[u32]> = index.iter().map(|&i| self.rows[i].as_slice()).collect();
        let prompt_lens: Vec<usize> = index.iter().map(|&i| self.prompt_lens[i]).collect();
        let value_lens: Vec<usize> = index.iter().map(|&i| self.value_lens[i]).collect();
        EpisodeBatch::new(&rows, &prompt_lens, &value_lens, self.completion_len, d_model, device)
    }
}

/// The rows of a recorded tensor that belong to the episodes at these places.
///
/// # Shapes
/// - `x`: `[batch, completion_len]`
/// - output: `[index.len(), completion_len]`
pub fn select_rows(x: &Tensor<2>, index: &[usize]) -> Tensor<2> {
    let rows: Vec<i32> = index.iter().map(|&i| i as i32).collect();
    x.clone().select(0, ints(rows, [index.len()], &x.device()))
}

/// Episodes of one forward pass, and the places of their completions.
///
/// ```text
/// tokens    p p p a b [EOS] .     prompt_len 3
/// reads         ^ ^ ^             hidden states that predict a, b, [EOS]
/// ```
///
/// A value is read at the same place as the log-probability of its token, so it does not know the token (D4: the
/// notebook's update reads the state after it). Only these places reach the heads, in particular the head over the
/// vocabulary, so prompts and padding cost nothing there.
///
/// Neighbours with the same prompt share a row, which reads the prompt once, wherever that is cheaper ([`SharedPrompt`]).
pub struct EpisodeBatch {
    pub(crate) tokens: TokenBatch,
    /// The completion tokens of all episodes, one after the other: `[tokens]`.
    pub(crate) targets: Tensor<1, Int>,
    pub(crate) logprob_places: Places,
    pub(crate) value_places: Places,
}

impl EpisodeBatch {
    /// Makes a batch from rows of prompt and completion.
    ///
    /// `value_lens` says how many values each completion has: one per token, and one more where there is one past the
    /// end. Results have `completion_len` columns. `d_model` is the width of the models.
    pub(crate) fn new(
        rows: &[&[u32]],
        prompt_lens: &[usize],
        value_lens: &[usize],
        completion_len: usize,
        d_model: usize,
        device: &Device,
    ) -> Self {
        let completions = || rows.iter().zip(prompt_lens).map(|(row, prompt_len)| &row[*prompt_len..]);
        let targets: Vec<i32> = completions().flatten().map(|token| *token as i32).collect();
        let lens: Vec<usize> = completions().map(<[u32]>::len).collect();
        let n = targets.len();
        let (tokens, starts) = arranged(rows, prompt_lens, d_model, device);
        Self {
            tokens,
            targets: ints(targets, [n], device),
            logprob_places: Places::new(&starts, &lens, completion_len, device),
            // The value past the end is read at the last token: it is the value of having ended.
            value_places: Places::new(&starts, value_lens, completion_len, device),
        }
    }
}

/// Where a completion is in a batch.
#[derive(Clone, Copy, Debug)]
struct Start {
    row: usize,
    /// Column of the last token of its prompt.
    prompt_end: usize,
    /// Column of its first token.
    column: usize,
}

/// The batch, and where each completion starts in it.
fn arranged(
    rows: &[&[u32]],
    prompt_lens: &[usize],
    d_model: usize,
    device: &Device,
) -> (TokenBatch, Vec<Start>) {
    let episodes: Vec<(&[u32], &[u32])> =
        rows.iter().zip(prompt_lens).map(|(row, prompt_len)| row.split_at(*prompt_len)).collect();
    let groups = episodes.chunk_by(|(prompt, _), (next, _)| prompt == next);
    let shared: Vec<SharedPrompt<'_>> =
        groups.flat_map(|group| SharedPrompt::rows_of(group, d_model)).collect();
    let prompt_ends = prompt_lens.iter().map(|prompt_len| prompt_len - 1);
    if shared.len() == rows.len() {
        let start = |(row, prompt_end)| Start { row, prompt_end, column: prompt_end + 1 };
        return (TokenBatch::right_padded(rows, device), prompt_ends.enumerate().map(start).collect());
    }
    let (tokens, spans) = TokenBatch::shared_prompts(&shared, device);
    let starts = spans.iter().zip(prompt_ends);
    let start = |(span, prompt_end): (&Span, usize)| Start { row: span.row, prompt_end, column: span.start };
    (tokens, starts.map(start).collect())
}

/// Hidden states that a head reads, and the cells that its results belong to: one row per episode, one column per
/// completion token.
pub(crate) struct Places {
    /// Row and column of each hidden state.
    pub(crate) positions: Vec<(usize, usize)>,
    /// For each cell of the result the index of its hidden state, or one past the last for a cell without one.
    cells: Tensor<1, Int>,
    dims: [usize; 2],
}

impl Places {
    /// Completion `i` has `lens[i]` places: the last token of its prompt, and then its own from the first one on.
    fn new(starts: &[Start], lens: &[usize], completion_len: usize, device: &Device) -> Self {
        let n: usize = lens.iter().sum();
        let mut positions = Vec::with_capacity(n);
        let mut cells = Vec::with_capacity(lens.len() * completion_len);
        for (start, len) in starts.iter().zip(lens) {
            for column in 0..completion_len {
                let is_read = column < *len;
                cells.push(if is_read { positions.len() } else { n } as i32);
                if is_read {
                    let place = if column == 0 { start.prompt_end } else { start.column + column - 1 };
                    positions.push((start.row, place));
                }
            }
        }
        let n_cells = cells.len();
        let cells = ints(cells, [n_cells], device);
        Self { positions, cells, dims: [lens.len(), completion_len] }
    }

    /// From `[batch, seq, d_model]` to the hidden states that are read, `[places, d_model]`.
    pub(crate) fn read(&self, hidden: Tensor<3>) -> Tensor<2> {
        select_positions(hidden, &self.positions)
    }

    /// From one number per place, `[places]`, to `[batch, completion_len]`, with 0 in cells without a place.
    pub(crate) fn spread(&self, x: Tensor<1>) -> Tensor<2> {
        let nothing = Tensor::zeros([1], &x.device());
        Tensor::cat(vec![x, nothing], 0).select(0, self.cells.clone()).reshape(self.dims)
    }
}
