//! The learning rate of each step.

use serde::{Deserialize, Serialize};

use crate::settings;

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// It does not.
    #[default]
    Constant,
    /// In a straight line.
    Linear,
    /// Along half a cosine.
    Cosine,
}

settings! {
    /// A linear warm-up, then a decay to `final_fraction` of the base rate.
    #[derive(Copy)]
    pub struct Schedule {
        /// How the learning rate falls after the warm-up: constant | linear | cosine.
        pub kind: ScheduleKind = ScheduleKind::Constant,
        /// Steps until the highest learning rate.
        pub warmup_steps: usize = 0,
        /// Where the warm-up starts, as a fraction of the highest rate; 0: one step above 0.
        ///
        /// InstructGPT starts at a tenth.
        pub warmup_from: f64 = 0.0, in 0.0..=1.0, only_with "schedule.warmup_steps != 0",
        /// Where linear and cosine end, as a fraction of the highest rate.
        pub final_fraction: f64 = 0.0, in 0.0..=1.0, only_with "schedule.kind != constant",
    }
}

impl Schedule {
    /// The rate of the update number `step`, counted from 0, in a run of `total_steps`.
    ///
    /// The warm-up is a line from `base · warmup_from` at step 0 to `base` at `warmup_steps`; a line from 0 starts one
    /// step earlier, `base · (step + 1) / (warmup_steps + 1)`, since a rate of 0 would waste an update. The final rate
    /// is reached at `total_steps` and kept beyond.
    pub fn learning_rate(&self, base: f64, step: usize, total_steps: usize) -> f64 {
        if step < self.warmup_steps {
            if self.warmup_from == 0.0 {
                return base * (step as f64 + 1.0) / (self.warmup_steps as f64 + 1.0);
            }
            let done = step as f64 / self.warmup_steps as f64;
            return base * (self.warmup_from + (1.0 - self.warmup_from) * done);
        }
        let decay_steps = total_steps.saturating_sub(self.warmup_steps);
        let done =
            if step >= total_steps { 1.0 } else { (step - self.warmup_steps) as f64 / decay_steps as f64 };
        let left = match self.kind {
            ScheduleKind::Constant => return base,
            ScheduleKind::Linear => 1.0 - done,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        base * (self.final_fraction + (1.0 - self.final_fraction) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schedule: Schedule, total: usize, expected: &[(usize, f64)]) {
        for &(step, rate) in expected {
            let got = schedule.learning_rate(2.0, step, total);
            assert!((got - rate).abs() < 1e-12, "{schedule:?} at {step}: {got}, expected {rate}");
        }
    }

    #[test]
    fn constant_stays() {
        check(Schedule::default(), 10, &[(0, 2.0), (9, 2.0), (10, 2.0), (1000, 2.0)]);
        check(Schedule::default(), 0, &[(0, 2.0)]);
    }

    #[test]
    fn warmup_starts_above_zero_and_ends_at_the_base_rate() {
        let schedule = Schedule { warmup_steps: 3, ..Schedule::default() };
        check(schedule, 10, &[(0, 0.5), (1, 1.0), (2, 1.5), (3, 2.0), (4, 2.0)]);
    }

    /// InstructGPT, appendix C.4: from a tenth of the peak, over ten iterations.
    #[test]
    fn a_warmup_may_start_at_a_tenth() {
        let schedule = Schedule { warmup_steps: 10, warmup_from: 0.1, ..Schedule::default() };
        check(schedule, 100, &[(0, 0.2), (5, 1.1), (10, 2.0), (50, 2.0)]);
    }

    #[test]
    fn linear_falls_in_a_line_and_is_clamped() {
        let schedule = Schedule {
            kind: ScheduleKind::Linear,
            warmup_steps: 2,
            final_fraction: 0.1,
            ..Schedule::default()
        };
        check(schedule, 10, &[(2, 2.0), (4, 1.55), (6, 1.1), (8, 0.65), (10, 0.2), (99, 0.2)]);
    }

    #[test]
    fn cosine_falls_along_a_cosine_and_is_clamped() {
        let schedule = Schedule { kind: ScheduleKind::Cosine, ..Schedule::default() };
        let quarter = 1.0 + std::f64::consts::FRAC_1_SQRT_2;
        check(schedule, 8, &[(0, 2.0), (2, quarter), (4, 1.0), (6, 2.0 - quarter), (8, 0.0), (9, 0.0)]);
    }

    #[test]
    fn a_warmup_longer_than_the_run_is_finite() {
        let schedule = Schedule {
            kind: ScheduleKind::Linear,
            warmup_steps: 9,
            final_fraction: 0.5,
            ..Schedule::default()
        };
        check(schedule, 4, &[(0, 0.2), (8, 1.8), (9, 1.0), (20, 1.0)]);
    }
}
