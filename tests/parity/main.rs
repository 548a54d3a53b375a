//! Parity with PyTorch: the numbers in `assets/goldens` against what the crates compute from the same inputs.
//!
//! `assets/goldens/generate.py` made them, in float64; these tests need no Python. Expectations never call the
//! code under test.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy.toml allows both in tests; helpers are no less"
)]

mod checkpoint;
mod golden;
mod maths;
mod model;
mod scalar;
