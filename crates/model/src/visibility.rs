//! Which tokens of a row see each other.

use burn::tensor::{Bool, Device, Int, Tensor};
use temper_tensor::{floats, ints, is_host};

/// Added to the attention scores of keys that a query must not see; its exponential is 0.
/// Every query sees at least itself, so no row is hidden whole.
/// A large finite number would do too, but exp underflows there, which is slow on a CPU.
pub(crate) const HIDDEN: f32 = f32::NEG_INFINITY;

/// The segment of a prompt, or of a whole text. All later tokens of its row see it, except pads.
pub(crate) const COMMON: i32 = 0;

/// The segments of the tokens of a batch. A token sees itself, the earlier tokens of its segment, and the earlier tokens
/// that are [`COMMON`].
///
/// ```text
/// tokens     . . a b | c d | e     two pads, a prompt and two completions
/// segments  -1-2 0 0   1 1   2
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segments {
    ids: Vec<i32>,
    rows: usize,
    seq: usize,
}

impl Segments {
    /// All tokens are pads, which see nothing but themselves, so that their softmax has something to divide by.
    pub(crate) fn of_pads(rows: usize, seq: usize) -> Self {
        Self { ids: (0..rows * seq).map(|column| -1 - (column % seq) as i32).collect(), rows, seq }
    }

    /// One row in which every token sees all before it.
    pub(crate) fn of_text(seq: usize) -> Self {
        Self { ids: vec![COMMON; seq], rows: 1, seq }
    }

    /// Puts `n` tokens of a row, from column `start` on, into a segment.
    pub(crate) fn set(&mut self, row: usize, start: usize, n: usize, segment: i32) {
        self.ids[row * self.seq + start..][..n].fill(segment);
    }

    /// What is added to the attention scores: 0 where a query may look, −∞ where not. `[rows, 1, seq, seq]`.
    pub(crate) fn bias(self, device: &Device) -> Tensor<4> {
        if is_host(device) { self.bias_from_host(device) } else { self.bias_on_device(device) }
    }

    fn bias_from_host(&self, device: &Device) -> Tensor<4> {
        let (rows, seq) = (self.rows, self.seq);
        let mut bias = vec![HIDDEN; rows * seq * seq];
        for (ids, bias) in self.ids.chunks_exact(seq).zip(bias.chunks_exact_mut(seq * seq)) {
            for (query, bias) in bias.chunks_exact_mut(seq).enumerate() {
                let own = ids[query];
                for (bias, &key) in bias[..=query].iter_mut().zip(ids) {
                    if key == own || (key == COMMON && own >= COMMON) {
                        *bias = 0.0;
                    }
                }
            }
        }
        floats(bias, [rows, 1, seq, seq], device)
    }

    /// The same, made where it is used: a card gets `rows · seq` numbers, and not `seq` times as many.
    fn bias_on_device(self, device: &Device) -> Tensor<4> {
        let (rows, seq) = (self.rows, self.seq);
        let table = [rows, seq, seq];
        let ids = ints(self.ids, [rows, seq], device);
        let of_queries = |x: Tensor<2, Int>| x.unsqueeze_dim::<3>(2).expand(table);
        let of_keys = |x: Tensor<2, Int>| x.unsqueeze_dim::<3>(1).expand(table);
        let columns = Tensor::<1, Int>::arange(0..seq as i64, device).unsqueeze::<2>();
        let (queries, keys) = (of_queries(ids.clone()), of_keys(ids));
        let own: Tensor<3, Bool> = queries.clone().equal(keys.clone());
        let common = keys.equal_elem(COMMON).bool_and(queries.greater_equal_elem(COMMON));
        let earlier = of_keys(columns.clone()).lower_equal(of_queries(columns));
        let hidden = own.bool_or(common).bool_and(earlier).bool_not();
        Tensor::<3>::zeros(table, device).mask_fill(hidden, HIDDEN).unsqueeze_dim(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_tensor::values_of;

    /// A pad, a prompt of two tokens, and two completions of two tokens and one.
    #[test]
    fn a_token_sees_its_segment_and_what_is_common() {
        let mut segments = Segments::of_pads(1, 6);
        segments.set(0, 1, 2, COMMON);
        segments.set(0, 3, 2, 1);
        segments.set(0, 5, 1, 2);
        let seen = [
            [1, 0, 0, 0, 0, 0],
            [0, 1, 0, 0, 0, 0],
            [0, 1, 1, 0, 0, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 1, 1, 1, 1, 0],
            [0, 1, 1, 0, 0, 1],
        ];
        let expected: Vec<f32> =
            seen.as_flattened().iter().map(|&seen| if seen == 1 { 0.0 } else { HIDDEN }).collect();
        assert_eq!(values_of(segments.bias(&Device::flex())), expected);
    }

    #[test]
    fn a_device_makes_the_same_bias() {
        let device = Device::flex();
        let mut segments = Segments::of_pads(3, 7);
        segments.set(0, 0, 7, COMMON);
        segments.set(1, 2, 3, COMMON);
        segments.set(2, 1, 2, 1);
        segments.set(2, 3, 3, 2);
        let expected = values_of(segments.bias_from_host(&device));
        assert_eq!(values_of(segments.bias_on_device(&device)), expected);
    }
}
