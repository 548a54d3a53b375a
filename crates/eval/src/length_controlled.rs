//! The win rate that would remain if both policies wrote equally long answers.

use serde::Serialize;

use crate::win_rate::{Z, win};

/// Newton's method converges within about ten steps, or not at all.
const MOST_STEPS: usize = 50;

/// Two answers to one prompt.
#[derive(Clone, Copy, Debug)]
pub struct Duel {
    /// Scores of the first and of the second answer; the higher one wins.
    pub scores: [f64; 2],
    /// Lengths of the first and of the second answer, in characters.
    pub lens: [usize; 2],
}

impl Duel {
    /// 1 for the first, 0 for the second, a half for a tie.
    fn win(&self) -> f64 {
        let [first, second] = self.scores;
        win(first, second)
    }

    fn difference(&self) -> f64 {
        self.lens[0] as f64 - self.lens[1] as f64
    }
}

/// A win rate at equal lengths, with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LengthControlled {
    /// σ(a), where a is the intercept of the regression.
    pub win_rate: f64,
    /// σ of both ends of the 95 % interval of a, which follows from its standard error.
    pub win_rate_ci95: [f64; 2],
}

/// The length-controlled win rate of Dubois et al. 2024 (arXiv 2404.04475).
///
/// It is a logistic regression of the wins on the difference d of the lengths: win ~ σ(a + b tanh(d / s)), where s is the
/// standard deviation of d. The win rate is the value at d = 0, which is σ(a).
///
/// This is the length term of AlpacaEval 2. Its other parts are left out:
///
/// - the term for the difficulty of a prompt, which AlpacaEval fits over many models;
/// - the penalty on b, which AlpacaEval chooses by cross-validation;
/// - probabilities as wins. Here a win is 1, a loss 0 and a tie one half.
///
/// The result is `None` where the fit does not converge: one side wins everything, the lengths alone decide who wins, or
/// one side is always longer by the same number of characters.
pub fn length_controlled(duels: &[Duel]) -> Option<LengthControlled> {
    let n = duels.len() as f64;
    let mean = duels.iter().map(Duel::difference).sum::<f64>() / n;
    let spread = duels.iter().map(|duel| (duel.difference() - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let rows: Vec<[f64; 2]> = if duels.iter().all(|duel| duel.difference() == 0.0) {
        duels.iter().map(|duel| [duel.win(), 0.0]).collect()
    } else {
        let scale = Some(spread.sqrt()).filter(|&scale| scale > 0.0)?;
        duels.iter().map(|duel| [duel.win(), (duel.difference() / scale).tanh()]).collect()
    };
    let (intercept, error) = fit(&rows)?;
    let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
    Some(LengthControlled {
        win_rate: sigma(intercept),
        win_rate_ci95: [sigma(intercept - Z * error), sigma(intercept + Z * error)],
    })
}

/// The maximum-likelihood intercept a of win ~ σ(a + b x), and its standard error, by Newton's method. A row is a win and
/// its x.
fn fit(rows: &[[f64; 2]]) -> Option<(f64, f64)> {
    let slopes = rows.iter().any(|[_, x]| *x != 0.0);
    let (mut a, mut b) = (0.0, 0.0);
    for _ in 0..MOST_STEPS {
        let (mut gradient, mut information) = ([0.0; 2], [0.0; 3]);
        for [win, x] in rows {
            let p = 1.0 / (1.0 + (-(a + b * x)).exp());
            gradient[0] += win - p;
            gradient[1] += (win - p) * x;
            let weight = p * (1.0 - p);
            information[0] += weight;
            information[1] += weight * x;
            information[2] += weight * x * x;
        }
        let [i_aa, i_ab, i_bb] = information;
        let (step, variance) = if slopes {
            let determinant = i_aa * i_bb - i_ab * i_ab;
            let step = [
                (i_bb * gradient[0] - i_ab * gradient[1]) / determinant,
                (i_aa * gradient[1] - i_ab * gradient[0]) / determinant,
            ];
            (step, i_bb / determinant)
        } else {
            ([gradient[0] / i_aa, 0.0], 1.0 / i_aa)
        };
        (a, b) = (a + step[0], b + step[1]);
        if !(a.is_finite() && b.is_finite()) {
            return None;
        }
        if step[0].abs().max(step[1].abs()) < 1e-10 {
            return Some((a, variance.sqrt()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How exactly L-BFGS with autograd finds the optimum in float64.
    const TOLERANCE: f64 = 1e-7;

    fn duels(rows: &[(f64, usize, usize)]) -> Vec<Duel> {
        let duel = |&(win, first, second)| Duel { scores: [win, 0.5], lens: [first, second] };
        rows.iter().map(duel).collect()
    }

    const DUELS: [(f64, usize, usize); 16] = [
        (1.0, 120, 60),
        (1.0, 95, 40),
        (0.0, 30, 90),
        (1.0, 210, 100),
        (0.5, 70, 75),
        (0.0, 55, 20),
        (1.0, 80, 82),
        (1.0, 64, 10),
        (0.0, 12, 48),
        (1.0, 33, 90),
        (0.0, 100, 130),
        (0.5, 41, 17),
        (1.0, 150, 149),
        (0.0, 77, 60),
        (1.0, 88, 20),
        (1.0, 19, 27),
    ];

    /// `assets/goldens/length_controlled.py` prints these numbers.
    #[test]
    fn the_fit_is_the_one_that_pytorch_finds() {
        for (n, win_rate, interval) in [
            (16, 0.590_603_236_127_382_9, [0.323_765_641_538_045_43, 0.812_972_122_300_865_4]),
            (8, 0.534_499_308_675_735_9, [0.137_611_148_966_570_92, 0.892_035_940_646_386_6]),
        ] {
            let result = length_controlled(&duels(&DUELS[..n])).unwrap();
            assert!((result.win_rate - win_rate).abs() < TOLERANCE, "{result:?}");
            for (bound, expected) in result.win_rate_ci95.into_iter().zip(interval) {
                assert!((bound - expected).abs() < TOLERANCE, "{bound}, expected {expected}");
            }
        }
    }

    /// σ(log 3 ± 1.96 √(1 / (8 · 3/4 · 1/4))).
    #[test]
    fn answers_of_equal_length_leave_the_win_rate_as_it_is() {
        let rows: Vec<_> = (0..8).map(|i| (f64::from(u8::from(i < 6)), 9, 9)).collect();
        let result = length_controlled(&duels(&rows)).unwrap();
        assert!((result.win_rate - 0.75).abs() < 1e-12, "{result:?}");
        let half = 1.959_963_985 * (1.0f64 / 1.5).sqrt();
        let low = 1.0 / (1.0 + (half - 3f64.ln()).exp());
        assert!((result.win_rate_ci95[0] - low).abs() < 1e-8, "{result:?}");
        let ties = length_controlled(&duels(&[(0.5, 3, 3); 4])).unwrap();
        assert_eq!(ties.win_rate, 0.5);
    }

    /// The longer answer wins four times out of five, whichever side it is on, so nothing but length matters.
    #[test]
    fn a_side_that_wins_by_its_length_alone_wins_half() {
        let rows: Vec<_> = (0..40)
            .map(|i| {
                let (first_is_longer, longer_wins) = (i % 4 != 0, i % 5 != 3);
                let win = f64::from(u8::from(first_is_longer == longer_wins));
                if first_is_longer { (win, 80, 40) } else { (win, 40, 80) }
            })
            .collect();
        assert_eq!(rows.iter().map(|(win, ..)| win).sum::<f64>(), 26.0);
        let result = length_controlled(&duels(&rows)).unwrap();
        assert!((result.win_rate - 0.5).abs() < 1e-9, "{result:?}");
    }

    #[test]
    fn a_fit_that_does_not_converge_gives_none() {
        for rows in [
            &[][..],
            &[(1.0, 4, 2), (1.0, 2, 4), (1.0, 3, 3)],
            &[(1.0, 4, 4), (1.0, 5, 5)],
            // The longer answer always wins.
            &[(1.0, 9, 2), (0.0, 2, 9), (1.0, 5, 4), (0.0, 4, 6)],
            // The first answer always has one character more.
            &[(1.0, 9, 8), (0.0, 2, 1), (1.0, 5, 4)],
            &[(1.0, 9, 8)],
        ] {
            assert_eq!(length_controlled(&duels(rows)), None, "{rows:?}");
        }
    }
}
