//! `metrics.jsonl`: one JSON object a line, only ever appended to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, one_line};
use crate::rows::kind_of;

/// The key that every line has: the number of updates that were finished when it was written.
pub const STEP_KEY: &str = "step";

/// Whether a key of a line holds what the clock says. These keys, and no others, differ between a run that was
/// stopped and resumed and one that was not.
pub fn is_timing(key: &str) -> bool {
    key.starts_with("time/") || key == "tokens_per_second" || key == "eps"
}

/// Appends lines to a metrics file; each reaches the file in one write, so only the last one can ever be
/// torn.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
    lines: usize,
}

impl MetricsWriter {
    /// Starts an empty file, in place of one that may be there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be created.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(Error::io("create", path))?;
        Ok(Self { path: path.to_owned(), file, lines: 0 })
    }

    /// Goes on with a file after a resume: keeps the first `lines` lines, which a checkpoint promises, and cuts what
    /// was logged after it, so that the file becomes that of a run without an interruption.
    ///
    /// # Errors
    ///
    /// [`Error::MetricsLost`] if there are not so many whole lines, and then nothing is cut; [`Error::Io`] if it
    /// cannot be read or written.
    pub fn append_after(path: &Path, lines: usize) -> Result<Self, Error> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result.map_err(Error::io("read", path))?,
        };
        let whole = bytes.split_inclusive(|&byte| byte == b'\n').take_while(|line| is_whole(line));
        let whole: Vec<usize> = whole.take(lines).map(<[u8]>::len).collect();
        if whole.len() < lines {
            let path = path.to_owned();
            return Err(Error::MetricsLost { path, found: whole.len(), expected: lines });
        }
        let kept: usize = whole.iter().sum();
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open", path))?;
        file.set_len(kept as u64).map_err(Error::io("shorten", path))?;
        file.seek(io::SeekFrom::End(0)).map_err(Error::io("open", path))?;
        Ok(Self { path: path.to_owned(), file, lines })
    }

    /// Leaves a file as it is, that of a run which is finished.
    pub(crate) fn at_the_end(path: &Path) -> Result<Self, Error> {
        let file =
            OpenOptions::new().append(true).create(true).open(path).map_err(Error::io("open", path))?;
        Ok(Self { path: path.to_owned(), file, lines: 0 })
    }

    /// Lines in the file, as far as a resume counted them.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Appends one line.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written.
    pub fn append(&mut self, metrics: &Map<String, Value>) -> Result<(), Error> {
        let line = format!("{}\n", Value::Object(metrics.clone()));
        self.file.write_all(line.as_bytes()).map_err(Error::io("append to", &self.path))?;
        self.lines += 1;
        Ok(())
    }

    /// Waits until everything is on the disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("flush", &self.path))
    }
}

/// Reads a metrics file. A torn last line, which a run that was killed may leave, is left out.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be read; [`Error::BrokenJson`] or [`Error::NotAnObject`] for any other bad
/// line.
pub fn read_metrics(path: &Path) -> Result<Vec<Map<String, Value>>, Error> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let mut rows = Vec::new();
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() || !line.ends_with(b"\n") {
            continue;
        }
        let (path, line_number) = (path.to_owned(), index + 1);
        match serde_json::from_slice(line) {
            Ok(Value::Object(row)) => rows.push(row),
            Ok(other) => return Err(Error::NotAnObject { path, line: line_number, found: kind_of(&other) }),
            Err(error) => {
                let message = one_line(&error.to_string());
                return Err(Error::BrokenJson { path, line: line_number, column: error.column(), message });
            }
        }
    }
    Ok(rows)
}

fn is_whole(line: &[u8]) -> bool {
    line.ends_with(b"\n") && serde_json::from_slice::<Map<String, Value>>(line).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(step: usize) -> Map<String, Value> {
        json!({"step": step, "loss": 1.0 / step as f64}).as_object().unwrap().clone()
    }

    #[test]
    fn a_resumed_file_equals_an_uninterrupted_one() {
        let dir = tempfile::tempdir().unwrap();
        let [whole, resumed] = ["whole", "resumed"].map(|name| dir.path().join(name));
        let mut writer = MetricsWriter::create(&whole).unwrap();
        (1..=9).for_each(|step| writer.append(&row(step)).unwrap());

        let mut writer = MetricsWriter::create(&resumed).unwrap();
        (1..=7).for_each(|step| writer.append(&row(step)).unwrap());
        writer.file.write_all(b"{\"step\":8,\"lo").unwrap();
        let mut writer = MetricsWriter::append_after(&resumed, 4).unwrap();
        (5..=9).for_each(|step| writer.append(&row(step)).unwrap());
        assert_eq!(fs::read(whole).unwrap(), fs::read(resumed).unwrap());
    }

    #[test]
    fn a_torn_line_is_cut_and_a_lost_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let torn = "{\"step\":1}\n{\"step\":2}";
        fs::write(&path, torn).unwrap();
        assert_eq!(read_metrics(&path).unwrap().len(), 1);
        let error = MetricsWriter::append_after(&path, 2).unwrap_err();
        assert!(matches!(error, Error::MetricsLost { found: 1, expected: 2, .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), torn);
        let mut writer = MetricsWriter::append_after(&path, 1).unwrap();
        writer.append(&row(2)).unwrap();
        assert_eq!(writer.lines(), 2);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":2,\"loss\":0.5}\n");
        assert_eq!(read_metrics(&path).unwrap(), [json!({"step": 1}).as_object().unwrap().clone(), row(2)]);
    }

    #[test]
    fn a_missing_file_starts_empty_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        MetricsWriter::append_after(&path, 0).unwrap();
        assert!(read_metrics(&path).unwrap().is_empty());
        fs::write(&path, "{\"step\":1}\n{]\n").unwrap();
        let message = read_metrics(&path).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl:2: broken JSON"), "{message}");
        assert!(MetricsWriter::create(dir.path()).is_err());
    }
}
