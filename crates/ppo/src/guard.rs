//! What a run does when its KL runs away.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use temper_train::{Exact, Rewinds, Run, TrainingConfig};

/// A KL that is above this, in nats per answer, and still rises is hardly controlled any more.
const KL_CEILING: f64 = 15.0;
/// Consecutive rollouts with such a KL before something is done.
const PATIENCE: usize = 3;

/// Watches the KL to the reference, and reacts when it runs away.
#[derive(Clone, Debug)]
pub(crate) struct KlGuard {
    rewinds: Rewinds,
    state: State,
    has_spoken: bool,
}

/// What the next rollout is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// Consecutive rollouts with a KL that is too high and rises.
    in_a_row: usize,
    last_kl: Exact,
}

/// A [`KlGuard`] in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredGuard {
    rewinds: u32,
    #[serde(flatten)]
    state: State,
}

impl KlGuard {
    pub(crate) fn new(config: &TrainingConfig) -> Self {
        Self { rewinds: Rewinds::new(config), state: State::default(), has_spoken: false }
    }

    /// What a checkpoint stores of it; nothing in a run that only warns.
    pub(crate) fn to_store(&self) -> Option<StoredGuard> {
        self.rewinds.done().map(|rewinds| StoredGuard { rewinds, state: self.state })
    }

    /// Continues as it was when a checkpoint was saved.
    pub(crate) fn resume(&mut self, stored: Option<StoredGuard>) {
        self.rewinds.resume(stored.map(|stored| stored.rewinds));
        self.state = stored.map(|stored| stored.state).unwrap_or_default();
    }

    /// Keeps the checkpoint that the run may have to go back to from the rollout after number `step`. A run that is resumed
    /// asks for it before it removes any.
    pub(crate) fn keep(&self, step: usize, run: &mut Run) {
        self.rewinds.keep((step + 1).saturating_sub(PATIENCE), run);
    }

    /// Takes the mean KL of rollout number `step`, in nats per answer. If it returns a checkpoint, the run continues from
    /// there.
    ///
    /// # Errors
    /// A run that has gone back too often, and files that cannot be read or written.
    pub(crate) fn after_rollout(
        &mut self,
        step: usize,
        kl: f64,
        run: &mut Run,
    ) -> Result<Option<PathBuf>, temper_train::Error> {
        let runs_away = kl > KL_CEILING && kl > self.state.last_kl.0;
        let in_a_row = if runs_away { self.state.in_a_row + 1 } else { 0 };
        self.state = State { in_a_row, last_kl: Exact(kl) };
        if in_a_row < PATIENCE || self.has_spoken {
            self.keep(step, run);
            return Ok(None);
        }
        let sign = format!(
            "the KL to the reference is above {KL_CEILING} nats per answer and rises, now {kl:.1}: the policy looks for \
             what fools the scores (raise `kl.coef`, or lower `learning_rate`)"
        );
        let rewound = self.rewinds.react(step, &sign, step - PATIENCE, run)?;
        // After going back, the next one counts as well.
        self.has_spoken = rewound.is_none();
        Ok(rewound)
    }

    /// The share of the scheduled learning rates that is left.
    pub(crate) fn rate_factor(&self) -> f64 {
        self.rewinds.rate_factor()
    }

    /// Whether the run saves a checkpoint before its first rollout.
    pub(crate) fn needs_a_start(&self) -> bool {
        self.rewinds.needs_a_start()
    }

    /// Whether the run saves a checkpoint now and then ends.
    pub(crate) fn stops(&self) -> bool {
        self.rewinds.stops()
    }

    /// Ends the run if it has to stop.
    pub(crate) fn check(&self) -> Result<(), temper_train::Error> {
        self.rewinds.check()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use temper_train::{Event, OnDivergence};

    use super::*;

    #[test]
    fn a_kl_that_runs_away_is_said_at_the_third_rollout_in_a_row_and_once() {
        let said = |kls: &[f64]| {
            let (tell, told) = mpsc::channel();
            let mut run = Run::ephemeral().unwrap().with_observer(move |event| {
                if let Event::Warning { message } = event {
                    tell.send(message.to_owned()).unwrap();
                }
            });
            let mut guard = KlGuard::new(&TrainingConfig::default());
            for (i, kl) in kls.iter().enumerate() {
                assert_eq!(guard.after_rollout(i + 1, *kl, &mut run).unwrap(), None);
            }
            drop(run);
            told.iter().collect::<Vec<_>>()
        };
        let warnings = said(&[14.0, 16.0, 17.0, 18.0, 19.0]);
        assert!(matches!(warnings.as_slice(), [one] if one.starts_with("step 4: the KL")), "{warnings:?}");
        assert_eq!(said(&[14.0, 16.0, 17.0, 16.0, 17.0, 18.0]), [""; 0]);
        assert_eq!(said(&[1.0, 2.0, 3.0, 4.0, 5.0]), [""; 0]);
    }

    #[test]
    fn a_run_that_is_to_stop_does_so_with_an_error() {
        let config = TrainingConfig { on_divergence: OnDivergence::Stop, ..TrainingConfig::default() };
        let (mut guard, mut run) = (KlGuard::new(&config), Run::ephemeral().unwrap());
        for (step, kl) in [(1, 16.0), (2, 17.0)] {
            guard.after_rollout(step, kl, &mut run).unwrap();
        }
        assert!(!guard.stops() && guard.check().is_ok());
        guard.after_rollout(3, 18.0, &mut run).unwrap();
        assert!(guard.stops());
        assert!(guard.check().unwrap_err().to_string().starts_with("step 3: the KL"));
    }
}
