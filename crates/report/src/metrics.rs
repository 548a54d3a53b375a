use std::collections::{BTreeMap, BTreeSet};

/// Larger values are a run gone wrong, not a curve, and would overflow the arithmetic of the axes.
pub const LARGEST: f64 = 1e30;

/// The steps of a `metrics.jsonl`, in order.
#[derive(Debug, Default)]
pub struct Metrics {
    rows: Vec<Row>,
    /// Lines, other than a torn last one, that are not JSON objects.
    pub bad_lines: usize,
}

#[derive(Debug)]
struct Row {
    step: f64,
    values: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads one JSON object a line; what is not a finite number has no point in any curve.
    pub fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        let torn_last_line = !text.ends_with('\n');
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            if line.trim().is_empty() {
                continue;
            }
            match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line) {
                Ok(object) => metrics.push(&object),
                Err(_) if torn_last_line && lines.peek().is_none() => {}
                Err(_) => metrics.bad_lines += 1,
            }
        }
        metrics
    }

    fn push(&mut self, object: &serde_json::Map<String, serde_json::Value>) {
        let values: BTreeMap<_, _> = object
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.as_f64()?)))
            .filter(|(_, value)| value.abs() < LARGEST)
            .collect();
        let next = self.rows.last().map_or(0.0, |row| row.step + 1.0);
        let step = values.get("step").copied().unwrap_or(next);
        // A resumed run repeats the steps after its checkpoint: the later ones are those that count.
        while self.rows.last().is_some_and(|row| row.step > step) {
            self.rows.pop();
        }
        match self.rows.last_mut() {
            // An evaluation may be logged on a line of its own, with the step it belongs to.
            Some(row) if row.step == step => row.values.extend(values),
            _ => self.rows.push(Row { step, values }),
        }
    }

    /// How many steps there are.
    pub fn steps(&self) -> usize {
        self.rows.len()
    }

    /// Whether any step has a metric that starts so.
    pub fn has(&self, prefix: &str) -> bool {
        self.rows.iter().any(|row| row.values.keys().any(|key| key.starts_with(prefix)))
    }

    /// Every metric that was logged, by name.
    pub fn keys(&self) -> BTreeSet<&str> {
        self.rows.iter().flat_map(|row| row.values.keys().map(String::as_str)).collect()
    }

    /// `(step, value, value)` of two metrics, where both were logged.
    pub fn both(&self, first: &str, second: &str) -> Vec<(f64, f64, f64)> {
        let of = |row: &Row| Some((row.step, *row.values.get(first)?, *row.values.get(second)?));
        self.rows.iter().filter_map(of).collect()
    }

    /// `(step, value)` of one metric, where it was logged.
    pub fn series(&self, key: &str) -> Vec<(f64, f64)> {
        self.rows.iter().filter_map(|row| Some((row.step, *row.values.get(key)?))).collect()
    }

    /// The last value of a metric.
    pub fn last(&self, key: &str) -> Option<f64> {
        self.rows.iter().rev().find_map(|row| row.values.get(key).copied())
    }

    /// The median of a metric: what it is on most steps, warm-up left aside.
    pub fn median(&self, key: &str) -> Option<f64> {
        let mut values: Vec<_> = self.series(key).into_iter().map(|(_, value)| value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_last_line_is_ignored_and_other_bad_lines_are_counted() {
        let metrics =
            Metrics::parse("{\"step\":1,\"loss\":2}\nnonsense\n{\"step\":2,\"loss\":1}\n{\"step\":3,\"lo");
        assert_eq!(metrics.series("loss"), [(1.0, 2.0), (2.0, 1.0)]);
        assert_eq!(metrics.bad_lines, 1);
    }

    #[test]
    fn what_is_not_a_number_has_no_point() {
        let metrics = Metrics::parse(
            "{\"step\":1,\"loss\":null}\n{\"step\":2,\"loss\":\"x\"}\n{\"step\":3,\"loss\":1e300}\n{\"step\":4,\"loss\":1}\n",
        );
        assert_eq!(metrics.series("loss"), [(4.0, 1.0)]);
    }

    #[test]
    fn a_resumed_run_counts_its_later_steps() {
        let metrics = Metrics::parse(
            "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":9}\n{\"step\":3,\"loss\":9}\n{\"step\":2,\"loss\":2}\n{\"step\":2,\"eval_loss\":4}\n",
        );
        assert_eq!(metrics.series("loss"), [(1.0, 3.0), (2.0, 2.0)]);
        assert_eq!(metrics.series("eval_loss"), [(2.0, 4.0)]);
    }
}
