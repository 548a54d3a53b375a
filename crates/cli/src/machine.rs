//! What this machine is, for reports and summaries, and how many of its threads are used.

use std::env;

use anyhow::Result;
use serde_json::{Value, json};

use crate::failure::hinted;

/// Names the number of threads. The name is that of `rayon`, by which the CPU backends compute.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";
/// More than any machine has; starting many more takes seconds, and the system may refuse.
const MAX_THREADS: usize = 1024;

/// Starts the threads that the CPU backends compute with: `RAYON_NUM_THREADS` of them, or one for each core.
///
/// # Errors
/// A value that is not a number of threads.
pub fn start_threads() -> Result<()> {
    let wanted = match env::var_os(THREADS_VARIABLE) {
        None => 0,
        Some(text) if text.is_empty() => 0,
        Some(text) => {
            let number = text.to_str().and_then(|text| text.parse().ok()).filter(|&n| n <= MAX_THREADS);
            number.ok_or_else(|| {
                hinted(
                    format!(
                        "the environment variable {THREADS_VARIABLE} must be a whole number up to {MAX_THREADS}, got `{}`",
                        text.to_string_lossy()
                    ),
                    "unset it for one thread per core",
                )
            })?
        }
    };
    let wanted = if wanted == 0 { n_cores().min(MAX_THREADS) } else { wanted };
    let started = temper_tensor::start_threads(wanted);
    if started < wanted {
        tracing::warn!("the system gives no more than {started} of {wanted} threads");
    }
    Ok(())
}

fn n_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The processor's name.
pub fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |name| name.trim().to_owned())
}

/// Threads that the CPU backends use.
pub fn threads() -> usize {
    temper_tensor::n_threads()
}

/// Highest memory use of this process so far, in bytes; 0 where the system does not tell.
pub fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
    kib.map_or(0, |kib: u64| kib * 1024)
}

/// All of it, for `machine.json`.
pub fn describe(backend: &str) -> Value {
    json!({
        "cpu": cpu(),
        "threads": threads(),
        "os": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "backend": backend,
        "temper": env!("CARGO_PKG_VERSION"),
    })
}
