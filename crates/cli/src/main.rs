//! The `temper` command: parses, wires the stages together, and prints.

mod args;
mod commands;
mod data_rows;
mod device;
mod ending;
mod eval_settings;
mod failure;
mod lines;
mod machine;
mod memory;
mod models;
mod options;
mod progress;
mod prompts;
mod recipe;
mod session;
mod signals;
mod terminal;
mod units;
mod usage;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tracing_subscriber::filter::LevelFilter;

use crate::args::{Cli, Command, DataCommand, TokenizerCommand};
use crate::commands::{Outcome, StandardOutput};
use crate::session::Session;

#[global_allocator]
static ALLOCATOR: memory::Allocator = memory::Allocator;

/// What a command returns to the shell after Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    memory::keep_freed_pages();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error).unwrap_or_else(|error| failed(&error)),
    };
    let level = match (cli.common.quiet, cli.common.verbose) {
        (true, _) => LevelFilter::ERROR,
        (_, true) => LevelFilter::DEBUG,
        _ => LevelFilter::WARN,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| terminal::Log)
        .log_internal_errors(false)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .init();
    match run(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => failed(&error),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    if closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    terminal::say(&format!("error: {}", failure::one_line(error)));
    if let Some(hint) = failure::hint(error) {
        terminal::say(&format!("hint: {hint}"));
    }
    ExitCode::FAILURE
}

fn run(mut cli: Cli) -> Result<Outcome> {
    let session = Session::new(&cli)?;
    models::find(&session, &mut cli.command)?;
    machine::start_threads()?;
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
        Command::Tokenizer(TokenizerCommand::Train(args)) => commands::tokenizer::run(&session, &args),
        Command::Init(args) => commands::init::run(&session, &args),
        Command::Merge(args) => commands::merge::run(&session, &args),
        Command::Config(args) => commands::config::run(&session, &args),
        Command::Recipe(args) => commands::recipe::run(&session, &args),
        Command::Report(args) => commands::report::run(&session, &args),
        Command::Devices(args) => commands::devices::run(&session, &args),
        Command::Data(DataCommand::Inspect(args)) => commands::inspect::run(&args),
        Command::Bench(args) => commands::bench::run(&session, &args),
    }
}

/// A closed pipe is not an error.
fn closed_pipe(error: &anyhow::Error) -> bool {
    let is_broken = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    };
    error.is::<StandardOutput>() && error.chain().any(is_broken)
}
