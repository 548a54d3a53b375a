//! `cargo xtask ci`: what must pass before a commit, cheapest first. `.ci/run` does the same and runs the pipeline.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::cargo::cargo;
use crate::tidy;

/// Features that can be checked without anything installed; `.ci/run` says why `rocm` is not among them.
const FEATURES: [&str; 6] = ["flex", "ndarray", "wgpu", "vulkan", "metal", "cuda"];

pub fn run() -> Result<ExitCode> {
    cargo(&["fmt", "--all", "--", "--check"])?;
    ensure!(tidy::run()? == ExitCode::SUCCESS, "`cargo xtask tidy` failed");
    cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(&["test", "--release", "--workspace"])?;
    cargo(&["doc", "--release", "--workspace", "--no-deps"])?;
    for feature in FEATURES {
        cargo(&["check", "-p", "temper-cli", "--no-default-features", "--features", feature])?;
    }
    Ok(ExitCode::SUCCESS)
}
