//! `metrics.jsonl`: one JSON object a line, only ever appended to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, one_line};
use crate::rows::kind_of;

/// The key that every line has: the number of updates that were finished when it was written.
pub const STEP_KEY: &str = "step";

/// Appends lines to a metrics file; each reaches the file in one write, so only the last one can ever be
/// torn.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// Starts an empty file, in place of one that may be there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be created.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(Error::io("create", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Goes on with a file after a resume: cuts everything from the first line that is torn or of a later
    /// step than
    /// `step`, so that the file becomes that of a run without an interruption. A missing file starts empty.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read or written.
    pub fn append_after(path: &Path, step: usize) -> Result<Self, Error> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result.map_err(Error::io("read", path))?,
        };
        let lines = bytes.split_inclusive(|&byte| byte == b'\n');
        let kept: usize = lines.take_while(|line| is_at_most(line, step)).map(<[u8]>::len).sum();
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(Error::io("open", path))?;
        file.set_len(kept as u64).map_err(Error::io("shorten", path))?;
        file.seek(io::SeekFrom::End(0)).map_err(Error::io("open", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Appends one line.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be written.
    pub fn append(&mut self, metrics: &Map<String, Value>) -> Result<(), Error> {
        let line = format!("{}\n", Value::Object(metrics.clone()));
        self.file.write_all(line.as_bytes()).map_err(Error::io("append to", &self.path))
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

fn is_at_most(line: &[u8], step: usize) -> bool {
    let row =
        line.ends_with(b"\n").then(|| serde_json::from_slice::<Map<String, Value>>(line).ok()).flatten();
    let found = row.and_then(|row| row.get(STEP_KEY)?.as_u64());
    found.is_some_and(|found| found <= step as u64)
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
    fn a_torn_line_is_cut_even_where_its_step_would_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":1}\n{\"step\":2}").unwrap();
        assert_eq!(read_metrics(&path).unwrap().len(), 1);
        let mut writer = MetricsWriter::append_after(&path, 2).unwrap();
        writer.append(&row(2)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":2,\"loss\":0.5}\n");
        assert_eq!(read_metrics(&path).unwrap(), [json!({"step": 1}).as_object().unwrap().clone(), row(2)]);
    }

    #[test]
    fn a_missing_file_starts_empty_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        MetricsWriter::append_after(&path, 3).unwrap();
        assert!(read_metrics(&path).unwrap().is_empty());
        fs::write(&path, "{\"step\":1}\n{]\n").unwrap();
        let message = read_metrics(&path).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl:2: broken JSON"), "{message}");
        assert!(MetricsWriter::create(dir.path()).is_err());
    }
}
