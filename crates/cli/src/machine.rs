//! What this machine is, for reports and summaries.

use anyhow::Result;
use serde_json::{Value, json};

use crate::failure::hinted;

/// Each thread needs memory for its stack; far more than cores only make a run slower.
const MOST_THREADS: usize = 4096;

/// The processor's name.
pub fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |name| name.trim().to_owned())
}

/// Refuses a number of threads that rayon would ignore, or that no machine starts in time.
///
/// # Errors
/// `RAYON_NUM_THREADS` is set to something else than a number up to 4096.
pub fn check_threads() -> Result<()> {
    let Some(asked) = std::env::var_os("RAYON_NUM_THREADS").filter(|asked| !asked.is_empty()) else {
        return Ok(());
    };
    let asked = asked.to_string_lossy();
    match asked.parse::<usize>() {
        Ok(0..=MOST_THREADS) => Ok(()),
        _ => Err(hinted(
            format!("the environment variable RAYON_NUM_THREADS is `{asked}`"),
            format!(
                "it must be a number of threads, at most {MOST_THREADS}; 0 or nothing takes one per core"
            ),
        )),
    }
}

/// Threads that the CPU backends use.
pub fn threads() -> usize {
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|&n| n > 0);
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
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
