//! Bookkeeping of training runs, shared by the stages: settings, seeds, schedules, batches, metrics, checkpoints and
//! run directories.
//!
//! Invariant: this crate knows no model, no tokenizer and no data. A formula belongs into
//! `temper-tensor`, `temper-model` or a stage; a file, clock, counter or seed belongs here. It is a toolbox, not a framework:
//! each stage keeps its loop and calls what it needs, and nothing here calls back but the observer of a
//! [`Run`].
//!
//! ```
//! use serde_json::json;
//! use temper_train::{Run, Schedule, ScheduleKind, Seed, length_buckets};
//!
//! # fn main() -> Result<(), temper_train::Error> {
//! let schedule = Schedule { kind: ScheduleKind::Cosine, warmup_steps: 1, ..Schedule::default() };
//! let batches = length_buckets(&[3, 9, 4, 8], 2, &mut Seed(0).stream_at("shuffle", 0));
//!
//! let mut run = Run::ephemeral()?;
//! run.started(batches.len());
//! for (done, rows) in batches.iter().enumerate() {
//!     let learning_rate = schedule.learning_rate(1e-3, done, batches.len());
//!     // … the update on `rows` …
//!     run.log(done + 1, batches.len(), &json!({"learning_rate": learning_rate, "rows": rows.len()}))?;
//! }
//! run.save_checkpoint(batches.len(), |dir| temper_train::save_json(&dir.join("config.json"), &schedule))?;
//! # Ok(())
//! # }
//! ```

// What goes wrong, and what is reported.
mod error;
mod event;

// Pure: from a seed and a step to what happens in it.
mod batches;
mod ema;
mod optim;
mod plan;
mod schedule;
mod seed;
mod watch;

// In: settings.
mod settings;

// Out: what a run leaves on the disk.
mod best;
mod checkpoint;
mod exact;
mod files;
mod guard;
mod inputs;
mod metrics;
mod run;

pub use batches::{length_buckets, random_batches, shuffled};
pub use best::{Candidate, require_finite};
pub use checkpoint::{TRAINING_DIR, is_complete, latest, prune, step_dir, step_dirs, verify, write_atomic};
pub use ema::moving_average;
pub use error::{Error, Fault, NOT_FINITE_HINT, Origin};
pub use event::Event;
pub use exact::Exact;
pub use files::{load_json, save_json, write_file};
pub use guard::{LossGuard, OnDivergence, Rewinds};
pub use inputs::{Inputs, fingerprint_files};
pub use metrics::{MetricsWriter, STEP_KEY, is_timing, read_metrics};
pub use optim::{AdamWConfig, EpsilonStyle, Optimizer};
pub use plan::{Progress, StepPlan, is_due};
pub use run::Run;
pub use schedule::{Schedule, ScheduleKind};
pub use seed::Seed;
pub use settings::{
    AutoKeys, BatchingConfig, Chosen, MemoryLimit, NOT_PUBLISHED, Setting, Settings, StartSettings,
    TrainingConfig, changed_settings, current_key, declaration_faults, keys_with_source, leaves,
    notes_on_settings_without_effect, range, resolve, resolve_known, resolve_with_auto, to_annotated_toml,
    to_commented_toml, to_sourced_toml, trailing_comments, without_effect,
};
#[doc(hidden)]
pub use settings::{check_section, declare_section};
pub use watch::LossWatch;

/// The snippets of the README are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
