//! Which pairs a ranking makes, and how much each of them counts.
//!
//! `cargo run --release -p temper-data --example pairs`
#![allow(clippy::print_stdout)]

use temper_data::{Comparison, Encoding, Error, Rankings};
use temper_tokenizer::{Template, TextSide, Tokenizer};

fn main() -> Result<(), Error> {
    let rows = [
        Comparison {
            prompt: "What is 2 plus 3?".into(),
            completions: ["6.", "Gladly! It is 5.", "5.", "It is 7."].map(String::from).into(),
            scores: vec![0.0, 2.0, 1.0, 0.0],
        },
        Comparison::pair("Plural of goose?", "Geese.", "Gooses."),
    ];
    let text = TextSide::new(Tokenizer::byte(), Template::bare());
    let data = Rankings::new(&rows, &Encoding::new(&text, 64))?;
    for ranking in &data.rankings {
        let comparison = &rows[ranking.row];
        println!("{}", comparison.prompt);
        for pair in &ranking.pairs {
            let share = 1.0 / (data.len() * ranking.pairs.len()) as f64;
            let [chosen, rejected] = [pair.chosen, pair.rejected].map(|i| &comparison.completions[i]);
            println!("  {share:.2}  {chosen:20} over {rejected}");
        }
    }
    Ok(())
}
