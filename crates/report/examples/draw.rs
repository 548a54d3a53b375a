//! Draws the report of a run directory: `cargo run --example draw -- RUN_DIR`.

fn main() -> Result<(), temper_report::Error> {
    let dir = std::env::args_os().nth(1).unwrap_or_else(|| ".".into());
    temper_report::draw(dir.as_ref())?;
    Ok(())
}
