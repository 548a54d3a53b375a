//! Running cargo and what it builds.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The workspace's directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Runs cargo in the workspace, its output on the terminal.
pub fn cargo(args: &[&str]) -> Result<()> {
    cargo_with(args, &[])
}

/// The same with environment variables.
pub fn cargo_with(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    let status = command.args(args).envs(env.iter().copied()).current_dir(root()).status();
    let status = status.context("cannot start cargo")?;
    ensure!(status.success(), "`cargo {}` failed", args.join(" "));
    Ok(())
}

/// The `temper` binary: `TEMPER_BIN` as it is, or built with `backend`.
pub fn temper(backend: &str) -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("TEMPER_BIN") {
        let path = std::path::absolute(&given)?;
        ensure!(path.is_file(), "TEMPER_BIN: there is no file {}", path.display());
        return Ok(path);
    }
    let mut args = vec!["build", "--release", "-p", "temper-cli"];
    if backend != "flex" {
        args.extend(["--features", backend]);
    }
    cargo(&args)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let name = format!("temper{}", std::env::consts::EXE_SUFFIX);
    Ok(root().join(target).join("release").join(name))
}
