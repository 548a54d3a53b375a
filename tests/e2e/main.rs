//! The `temper` command from end to end: what it prints, how it fails, and whether the stages fit together.

#![cfg(unix)] // Signals, limits and links are Unix's.

mod bad_data;
mod bad_models;
mod bad_runs;
mod cli;
mod defects;
mod dpo;
mod kills;
mod resume;
mod rewards;
mod stages;
mod util;
