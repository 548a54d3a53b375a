//! `cargo xtask bench`: the benchmarks of `temper bench`, and those of PyTorch, in turns.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::cargo::{root, temper};

/// Each benchmark with its peer: a script in `assets/peers` and the package that it imports.
const BENCHMARKS: [(&str, Option<(&str, &str)>); 7] = [
    ("tokenizer", None),
    ("generate", Some(("generate.py", "transformers"))),
    ("sft_step", None),
    ("ppo_step", None),
    ("scorers", None),
    ("rankings", None),
    ("notebook", Some(("notebook.py", "torch"))),
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// One benchmark instead of all
    #[arg(long, value_name = "NAME", value_parser = BENCHMARKS.map(|(name, _)| name))]
    only: Option<String>,
    /// In turns with PyTorch, by the Python that TEMPER_PYTHON names
    #[arg(long)]
    peer: bool,
    /// One JSON object per line instead of a table
    #[arg(long)]
    json: bool,
    /// Runs of each; their median counts
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    repeats: u64,
    /// Threads for both sides
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    threads: u64,
}

/// What one process printed: its lines by name.
type Lines = Vec<Map<String, Value>>;

pub fn run(args: &Args) -> Result<ExitCode> {
    let wanted = |name: &str, peer: bool| match &args.only {
        Some(only) => only == name,
        None => peer || !args.peer,
    };
    let chosen = BENCHMARKS.iter().filter(|(name, peer)| wanted(name, peer.is_some()));
    let python = std::env::var("TEMPER_PYTHON").unwrap_or_else(|_| "python3".into());
    if args.peer {
        for (name, peer) in chosen.clone() {
            match peer {
                Some((_, package)) => check_python(&python, package)?,
                None => bail!("the benchmark `{name}` has no peer"),
            }
        }
    }
    let temper = temper("flex")?;
    let machine = format!("{}, {} threads", cpu(), args.threads);
    for (name, peer) in chosen {
        let (mut ours, mut theirs) = (Lines::new(), Lines::new());
        for _ in 0..args.repeats {
            ours.extend(ours_once(&temper, name, args.threads)?);
            if let (true, Some((script, _))) = (args.peer, peer) {
                theirs.extend(peer_once(&python, script, args.threads)?);
            }
        }
        let theirs = medians(&theirs);
        for (name, mut line) in medians(&ours) {
            if let Some(peer) = theirs.get(&name) {
                compare(&mut line, peer);
            }
            line.insert("machine".into(), json!(machine));
            if args.json {
                println!("{}", Value::Object(line));
            } else {
                print_table(&line);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check_python(python: &str, package: &str) -> Result<()> {
    let found = Command::new(python).args(["-c", &format!("import {package}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    ensure!(found, "`{python}` cannot import {package}; name a Python that can in TEMPER_PYTHON");
    Ok(())
}

/// One process of ours. `notebook`'s time is the whole process's, from its cold start.
fn ours_once(temper: &Path, name: &str, threads: u64) -> Result<Lines> {
    let mut command = Command::new(temper);
    command.args(["bench", name, "--quiet"]).env("RAYON_NUM_THREADS", threads.to_string());
    let (mut lines, seconds) = spawn(command)?;
    if name == "notebook" {
        for line in &mut lines {
            line.insert("seconds".into(), json!(seconds));
            line.insert("process_seconds".into(), json!(seconds));
        }
    }
    Ok(lines)
}

/// One process of the peer. Its `seconds` are its own, after the imports; `process_seconds` have them.
fn peer_once(python: &str, script: &str, threads: u64) -> Result<Lines> {
    let mut command = Command::new(python);
    command.arg(root().join("assets/peers").join(script)).args(["--threads", &threads.to_string()]);
    let (mut lines, seconds) = spawn(command)?;
    for line in &mut lines {
        if script == "notebook.py" {
            line.insert("process_seconds".into(), json!(seconds));
        }
        if let Some(value) = line.remove("answer_seconds") {
            line.insert("generate_seconds".into(), value);
        }
    }
    Ok(lines)
}

fn spawn(mut command: Command) -> Result<(Lines, f64)> {
    let program = command.get_program().display().to_string();
    let began = Instant::now();
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {program}"))?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(output.status.success(), "{program} failed: {}", output.status);
    let text = String::from_utf8(output.stdout).with_context(|| format!("{program} printed no UTF-8"))?;
    let parse =
        |line: &str| serde_json::from_str(line).with_context(|| format!("{program} printed `{line}`"));
    Ok((text.lines().map(parse).collect::<Result<Lines>>()?, seconds))
}

/// By name, the median of every number; texts as they are.
fn medians(lines: &Lines) -> BTreeMap<String, Map<String, Value>> {
    let mut columns: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for line in lines {
        let name = line.get("name").and_then(Value::as_str).unwrap_or("?");
        if columns.contains_key(name) {
            continue;
        }
        let same: Vec<_> = lines.iter().filter(|other| other.get("name") == line.get("name")).collect();
        let median = |(key, value): (&String, &Value)| {
            let mut values: Vec<f64> = same.iter().filter_map(|line| line.get(key)?.as_f64()).collect();
            values.sort_by(f64::total_cmp);
            let value = if values.is_empty() { value.clone() } else { json!(values[values.len() / 2]) };
            (key.clone(), value)
        };
        columns.insert(name.to_owned(), line.iter().map(median).collect());
    }
    columns
}

/// Adds the peer's numbers and how many times faster ours are, for every time that both have.
fn compare(line: &mut Map<String, Value>, peer: &Map<String, Value>) {
    line.insert("peer".into(), peer.get("peer").cloned().unwrap_or(Value::Null));
    for (key, theirs) in peer {
        let (Some(ours), Some(theirs)) = (line.get(key).and_then(Value::as_f64), theirs.as_f64()) else {
            continue;
        };
        line.insert(format!("peer_{key}"), json!(theirs));
        if key.ends_with("seconds") {
            line.insert(format!("ratio_{key}"), json!(theirs / ours));
        }
        if key == "tokens_per_second" {
            line.insert(format!("ratio_{key}"), json!(ours / theirs));
        }
    }
}

fn print_table(line: &Map<String, Value>) {
    let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default();
    println!("{} ({})", text("name"), text("machine"));
    for (key, value) in line.iter().filter(|(key, _)| !key.starts_with("peer") && !key.starts_with("ratio_"))
    {
        let Some(value) = value.as_f64() else { continue };
        print!("  {key:26} {value:>14.4}");
        if let Some(theirs) = line.get(&format!("peer_{key}")).and_then(Value::as_f64) {
            print!("   {} {theirs:>12.4}", text("peer"));
        }
        if let Some(ratio) = line.get(&format!("ratio_{key}")).and_then(Value::as_f64) {
            print!("   {ratio:.2} times as fast");
        }
        println!();
    }
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn the_median_of_each_name_counts() {
        let of = |name: &str, seconds: f64| line(json!({"name": name, "seconds": seconds, "peer": "torch"}));
        let found = medians(&vec![of("a", 3.0), of("b", 9.0), of("a", 1.0), of("a", 2.0)]);
        assert_eq!(found["a"], line(json!({"name": "a", "seconds": 2.0, "peer": "torch"})));
        assert_eq!(found["b"]["seconds"], json!(9.0));
    }

    #[test]
    fn twice_as_fast_is_a_ratio_of_2_for_times_and_rates() {
        let mut ours = line(json!({"name": "a", "seconds": 1.0, "tokens_per_second": 10.0, "loss": 1.0}));
        compare(
            &mut ours,
            &line(json!({"peer": "torch", "seconds": 2.0, "tokens_per_second": 5.0, "loss": 2.0})),
        );
        assert_eq!((&ours["ratio_seconds"], &ours["ratio_tokens_per_second"]), (&json!(2.0), &json!(2.0)));
        assert!(!ours.contains_key("ratio_loss"));
    }
}
