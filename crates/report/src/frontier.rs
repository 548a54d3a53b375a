use crate::curve::window;
use crate::metrics::Metrics;
use crate::number::figure;

/// A smoothed track averages over about this share of a run: a rollout is a small sample, and the question is a trend.
const WINDOW_SHARE: usize = 10;
/// A fall after the highest value of a curve counts as scatter up to this many standard errors: the highest of many
/// values is always a lucky one.
const CLEAR_FALL: f64 = 3.0;
/// Points that one line or cloud is thinned to.
const MOST_POINTS: usize = 600;

/// A rollout, or the mean of some.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stop {
    /// The step that it is of.
    pub step: f64,
    /// √KL to the reference, in √nats: over-optimisation goes along a parabola in it (Gao et al., arXiv 2210.10760).
    pub root_kl: f64,
    /// The score there.
    pub value: f64,
}

/// How one score changes while a run moves away from its reference.
#[derive(Debug)]
pub struct Track {
    /// Every rollout.
    pub raw: Vec<Stop>,
    /// Running means of KL and of score; the root is taken after averaging.
    pub smooth: Vec<Stop>,
    /// Rollouts in a running mean.
    pub window: usize,
}

/// The highest point of a track, and how the track continues from there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// The highest smoothed value.
    pub peak: Stop,
    /// The end of the run.
    pub last: Stop,
    /// Whether the end is lower by more than scatter.
    pub falls: bool,
}

impl Track {
    /// The track of one metric, if it was logged next to the KL.
    pub fn of(metrics: &Metrics, key: &str) -> Option<Self> {
        let rows = metrics.both("objective/kl", key);
        if rows.is_empty() {
            return None;
        }
        let window = window(rows.len(), WINDOW_SHARE);
        let stop = |&(step, kl, value): &(f64, f64, f64)| Stop { step, root_kl: root(kl), value };
        // At both ends a mean has the rollouts on one side only: half of them and not one, or the highest of all
        // means would be the luckiest rollout.
        let half = window / 2;
        let mean = |i: usize| {
            let near = &rows[i.saturating_sub(half)..(i + half + 1).min(rows.len())];
            let of =
                |value: fn(&(f64, f64, f64)) -> f64| near.iter().map(value).sum::<f64>() / near.len() as f64;
            stop(&(rows[i].0, of(|row| row.1), of(|row| row.2)))
        };
        Some(Self {
            raw: rows.iter().map(stop).collect(),
            smooth: (0..rows.len()).map(mean).collect(),
            window,
        })
    }

    /// Where the track is highest.
    pub fn turn(&self) -> Turn {
        let last = *self.smooth.last().expect("a track has a rollout");
        // Of equals the first.
        let peak = self.smooth.iter().fold(last, |peak, stop| {
            let earlier = stop.value == peak.value && stop.step < peak.step;
            if stop.value > peak.value || earlier { *stop } else { peak }
        });
        // The running mean at the end has only the rollouts before it.
        let in_last_mean = self.window / 2 + 1;
        let error = self.scatter() * (1.0 / self.window as f64 + 1.0 / in_last_mean as f64).sqrt();
        let fall = peak.value - last.value;
        Turn { peak, last, falls: fall > 0.0 && fall > CLEAR_FALL * error }
    }

    /// The value where the run first comes to this √KL, between its rollouts.
    pub fn value_at(&self, root_kl: f64) -> Option<f64> {
        let first = self.smooth.first().filter(|stop| stop.root_kl >= root_kl);
        let crossing = self.smooth.windows(2).find(|pair| pair[1].root_kl >= root_kl);
        first.map(|stop| stop.value).or_else(|| {
            let [from, to] = crossing? else { return None };
            let way = (root_kl - from.root_kl) / (to.root_kl - from.root_kl);
            Some(from.value + way * (to.value - from.value))
        })
    }

    /// The furthest that the run went.
    pub fn furthest(&self) -> f64 {
        self.smooth.iter().map(|stop| stop.root_kl).fold(0.0, f64::max)
    }

    /// Standard deviation of a single rollout around the running mean.
    fn scatter(&self) -> f64 {
        let squares = self.raw.iter().zip(&self.smooth).map(|(raw, mean)| (raw.value - mean.value).powi(2));
        // A mean over `window` values has taken one of them out of the residuals.
        let left = self.raw.len() as f64 * (1.0 - 1.0 / self.window as f64);
        if left > 0.0 { (squares.sum::<f64>() / left).sqrt() } else { 0.0 }
    }
}

/// Noise around 0 counts as 0.
pub fn root(kl: f64) -> f64 {
    kl.max(0.0).sqrt()
}

/// The points of a line or a cloud, as many as can be told apart.
pub fn thinned(stops: &[Stop]) -> Vec<(f64, f64)> {
    let every = stops.len().div_ceil(MOST_POINTS).max(1);
    let last = stops.last().filter(|_| !(stops.len() - 1).is_multiple_of(every));
    stops.iter().step_by(every).chain(last).map(|stop| (stop.root_kl, stop.value)).collect()
}

/// Score and, where an independent judge was asked, gold of one run against √KL.
#[derive(Debug)]
pub struct Frontier {
    /// What the run learns from.
    pub score: Track,
    /// What it does not learn from.
    pub gold: Option<Track>,
}

impl Frontier {
    /// The frontier of a run that logged score and KL, if there is a second rollout to go to.
    pub fn of(metrics: &Metrics) -> Option<Self> {
        let score = Track::of(metrics, "objective/scores").filter(|track| track.raw.len() > 1)?;
        let gold = Track::of(metrics, "objective/gold").filter(|track| track.raw.len() > 1);
        Some(Self { score, gold })
    }

    /// What the picture is for.
    pub fn explanation(&self) -> &'static str {
        if self.gold.is_some() {
            "The further the policy moves from the SFT model, the more of the score may be the reward model’s mistakes. \
             Here both scores of the same answers are drawn against the root of the KL: the one that the policy learns \
             from, and that of a judge that it never learns from. Where the first keeps rising while the second \
             turns, the policy has begun to learn what fools the reward model."
        } else {
            "What the policy learns from, against the root of the KL to the SFT model. How much of the rise is real \
             only an independent judge can tell, and none scored these answers."
        }
    }

    /// What came out, claimed no more strongly than the numbers allow. Plain text.
    pub fn in_words(&self) -> String {
        let Some(gold) = &self.gold else {
            let (first, last) = (self.score.smooth[0], self.score.turn().last);
            return format!(
                "The score went from {} to {}, at a KL of {} nats per answer ({}).",
                figure(first.value),
                figure(last.value),
                figure(last.root_kl.powi(2)),
                root_in_words(last.root_kl)
            );
        };
        let Turn { peak, last, falls } = gold.turn();
        let top = format!(
            "The judge’s score, smoothed, is highest after {} rollouts: {}, at a KL of {} nats per answer ({}).",
            peak.step,
            figure(peak.value),
            figure(peak.root_kl.powi(2)),
            root_in_words(peak.root_kl)
        );
        if peak.step >= last.step {
            return format!("{top} That is the end of the run: it had not turned.");
        }
        if !falls {
            return format!(
                "{top} At the end it is {}: no fall that is larger than its scatter.",
                figure(last.value)
            );
        }
        let score_at = |stop: Stop| self.score.smooth.iter().find(|other| other.step >= stop.step);
        let (then, end) = (score_at(peak), score_at(last));
        let proxy = then.zip(end).map(|(then, end)| (then.value, end.value));
        match proxy {
            Some((then, end)) if end > then => format!(
                "{top} From there it falls to {} while the score that the policy learns from keeps rising, from {} to \
                 {}: over-optimisation.",
                figure(last.value),
                figure(then),
                figure(end)
            ),
            Some((then, end)) => format!(
                "{top} From there it falls to {}, and the score that the policy learns from goes from {} to {}: the run \
                 lost both.",
                figure(last.value),
                figure(then),
                figure(end)
            ),
            None => format!("{top} From there it falls to {}.", figure(last.value)),
        }
    }

    /// How the strong line comes about.
    pub fn smoothing_note(&self) -> String {
        match self.score.window {
            1 => "Dots: single rollouts. A KL below 0 is noise and counts as 0.".to_owned(),
            n => format!(
                "Dots: single rollouts · line: running means of KL and score over {n} rollouts, the root taken of the \
                 mean · a KL below 0 is noise and counts as 0 · open circle: the start, filled: the end."
            ),
        }
    }
}

fn root_in_words(root_kl: f64) -> String {
    format!("√KL {}", figure(root_kl))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run whose KL grows by 0.01 a rollout.
    fn metrics(gold: impl Fn(f64) -> f64, score: impl Fn(f64) -> f64) -> Metrics {
        let line = |step: i32| {
            let kl = f64::from(step - 1) / 100.0;
            let (gold, score) = (gold(kl), score(kl));
            format!(
                "{{\"step\":{step},\"objective/kl\":{kl},\"objective/scores\":{score},\"objective/gold\":{gold}}}\n"
            )
        };
        Metrics::parse(&(1..=401).map(line).collect::<String>())
    }

    /// Gao et al., Eq. (1): d (α − β d) with d = √KL, highest at α / 2β.
    fn over_optimised(kl: f64) -> f64 {
        kl.sqrt() * (1.0 - 0.4 * kl.sqrt())
    }

    #[test]
    fn the_turn_is_where_the_curve_of_gao_is_highest() {
        let frontier = Frontier::of(&metrics(over_optimised, |kl| kl.sqrt())).unwrap();
        let turn = frontier.gold.as_ref().unwrap().turn();
        // α / 2β = 1.25, and α² / 4β = 0.625 there; KL 1.5625 is that of the rollout 157.
        assert!(
            (turn.peak.root_kl - 1.25).abs() < 0.01 && (turn.peak.value - 0.625).abs() < 1e-3,
            "{turn:?}"
        );
        assert!(turn.falls && (turn.peak.step - 157.0).abs() < 3.0 && turn.last.step == 401.0, "{turn:?}");
        let words = frontier.in_words();
        assert!(words.contains("over-optimisation") && words.contains("√KL 1.25"), "{words}");
    }

    #[test]
    fn a_run_that_still_rises_or_only_scatters_has_not_turned() {
        let rising = Frontier::of(&metrics(f64::sqrt, f64::sqrt)).unwrap();
        assert!(rising.in_words().ends_with("it had not turned."), "{}", rising.in_words());
        // Level from KL 1 on, with a scatter of ±0.1.
        let noise = |kl: f64| 0.1 * (kl * 6100.0).sin();
        let level = Frontier::of(&metrics(|kl| kl.min(1.0) + noise(kl), f64::sqrt)).unwrap();
        let turn = level.gold.as_ref().unwrap().turn();
        assert!(!turn.falls && turn.peak.step < 401.0, "{turn:?}");
        assert!(level.in_words().contains("no fall that is larger"), "{}", level.in_words());
    }

    #[test]
    fn a_fall_of_both_scores_is_not_over_optimisation() {
        let frontier = Frontier::of(&metrics(over_optimised, over_optimised)).unwrap();
        assert!(frontier.in_words().ends_with("the run lost both."), "{}", frontier.in_words());
    }

    #[test]
    fn a_kl_below_0_counts_as_0_after_averaging() {
        let kls = [0.25, -0.25, 0.0];
        let line = |(i, kl): (usize, f64)| {
            format!("{{\"step\":{},\"objective/kl\":{kl},\"objective/scores\":1}}\n", i + 1)
        };
        let text: String = kls.into_iter().enumerate().map(line).collect();
        let track = Track::of(&Metrics::parse(&text), "objective/scores").unwrap();
        let roots: Vec<f64> = track.raw.iter().map(|stop| stop.root_kl).collect();
        assert_eq!(roots, [0.5, 0.0, 0.0]);
        // In turns, and in means over three: a third of 0.25 where two of them are above 0, and less than 0 elsewhere.
        let many: Vec<f64> = (0..16).map(|i| if i % 2 == 0 { 0.25 } else { -0.25 }).collect();
        let text: String = many.into_iter().enumerate().map(line).collect();
        let track = Track::of(&Metrics::parse(&text), "objective/scores").unwrap();
        assert_eq!(track.window, 3);
        assert!(
            (track.smooth[7].root_kl.powi(2) - 0.25 / 3.0).abs() < 1e-12 && track.smooth[8].root_kl == 0.0
        );
    }

    #[test]
    fn the_value_at_a_kl_lies_between_its_rollouts() {
        let line = |step: i32| {
            format!(
                "{{\"step\":{step},\"objective/kl\":{},\"objective/scores\":{}}}\n",
                step * step,
                10 * step
            )
        };
        let track =
            Track::of(&Metrics::parse(&(1..=4).map(line).collect::<String>()), "objective/scores").unwrap();
        assert_eq!([0.5, 1.0, 2.5, 4.0].map(|at| track.value_at(at)), [10.0, 10.0, 25.0, 40.0].map(Some));
        assert_eq!((track.value_at(4.1), track.furthest()), (None, 4.0));
    }

    #[test]
    fn thinning_keeps_both_ends() {
        let stops: Vec<Stop> =
            (0..5000).map(|i| Stop { step: 0.0, root_kl: f64::from(i), value: 0.0 }).collect();
        let kept = thinned(&stops);
        assert!(kept.len() <= MOST_POINTS + 1 && kept[0].0 == 0.0 && kept.last().unwrap().0 == 4999.0);
        assert_eq!(thinned(&stops[..3]).len(), 3);
    }
}
