//! The share of prompts on which one policy's answer is better than the other's.

use serde::Serialize;

/// The quantile of a 95 % interval.
pub(crate) const Z: f64 = 1.959_963_984_540_054;

/// 1 if the first score is higher, 0 if the second one is, and a half for a tie.
pub(crate) fn win(first: f64, second: f64) -> f64 {
    if first > second {
        1.0
    } else if first == second {
        0.5
    } else {
        0.0
    }
}

/// A share of wins with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WinRate {
    /// (wins + ties / 2) / prompts.
    pub win_rate: f64,
    /// Wilson's score interval at 95 %.
    pub win_rate_ci95: [f64; 2],
}

/// How often the first score of a pair is higher than the second. A tie counts as half a win.
///
/// The interval is Wilson's (1927), which stays between 0 and 1. Without any pair, the win rate is one half and the
/// interval is everything.
pub fn win_rate(pairs: impl IntoIterator<Item = (f64, f64)>) -> WinRate {
    let (mut wins, mut n) = (0.0, 0.0);
    for (a, b) in pairs {
        n += 1.0;
        wins += win(a, b);
    }
    if n == 0.0 {
        return WinRate { win_rate: 0.5, win_rate_ci95: [0.0, 1.0] };
    }
    let p = wins / n;
    let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    WinRate { win_rate: p, win_rate_ci95: [(centre - half).max(0.0), (centre + half).min(1.0)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wilson's interval for 81 of 263 is 0.2553 to 0.3662 (Newcombe 1998, table I).
    #[test]
    fn the_interval_is_the_published_one() {
        let result = win_rate((0..263).map(|i| if i < 81 { (1.0, 0.0) } else { (0.0, 1.0) }));
        assert!((result.win_rate_ci95[0] - 0.2553).abs() < 5e-5, "{result:?}");
        assert!((result.win_rate_ci95[1] - 0.3662).abs() < 5e-5, "{result:?}");
    }

    #[test]
    fn a_tie_is_half_a_win() {
        assert_eq!(win_rate([(1.0, 1.0), (2.0, 1.0)]).win_rate, 0.75);
    }
}
