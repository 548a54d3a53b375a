//! What happens in which step of a run over a fixed set of rows.

use std::path::Path;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use crate::batches::{length_buckets, random_batches};
use crate::checkpoint::TRAINING_DIR;
use crate::error::Error;
use crate::files::{load_json, save_json};
use crate::guard::{LossGuard, StoredGuard};
use crate::optim::Optimizer;
use crate::seed::Seed;
use crate::settings::{BatchingConfig, TrainingConfig};

/// Which rows each update takes, at which rate, and what comes after it.
///
/// All of it is a function of settings, data and step, so that a checkpoint stores the step and no more.
#[derive(Debug)]
pub struct StepPlan<'a> {
    config: &'a TrainingConfig,
    bucket_by_length: bool,
    lengths: Vec<usize>,
    steps_per_epoch: usize,
    total_steps: usize,
    /// The batches of one epoch, the last that was asked for.
    epoch: Option<(usize, Vec<Vec<usize>>)>,
}

impl<'a> StepPlan<'a> {
    /// The plan for rows of these lengths.
    pub fn new(config: &'a TrainingConfig, batching: &BatchingConfig, lengths: Vec<usize>) -> Self {
        let steps_per_epoch = lengths.len().div_ceil(config.batch_size);
        let total_steps = config.total_steps(lengths.len());
        let bucket_by_length = batching.bucket_by_length;
        Self { config, bucket_by_length, lengths, steps_per_epoch, total_steps, epoch: None }
    }

    /// Updates in the whole run.
    pub fn total_steps(&self) -> usize {
        self.total_steps
    }

    /// The rows of the update that comes after `done` others.
    pub fn batch(&mut self, done: usize) -> &[usize] {
        let (epoch, position) = (done / self.steps_per_epoch, done % self.steps_per_epoch);
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            let mut stream = Seed(self.config.seed).stream_at("shuffle", epoch as u64);
            let batch_size = self.config.batch_size;
            let batches = if self.bucket_by_length {
                length_buckets(&self.lengths, batch_size, &mut stream)
            } else {
                random_batches(self.lengths.len(), batch_size, &mut stream)
            };
            self.epoch = Some((epoch, batches));
        }
        self.epoch.as_ref().map_or(&[], |(_, batches)| &batches[position])
    }

    /// Every row that an update takes, in the order of the data.
    pub fn rows(&mut self) -> Vec<usize> {
        let steps = self.total_steps.min(self.steps_per_epoch);
        let mut rows: Vec<usize> = (0..steps).flat_map(|done| self.batch(done).to_vec()).collect();
        rows.sort_unstable();
        rows
    }

    /// The learning rate of the update that comes after `done` others.
    pub fn learning_rate(&self, done: usize) -> f64 {
        self.config.schedule.learning_rate(self.config.learning_rate, done, self.total_steps)
    }

    /// Passes over the data after `step` updates.
    pub fn epochs(&self, step: usize) -> f64 {
        step as f64 / self.steps_per_epoch as f64
    }

    /// Whether nothing is left to do after `step` updates.
    pub fn is_done(&self, step: usize) -> bool {
        step >= self.total_steps
    }

    /// Whether the model is judged after the update number `step`.
    pub fn is_evaluation_due(&self, step: usize) -> bool {
        self.is_done(step) || is_due(step, self.config.eval_every)
    }

    /// Whether a checkpoint is saved after the update number `step`; the last one is the run's end.
    pub fn is_checkpoint_due(&self, step: usize) -> bool {
        !self.is_done(step) && is_due(step, self.config.checkpoint_every)
    }
}

impl TrainingConfig {
    /// Steps of a run over `n_rows` rows, `batch_size` of them in each step: those of all epochs, or `max_steps` where
    /// that is set and smaller.
    pub fn total_steps(&self, n_rows: usize) -> usize {
        let all_steps = self.epochs.saturating_mul(n_rows.div_ceil(self.batch_size));
        if self.max_steps > 0 { all_steps.min(self.max_steps) } else { all_steps }
    }
}

/// Whether something that is done after every `every` steps is due after step number `step`; with 0 it never is.
pub fn is_due(step: usize, every: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// The content of `training/state.json`.
#[derive(Serialize, Deserialize)]
struct State {
    step: usize,
    /// Only where the run may go back to the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guard: Option<StoredGuard>,
}

/// How far a run over fixed rows is.
#[derive(Debug)]
pub struct Progress {
    /// The updates done.
    pub step: usize,
    /// The moments of the updates.
    pub optimizer: Optimizer,
    /// What looks for divergence.
    pub guard: LossGuard,
}

impl Progress {
    /// The start of a run.
    pub fn new(config: &TrainingConfig) -> Self {
        Self { step: 0, optimizer: Optimizer::new(&config.optimizer), guard: LossGuard::new(config) }
    }

    /// Puts it next to the model in a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`] if the disk refuses.
    pub fn save(&self, checkpoint: &Path) -> Result<(), Error> {
        let dir = checkpoint.join(TRAINING_DIR);
        self.optimizer.save(&dir.join("optimizer.safetensors"))?;
        save_json(&dir.join("state.json"), &State { step: self.step, guard: self.guard.to_store() })
    }

    /// Reads what [`Progress::save`] wrote. `former` gives the path that a parameter may have had when the checkpoint was
    /// written.
    ///
    /// # Errors
    /// A file that is missing or damaged, or an optimizer state of another model than `module`.
    pub fn load<M: Module>(
        &mut self,
        checkpoint: &Path,
        module: &M,
        former: impl Fn(&str) -> String,
    ) -> Result<(), Error> {
        let dir = checkpoint.join(TRAINING_DIR);
        self.optimizer.load_renamed(&dir.join("optimizer.safetensors"), module, former)?;
        let state: State = load_json(&dir.join("state.json"))?;
        self.step = state.step;
        self.guard.resume(state.guard);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TrainingConfig {
        TrainingConfig { epochs: 3, batch_size: 4, eval_every: 2, checkpoint_every: 3, ..Default::default() }
    }

    fn plan_of(config: &TrainingConfig, lengths: Vec<usize>) -> StepPlan<'_> {
        StepPlan::new(config, &BatchingConfig::default(), lengths)
    }

    /// Ten rows in batches of four are three updates.
    #[test]
    fn every_epoch_has_every_row_once_and_an_order_of_its_own() {
        let config = config();
        let mut plan = plan_of(&config, (0..10).collect());
        assert_eq!((plan.total_steps(), plan.epochs(3), plan.epochs(9)), (9, 1.0, 3.0));
        let mut epoch = |n: usize| {
            let mut rows = Vec::new();
            (3 * n..3 * n + 3).for_each(|done| rows.extend_from_slice(plan.batch(done)));
            rows
        };
        let orders = [epoch(0), epoch(1), epoch(2)];
        for order in &orders {
            let mut rows = order.clone();
            rows.sort_unstable();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(orders[0], orders[1]);
        assert_ne!(orders[1], orders[2]);
    }

    #[test]
    fn a_plan_that_starts_in_the_middle_continues_alike() {
        let config = config();
        let [mut whole, mut resumed] = [(); 2].map(|()| plan_of(&config, vec![1; 10]));
        let batches: Vec<Vec<usize>> = (0..9).map(|done| whole.batch(done).to_vec()).collect();
        for done in [4, 5, 6, 8] {
            assert_eq!(resumed.batch(done), batches[done], "after {done}");
        }
    }

    /// Of 64 rows in batches of 8 the shortest and the longest quarter meet, unless batches go by length.
    #[test]
    fn batches_go_by_length_only_if_they_are_to() {
        let meet = |bucket_by_length| {
            let config = TrainingConfig { batch_size: 8, ..config() };
            let batching = BatchingConfig { bucket_by_length, ..BatchingConfig::default() };
            let mut plan = StepPlan::new(&config, &batching, (0..64).collect());
            (0..8).any(|done| {
                let batch = plan.batch(done);
                batch.iter().any(|&row| row < 12) && batch.iter().any(|&row| row >= 52)
            })
        };
        assert!(!meet(true) && meet(false));
    }

    #[test]
    fn a_run_that_ends_early_takes_no_more_rows_than_it_has_updates() {
        let all = config();
        assert_eq!(plan_of(&all, vec![1; 10]).rows(), (0..10).collect::<Vec<_>>());
        let early = TrainingConfig { max_steps: 2, ..config() };
        let mut plan = plan_of(&early, (0..10).collect());
        let mut taken = [plan.batch(0).to_vec(), plan.batch(1).to_vec()].concat();
        taken.sort_unstable();
        assert_eq!(plan.rows(), taken);
        assert!(taken.len() < 10);
    }

    #[test]
    fn a_run_is_judged_at_its_end_and_needs_no_checkpoint_there() {
        let limited = TrainingConfig { max_steps: 6, ..config() };
        let plan = plan_of(&limited, vec![1; 10]);
        let steps = |due: &dyn Fn(usize) -> bool| (1..=6).filter(|&step| due(step)).collect::<Vec<_>>();
        assert_eq!(steps(&|step| plan.is_evaluation_due(step)), [2, 4, 6]);
        assert_eq!(steps(&|step| plan.is_checkpoint_due(step)), [3]);
        let never = TrainingConfig { eval_every: 0, checkpoint_every: 0, ..limited.clone() };
        let plan = plan_of(&never, vec![1; 10]);
        assert_eq!(steps(&|step| plan.is_evaluation_due(step)), [6]);
        assert_eq!(steps(&|step| plan.is_checkpoint_due(step)), [0; 0]);
    }
}
