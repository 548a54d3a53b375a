//! Signs that a run over fixed rows diverges.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::exact::Exact;

/// Losses are compared by means over so many updates, since one batch shows little.
const WINDOW: usize = 20;
/// A mean loss is too high if it is this many times the lowest one, …
const LOSS_FACTOR: f64 = 1.5;
/// … and this much above it: the loss of a model that has learned everything is near 0, and a multiple of it too.
const LOSS_MARGIN: f64 = 0.3;
/// A gradient norm is too large if it is this many times the usual one.
const NORM_FACTOR: f64 = 30.0;
/// Consecutive updates with such a norm before the warning: clipping makes a single one harmless.
const NORM_PATIENCE: usize = 3;

/// Watches loss and gradient norm of a run. Each warning is given once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LossWatch {
    recent: VecDeque<Exact>,
    /// The lowest mean of [`WINDOW`] losses in a row, and the update after which it was the mean.
    lowest: Option<(Exact, usize)>,
    /// The sum of the logarithms of the norms so far, without those that are too large.
    log_norms: Exact,
    n_norms: usize,
    large_norms: usize,
    #[serde(skip)]
    said: [bool; 2],
}

impl LossWatch {
    /// Takes the loss of update number `step`, in nats, and the norm of its gradient. Returns what a user should know, in one
    /// line.
    pub fn check(&mut self, step: usize, loss: f64, grad_norm: f64) -> Option<String> {
        self.check_loss(step, loss).or_else(|| self.check_norm(grad_norm))
    }

    /// The update after which the mean loss was lowest; 0 in a run that is too young.
    pub fn best_step(&self) -> usize {
        self.lowest.map_or(0, |(_, step)| step)
    }

    fn check_loss(&mut self, step: usize, loss: f64) -> Option<String> {
        self.recent.push_back(Exact(loss));
        if self.recent.len() < WINDOW {
            return None;
        }
        let mean = self.recent.iter().map(|loss| loss.0).sum::<f64>() / WINDOW as f64;
        self.recent.pop_front();
        if self.lowest.is_none_or(|(lowest, _)| mean < lowest.0) {
            self.lowest = Some((Exact(mean), step));
        }
        let lowest = self.lowest.map_or(mean, |(lowest, _)| lowest.0);
        if self.said[0] || mean < LOSS_FACTOR * lowest || mean < lowest + LOSS_MARGIN {
            return None;
        }
        self.said[0] = true;
        Some(format!(
            "the loss has risen from {lowest:.2} to {mean:.2}, both means of {WINDOW} updates: the rate is too high for \
             this model, so lower `learning_rate` or raise `schedule.warmup_steps`"
        ))
    }

    fn check_norm(&mut self, norm: f64) -> Option<String> {
        let usual = (self.log_norms.0 / self.n_norms.max(1) as f64).exp();
        if self.n_norms < WINDOW || norm < NORM_FACTOR * usual {
            // A norm of 0 has no logarithm.
            self.log_norms.0 += norm.max(f64::MIN_POSITIVE).ln();
            self.n_norms += 1;
            self.large_norms = 0;
            return None;
        }
        self.large_norms += 1;
        if self.said[1] || self.large_norms < NORM_PATIENCE {
            return None;
        }
        self.said[1] = true;
        Some(format!(
            "the gradient norm has been above {NORM_FACTOR} times its usual {usual:.2} for {NORM_PATIENCE} updates, now \
             {norm:.2}: lower `learning_rate`, or look for extreme rows in the data"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The updates, counted from 1, after which something is said.
    fn warned(losses: impl IntoIterator<Item = f64>, norm: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut watch = LossWatch::default();
        let steps = losses.into_iter().enumerate();
        steps.filter_map(|(i, loss)| watch.check(i + 1, loss, norm(i + 1)).map(|_| i + 1)).collect()
    }

    #[test]
    fn a_loss_that_stays_up_is_said_once_and_noise_is_not() {
        let noisy = (0..400).map(|i| 2.0 + if i % 3 == 0 { 1.5 } else { 0.0 });
        assert_eq!(warned(noisy, |_| 1.0), [0; 0]);
        // From 2 to 5 at update 101: the mean is 3 after 7 of them, (13 · 2 + 7 · 5) / 20 = 3.05.
        let jump = (0..300).map(|i| if i < 100 { 2.0 } else { 5.0 });
        assert_eq!(warned(jump, |_| 1.0), [107]);
        // A loss that rises from 0.01 to 0.03 does not diverge.
        assert_eq!(warned((0..300).map(|i| if i < 100 { 0.01 } else { 0.03 }), |_| 1.0), [0; 0]);
    }

    #[test]
    fn a_gradient_that_stays_large_is_said_once() {
        let losses = || std::iter::repeat_n(1.0, 200);
        assert_eq!(warned(losses(), |step| if step > 50 { 31.0 } else { 1.0 }), [53]);
        assert_eq!(warned(losses(), |step| if step % 50 == 0 { 1000.0 } else { 1.0 }), [0; 0]);
        assert_eq!(warned(losses(), |_| 0.0), [0; 0]);
    }
}
