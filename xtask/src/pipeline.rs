//! `cargo xtask pipeline`: builds `temper` with a backend and becomes `temper pipeline`.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

#[cfg(unix)]
use anyhow::anyhow;
use anyhow::{Result, ensure};

use crate::cargo::{backends, temper};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to train on
    #[arg(long, default_value = "courtesy", value_parser = ["courtesy", "notebook", "notebook-zh"])]
    recipe: String,
    /// What to compute with: a backend that `temper devices` lists
    #[arg(long, default_value = "flex")]
    backend: String,
    /// Everything random comes from it
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Run directory; an interrupted run in it continues where it stopped
    /// [default: runs/RECIPE, with seed and backend where they are not the usual ones]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// One setting of one stage, for example `--set ppo.max_steps=20`
    #[arg(long = "set", value_name = "STAGE.KEY=VALUE")]
    sets: Vec<String>,
}

impl Args {
    fn out(&self) -> PathBuf {
        let mut name = self.recipe.clone();
        if self.seed != 0 {
            name += &format!("-{}", self.seed);
        }
        if self.backend != "flex" {
            name += &format!("-{}", self.backend);
        }
        self.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(name))
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let backends = backends()?;
    ensure!(
        backends.contains(&args.backend),
        "`--backend` must be one of {}, got `{}`",
        backends.join(", "),
        args.backend
    );
    let mut command = Command::new(temper(&args.backend)?);
    command.args(["pipeline", "--recipe", &args.recipe, "--device", &args.backend]);
    command.args(["--seed", &args.seed.to_string()]).arg("--out").arg(args.out());
    for set in &args.sets {
        command.args(["--set", set]);
    }
    become_command(command)
}

/// `temper` takes this process's place: Ctrl-C reaches nobody else, and its exit code is ours.
#[cfg(unix)]
fn become_command(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let failed = command.exec();
    Err(anyhow!(failed).context(format!("cannot run {}", command.get_program().display())))
}

#[cfg(not(unix))]
fn become_command(mut command: Command) -> Result<ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_directory_names_what_is_unusual() {
        let args = |backend: &str, seed| Args {
            recipe: "notebook".into(),
            backend: backend.into(),
            seed,
            out: None,
            sets: vec![],
        };
        assert_eq!(args("flex", 0).out(), PathBuf::from("runs/notebook"));
        assert_eq!(args("wgpu", 2).out(), PathBuf::from("runs/notebook-2-wgpu"));
    }
}
