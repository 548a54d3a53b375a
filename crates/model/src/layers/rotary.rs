//! Rotary positions: queries and keys are rotated, so that their products depend on the distance of two tokens.

use std::f64::consts::TAU;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Int, Tensor};
use temper_tensor::floats;

use crate::batch::TokenBatch;
use crate::config::{ModelConfig, Positions, RotaryScaling};

/// The angles of every position, computed on the host: the cosine of a large number is not the same on every graphics
/// card.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    /// Radians per position of each pair of numbers.
    frequencies: Vec<f32>,
    /// Cosines and sines of the positions that were needed so far, shared by the copies of a model.
    table: Arc<Mutex<Table>>,
    /// Positions that a model may have.
    max_seq_len: usize,
}

/// `[position, pair]`, row by row.
#[derive(Debug, Default)]
struct Table {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    /// The angles of a model with rotary positions.
    pub(crate) fn new(config: &ModelConfig) -> Option<Self> {
        let Positions::Rotary { theta, scaling, .. } = config.positions else { return None };
        Some(Self {
            frequencies: frequencies(theta, config.d_rotary(), scaling),
            table: Arc::default(),
            max_seq_len: config.max_seq_len,
        })
    }

    /// The rotation of every column of a batch.
    pub(crate) fn of_batch(&self, batch: &TokenBatch, device: &Device) -> Rotation {
        let [rows, seq] = batch.dims();
        let n_pairs = self.frequencies.len();
        match &batch.positions {
            None => self.with_table(seq, |table| {
                let part =
                    |values: &[f32]| floats(values[..seq * n_pairs].to_vec(), [1, seq, 1, n_pairs], device);
                Rotation { cos: part(&table.cos), sin: part(&table.sin) }
            }),
            Some(positions) => self.with_table(batch.n_positions, |table| {
                let positions: Tensor<1, Int> = positions.clone().reshape([rows * seq]);
                let part = |values: &[f32]| {
                    let used = values[..batch.n_positions * n_pairs].to_vec();
                    let table = floats(used, [batch.n_positions, n_pairs], device);
                    let chosen = table.select(0, positions.clone());
                    chosen.reshape([rows, seq, 1, n_pairs])
                };
                Rotation { cos: part(&table.cos), sin: part(&table.sin) }
            }),
        }
    }

    /// The rotation of one column, in which each row is at a position of its own.
    pub(crate) fn of_column(&self, positions: &[usize], device: &Device) -> Rotation {
        let Angles { cos, sin, n_pairs } = self.angles(positions);
        let part = |angles| floats(angles, [positions.len(), 1, 1, n_pairs], device);
        Rotation { cos: part(cos), sin: part(sin) }
    }

    /// The angles of one position per row, as rows of numbers.
    pub(crate) fn angles(&self, positions: &[usize]) -> Angles {
        let n_pairs = self.frequencies.len();
        let n_positions = positions.iter().max().expect("a batch has at least one row") + 1;
        self.with_table(n_positions, |table| {
            let part = |values: &[f32]| {
                let row = |&position: &usize| &values[position * n_pairs..][..n_pairs];
                positions.iter().flat_map(row).copied().collect()
            };
            Angles { cos: part(&table.cos), sin: part(&table.sin), n_pairs }
        })
    }

    /// Calls `f` with a table of `n` positions at least. It grows by doubling: most contexts are never used whole.
    fn with_table<T>(&self, n: usize, f: impl FnOnce(&Table) -> T) -> T {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let n_pairs = self.frequencies.len();
        let known = table.cos.len() / n_pairs;
        if known < n {
            for position in known..n.next_power_of_two().min(self.max_seq_len.max(n)) {
                for frequency in &self.frequencies {
                    // The product is rounded to f32, as transformers does it; models were trained with these angles.
                    let angle = f64::from(position as f32 * frequency);
                    table.cos.push(angle.cos() as f32);
                    table.sin.push(angle.sin() as f32);
                }
            }
        }
        f(&table)
    }
}

/// Radians per position of each pair of numbers: θ^(−2i / width) for pair i, then scaled.
fn frequencies(theta: f64, width: usize, scaling: Option<RotaryScaling>) -> Vec<f32> {
    let plain = (0..width / 2).map(|pair| theta.powf(-2.0 * pair as f64 / width as f64));
    plain.map(|frequency| scaling.map_or(frequency, |scaling| scaling.apply(frequency)) as f32).collect()
}

impl RotaryScaling {
    /// `_compute_llama3_parameters` in `modeling_rope_utils.py` of transformers.
    fn apply(self, frequency: f64) -> f64 {
        let Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } = self;
        let turns = original_context as f64 * frequency / TAU; // in the context of pretraining
        // 0 for long wavelengths, 1 for short ones.
        let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
        frequency * (kept + (1.0 - kept) / factor)
    }
}

/// Cosines and sines of one position per row: `[rows, n_pairs]` each.
#[derive(Clone, Debug)]
pub(crate) struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    n_pairs: usize,
}

impl Angles {
    /// Those of one row.
    pub(crate) fn of_row(&self, row: usize) -> [&[f32]; 2] {
        [&self.cos, &self.sin].map(|angles| &angles[row * self.n_pairs..][..self.n_pairs])
    }
}

/// The rotation of each column of a batch by its position.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// `[batch or 1, seq, 1, pairs]`.
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotation {
    /// Rotates each pair of the first `n_rotated` heads by its angle ([`temper_kernels::rotate`]).
    ///
    /// # Shapes
    /// - `heads` and output: `[batch, seq, heads, d_head]`
    pub(crate) fn apply(&self, heads: Tensor<4>, n_rotated: usize) -> Tensor<4> {
        temper_kernels::rotate(heads, n_rotated, self.cos.clone(), self.sin.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_tensor::values_of;

    /// θ = 16 and 4 rotated numbers: 1 and 16^(−1/2) = 1/4 radian per position.
    fn rotary() -> Rotary {
        Rotary { frequencies: frequencies(16.0, 4, None), table: Arc::default(), max_seq_len: 64 }
    }

    #[test]
    fn pairs_are_half_a_rotation_apart_and_the_rest_stays() {
        let device = Device::flex();
        assert_eq!(rotary().frequencies, [1.0, 0.25]);
        // At position 4 the angles are 4 and 1.
        let heads = Tensor::from_data([[[[1.0, 0.0, 0.0, 1.0, 7.0]]]], &device);
        let rotated = values_of(rotary().of_column(&[4], &device).apply(heads, 1));
        let expected = [4f32.cos(), -1f32.sin(), 4f32.sin(), 1f32.cos(), 7.0];
        for (found, expected) in rotated.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{rotated:?}");
        }
    }

    /// Rows with and without pads, and one column at a time.
    #[test]
    fn every_way_to_ask_gives_the_same_angles() {
        let device = Device::flex();
        let rotary = rotary();
        let rows = [vec![5u32, 6, 7], vec![8, 9, 10]];
        let angles = |rotation: Rotation| values_of(rotation.sin);
        let right = angles(rotary.of_batch(&TokenBatch::right_padded(&rows, &device), &device));
        let left = angles(rotary.of_batch(&TokenBatch::left_padded(&rows, &device), &device));
        assert_eq!((&left[..6], &left[6..]), (&right[..], &right[..]));
        let column = angles(rotary.of_column(&[2, 40], &device));
        assert_eq!(column[..2], right[4..]);
        assert!((column[2] - 40f32.sin()).abs() < 1e-6 && (column[3] - 10f32.sin()).abs() < 1e-6);
    }

    /// `LlamaRotaryEmbedding(config).inv_freq` of transformers 5.23: the rotary parameters of Llama 3.2 1B with a head of
    /// 16 numbers.
    #[test]
    fn llama_3_frequencies_equal_those_of_transformers() {
        let scaling = RotaryScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 8192,
        };
        let scaled = frequencies(500_000.0, 16, Some(scaling));
        let expected = [
            1.0,
            0.193_922_76,
            0.037_606_03,
            0.007_292_665,
            0.000_429_556_7,
            8.570_256e-6,
            1.661_967_4e-6,
            3.222_933e-7,
        ];
        assert_eq!(scaled.len(), expected.len());
        for (frequency, expected) in scaled.iter().zip(expected) {
            assert!((frequency / expected - 1.0).abs() < 1e-6, "{frequency} {expected}");
        }
    }
}
