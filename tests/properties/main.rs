//! Promises that hold for every input, looked for by proptest: how rows are put together changes nothing that is
//! computed of them, and nothing that is read from a disk makes Temper panic.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests; helpers are no less")]

mod damage;
mod losses;
mod models;
mod padding;
mod reports;
mod resume;
mod rollouts;
mod settings;
mod text;
mod tiny;
