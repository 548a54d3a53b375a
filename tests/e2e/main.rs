//! The `temper` command from end to end: what it prints, how it fails, and whether the stages fit together.

#![cfg(unix)] // Signals, limits and links are Unix's.

mod adapters;
mod auto;
mod bad_data;
mod bad_models;
mod bad_runs;
mod chats;
mod cli;
mod data_files;
mod defects;
mod divergence;
mod documents;
mod dpo;
mod evaluation;
mod groups;
mod hub;
mod interrupts;
mod kills;
#[path = "../../crates/hub/tests/loopback/mod.rs"]
mod loopback;
mod output;
mod own_files;
mod presets;
mod renamed;
mod reports;
mod resume;
mod rewards;
mod rollouts;
mod samples;
mod scratch;
mod selection;
mod stages;
mod texts;
mod util;
mod whole;
