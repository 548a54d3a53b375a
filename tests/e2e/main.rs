//! The `temper` command from end to end: what it prints, how it fails, and whether the stages fit together.

#![cfg(unix)] // Signals, limits and links are Unix's.

mod bad_data;
mod bad_models;
mod bad_runs;
mod cli;
mod data_files;
mod defects;
mod dpo;
mod evaluation;
mod groups;
mod kills;
mod presets;
mod resume;
mod rewards;
mod selection;
mod stages;
mod util;
mod whole;
