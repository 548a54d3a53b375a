//! `temper bench`: one piece of work, timed. `cargo xtask bench` calls it, with peers beside it.

use std::time::Instant;

use anyhow::Result;
use serde_json::json;
use temper_model::{CausalLm, GenerateOptions, ModelConfig, Sampler, generate};
use temper_train::Seed;

use crate::args::BenchArgs;
use crate::commands::{Outcome, print_json};
use crate::device;
use crate::failure::hinted;
use crate::session::Session;

pub fn run(session: &Session, args: &BenchArgs) -> Result<Outcome> {
    match args.name.as_str() {
        "generate" => generation(session, args.repeats)?,
        other => return Err(hinted(format!("no benchmark is called `{other}`"), "benchmarks: generate")),
    }
    Ok(Outcome::Done)
}

/// Batched sampling through the KV cache at width 128 and 4 layers: 16 prompt tokens, 48 new ones.
fn generation(session: &Session, repeats: usize) -> Result<()> {
    let device = device::open(session.device_name())?;
    let model = CausalLm::new(&ModelConfig::preset("small")?, &mut Seed(0).stream("init"), &device);
    for batch in [1, 32] {
        let prompts: Vec<Vec<u32>> =
            (0..batch).map(|row| (0..16).map(|i| 4 + (row * 7 + i * 13) % 250).collect()).collect();
        // An end token that the vocabulary does not have: every row runs to its limit.
        let options = GenerateOptions { max_new_tokens: 48, sampler: Sampler::PLAIN, eos: u32::MAX, seed: 0 };
        generate(&model, &prompts, &options)?;
        let mut seconds: Vec<f64> = Vec::new();
        for _ in 0..repeats.max(1) {
            let started = Instant::now();
            generate(&model, &prompts, &options)?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        print_json(&json!({
            "name": format!("generate_b{batch}"),
            "seconds": median,
            "tokens_per_second": f64::from(batch * 48) / median,
            "fastest_seconds": seconds[0],
            "slowest_seconds": seconds[seconds.len() - 1],
        }))?;
    }
    Ok(())
}
