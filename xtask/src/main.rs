//! `cargo xtask`: builds `temper` and runs it. It spawns cargo and depends on no crate of the workspace.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A tool for the terminal.

mod bench;
mod cargo;
mod ci;
mod pipeline;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds Temper and runs it: the pipeline, the benchmarks, the checks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// SFT, reward model, PPO and the judgement, from a recipe
    #[command(after_help = "Example:\n  cargo xtask pipeline --recipe notebook --seed 1")]
    Pipeline(pipeline::Args),
    /// The benchmarks, one JSON object per line with `--json`
    #[command(
        after_help = "Example:\n  TEMPER_PYTHON=.venv/bin/python cargo xtask bench --only notebook --peer"
    )]
    Bench(bench::Args),
    /// The rules that no compiler checks: crate arrows, file sizes, paths, documents
    Tidy,
    /// Everything that must pass before a commit, cheapest first
    Ci,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Pipeline(args) => pipeline::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Tidy => tidy::run(),
        Task::Ci => ci::run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
