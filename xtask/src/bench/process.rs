//! One process that is timed, with its highest memory.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

/// How often the memory of a process is read. Its system remembers the highest, so little is missed.
const INTERVAL: Duration = Duration::from_millis(20);

/// What a process printed, and what it took.
pub struct Finished {
    /// Each line of its output.
    pub lines: Vec<Map<String, Value>>,
    pub seconds: f64,
    /// The highest memory in MiB, where the system tells.
    pub peak_mib: Option<f64>,
}

/// Runs a process, whose output is one JSON object for each line.
pub fn run(mut command: Command) -> Result<Finished> {
    let program = command.get_program().to_string_lossy().into_owned();
    let began = Instant::now();
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {program}"))?;
    let (peak, text) = std::thread::scope(|scope| {
        let output = child.stdout.take().expect("it is piped");
        let reader = scope.spawn(|| std::io::read_to_string(output));
        let peak = watch(&mut child);
        (peak, reader.join().expect("reading does not panic"))
    });
    let peak_kib = peak?;
    let seconds = began.elapsed().as_secs_f64();
    let status = child.wait()?;
    ensure!(status.success(), "{program} failed: {status}");
    let text = text.with_context(|| format!("{program} printed no UTF-8"))?;
    let parse =
        |line: &str| serde_json::from_str(line).with_context(|| format!("{program} printed `{line}`"));
    let lines = text.lines().map(parse).collect::<Result<_>>()?;
    Ok(Finished { lines, seconds, peak_mib: peak_kib.map(|kib| kib as f64 / 1024.0) })
}

/// Waits for the process, and returns the highest memory that was seen, in KiB.
fn watch(child: &mut Child) -> Result<Option<u64>> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    while child.try_wait()?.is_none() {
        peak = peak.max(peak_kib(Path::new(&status)));
        std::thread::sleep(INTERVAL);
    }
    Ok(peak)
}

fn peak_kib(status: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn lines_time_and_memory_of_a_process_are_told() {
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 30000 ]; do i=$((i + 1)); done; echo '{\"name\": \"a\"}'"]);
        let finished = run(command).unwrap();
        assert_eq!(finished.lines[0]["name"], "a");
        assert!(finished.seconds > 0.0 && finished.peak_mib.is_none_or(|mib| mib > 0.1));
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        assert!(run(command).is_err());
    }
}
