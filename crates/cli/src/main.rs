//! The `temper` command: parses, wires the stages together, and prints.

mod answers;
mod args;
mod best_of;
mod commands;
mod data_rows;
mod device;
mod failure;
mod inputs;
mod judge;
mod machine;
mod progress;
mod recipe;
mod rewards;
mod session;
mod text;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use crate::args::{Cli, Command};
use crate::commands::Outcome;
use crate::session::Session;

/// Training allocates and frees the same large buffers at every step. The system's allocator gives them back to the
/// kernel each time and pays for every page again: a fifth of a step on a CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a command returns to the shell after Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match (cli.common.quiet, cli.common.verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, true) => LevelFilter::DEBUG,
        _ => LevelFilter::WARN,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .init();
    match run(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) if closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<Outcome> {
    let session = Session::new(&cli.common)?;
    match cli.command {
        Command::Sft(args) => commands::sft::run(&session, &args),
        Command::Reward(args) => commands::reward::run(&session, &args),
        Command::Dpo(args) => commands::dpo::run(&session, &args),
        Command::Ppo(args) => commands::ppo::run(&session, &args),
        Command::Pipeline(args) => commands::pipeline::run(&session, &args),
        Command::Generate(args) => commands::generate::run(&session, &args),
        Command::Chat(args) => commands::chat::run(&session, &args),
        Command::Tokenize(args) => commands::tokenize::run(&args),
        Command::Logprobs(args) => commands::logprobs::run(&session, &args),
        Command::Score(args) => commands::score::run(&session, &args),
        Command::Eval(args) => commands::eval::run(&session, &args),
        Command::Select(args) => commands::select::run(&session, &args),
        Command::Config(args) => commands::config::run(&session, &args),
        Command::Recipe(args) => commands::recipe::run(&session, &args),
        Command::Report(args) => commands::report::run(&session, &args),
        Command::Devices => commands::devices::run(),
        Command::Bench(args) => commands::bench::run(&session, &args),
    }
}

/// Whoever read our output has seen enough: no error.
fn closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

#[allow(clippy::print_stderr)] // The end of the line for errors.
fn report(error: &anyhow::Error) {
    eprintln!("error: {}", failure::one_line(error));
    if let Some(hint) = failure::hint(error) {
        eprintln!("hint: {hint}");
    }
}
