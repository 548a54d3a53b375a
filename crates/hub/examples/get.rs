//! Prints the directory of a model of the hub: `cargo run --release -p temper-hub --example get -- ORG/NAME`.
#![allow(clippy::print_stdout)]

use temper_hub::{Error, Hub, Parts, RepoSpec, Watch};

fn main() -> Result<(), Error> {
    let name = std::env::args().nth(1).unwrap_or_default();
    let Some(spec) = RepoSpec::parse(&name) else {
        println!("`{name}` is not ORG/NAME or ORG/NAME@REVISION");
        return Ok(());
    };
    let note = |note: &str| println!("{note}");
    let mut watch = Watch { note: Box::new(note), ..Watch::default() };
    let snapshot = Hub::from_env()?.snapshot(&spec, Parts::Whole, &mut watch)?;
    println!("{}", snapshot.dir.display());
    Ok(())
}
