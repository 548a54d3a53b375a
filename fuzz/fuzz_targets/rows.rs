//! Data files: any bytes as JSON lines, as a JSON array or as gzip give rows or an error.
//!
//! The first byte chooses the kind of row and what happens to bad ones; the rest is the file.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use temper_data::{BadRows, Comparison, Demonstration, PromptRow, read_rows};
use tempfile::TempDir;

static DIR: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("there is room for a file"));

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let path: PathBuf = DIR.path().join("rows.jsonl");
    fs::write(&path, bytes).expect("there is room for a file");
    let policy = if choice & 1 == 0 { BadRows::Refuse } else { BadRows::Skip };
    let last_line = bytes.len() + 1;
    match choice >> 1 & 3 {
        0 => {
            if let Ok(rows) = read_rows::<Demonstration>(&[&path], policy) {
                let fine =
                    |row: &Demonstration| !row.prompt.trim().is_empty() && !row.completion.trim().is_empty();
                assert!(rows.records.iter().all(fine) && rows.places.iter().all(|place| place.line > 0));
            }
        }
        1 => {
            if let Ok(rows) = read_rows::<Comparison>(&[&path], policy) {
                let fine = |row: &Comparison| {
                    row.completions.len() == row.scores.len()
                        && row.completions.len() > 1
                        && row.scores.iter().all(|score| score.is_finite())
                };
                assert!(rows.records.iter().all(fine));
            }
        }
        _ => {
            // gzip may hold more lines than it has bytes.
            if let Ok(rows) = read_rows::<Prompt>(&[&path], policy)
                && !bytes.starts_with(&[0x1f, 0x8b])
            {
                assert!(rows.places.iter().all(|place| place.line <= last_line));
            }
        }
    }
});
