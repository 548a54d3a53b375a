//! What a run does when it diverges.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::run::Run;
use crate::settings::TrainingConfig;
use crate::watch::LossWatch;

/// What a run does about a sign that it diverges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDivergence {
    /// It says so and continues.
    #[default]
    Warn,
    /// It saves a checkpoint and ends with an error.
    Stop,
    /// It goes back to the last checkpoint before the sign, and continues from there with half the learning rate.
    Rewind,
}

/// How often a run goes back before it gives up: the rate is 1/32 by then, so that something else is wrong.
const MOST_REWINDS: u32 = 5;

/// How often a run has gone back, and what it does at the next sign of divergence.
#[derive(Clone, Debug)]
pub struct Rewinds {
    on_divergence: OnDivergence,
    done: u32,
    /// The step and the sign at which the run is to end.
    stops_at: Option<(usize, String)>,
}

impl Rewinds {
    /// None yet.
    pub fn new(config: &TrainingConfig) -> Self {
        Self { on_divergence: config.on_divergence, done: 0, stops_at: None }
    }

    /// How often the run has gone back, for its checkpoints. `None` where it only warns.
    pub fn done(&self) -> Option<u32> {
        (self.on_divergence != OnDivergence::Warn).then_some(self.done)
    }

    /// Keeps the checkpoint that the run may have to go back to, the newest one of update number `good` or before.
    pub fn keep(&self, good: usize, run: &mut Run) {
        if self.needs_a_start() {
            run.keep_for_rewind(good);
        }
    }

    /// Takes from a checkpoint how often the run had gone back. Going back does not undo that.
    pub fn resume(&mut self, done: Option<u32>) {
        self.done = self.done.max(done.unwrap_or(0));
    }

    /// The share of the scheduled learning rate that is left: half of it for each time that the run went back.
    pub fn rate_factor(&self) -> f64 {
        0.5f64.powi(self.done as i32)
    }

    /// Whether the run saves a checkpoint before its first update: it may have to go back to that.
    pub fn needs_a_start(&self) -> bool {
        self.on_divergence == OnDivergence::Rewind
    }

    /// Does what the settings say about a `sign` of divergence that was seen after update number `step`. If it returns a
    /// checkpoint, the run continues from there; it is of update number `good` or before, if there is such a one.
    ///
    /// # Errors
    /// [`Error::Diverges`] if the run has gone back too often, and files that cannot be read or written.
    pub fn react(
        &mut self,
        step: usize,
        sign: &str,
        good: usize,
        run: &mut Run,
    ) -> Result<Option<PathBuf>, Error> {
        match self.on_divergence {
            OnDivergence::Warn => run.warn(&format!("step {step}: {sign}")),
            OnDivergence::Stop => self.stops_at = Some((step, sign.to_owned())),
            OnDivergence::Rewind if self.done >= MOST_REWINDS => {
                let sign = format!("the run has gone back {MOST_REWINDS} times, and again {sign}");
                return Err(Error::Diverges { step, sign });
            }
            OnDivergence::Rewind => {
                let (to, dir) = run.rewind(good)?;
                self.done += 1;
                let share = 2u32.pow(self.done);
                run.warn(&format!(
                    "step {step}: {sign}; back to step {to}, with 1/{share} of the learning rate"
                ));
                return Ok(Some(dir));
            }
        }
        Ok(None)
    }

    /// Whether the run saves a checkpoint now and then ends.
    pub fn stops(&self) -> bool {
        self.stops_at.is_some()
    }

    /// Ends the run if it has to stop.
    ///
    /// # Errors
    /// [`Error::Diverges`].
    pub fn check(&self) -> Result<(), Error> {
        let Some((step, sign)) = self.stops_at.clone() else { return Ok(()) };
        Err(Error::Diverges { step, sign })
    }
}

/// Watches a run over fixed rows, and reacts when its loss or its gradients explode.
#[derive(Clone, Debug)]
pub struct LossGuard {
    watch: LossWatch,
    /// What has been done about divergence so far.
    pub rewinds: Rewinds,
}

/// A [`LossGuard`] in a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredGuard {
    rewinds: u32,
    watch: LossWatch,
}

impl LossGuard {
    /// The guard of a run that begins.
    pub fn new(config: &TrainingConfig) -> Self {
        Self { watch: LossWatch::default(), rewinds: Rewinds::new(config) }
    }

    /// What a checkpoint stores of it; nothing in a run that only warns.
    pub(crate) fn to_store(&self) -> Option<StoredGuard> {
        self.rewinds.done().map(|rewinds| StoredGuard { rewinds, watch: self.watch.clone() })
    }

    /// Continues as it was when a checkpoint was saved.
    pub(crate) fn resume(&mut self, stored: Option<StoredGuard>) {
        self.rewinds.resume(stored.as_ref().map(|stored| stored.rewinds));
        self.watch = stored.map(|stored| stored.watch).unwrap_or_default();
    }

    /// Keeps the checkpoint that the run may have to go back to. A run that is resumed asks for it before it removes any.
    pub fn keep(&self, run: &mut Run) {
        self.rewinds.keep(self.watch.best_step(), run);
    }

    /// Looks at the loss that update number `step` is about to be made with, and at the norm of its gradient. If it returns a
    /// checkpoint, the run continues from there; if the run [stops](Rewinds::stops), the update is not made.
    ///
    /// # Errors
    /// [`Error::NonFiniteLoss`] and [`Error::NonFinite`] in a run that only warns, and those of [`Rewinds::react`].
    pub fn before_update(
        &mut self,
        step: usize,
        loss: f64,
        grad_norm: f64,
        run: &mut Run,
    ) -> Result<Option<PathBuf>, Error> {
        let sign = match (loss.is_finite(), grad_norm.is_finite()) {
            (true, true) => return Ok(None),
            (false, _) => format!("the loss is {loss}"),
            (true, false) => format!("the gradient norm is {grad_norm}"),
        };
        if self.rewinds.done().is_some() {
            return self.rewinds.react(step, &sign, self.watch.best_step(), run);
        }
        Err(match loss.is_finite() {
            true => Error::NonFinite { what: "gradient norm", update: step as u64 },
            false => Error::NonFiniteLoss { step, loss },
        })
    }

    /// Looks at the loss of update number `step`, in nats, and the norm of its gradient. If it returns a checkpoint, the run
    /// continues from there.
    ///
    /// # Errors
    /// Those of [`Rewinds::react`].
    pub fn after_update(
        &mut self,
        step: usize,
        loss: f64,
        grad_norm: f64,
        run: &mut Run,
    ) -> Result<Option<PathBuf>, Error> {
        match self.watch.check(step, loss, grad_norm) {
            None => {
                self.keep(run);
                Ok(None)
            }
            Some(sign) => self.rewinds.react(step, &sign, self.watch.best_step(), run),
        }
    }
}
