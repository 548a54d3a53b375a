//! Padding on either side, whatever it holds, and the neighbours in a batch change no logit and no value.

use burn::tensor::{Device, Int, Tensor, TensorData};
use proptest::prelude::*;
use temper_model::{CausalLm, Dropout, Pooling, TokenBatch};

use crate::tiny::{VOCAB, cases, check_close, configs, language_model, rows, scalar_model, values};

#[derive(Clone, Copy, Debug)]
enum Side {
    Left,
    Right,
}

impl Side {
    fn batch(self, rows: &[Vec<u32>]) -> TokenBatch {
        match self {
            Self::Left => TokenBatch::left_padded(rows, &Device::flex()),
            Self::Right => TokenBatch::right_padded(rows, &Device::flex()),
        }
    }

    /// The first column of a row of `len` tokens.
    fn first(self, len: usize, seq: usize) -> usize {
        match self {
            Self::Left => seq - len,
            Self::Right => 0,
        }
    }

    /// The same batch with other tokens where there is none.
    fn batch_with_pads(self, rows: &[Vec<u32>], pad: u32) -> TokenBatch {
        let batch = self.batch(rows);
        let [n, seq] = batch.dims();
        let mut tokens = vec![pad as i32; n * seq];
        for (i, row) in rows.iter().enumerate() {
            let start = i * seq + self.first(row.len(), seq);
            tokens[start..start + row.len()]
                .copy_from_slice(&row.iter().map(|&t| t as i32).collect::<Vec<_>>());
        }
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [n, seq]), &Device::flex());
        TokenBatch { tokens, ..batch }
    }
}

/// What belongs to the tokens of each row, of a tensor with `width` numbers per column.
fn real(all: &[f32], rows: &[Vec<u32>], width: usize, side: Side) -> Vec<Vec<f32>> {
    let seq = rows.iter().map(Vec::len).max().expect("there are rows");
    let take = |(i, row): (usize, &Vec<u32>)| {
        let start = (i * seq + side.first(row.len(), seq)) * width;
        all[start..start + row.len() * width].to_vec()
    };
    rows.iter().enumerate().map(take).collect()
}

fn logits(model: &CausalLm, batch: &TokenBatch) -> Vec<f32> {
    values(model.forward(batch, &mut Dropout::off()))
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn a_row_has_the_same_logits_alone_and_in_any_batch(
        config in configs(),
        rows in rows(1..=4),
        pad in 0..VOCAB,
        seed in 0u64..1000,
    ) {
        let model = language_model(&config, seed);
        for (i, row) in rows.iter().enumerate() {
            let alone = logits(&model, &Side::Right.batch(std::slice::from_ref(row)));
            for side in [Side::Left, Side::Right] {
                let found = logits(&model, &side.batch_with_pads(&rows, pad));
                let found = &real(&found, &rows, config.vocab_size, side)[i];
                check_close(found, &alone, &format!("row {i}, padded on the {side:?} with {pad}"));
            }
        }
    }

    #[test]
    fn a_row_has_the_same_values_alone_and_in_any_batch(
        config in configs(),
        rows in rows(1..=4),
        pad in 0..VOCAB,
        seed in 0u64..1000,
    ) {
        let model = scalar_model(&config, Pooling::Last, seed);
        let of = |batch: &TokenBatch| values(model.values(batch, &mut Dropout::off()));
        let alone: Vec<_> = rows.iter().map(|row| of(&Side::Right.batch(std::slice::from_ref(row)))).collect();
        for side in [Side::Left, Side::Right] {
            let found = real(&of(&side.batch_with_pads(&rows, pad)), &rows, 1, side);
            check_close(&found.concat(), &alone.concat(), &format!("padded on the {side:?} with {pad}"));
        }
    }

    /// Without this, the others would pass with a model that ignores its tokens.
    #[test]
    fn another_token_changes_what_comes_after_it_and_nothing_before(
        config in configs(),
        row in crate::tiny::tokens(3..9),
        at in 0usize..9,
        seed in 0u64..1000,
    ) {
        let model = language_model(&config, seed);
        let at = at % row.len();
        let mut other = row.clone();
        other[at] = (row[at] + 1) % VOCAB;
        let width = config.vocab_size;
        let alone = |row| logits(&model, &Side::Right.batch(std::slice::from_ref(row)));
        let [before, after] = [&row, &other].map(alone);
        check_close(&after[..at * width], &before[..at * width], "before the token");
        let moved = |column: usize| {
            let columns = column * width..(column + 1) * width;
            before[columns.clone()].iter().zip(&after[columns]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        prop_assert!(moved(at) > 1e-2, "{}", moved(at));
        let later = (at + 1..row.len()).map(moved).fold(0.0, f32::max);
        prop_assert!(at + 1 == row.len() || later > 1e-3, "{later}");
    }
}
