//! The report: whatever lies in a run directory is drawn, or named in an error.
//!
//! The input is cut at bytes 0xFF: metrics of PPO, metrics of SFT, `samples.jsonl`, `summary.json`, `machine.json`.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    for stage in ["ppo", "sft"] {
        fs::create_dir(dir.path().join(stage)).expect("there is room for a directory");
    }
    dir
});

const FILES: [&str; 5] =
    ["ppo/metrics.jsonl", "sft/metrics.jsonl", "samples.jsonl", "summary.json", "machine.json"];

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|&byte| byte == 0xff);
    for name in FILES {
        fs::write(DIR.path().join(name), parts.next().unwrap_or_default()).expect("there is room for a file");
    }
    if temper_report::draw(DIR.path()).is_ok() {
        let page = fs::read_to_string(DIR.path().join("report.html")).expect("the page was written");
        assert!(!page.contains("<script"), "a text of the run reached the page as it was");
    }
});
