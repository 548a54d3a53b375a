//! `cargo xtask ci`: what must pass before a commit, cheapest first. `.ci/run` does the same and runs the pipeline.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::cargo::{backends, cargo, cargo_with};
use crate::tidy;

/// Backends whose build scripts download an LLVM unless DOCS_RS is set. A check needs none.
const DOWNLOAD_LLVM: [&str; 2] = ["cuda", "rocm"];

pub fn run() -> Result<ExitCode> {
    cargo(&["fmt", "--all", "--", "--check"])?;
    ensure!(tidy::run()? == ExitCode::SUCCESS, "`cargo xtask tidy` failed");
    cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(&["test", "--release", "--workspace"])?;
    cargo(&["doc", "--release", "--workspace", "--no-deps"])?;
    for backend in backends()? {
        let downloads = DOWNLOAD_LLVM.contains(&backend.as_str());
        let env: &[(&str, &str)] = if downloads { &[("DOCS_RS", "1")] } else { &[] };
        cargo_with(&["check", "-p", "temper-cli", "--no-default-features", "--features", &backend], env)?;
    }
    Ok(ExitCode::SUCCESS)
}
