//! How often a model orders pairs as the data do.

/// Share of pairs in the right order, from chosen minus rejected score of each. A tie counts one half, as a tossed coin
/// would on average; a margin that is not a number counts as wrong.
///
/// NaN if there are no pairs.
pub fn accuracy(margins: impl IntoIterator<Item = f64>) -> f64 {
    let (mut sum, mut n) = (0.0, 0usize);
    for margin in margins {
        sum += correctness(margin, 0.0);
        n += 1;
    }
    sum / n as f64
}

/// What one pair counts in an accuracy: 1 in the right order, one half where the margin is at most `tie` in size, 0 in
/// the wrong order.
pub fn correctness(margin: f64, tie: f64) -> f64 {
    if margin.abs() <= tie {
        0.5
    } else if margin > 0.0 {
        1.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_counts_one_half() {
        assert_eq!(accuracy([1.0, -1.0, 0.0, -0.0]), 0.5);
        assert_eq!(accuracy([0.0]), 0.5);
        assert_eq!(accuracy([2.0, 1e-30, -1e-30, f64::NAN]), 0.5);
        assert_eq!([-0.2, -0.1, 0.1, 0.2].map(|margin| correctness(margin, 0.1)), [0.0, 0.5, 0.5, 1.0]);
        assert!(accuracy([]).is_nan());
    }
}
