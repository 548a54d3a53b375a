//! Parity with PyTorch: the numbers in `assets/goldens` against what the crates compute from the same inputs.
//!
//! The scripts next to the numbers made them, in float64; these tests need no Python. Expectations never call the code
//! under test. Everything runs on flex, and on each backend that a feature of this package adds:
//!
//! ```text
//! cargo test --release -p temper-cli -p temper-tests --test parity --features ndarray,wgpu
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy.toml allows both in tests; helpers are no less"
)]

mod adapters;
mod backends;
mod checkpoint;
mod curves;
mod dpo;
mod families;
mod golden;
mod maths;
mod model;
mod optimizer;
mod ppo;
mod scalar;
mod stages;
