use crate::metrics::Metrics;
use crate::number;

/// Fewer points than this are drawn as they are.
const SMOOTH_FROM: usize = 12;
/// A smoothed line averages over about this share of all steps, …
const WINDOW_SHARE: usize = 20;
/// … but not over more than this many.
const WINDOW_MAX: usize = 201;
/// Buckets a long series is thinned to; a panel is not wider in pixels.
const BUCKETS: usize = 300;

/// What a value is measured in.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// A bare number.
    None,
    /// Shown after the title.
    Named(&'static str),
    /// A share, shown in percent.
    Percent,
}

/// One small multiple: which metric, under which title.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// The metric's key.
    pub key: &'a str,
    title: &'a str,
    unit: Unit,
    held_out: Option<&'a str>,
    unless: Option<&'a str>,
    exact: bool,
    spiky: bool,
    with_start: bool,
}

impl<'a> Panel<'a> {
    pub const fn new(key: &'a str, title: &'a str, unit: Unit) -> Self {
        Self { key, title, unit, held_out: None, unless: None, exact: false, spiky: false, with_start: false }
    }

    /// The same quantity on held-out data, drawn as dots.
    pub const fn with_held_out(self, key: &'a str) -> Self {
        Self { held_out: Some(key), ..self }
    }

    /// Stands back where another metric says it better.
    pub const fn unless(self, key: &'a str) -> Self {
        Self { unless: Some(key), ..self }
    }

    /// A setting rather than a measurement: not smoothed.
    pub const fn exact(self) -> Self {
        Self { exact: true, ..self }
    }

    /// Rare spikes may be cut, so that they do not flatten the rest.
    pub const fn spiky(self) -> Self {
        Self { spiky: true, ..self }
    }

    /// The first value is a level to compare with, drawn across the panel.
    pub const fn with_start(self) -> Self {
        Self { with_start: true, ..self }
    }

    /// Whether a metric has its place here.
    pub fn shows(&self, key: &str) -> bool {
        self.key == key || self.held_out == Some(key)
    }

    /// The title with its unit.
    pub fn heading(&self) -> String {
        match self.unit {
            Unit::None => self.title.to_owned(),
            Unit::Named(unit) => format!("{} ({unit})", self.title),
            Unit::Percent => format!("{} (%)", self.title),
        }
    }
}

/// The points of one panel, ready to draw.
#[derive(Debug)]
pub struct Curve<'a> {
    /// What is shown.
    pub panel: Panel<'a>,
    /// Every step, thinned.
    pub raw: Vec<(f64, f64)>,
    /// The moving average, thinned; the raw line again where there is nothing to smooth.
    pub smooth: Vec<(f64, f64)>,
    /// The same on held-out data.
    pub held_out: Vec<(f64, f64)>,
    /// The first value, where it is a level to compare with.
    pub start: Option<f64>,
    /// How many steps each point of `smooth` averages.
    pub window: usize,
    /// The range of the steps.
    pub x: (f64, f64),
    /// The range of the values.
    pub y: (f64, f64),
    /// Whether some points lie outside `y` and are drawn on its edge.
    pub cut: bool,
}

impl<'a> Curve<'a> {
    /// The curve of a panel, if its metric was logged.
    pub fn of(panel: &Panel<'a>, metrics: &Metrics) -> Option<Self> {
        if panel.unless.is_some_and(|key| metrics.last(key).is_some()) {
            return None;
        }
        let factor = if matches!(panel.unit, Unit::Percent) { 100.0 } else { 1.0 };
        let series =
            |key: &str| metrics.series(key).into_iter().map(|(x, y)| (x, y * factor)).collect::<Vec<_>>();
        let full = series(panel.key);
        let held_out = panel.held_out.map(series).unwrap_or_default();
        if full.is_empty() && held_out.is_empty() {
            return None;
        }
        let all = || full.iter().chain(&held_out);
        let x = widened(extent(all().map(|point| point.0)), 0.0, 1.0);
        let values = extent(all().map(|point| point.1));
        let shown = if panel.spiky { without_spikes(&full).unwrap_or(values) } else { values };
        let mut y = widened(shown, 0.06, 0.5);
        if shown.0 >= 0.0 {
            y.0 = y.0.max(0.0);
        }
        if matches!(panel.unit, Unit::Percent) && shown.1 <= 100.0 {
            y.1 = y.1.min(102.0);
        }
        let cut = values.0 < y.0 || values.1 > y.1;
        let clamp = |mut points: Vec<(f64, f64)>| {
            points.iter_mut().for_each(|point| point.1 = point.1.clamp(y.0, y.1));
            points
        };
        // Cut before averaging: a spike must not spread over its whole neighbourhood.
        let (full, held_out) = (clamp(full), clamp(held_out));
        let window = if panel.exact { 1 } else { window(full.len(), WINDOW_SHARE) };
        let start = full.first().map(|point| point.1).filter(|_| panel.with_start);
        let smooth = last_of_buckets(moving_average(&full, window));
        let (raw, held_out) = (thinned(full), thinned(held_out));
        Some(Self { panel: *panel, raw, smooth, held_out, start, window, x, y, cut })
    }

    /// Where the curve ends, in its unit.
    pub fn last(&self) -> Option<f64> {
        self.smooth.last().or(self.held_out.last()).map(|point| point.1)
    }

    /// A sentence in place of the picture, for those who cannot see it.
    pub fn in_words(&self) -> String {
        let line = if self.smooth.is_empty() { &self.held_out } else { &self.smooth };
        match (line.first(), line.last()) {
            (Some(first), Some(last)) => format!(
                "{}: from {} at step {} to {} at step {}",
                self.panel.heading(),
                number::figure(first.1),
                first.0,
                number::figure(last.1),
                last.0
            ),
            _ => self.panel.heading(),
        }
    }
}

/// An odd number of points, about one in `share` of all.
pub fn window(points: usize, share: usize) -> usize {
    if points < SMOOTH_FROM { 1 } else { (points / share).clamp(3, WINDOW_MAX) | 1 }
}

/// The lowest and the highest value.
pub fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// The range with a margin; a constant gets room around it, so that the axis always has a length.
pub fn widened((low, high): (f64, f64), margin: f64, around_constant: f64) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    // Ranges below the precision of the numbers themselves would have no ticks.
    if high - low > size * 1e-9 && high - low > 1e-30 {
        return (low - margin * (high - low), high + margin * (high - low));
    }
    let room = if size > 1e-12 { (around_constant * size).min(size) } else { 1.0 };
    (low - room, high + room)
}

/// The range of all but the outer 2 %, where the outer ones would flatten it to less than a quarter.
fn without_spikes(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    if points.len() < 20 {
        return None;
    }
    let mut values: Vec<_> = points.iter().map(|point| point.1).collect();
    values.sort_by(f64::total_cmp);
    let outer = (values.len() / 50).max(1);
    let (low, high) = (values[outer], values[values.len() - 1 - outer]);
    let full = values[values.len() - 1] - values[0];
    (high > low && full > 4.0 * (high - low)).then_some((low, high))
}

/// The mean of up to `window` points around each point.
///
/// At the start the window grows with the points before it, so that the first fall of a loss keeps its height; at the
/// end it stays as wide as it can, so that the last value is not the noise of one step.
pub fn moving_average(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    let half = window / 2;
    (0..points.len())
        .map(|idx| {
            let reach = half.min(idx);
            let near = &points[idx - reach..(idx + reach + 1).min(points.len())];
            (points[idx].0, near.iter().map(|point| point.1).sum::<f64>() / near.len() as f64)
        })
        .collect()
}

/// The lowest and the highest point of each bucket, in their order, so that no spike is lost.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= 2 * BUCKETS {
        return points;
    }
    let mut kept = Vec::with_capacity(2 * BUCKETS + 2);
    for bucket in points.chunks(points.len().div_ceil(BUCKETS)) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (Some(low), Some(high)) = (bucket.iter().min_by(by_value), bucket.iter().max_by(by_value)) else {
            continue;
        };
        kept.extend(if low.0 <= high.0 { [*low, *high] } else { [*high, *low] });
    }
    kept
}

/// The first point, then the last of each bucket: enough for a line that is smooth already.
fn last_of_buckets(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= BUCKETS {
        return points;
    }
    let bucket_ends = points.chunks(points.len().div_ceil(BUCKETS)).filter_map(|bucket| bucket.last());
    points.first().into_iter().chain(bucket_ends).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moving_average_is_the_mean_around_a_point() {
        let points = [(0.0, 1.0), (1.0, 2.0), (2.0, 6.0), (3.0, 1.0)];
        assert_eq!(moving_average(&points, 3), [(0.0, 1.0), (1.0, 3.0), (2.0, 3.0), (3.0, 3.5)]);
        assert_eq!(moving_average(&points, 1), points);
    }

    #[test]
    fn thinning_keeps_spikes_and_order() {
        let mut points: Vec<_> = (0..10_000).map(|step| (f64::from(step), 0.0)).collect();
        points[5_003].1 = 9.0;
        let kept = thinned(points);
        assert!(kept.len() <= 2 * BUCKETS && kept.contains(&(5_003.0, 9.0)));
        assert!(kept.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    }

    #[test]
    fn a_spike_that_is_cut_does_not_lift_its_neighbours() {
        const PANEL: Panel<'_> = Panel::new("v", "V", Unit::None).spiky();
        let line = |step| {
            format!("{{\"step\":{step},\"v\":{}}}\n", if step == 50 { 9e3 } else { f64::from(step % 2) })
        };
        let metrics = Metrics::parse(&(0..100).map(line).collect::<String>());
        let curve = Curve::of(&PANEL, &metrics).expect("the metric is there");
        assert!(curve.cut && curve.smooth.iter().all(|point| point.1 < 0.9), "{:?}", curve.smooth);
    }

    #[test]
    fn a_constant_has_an_axis_of_some_length() {
        for value in [0.0, 1.0, -3.0, 1e-4, 1e29, 1e-300] {
            let (low, high) = widened((value, value), 0.06, 0.5);
            assert!(low < value || value == 1e-300, "{value}");
            assert!(high - low > 1e-9 * value.abs(), "{value}");
        }
    }

    #[test]
    fn one_early_spike_does_not_flatten_the_rest() {
        let mut points: Vec<_> = (0..100).map(|step| (f64::from(step), f64::from(step) / 100.0)).collect();
        points[0].1 = -50.0;
        let (low, high) = without_spikes(&points).expect("the spike is found");
        assert!(low > -1.0 && high < 1.0);
    }
}
