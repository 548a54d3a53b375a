//! What a run checks about itself at every rollout, and how it says so.

use temper_train::Run;

use crate::PpoConfig;
use crate::metrics::PpoMetrics;

/// First-minibatch ratios further from 1 than this are no rounding.
const RATIO_TOLERANCE: f64 = 1e-3;
/// A mean KL this little below 0 is not worth a word, in nats per answer.
const KL_FLOOR: f64 = 0.02;
/// The mean of a rollout scatters around the true KL; one in forty is further below it than this.
const STANDARD_ERRORS: f64 = 2.0;
/// Rollouts in a row that are below 0 before it is said.
const KL_PATIENCE: usize = 3;
/// Rollouts in a row without a difference between scores before it is said: one alone may be chance.
const FLAT_PATIENCE: usize = 3;

/// The checks of one run.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    kl: KlAlarm,
    flat: FlatAlarm,
}

impl Checks {
    /// Looks at what a step recorded, and warns. `kl` is Σ dₜ of each answer.
    pub(crate) fn look(&mut self, metrics: &PpoMetrics, kl: &[f64], step: usize, run: &mut Run) {
        if metrics.first_ratio_error > RATIO_TOLERANCE {
            run.warn(&format!(
                "step {step}: before the first update the ratio is off 1 by {:.1e}: sampling and update disagree \
                 (dropout on, another temperature, or a changed policy)",
                metrics.first_ratio_error
            ));
        }
        if self.kl.watch(kl) {
            run.warn(&format!(
                "step {step}: the KL to the reference is below 0 for {KL_PATIENCE} rollouts in a row, now {:.2} nats \
                 per answer: the answers are not drawn from the distribution that they are judged by (top-k or \
                 top-p, another temperature, a token that is never sampled, dropout on, padding)",
                metrics.kl
            ));
        }
    }

    /// Looks at the scores that answers are compared by, and warns where they tell nothing.
    pub(crate) fn look_at_scores(&mut self, config: &PpoConfig, scores: &[f64], step: usize, run: &mut Run) {
        let has_critic = config.advantage.kind.has_critic();
        let compared = if has_critic { scores.len() } else { config.rollout.samples_per_prompt };
        if !self.flat.watch(scores, compared) {
            return;
        }
        let (what, comes) = if has_critic {
            ("all answers of a rollout score the same", "whitening makes full steps of noise and KL")
        } else {
            ("all answers to a prompt score the same, at every prompt", "only the KL moves the policy")
        };
        run.warn(&format!(
            "step {step}: {what}, {FLAT_PATIENCE} rollouts in a row: there is nothing to learn, and {comes} (a \
             scorer that says the same to everything, a `rollout.score_clip` that cuts all, a policy that says one \
             thing only or has learned all there is)"
        ));
    }
}

/// Notices scores that tell no answer from those that it is compared with.
///
/// It speaks once a run. A rollout of one answer has nothing to compare and is passed over.
#[derive(Debug, Default)]
struct FlatAlarm {
    in_a_row: usize,
    raised: bool,
}

impl FlatAlarm {
    /// `compared` neighbours are measured by each other.
    fn watch(&mut self, scores: &[f64], compared: usize) -> bool {
        if scores.len() < 2 {
            return false;
        }
        let flat = scores.chunks(compared).all(|group| group.iter().all(|score| *score == group[0]));
        self.in_a_row = if flat { self.in_a_row + 1 } else { 0 };
        let raise = self.in_a_row == FLAT_PATIENCE && !self.raised;
        self.raised |= raise;
        raise
    }
}

/// Notices a KL that stays negative: under the policy's own samples the mean of log π − log π_ref cannot.
///
/// It speaks once a run. One answer alone tells nothing about the scatter, so a rollout of one is passed over.
#[derive(Debug, Default)]
struct KlAlarm {
    in_a_row: usize,
    raised: bool,
}

impl KlAlarm {
    fn watch(&mut self, kl: &[f64]) -> bool {
        if kl.len() < 2 {
            return false;
        }
        let n = kl.len() as f64;
        let mean = kl.iter().sum::<f64>() / n;
        let variance = kl.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let below = mean + STANDARD_ERRORS * (variance / n).sqrt() < -KL_FLOOR;
        self.in_a_row = if below { self.in_a_row + 1 } else { 0 };
        let raise = self.in_a_row == KL_PATIENCE && !self.raised;
        self.raised |= raise;
        raise
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use temper_train::Event;

    use super::*;

    fn raised(rollouts: &[&[f64]]) -> Vec<bool> {
        let mut alarm = KlAlarm::default();
        rollouts.iter().map(|kl| alarm.watch(kl)).collect()
    }

    /// Oracle 19.
    #[test]
    fn a_kl_below_0_is_reported_at_the_third_rollout_in_a_row_and_once() {
        let (below, above) = ([-0.3, -0.1, -0.2].as_slice(), [0.3, -0.1, 0.2].as_slice());
        assert_eq!(raised(&[below; 4]), [false, false, true, false]);
        let broken = [below, below, above, below, below, below, above, below, below, below];
        let at = raised(&broken).iter().position(|&raised| raised);
        assert_eq!((at, raised(&broken).iter().filter(|&&raised| raised).count()), (Some(5), 1));
    }

    #[test]
    fn scatter_around_0_and_what_is_next_to_nothing_are_no_alarm() {
        // Mean −0.1 with a standard error of 0.45; mean −0.01 without any.
        for quiet in [[-0.6, 0.8, -0.5].as_slice(), &[-0.01; 8], &[-5.0], &[]] {
            assert_eq!(raised(&[quiet; 6]), [false; 6], "{quiet:?}");
        }
    }

    #[test]
    fn equal_scores_are_reported_at_the_third_rollout_in_a_row_and_once() {
        let raised = |compared, rollouts: &[&[f64]]| -> Vec<bool> {
            let mut alarm = FlatAlarm::default();
            rollouts.iter().map(|scores| alarm.watch(scores, compared)).collect()
        };
        let (equal, other) = ([0.1; 4].as_slice(), [0.1, 0.1, 0.1, 0.2].as_slice());
        assert_eq!(raised(4, &[equal; 4]), [false, false, true, false]);
        assert_eq!(raised(4, &[equal, equal, other, equal, equal, equal])[2..], [false, false, false, true]);
        assert_eq!(
            raised(1, &[[0.1].as_slice(); 5]),
            [false; 5],
            "one answer has nothing to be compared with"
        );
        // Two prompts that differ teach a critic, but not groups of which each is of one mind.
        let groups = [0.1, 0.1, 0.7, 0.7].as_slice();
        assert_eq!(raised(4, &[groups; 5]), [false; 5]);
        assert_eq!(raised(2, &[groups; 3]), [false, false, true]);
    }

    #[test]
    fn warnings_name_the_step_and_likely_causes() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let log = said.clone();
        let mut run = Run::ephemeral().unwrap().with_observer(move |event| {
            if let Event::Warning { message } = event {
                log.lock().unwrap().push(message.to_owned());
            }
        });
        let mut checks = Checks::default();
        let fine = PpoMetrics { first_ratio_error: 1e-6, ..PpoMetrics::default() };
        let off = PpoMetrics { first_ratio_error: 0.02, kl: -0.2, ..PpoMetrics::default() };
        checks.look(&fine, &[-0.2; 4], 1, &mut run);
        checks.look(&fine, &[-0.2; 4], 2, &mut run);
        assert_eq!(*said.lock().unwrap(), Vec::<String>::new());
        checks.look(&off, &[-0.2; 4], 3, &mut run);
        for step in 1..=4 {
            checks.look_at_scores(&PpoConfig::default(), &[1.5; 4], step, &mut run);
        }
        let mut config = PpoConfig::default();
        (config.advantage.kind, config.rollout.samples_per_prompt) = (crate::AdvantageKind::Rloo, 2);
        let mut checks = Checks::default();
        for step in 1..=4 {
            checks.look_at_scores(&config, &[1.5, 1.5, 2.5, 2.5], step, &mut run);
        }
        let said = said.lock().unwrap();
        let [ratio, kl, flat, flat_groups] = said.as_slice() else { panic!("{said:?}") };
        assert!(
            ratio.starts_with("step 3: ") && ratio.contains("2.0e-2") && ratio.contains("temperature"),
            "{ratio}"
        );
        let known = flat.starts_with("step 3: all answers of a rollout score the same");
        assert!(known && !flat.contains("  "), "{flat}");
        assert!(flat_groups.starts_with("step 3: all answers to a prompt score the same"), "{flat_groups}");
        assert!(kl.starts_with("step 3: ") && kl.contains("-0.20 nats") && kl.contains("top-p"), "{kl}");
    }
}
