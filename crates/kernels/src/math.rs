//! Functions of numbers and rows that the compiler turns into vector instructions.
//!
//! They have no branches and no calls. Sums keep [`LANES`] partial sums, because the order of additions is a part of a
//! program, and one sum could not be computed by a vector.

use std::f32::consts::LOG2_E;

/// Partial sums of a row.
pub(crate) const LANES: usize = 16;

/// Adding it to a number of a magnitude below 2²² rounds that to a whole one, which is then in the lowest bits.
const ROUNDER: f32 = 12_582_912.0; // 1.5 · 2²³
/// ln 2 in two parts: a multiple of the first is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Below this, eˣ is too small for a normal `f32` and counts as 0.
const LOWEST: f32 = -87.3;
/// From here on eˣ is taken as e⁸⁸·³: it would soon be no `f32`.
const HIGHEST: f32 = 88.3;

/// eˣ, with an error of at most two units in the last place up to 88.3, and e⁸⁸·³ above. 0 below −87.3, and not a number if
/// `x` is not.
///
/// x = n ln 2 + r with a whole n, so that eˣ = 2ⁿ eʳ. With |r| ≤ ln 2 / 2, eight terms of the series of eʳ are enough: the
/// ninth is 5e-9.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let clamped = x.clamp(LOWEST, HIGHEST);
    let rounded = clamped * LOG2_E + ROUNDER;
    let n = rounded - ROUNDER;
    let r = (clamped - n * LN_2[0]) - n * LN_2[1];
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    let tail = series.iter().fold(1.0 / 5040.0, |sum, term| sum * r + term);
    // 1 + r + r² · tail: what is largest is added last.
    let exp_r = 1.0 + (r + r * r * tail);
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    if x < LOWEST { 0.0 } else { exp_r * power }
}

/// The sum over a row of a function of its index.
#[inline(always)]
pub(crate) fn sum(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0; LANES];
    let whole = len - len % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    let rest: f32 = (whole..len).map(&term).sum();
    sums.iter().sum::<f32>() + rest
}

/// The largest number of a row; what is not a number is passed over.
#[inline(always)]
pub(crate) fn max(row: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (most, &x) in most.iter_mut().zip(chunk) {
            *most = greater(x, *most);
        }
    }
    most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &x| greater(x, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_that_of_the_library_up_to_two_units() {
        for i in -8730..8830 {
            let x = i as f32 * 0.01;
            let (found, expected) = (exp(x), f64::from(x).exp());
            assert!((f64::from(found) / expected - 1.0).abs() < 2.4e-7, "e^{x}: {found}, not {expected}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!([exp(f32::NEG_INFINITY), exp(-90.0)], [0.0, 0.0]);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::INFINITY) > 1e38);
    }

    #[test]
    fn sums_and_maxima_count_every_number_of_a_row_once() {
        for len in [1, 15, 16, 17, 40] {
            let row: Vec<f32> = (0..len).map(|i| (i * 7 % len) as f32).collect();
            let expected = (0..len).sum::<usize>() as f32;
            assert_eq!(sum(len, |i| row[i]), expected);
            assert_eq!(max(&row), len as f32 - 1.0);
        }
    }
}
