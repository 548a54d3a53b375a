//! `cargo xtask ci`: what must pass before a commit, cheapest first. `.ci/run` does the same and runs the pipeline.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::cargo::{cargo, cargo_with};
use crate::tidy;

/// Each backend, and whether its build scripts download an LLVM unless DOCS_RS is set. A check needs none.
const FEATURES: [(&str, bool); 7] = [
    ("flex", false),
    ("ndarray", false),
    ("wgpu", false),
    ("vulkan", false),
    ("metal", false),
    ("cuda", true),
    ("rocm", true),
];

pub fn run() -> Result<ExitCode> {
    cargo(&["fmt", "--all", "--", "--check"])?;
    ensure!(tidy::run()? == ExitCode::SUCCESS, "`cargo xtask tidy` failed");
    cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(&["test", "--release", "--workspace"])?;
    cargo(&["doc", "--release", "--workspace", "--no-deps"])?;
    for (feature, downloads) in FEATURES {
        let env: &[(&str, &str)] = if downloads { &[("DOCS_RS", "1")] } else { &[] };
        cargo_with(&["check", "-p", "temper-cli", "--no-default-features", "--features", feature], env)?;
    }
    Ok(ExitCode::SUCCESS)
}
