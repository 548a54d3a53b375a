//! Attention of one new token to the tokens before it, whose keys and values are in host memory.

use crate::math::{LANES, exp, max, sum};
use crate::vectorized::vectorized;

vectorized! {
/// softmax(q · kᵢ / √d_head) v over the columns i: the attention of one head of one query (Vaswani et al. 2017, Eq. (1)).
///
/// # Shapes
/// - `query` and `mixed`, which gets the result: `[d_head]`
/// - `keys` and `values`: column i begins at number i · `stride` of the slice and has `d_head` numbers
/// - `probs`: `[columns]`; it is written to, and says how many columns there are
///
/// # Panics
/// If there are fewer columns than that, or `query` and `mixed` differ in length.
pub fn attend_query<'a>(
    query: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    stride: usize,
    probs: &'a mut [f32],
    mixed: &'a mut [f32],
) {
    let needed = (probs.len() - 1) * stride + query.len();
    assert!(keys.len() >= needed && values.len() >= needed && mixed.len() == query.len(), "columns are missing");
    let scale = 1.0 / (query.len() as f32).sqrt();
    for (prob, key) in probs.iter_mut().zip(keys.chunks(stride)) {
        *prob = dot(query, &key[..query.len()]) * scale;
    }
    let largest = max(probs);
    for prob in probs.iter_mut() {
        *prob = exp(*prob - largest);
    }
    let share = 1.0 / sum(probs.len(), |i| probs[i]);
    mix(probs, values, stride, share, mixed);
}
}

/// The sum of the products of two rows.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// The sum of the values, each weighted with its probability, times `share`.
#[inline(always)]
fn mix(probs: &[f32], values: &[f32], stride: usize, share: f32, mixed: &mut [f32]) {
    let width = mixed.len();
    let (chunks, rest) = mixed.as_chunks_mut::<LANES>();
    for (i, chunk) in chunks.iter_mut().enumerate() {
        let mut sums = [0.0; LANES];
        for (prob, value) in probs.iter().zip(values.chunks(stride)) {
            let value: &[f32; LANES] = value[i * LANES..].first_chunk().expect("a whole column");
            for lane in 0..LANES {
                sums[lane] += prob * value[lane];
            }
        }
        *chunk = sums.map(|sum| sum * share);
    }
    let first = width - rest.len();
    for (i, number) in rest.iter_mut().enumerate() {
        let terms = probs.iter().zip(values.chunks(stride)).map(|(prob, value)| prob * value[first + i]);
        *number = terms.sum::<f32>() * share;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition in float64, with a head of 19 numbers, columns 25 apart, and one column or many.
    #[test]
    fn a_query_mixes_the_values_of_all_columns() {
        let (d_head, stride) = (19, 25);
        for n in [1, 2, 40] {
            let wave = |len: usize, phase: f32| -> Vec<f32> {
                (0..len).map(|i| 2.0 * (i as f32 * 0.7 + phase).sin()).collect()
            };
            let (query, keys, values) =
                (wave(d_head, 0.1), wave(n * stride - 6, 0.5), wave(n * stride - 6, 0.9));
            let scores: Vec<f64> = (0..n)
                .map(|i| {
                    let key = &keys[i * stride..][..d_head];
                    let dot: f64 = query.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    dot / (d_head as f64).sqrt()
                })
                .collect();
            let total: f64 = scores.iter().map(|score| score.exp()).sum();
            let (mut probs, mut mixed) = (vec![0.0; n], vec![0.0; d_head]);
            attend_query(&query, &keys, &values, stride, &mut probs, &mut mixed);
            for (i, mixed) in mixed.iter().enumerate() {
                let terms = (0..n).map(|c| scores[c].exp() / total * f64::from(values[c * stride + i]));
                let expected: f64 = terms.sum();
                assert!(
                    (f64::from(*mixed) - expected).abs() < 1e-6,
                    "{n} columns, number {i}: {mixed}, not {expected}"
                );
            }
        }
    }
}
