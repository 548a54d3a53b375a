//! Asks a program for the scores of two answers:
//! `cargo run --release -p temper-scorer --example ask -- sh -c 'while read -r line; do echo ${#line}; done'`
#![allow(clippy::print_stdout)]

use std::time::Duration;

use temper_scorer::{Answer, Program, Stop};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let command = match given.is_empty() {
        true => "sh -c 'while read -r line; do echo ${#line}; done'".to_owned(),
        false => shlex::try_join(given.iter().map(String::as_str))?,
    };
    let mut program = Program::start(&command, Duration::from_secs(10), &Stop::default())?;
    let answers = ["Paris.", "Gladly! It is Paris."];
    let asked = answers.map(|completion| Answer::new("Capital of France?", completion, true));
    for (answer, score) in answers.iter().zip(program.score(&asked)?) {
        println!("{score:>8.2}  {answer}");
    }
    Ok(())
}
