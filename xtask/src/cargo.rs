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
    let name = format!("temper{}", std::env::consts::EXE_SUFFIX);
    Ok(target().join("release").join(name))
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target)
}

/// The backends that `temper` can be built with: the features of its manifest, which is their only list here.
pub fn backends() -> Result<Vec<String>> {
    let path = root().join("crates/cli/Cargo.toml");
    let manifest = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let backends = features(&manifest);
    ensure!(!backends.is_empty(), "{}: there are no features", path.display());
    Ok(backends)
}

/// Features that pass through to `burn`, in the order of the manifest.
fn features(manifest: &str) -> Vec<String> {
    let section = manifest.split("[features]").nth(1).unwrap_or_default();
    let lines = section.lines().skip(1).take_while(|line| !line.starts_with('['));
    let backend = |line: &str| {
        let (name, passed_on) = line.split_once(" = ")?;
        passed_on.contains(&format!("\"burn/{name}\"")).then(|| name.to_owned())
    };
    lines.filter_map(backend).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_a_feature_that_passes_through_to_burn() {
        let manifest = "[package]\nname = \"x\"\n\n[features]\ndefault = [\"flex\"]\nflex = [\"burn/flex\"]\n\
                        # A comment.\ncuda = [\"wgpu\", \"burn/cuda\"]\n\n[dependencies]\nburn = [\"burn/burn\"]\n";
        assert_eq!(features(manifest), ["flex", "cuda"]);
        assert!(backends().is_ok_and(|names| names.contains(&"wgpu".to_owned())));
    }
}
