//! `metrics.jsonl` and `samples.jsonl`: one JSON object a line, only ever appended to.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, one_line};
use crate::files::write_file;

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
    /// Opened, and cut, when the first line is written or everything is flushed.
    file: Option<File>,
    /// Bytes of the file that stay when it is opened.
    kept_len: Option<u64>,
    lines: usize,
}

/// Whether the file is still the one that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InPlace {
    Yes,
    /// It had been removed, and was written again.
    Restored,
}

impl MetricsWriter {
    /// Starts an empty file, in place of one that may be there.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be created, or something else than a file has its name.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let mut writer = Self::create_later(path);
        writer.open()?;
        Ok(writer)
    }

    /// Starts an empty file with the first line, in place of one that may be there then.
    pub(crate) fn create_later(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, kept_len: Some(0), lines: 0 }
    }

    /// Goes on with a file after a resume: keeps the first `lines` lines, which a checkpoint promises, and cuts what
    /// was logged after it, so that the file becomes that of a run without an interruption.
    ///
    /// # Errors
    ///
    /// [`Error::MetricsLost`] if there are not so many whole lines, and then nothing is cut; [`Error::Io`] if it
    /// cannot be read or written.
    pub fn append_after(path: &Path, lines: usize) -> Result<Self, Error> {
        let (mut writer, _) = Self::resume_after(path, lines)?;
        writer.open()?;
        Ok(writer)
    }

    /// [`MetricsWriter::append_after`] that leaves the file as it is until the first line is written, with the last
    /// line that stays: a run may still be refused.
    pub(crate) fn resume_after(
        path: &Path,
        lines: usize,
    ) -> Result<(Self, Option<Map<String, Value>>), Error> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            result => result.map_err(Error::io("read", path))?,
        };
        let (mut kept_len, mut found, mut last) = (0, 0, None);
        for line in bytes.split_inclusive(|&byte| byte == b'\n').take(lines) {
            let Some(row) = whole_row(line) else { break };
            (kept_len, found, last) = (kept_len + line.len() as u64, found + 1, Some(row));
        }
        let path = path.to_owned();
        if found < lines {
            return Err(Error::MetricsLost { path, found, expected: lines });
        }
        Ok((Self { path, file: None, kept_len: Some(kept_len), lines }, last))
    }

    /// Leaves a file as it is, that of a run which is finished.
    pub(crate) fn at_the_end(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, kept_len: None, lines: 0 }
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
        self.open()?.write_all(line.as_bytes()).map_err(Error::io("append to", &self.path))?;
        self.lines += 1;
        Ok(())
    }

    /// Waits until everything is on the disk.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        self.open()?.sync_all().map_err(Error::io("flush", &self.path))
    }

    /// The same for a file that may have no line: one that nobody has begun stays away.
    pub(crate) fn sync_if_there(&mut self) -> Result<(), Error> {
        if self.lines > 0 || self.path.exists() { self.sync() } else { Ok(()) }
    }

    /// Looks whether the file is still where it was. One that was removed is written again, from the lines that the
    /// open file still has.
    ///
    /// # Errors
    ///
    /// [`Error::MetricsReplaced`] if something else has its name; the lines are then saved next to it.
    /// [`Error::Io`] if they cannot be written.
    pub(crate) fn restore_if_removed(&mut self) -> Result<InPlace, Error> {
        let Some(file) = &mut self.file else { return Ok(InPlace::Yes) };
        match fs::symlink_metadata(&self.path) {
            Ok(there) if is_same_file(file, &there) => Ok(InPlace::Yes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write_file(&self.path, &content(file).map_err(Error::io("read", &self.path))?)?;
                (self.file, self.kept_len) = (None, None);
                Ok(InPlace::Restored)
            }
            _ => {
                let saved = self.path.with_extension("saved.jsonl");
                let written = match content(file) {
                    Ok(lines) if fs::symlink_metadata(&saved).is_err() => write_file(&saved, &lines).is_ok(),
                    _ => false,
                };
                Err(Error::MetricsReplaced { path: self.path.clone(), saved: written.then_some(saved) })
            }
        }
    }

    /// The file, opened at its end; what is not to stay is cut. A link is not followed: it is not ours.
    fn open(&mut self) -> Result<&mut File, Error> {
        if self.file.is_none() {
            let path = self.path.as_path();
            if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
                let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
                return Err(Error::Io { action: "open", path: path.to_owned(), source });
            }
            let mut options = OpenOptions::new();
            options.create(true).read(true).write(true).truncate(false);
            let mut file = options.open(path).map_err(Error::io("open", path))?;
            if let Some(len) = self.kept_len {
                file.set_len(len).map_err(Error::io("shorten", path))?;
            }
            file.seek(io::SeekFrom::End(0)).map_err(Error::io("open", path))?;
            self.file = Some(file);
        }
        Ok(self.file.as_mut().expect("it was just opened"))
    }
}

/// All lines of an open file, which may have lost its name.
fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(io::SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// By its number; or by its length, since some network file systems give one file several numbers. A copy of the same
/// length is found out after the next line.
#[cfg(unix)]
fn is_same_file(file: &File, there: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|ours| {
        (ours.dev(), ours.ino()) == (there.dev(), there.ino())
            || (there.is_file() && ours.len() == there.len())
    })
}

#[cfg(not(unix))]
fn is_same_file(_: &File, there: &fs::Metadata) -> bool {
    there.is_file()
}

/// Reads a metrics file. A torn last line, which a run that was killed may leave, is left out.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be read; [`Error::BrokenJson`] for any other bad
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
            Ok(row) => rows.push(row),
            Err(error) => {
                let message = one_line(&error.to_string());
                return Err(Error::BrokenJson { path, line: line_number, column: error.column(), message });
            }
        }
    }
    Ok(rows)
}

/// The last value of each key that has had one, but for those of the clock.
pub(crate) fn last_values(rows: &[Map<String, Value>]) -> BTreeMap<String, f64> {
    let values = rows.iter().flatten().filter(|(key, _)| !is_timing(key));
    values.filter_map(|(key, value)| Some((key.clone(), value.as_f64()?))).collect()
}

fn whole_row(line: &[u8]) -> Option<Map<String, Value>> {
    line.ends_with(b"\n").then(|| serde_json::from_slice(line).ok()).flatten()
}

/// A struct or a map as a line of a file, with the step before all else.
pub(crate) fn line_of(step: usize, row: &impl Serialize) -> Result<Map<String, Value>, Error> {
    let bad = |message: String| Error::BadMetrics { step, message: one_line(&message) };
    // By way of text, which keeps `f32` values short.
    let text = serde_json::to_string(row).map_err(|error| bad(error.to_string()))?;
    let row: Map<String, Value> = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let mut line = Map::new();
    line.insert(STEP_KEY.to_owned(), step.into());
    line.extend(row.into_iter().filter(|(key, _)| key != STEP_KEY));
    Ok(line)
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
        writer.open().unwrap().write_all(b"{\"step\":8,\"lo").unwrap();
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

    #[test]
    fn a_file_that_is_resumed_stays_as_it_is_until_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let whole = "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n";
        fs::write(&path, whole).unwrap();
        let (mut writer, last) = MetricsWriter::resume_after(&path, 2).unwrap();
        assert_eq!(last, json!({"step": 2}).as_object().cloned());
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        writer.append(json!({"step": 9}).as_object().unwrap()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":2}\n{\"step\":9}\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let [path, victim] = ["metrics.jsonl", "victim"].map(|name| dir.path().join(name));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let error = MetricsWriter::create(&path).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl: it is not a regular file"), "{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_removed_is_written_again_and_one_that_is_replaced_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::create(&path).unwrap();
        writer.append(&row(1)).unwrap();
        assert_eq!(writer.restore_if_removed().unwrap(), InPlace::Yes);
        fs::remove_file(&path).unwrap();
        assert_eq!(writer.restore_if_removed().unwrap(), InPlace::Restored);
        writer.append(&row(2)).unwrap();
        assert_eq!(read_metrics(&path).unwrap(), [row(1), row(2)]);

        fs::remove_file(&path).unwrap();
        fs::write(&path, "a letter").unwrap();
        let error = writer.restore_if_removed().unwrap_err();
        let Error::MetricsReplaced { saved: Some(saved), .. } = &error else { panic!("{error}") };
        assert_eq!(read_metrics(saved).unwrap(), [row(1), row(2)]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "a letter");
    }
}
