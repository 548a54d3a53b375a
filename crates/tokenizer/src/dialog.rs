//! The notebook's three arrays.

use serde::Serialize;

use crate::{Error, Example, Template, Tokenizer};

/// The label of a position from which nothing is learned, as PyTorch's `ignore_index`.
pub const IGNORE_LABEL: i64 = -100;

/// A sequence as three arrays of the same length, to look at.
///
/// [`Example::dialog`] shows what training learns. [`encode_dialog`] and [`Template::dialog`] give what the notebook's
/// `encode_dialog` returns. **Those are for looking at, not for training:** their labels have three faults that the notebook trains with
/// and Temper does not: the label at `[EOS]` is `[PAD]` (D8), an over-long dialogue is cut and given an
/// `[EOS]` (D9), and the label *at* `[SEP]` is masked too, so that the first token of an answer is never
/// learned. Training uses [`crate::Example`], whose mask is right in all three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dialog {
    /// The ids, padded on the right.
    pub input_ids: Vec<u32>,
    /// 1 for a token, 0 for padding.
    pub attention_mask: Vec<u8>,
    /// The next id, or [`IGNORE_LABEL`].
    pub labels: Vec<i64>,
}

/// The notebook's `SimpleTokenizer(max_len).encode_dialog(prompt, completion)`, to the number.
pub fn encode_dialog(prompt: &str, completion: &str, max_len: usize) -> Dialog {
    let dialog = Template::notebook().dialog(&Tokenizer::byte(), prompt, completion, max_len);
    dialog.expect("a template of pieces takes every text")
}

impl Example {
    /// What training learns from this example: the label of a position is the token after it, where that one counts.
    ///
    /// Each array has `len` entries, those after the example padded with `pad`.
    ///
    /// # Panics
    /// If the example is longer than `len`.
    pub fn dialog(&self, pad: u32, len: usize) -> Dialog {
        let n_tokens = self.tokens.len();
        assert!(n_tokens <= len, "an example of {n_tokens} tokens in arrays of {len}");
        let mask = self.completion_mask();
        let label = |idx: usize| match self.tokens.get(idx + 1) {
            Some(&next) if mask[idx + 1] => i64::from(next),
            _ => IGNORE_LABEL,
        };
        let mut input_ids = self.tokens.clone();
        input_ids.resize(len, pad);
        Dialog {
            input_ids,
            attention_mask: (0..len).map(|idx| u8::from(idx < n_tokens)).collect(),
            labels: (0..len).map(label).collect(),
        }
    }
}

impl Template {
    /// The notebook's three arrays for any template and tokenizer, by its rules: see [`Dialog`].
    ///
    /// Each array has `max_len` entries. A tokenizer without a padding token pads with its end token.
    ///
    /// # Errors
    /// Those of [`Template::encode_prompt`].
    pub fn dialog(
        &self,
        tokenizer: &Tokenizer,
        prompt: &str,
        completion: &str,
        max_len: usize,
    ) -> Result<Dialog, Error> {
        let special = tokenizer.special();
        let Example { tokens: mut ids, prompt_len: mut masked, .. } =
            self.encode_answer(tokenizer, prompt, completion, true)?;
        if ids.len() > max_len {
            ids.truncate(max_len.saturating_sub(1));
            // With its `[SEP]` lost, the notebook masks one label and trains on the prompt.
            if masked > ids.len() {
                masked = 1;
            }
            ids.extend((max_len > 0).then_some(special.eos));
        }
        let len = ids.len();
        ids.resize(max_len, special.pad.unwrap_or(special.eos));

        let next = ids.iter().skip(1).chain([&special.eos]);
        let labels = next
            .zip(0..max_len)
            .map(|(&id, idx)| if idx < masked || idx >= len { IGNORE_LABEL } else { i64::from(id) })
            .collect();
        let attention_mask = (0..max_len).map(|idx| u8::from(idx < len)).collect();
        Ok(Dialog { input_ids: ids, attention_mask, labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const INPUT_IDS: [u32; 128] = [
        1, 77, 114, 119, 120, 118, 121, 103, 120, 62, 91, 108, 101, 120, 36, 109, 119, 36,
        113, 101, 103, 108, 109, 114, 105, 36, 112, 105, 101, 118, 114, 109, 114, 107, 67, 2,
        81, 101, 103, 108, 109, 114, 105, 36, 112, 105, 101, 118, 114, 109, 114, 107, 36, 109,
        119, 36, 120, 105, 103, 108, 114, 115, 112, 115, 107, 125, 36, 120, 108, 101, 120, 36,
        105, 114, 101, 102, 112, 105, 119, 36, 103, 115, 113, 116, 121, 120, 105, 118, 119, 36,
        120, 115, 36, 112, 105, 101, 118, 114, 36, 106, 118, 115, 113, 36, 104, 101, 120, 101,
        50, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0,
    ];

    #[rustfmt::skip]
    const LABELS: [i64; 128] = [
        -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100,
        -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100,
        101, 103, 108, 109, 114, 105, 36, 112, 105, 101, 118, 114, 109, 114, 107, 36, 109, 119,
        36, 120, 105, 103, 108, 114, 115, 112, 115, 107, 125, 36, 120, 108, 101, 120, 36, 105,
        114, 101, 102, 112, 105, 119, 36, 103, 115, 113, 116, 121, 120, 105, 118, 119, 36, 120,
        115, 36, 112, 105, 101, 118, 114, 36, 106, 118, 115, 113, 36, 104, 101, 120, 101, 50,
        3, 0, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100,
        -100, -100,
    ];

    #[test]
    fn n1_encode_dialog_gives_the_notebooks_printed_tensors() {
        let dialog = encode_dialog(
            "What is machine learning?",
            "Machine learning is technology that enables computers to learn from data.",
            128,
        );
        assert_eq!(dialog.input_ids, INPUT_IDS);
        assert_eq!(dialog.attention_mask, [vec![1; 110], vec![0; 18]].concat());
        assert_eq!(dialog.labels, LABELS);
    }

    /// The first token of the answer is learned, and nothing after its end, unlike in the notebook's labels.
    #[test]
    fn the_labels_of_training_are_the_completion_and_its_end() {
        let byte = |byte: u8| u32::from(byte) + 4;
        let example = Template::bare().encode_answer(&Tokenizer::byte(), "a", "yo", true).unwrap();
        let dialog = example.dialog(0, 8);
        let [a, y, o] = [b'a', b'y', b'o'].map(byte);
        assert_eq!(dialog.input_ids, [1, a, 2, y, o, 3, 0, 0]);
        assert_eq!(dialog.attention_mask, [1, 1, 1, 1, 1, 1, 0, 0]);
        assert_eq!(dialog.labels, [-100, -100, i64::from(y), i64::from(o), 3, -100, -100, -100]);
    }

    /// Expected values by the notebook's own code, run in Python.
    #[test]
    fn n1_over_long_dialogs_are_cut_as_the_notebook_cuts_them() {
        // [BOS]Instruct:ab[SEP]cde[EOS] is 17 long; 16 loses a letter of the answer.
        let cut = encode_dialog("ab", "cde", 16);
        assert_eq!(cut.input_ids, [1, 77, 114, 119, 120, 118, 121, 103, 120, 62, 101, 102, 2, 103, 104, 3]);
        assert_eq!(cut.labels, [[-100; 13].as_slice(), &[104, 3, 3]].concat());
        // Shorter than the prompt, `[SEP]` is lost and the labels are the prompt's.
        let lost = encode_dialog("ab", "cde", 6);
        assert_eq!(lost.input_ids, [1, 77, 114, 119, 120, 3]);
        assert_eq!(lost.labels, [-100, 114, 119, 120, 3, 3]);
        assert_eq!(encode_dialog("ab", "cde", 1).labels, [-100]);
        assert!(encode_dialog("ab", "cde", 0).input_ids.is_empty());
    }
}
