//! `cargo xtask bench`: pieces of Temper's work, and those of PyTorch and TRL, in turns.

mod process;
mod works;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::cargo::{root, target, temper};
use works::{Ours, Work, words, works};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// One benchmark, or those whose names begin like this, instead of all
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// In turns with PyTorch and TRL, by the Python that TEMPER_PYTHON names
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

/// What the benchmarks run, and where.
struct Bench {
    temper: PathBuf,
    python: String,
    /// Models and data for the works that need them, and the runs of stages.
    models: PathBuf,
    threads: u64,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let chosen = chosen(args)?;
    let bench = Bench {
        temper: temper("flex")?,
        python: std::env::var("TEMPER_PYTHON").unwrap_or_else(|_| "python3".into()),
        models: target().join("bench"),
        threads: args.threads,
    };
    if chosen.iter().any(|work| !matches!(work.ours, Ours::Bench(_))) {
        bench.make_models()?;
    }
    let machine = format!("{}, {} threads", cpu(), args.threads);
    for work in &chosen {
        let mut ours = Lines::new();
        let mut theirs = vec![Lines::new(); work.peers.len()];
        for _ in 0..args.repeats {
            ours.extend(bench.ours_once(work)?);
            if args.peer {
                for (peer, lines) in work.peers.iter().zip(&mut theirs) {
                    lines.extend(bench.peer_once(&work.name, peer)?);
                }
            }
        }
        let theirs: Vec<_> = theirs.iter().map(medians).collect();
        for (name, line) in medians(&ours) {
            let peers: Vec<_> = theirs.iter().filter_map(|lines| lines.get(&name)).collect();
            // Without a peer, the line is printed alone.
            let compared = peers.iter().map(|peer| compared(&line, peer));
            let lines = if peers.is_empty() { vec![line.clone()] } else { compared.collect() };
            for mut line in lines {
                line.insert("machine".into(), json!(machine));
                if args.json {
                    println!("{}", Value::Object(line));
                } else {
                    print_table(&line);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The works that were asked for.
fn chosen(args: &Args) -> Result<Vec<Work>> {
    let mut works = works();
    if let Some(only) = &args.only {
        let names: Vec<String> = works.iter().map(|work| work.name.clone()).collect();
        let is_exact = names.contains(only);
        works.retain(|work| if is_exact { work.name == *only } else { work.name.starts_with(only) });
        ensure!(!works.is_empty(), "no benchmark is called `{only}`; there are {}", names.join(", "));
    }
    if args.peer {
        works.retain(|work| !work.peers.is_empty());
        ensure!(!works.is_empty(), "no program does the same as this benchmark");
    }
    Ok(works)
}

impl Bench {
    /// Models and data, unless they are there.
    fn make_models(&self) -> Result<()> {
        let mut command = Command::new(&self.python);
        command.arg(root().join("assets/peers/models.py")).arg(&self.models);
        process::run(command)
            .context("the models are made by the packages in assets/peers/requirements-bench.txt")?;
        Ok(())
    }

    /// One process of ours. The time of `notebook` is that of the whole process, from its cold start.
    fn ours_once(&self, work: &Work) -> Result<Lines> {
        match &work.ours {
            Ours::Bench(name) => {
                let finished = self.temper_with(&["bench".into(), (*name).into()])?;
                let mut lines = finished.lines;
                for line in &mut lines {
                    line.insert("peak_mib".into(), json!(finished.peak_mib));
                    if *name == "notebook" {
                        line.insert("seconds".into(), json!(finished.seconds));
                        line.insert("process_seconds".into(), json!(finished.seconds));
                    }
                }
                Ok(lines)
            }
            Ours::Command(arguments) => {
                let finished = self.temper_with(&self.placed_words(arguments))?;
                let line = json!({
                    "name": work.name, "process_seconds": finished.seconds, "peak_mib": finished.peak_mib,
                });
                Ok(vec![line.as_object().expect("an object").clone()])
            }
            Ours::Stage { arguments, before } => {
                if let Some((model, arguments)) = before {
                    let model = PathBuf::from(self.placed(model));
                    if !model.join("final").is_dir() {
                        remove(&model)?; // What an interrupted preparation left.
                        self.stage(arguments, &model)?;
                    }
                }
                let out = self.models.join("runs").join(&work.name);
                remove(&out)?;
                let finished = self.stage(arguments, &out)?;
                let mut line = step_times(&out.join("metrics.jsonl"))?;
                line.insert("name".into(), json!(work.name));
                line.insert("peak_mib".into(), json!(finished.peak_mib));
                remove(&out)?;
                Ok(vec![line])
            }
        }
    }

    fn stage(&self, arguments: &str, out: &Path) -> Result<process::Finished> {
        let mut arguments = self.placed_words(arguments);
        arguments.extend(["--out".into(), out.display().to_string()]);
        self.temper_with(&arguments)
    }

    fn temper_with(&self, arguments: &[String]) -> Result<process::Finished> {
        let mut command = Command::new(&self.temper);
        command.args(arguments).arg("--quiet").env("RAYON_NUM_THREADS", self.threads.to_string());
        process::run(command)
    }

    /// One process of a peer. Its `seconds` are its own, after the imports; `process_seconds` have them.
    fn peer_once(&self, work: &str, peer: &str) -> Result<Lines> {
        let arguments = self.placed_words(peer);
        let Some((script, arguments)) = arguments.split_first() else {
            bail!("{work}: a peer without a script")
        };
        let mut command = Command::new(&self.python);
        command.arg(root().join("assets/peers").join(script)).args(arguments);
        command.args(["--threads", &self.threads.to_string()]);
        let finished = process::run(command)
            .with_context(|| format!("{script} needs the packages in assets/peers/requirements-bench.txt"))?;
        let mut lines = finished.lines;
        for line in &mut lines {
            line.entry("name").or_insert_with(|| json!(work));
            line.insert("process_seconds".into(), json!(finished.seconds));
            line.insert("peak_mib".into(), json!(finished.peak_mib));
            if let Some(value) = line.remove("answer_seconds") {
                line.insert("generate_seconds".into(), value);
            }
        }
        Ok(lines)
    }

    /// The words of a command, each with the directory of the models in it, whatever that is called.
    fn placed_words(&self, command: &str) -> Vec<String> {
        words(command).iter().map(|word| self.placed(word)).collect()
    }

    /// The text with the directory of the models in it.
    fn placed(&self, text: &str) -> String {
        text.replace("{models}", &self.models.display().to_string())
    }
}

/// The median time of a step, from the end of one to that of the next, and of the parts of a PPO iteration. The first
/// does not count.
fn step_times(metrics: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(metrics).with_context(|| metrics.display().to_string())?;
    let lines: Lines = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let steps: Lines = lines.into_iter().filter(|line| line.contains_key("tokens_per_second")).collect();
    let column =
        |key: &str| -> Vec<f64> { steps.iter().filter_map(|line| line.get(key)?.as_f64()).collect() };
    let ends = column("time/elapsed_seconds");
    let seconds: Vec<f64> = ends.windows(2).map(|pair| pair[1] - pair[0]).collect();
    ensure!(!seconds.is_empty(), "{} has fewer than two steps", metrics.display());
    let mut times = Map::new();
    times.insert("step_seconds".into(), json!(median(seconds)));
    for part in ["rollout_seconds", "update_seconds"] {
        let seconds = column(&format!("time/{part}"));
        if seconds.len() > 1 {
            times.insert(part.into(), json!(median(seconds[1..].to_vec())));
        }
    }
    Ok(times)
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(())
}

/// The mean of the two in the middle where their number is even.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
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
            let values: Vec<f64> = same.iter().filter_map(|line| line.get(key)?.as_f64()).collect();
            let value = if values.is_empty() { value.clone() } else { json!(median(values)) };
            (key.clone(), value)
        };
        columns.insert(name.to_owned(), line.iter().map(median).collect());
    }
    columns
}

/// Our line with the numbers of a peer, how many times faster ours are, for every time that both have, and our share of its
/// memory.
fn compared(ours: &Map<String, Value>, peer: &Map<String, Value>) -> Map<String, Value> {
    let mut line = ours.clone();
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
        if key == "peak_mib" {
            line.insert("share_of_memory".into(), json!(ours / theirs));
        }
    }
    if let Some(gflops) = peer.get("matrix_gflops") {
        line.insert("peer_matrix_gflops".into(), gflops.clone());
    }
    line
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
    fn the_time_of_a_step_is_from_the_end_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let of =
            |seconds: f64| format!("{{\"tokens_per_second\": 1.0, \"time/elapsed_seconds\": {seconds}}}\n");
        let evaluation = "{\"eval_loss\": 1.0, \"time/elapsed_seconds\": 99.0}\n";
        std::fs::write(&path, [of(5.0), of(6.0), of(8.0), of(10.0), evaluation.into()].concat()).unwrap();
        assert_eq!(step_times(&path).unwrap(), line(json!({"step_seconds": 2.0})));
        std::fs::write(&path, of(5.0)).unwrap();
        assert!(step_times(&path).is_err());
    }

    #[test]
    fn twice_as_fast_is_a_ratio_of_2_for_times_and_rates() {
        let ours = line(json!({"name": "a", "seconds": 1.0, "tokens_per_second": 10.0, "loss": 1.0}));
        let theirs = line(json!({"peer": "torch", "seconds": 2.0, "tokens_per_second": 5.0, "loss": 2.0}));
        let ours = compared(&ours, &theirs);
        assert_eq!((&ours["ratio_seconds"], &ours["ratio_tokens_per_second"]), (&json!(2.0), &json!(2.0)));
        assert!(!ours.contains_key("ratio_loss"));
    }
}
