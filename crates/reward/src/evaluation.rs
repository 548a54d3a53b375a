//! Where a reward model is right: by length, by its own confidence, and how much it goes by length alone.

use std::cmp::Ordering;

use serde::Serialize;

use temper_data::{Pair, Rankings};

use crate::RewardEvaluation;

/// Two completions are about equally long if the shorter one lacks at most this share of the longer one.
const ABOUT_EQUAL: f64 = 0.1;
/// Buckets of a continuous quantity, equally full but for ties.
const N_BUCKETS: usize = 4;

/// What [`RewardEvaluation`] is made of. Lengths are tokens of the completion, the end token included.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RewardDetails {
    /// Mean over the pairs of the chosen side's score.
    pub eval_chosen_score: f64,
    /// Mean over the pairs of the rejected side's score.
    pub eval_rejected_score: f64,
    /// Standard deviation of the scores of all completions, with their number as divisor.
    pub eval_score_std: f64,
    /// Pearson's correlation of score and length over all completions; none where either is constant.
    pub eval_score_length_correlation: Option<f64>,
    /// Share of the pairs in which the rule "the longer one wins" would be right, pairs of equal length counting half.
    /// An accuracy that is not above it may be nothing but length.
    pub eval_longer_wins: f64,
    /// Accuracy where the chosen side is shorter, about as long, and longer; pairs that there are none of are left out.
    pub eval_by_length_order: Vec<OrderBucket>,
    /// Accuracy by the mean length of the pair, in quartiles.
    pub eval_by_length: Vec<Bucket>,
    /// Accuracy by the distance of the two scores, in quartiles.
    pub eval_by_confidence: Vec<ConfidenceBucket>,
}

/// Pairs whose chosen side compares in length with the rejected one in this way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OrderBucket {
    /// `shorter`, `equal` or `longer`.
    pub chosen: &'static str,
    /// How many.
    pub pairs: usize,
    /// Share of them in the right order: a tie counts one half.
    pub accuracy: f64,
}

/// Pairs between two values of a quantity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bucket {
    /// Least value among them.
    pub from: f64,
    /// Greatest value among them.
    pub to: f64,
    /// How many.
    pub pairs: usize,
    /// Share of them in the right order: a tie counts one half.
    pub accuracy: f64,
}

/// Pairs between two distances of their scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfidenceBucket {
    /// The pairs.
    #[serde(flatten)]
    pub bucket: Bucket,
    /// The accuracy that the model itself expects: the mean of σ of the distance. A model that is less often right is
    /// too sure of itself.
    pub expected: f64,
}

/// A pair with what it is sorted by.
struct Judged {
    chosen_score: f64,
    rejected_score: f64,
    chosen_len: usize,
    rejected_len: usize,
}

impl Judged {
    fn margin(&self) -> f64 {
        self.chosen_score - self.rejected_score
    }

    fn mean_len(&self) -> f64 {
        (self.chosen_len + self.rejected_len) as f64 / 2.0
    }

    fn order(&self) -> &'static str {
        let (chosen, rejected) = (self.chosen_len as f64, self.rejected_len as f64);
        if (chosen - rejected).abs() <= ABOUT_EQUAL * chosen.max(rejected) {
            "equal"
        } else if chosen < rejected {
            "shorter"
        } else {
            "longer"
        }
    }
}

/// Takes an evaluation apart. `found` is that of `data`.
///
/// Confidence is the distance of the two scores and not the data's own margin: every pair has one, while few data sets
/// come with margins; and by the loss that the model was trained with, its σ is the probability with which the model
/// expects to be right, so that each bucket shows whether its scores can be taken at their word.
///
/// # Panics
/// If `found` has not one score for each completion.
pub fn examine(data: &Rankings, found: &RewardEvaluation) -> RewardDetails {
    let lens: Vec<usize> =
        data.rankings.iter().flat_map(|r| &r.completions).map(|c| c.completion().len()).collect();
    assert_eq!(found.scores.len(), lens.len(), "scores of other data");
    let scores: Vec<f64> = found.scores.iter().map(|&score| f64::from(score)).collect();
    let mut judged = Vec::with_capacity(found.eval_pairs);
    let mut start = 0;
    for ranking in &data.rankings {
        let (scores, lens) = (&scores[start..], &lens[start..]);
        judged.extend(ranking.pairs.iter().map(|&Pair { chosen, rejected, .. }| Judged {
            chosen_score: scores[chosen],
            rejected_score: scores[rejected],
            chosen_len: lens[chosen],
            rejected_len: lens[rejected],
        }));
        start += ranking.completions.len();
    }
    let lens: Vec<f64> = lens.iter().map(|&len| len as f64).collect();
    let n = judged.len() as f64;
    let order = |chosen| {
        let pairs: Vec<&Judged> = judged.iter().filter(|pair| pair.order() == chosen).collect();
        (!pairs.is_empty()).then(|| OrderBucket { chosen, pairs: pairs.len(), accuracy: accuracy(&pairs) })
    };
    let confidence = |pair: &Judged| pair.margin().abs();
    let longer_wins = |pair: &Judged| match pair.chosen_len.cmp(&pair.rejected_len) {
        Ordering::Less => 0.0,
        Ordering::Equal => 0.5,
        Ordering::Greater => 1.0,
    };
    RewardDetails {
        eval_chosen_score: judged.iter().map(|pair| pair.chosen_score).sum::<f64>() / n,
        eval_rejected_score: judged.iter().map(|pair| pair.rejected_score).sum::<f64>() / n,
        eval_score_std: variance(&scores).sqrt(),
        eval_score_length_correlation: correlation(&scores, &lens),
        eval_longer_wins: judged.iter().map(longer_wins).sum::<f64>() / n,
        eval_by_length_order: ["shorter", "equal", "longer"].into_iter().filter_map(order).collect(),
        eval_by_length: buckets(&judged, Judged::mean_len).into_iter().map(|(bucket, _)| bucket).collect(),
        eval_by_confidence: buckets(&judged, confidence)
            .into_iter()
            .map(|(bucket, pairs)| {
                let sigma = |pair: &&Judged| 1.0 / (1.0 + (-confidence(pair)).exp());
                let expected = pairs.iter().map(sigma).sum::<f64>() / pairs.len() as f64;
                ConfidenceBucket { bucket, expected }
            })
            .collect(),
    }
}

fn accuracy(pairs: &[&Judged]) -> f64 {
    temper_data::accuracy(pairs.iter().map(|pair| pair.margin()))
}

/// Equally full buckets, the lowest values first. Equal values stay together, so there may be fewer.
fn buckets(pairs: &[Judged], value: impl Fn(&Judged) -> f64) -> Vec<(Bucket, Vec<&Judged>)> {
    let mut sorted: Vec<&Judged> = pairs.iter().collect();
    sorted.sort_by(|a, b| value(a).total_cmp(&value(b)));
    let mut buckets = Vec::new();
    let mut start = 0;
    for i in 1..=N_BUCKETS {
        let mut end = (i * sorted.len()).div_ceil(N_BUCKETS).max(start);
        while end > start && end < sorted.len() && value(sorted[end]) == value(sorted[end - 1]) {
            end += 1;
        }
        if end > start {
            let pairs = sorted[start..end].to_vec();
            let (from, to) = (value(pairs[0]), value(pairs[pairs.len() - 1]));
            buckets.push((Bucket { from, to, pairs: pairs.len(), accuracy: accuracy(&pairs) }, pairs));
            start = end;
        }
    }
    buckets
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// With the number of values as divisor.
fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64
}

/// Pearson's; none where one side does not vary.
fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let (mean_a, mean_b) = (mean(a), mean(b));
    let covariance = a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum::<f64>() / a.len() as f64;
    let scale = (variance(a) * variance(b)).sqrt();
    (scale > 0.0).then(|| covariance / scale)
}

#[cfg(test)]
mod tests {
    use temper_data::Comparison;
    use temper_data::Encoding;
    use temper_tokenizer::{Template, TextSide, Tokenizer};

    use super::*;

    /// Two answers each, the better one first: `lens` are their lengths in bytes, to which the end token is added.
    fn data(lens: &[[usize; 2]]) -> Rankings {
        let row = |[chosen, rejected]: &[usize; 2]| {
            Comparison::pair("p", &"c".repeat(*chosen), &"r".repeat(*rejected))
        };
        let rows: Vec<Comparison> = lens.iter().map(row).collect();
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        Rankings::new(&rows, &Encoding::new(&text, 64)).unwrap()
    }

    fn details_of(lens: &[[usize; 2]], scores: &[[f32; 2]]) -> RewardDetails {
        let evaluation = RewardEvaluation {
            eval_loss: 0.0,
            eval_accuracy: 0.0,
            eval_margin: 0.0,
            eval_pairs: lens.len(),
            margins: vec![],
            scores: scores.as_flattened().to_vec(),
        };
        examine(&data(lens), &evaluation)
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, expected {expected}");
    }

    const LENS: [[usize; 2]; 8] = [[1, 3], [4, 4], [9, 2], [19, 18], [7, 15], [2, 8], [29, 11], [5, 5]];
    const SCORES: [[f32; 2]; 8] = [
        [0.5, -0.25],
        [1.0, 1.0],
        [2.0, -1.0],
        [-0.5, 0.75],
        [0.25, 1.5],
        [-1.0, -1.125],
        [3.0, 0.5],
        [0.0, -2.0],
    ];

    /// numpy 2.4: `np.std(s)`, `np.corrcoef(s, l)[0, 1]`, and the means of both columns, of the arrays above with 1 added
    /// to each length.
    #[test]
    fn scores_and_their_correlation_with_length_equal_numpys() {
        let details = details_of(&LENS, &SCORES);
        close(details.eval_chosen_score, NUMPY[0]);
        close(details.eval_rejected_score, NUMPY[1]);
        close(details.eval_score_std, NUMPY[2]);
        close(details.eval_score_length_correlation.unwrap(), NUMPY[3]);
    }

    const NUMPY: [f64; 4] = [0.656_25, -0.078_125, 1.240_368_164_535_735_8, 0.552_194_843_079_147_6];

    /// By hand: 2 to 4 tokens, 3 to 9 and 8 to 16 are shorter, 20 to 19 is within a tenth, 10 to 3 and 30 to 12 longer.
    /// Of the three about equal ones one is a tie.
    #[test]
    fn a_tenth_of_the_longer_one_is_about_equal() {
        let details = details_of(&LENS, &SCORES).eval_by_length_order;
        let bucket = |chosen, pairs, accuracy| OrderBucket { chosen, pairs, accuracy };
        let third = 1.0 / 3.0;
        assert_eq!(
            details,
            [bucket("shorter", 3, 2.0 * third), bucket("equal", 3, 0.5), bucket("longer", 2, 1.0)]
        );
        assert_eq!(details_of(&[[9, 8]], &[[1.0, 0.0]]).eval_by_length_order[0].chosen, "equal");
        assert_eq!(details_of(&[[9, 7]], &[[1.0, 0.0]]).eval_by_length_order[0].chosen, "longer");
    }

    /// By hand: the first side is longer, as long, longer and shorter, which is 1 + 1/2 + 1 + 0 of 4. Scores play no part.
    #[test]
    fn the_longer_one_wins_in_half_of_the_pairs_of_equal_length() {
        for scores in [[[0.0, 1.0]; 4], [[1.0, 0.0]; 4]] {
            close(details_of(&[[9, 8], [1, 1], [3, 2], [2, 9]], &scores).eval_longer_wins, 0.625);
        }
    }

    /// The distances are 0.75 0 3 1.25 1.25 0.125 2.5 2. The two of 1.25 are wrong, and that of 0 is a tie.
    #[test]
    fn confidence_comes_in_quartiles_with_what_the_model_expects() {
        let details = details_of(&LENS, &SCORES).eval_by_confidence;
        let spans: Vec<_> =
            details.iter().map(|b| (b.bucket.from, b.bucket.to, b.bucket.pairs, b.bucket.accuracy)).collect();
        // The two of 1.25 are on both sides of the middle and stay together.
        assert_eq!(
            spans,
            [(0.0, 0.125, 2, 0.75), (0.75, 1.25, 3, 1.0 / 3.0), (2.0, 2.0, 1, 1.0), (2.5, 3.0, 2, 1.0)]
        );
        // σ(0) = 1/2, σ(0.125) = 0.531209373; σ(2) = 0.880797078.
        assert!((details[0].expected - (0.5 + 0.531_209_373) / 2.0).abs() < 1e-8, "{details:?}");
        assert!((details[2].expected - 0.880_797_078).abs() < 1e-8, "{details:?}");
    }

    #[test]
    fn equal_values_share_a_bucket_and_no_bucket_is_empty() {
        let details = details_of(&[[3, 3]; 9], &[[1.0, 0.0]; 9]);
        assert_eq!(details.eval_by_length, [Bucket { from: 4.0, to: 4.0, pairs: 9, accuracy: 1.0 }]);
        assert_eq!(details.eval_score_length_correlation, None);
        let one = details_of(&[[1, 2]], &[[1.0, 0.0]]);
        assert_eq!(one.eval_by_length, [Bucket { from: 2.5, to: 2.5, pairs: 1, accuracy: 1.0 }]);
    }

    #[test]
    fn each_completion_of_a_ranking_counts_once_and_each_pair_too() {
        let rows = [Comparison {
            prompt: "p".into(),
            completions: vec!["a".into(), "bbb".into(), "cc".into()],
            scores: vec![2.0, 1.0, 0.0],
        }];
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let data = Rankings::new(&rows, &Encoding::new(&text, 64)).unwrap();
        let evaluation = RewardEvaluation {
            eval_loss: 0.0,
            eval_accuracy: 0.0,
            eval_margin: 0.0,
            eval_pairs: 3,
            margins: vec![],
            scores: vec![3.0, 1.0, 2.0],
        };
        let details = examine(&data, &evaluation);
        // Chosen are a, a and b; rejected b, c and c.
        close(details.eval_chosen_score, 7.0 / 3.0);
        close(details.eval_rejected_score, 5.0 / 3.0);
        close(details.eval_score_std, (2.0f64 / 3.0).sqrt());
        // Scores 3 1 2 against lengths 2 4 3.
        close(details.eval_score_length_correlation.unwrap(), -1.0);
        assert_eq!(details.eval_by_length_order.iter().map(|b| b.pairs).sum::<usize>(), 3);
    }
}
