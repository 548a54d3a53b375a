//! How files hold rows: which container a file is, and its rows with their lines.
//!
//! A container turns the bytes of a file into rows. The first one of [`CONTAINERS`] that recognises a file reads it;
//! every other file is read as JSON lines, unless it is known to be something else ([`Format`]). A new container is
//! one file, and its lines in this one.

mod directory;
mod foreign;
mod gzip;
mod json;
mod json_array;
mod json_lines;
mod lines;
mod parquet;
mod text;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use crate::error::Error;
use crate::records::Row;
use lines::{Lines, TooMuch};

pub use directory::data_files;
pub use foreign::Format;
pub(crate) use json::{kind_of, shortened};
pub use text::Separator;

/// A compressed file may unpack to this many bytes, whatever its size: …
const UNPACKED_AT_LEAST: u64 = 1 << 30;
/// … or to this many times its own size, which text that people write does not reach. A file that unpacks to more is a
/// trap or an accident, and would only fill the memory.
const LARGEST_RATIO: u64 = 100;

/// The containers that are recognised by how they begin, and plain text, which is recognised by its name.
const CONTAINERS: &[&dyn Container] =
    &[&gzip::Gzip, &text::PlainTextFile, &json_array::JsonArray, &parquet::Parquet];

/// Takes one row, with its 1-based line, or its 1-based number where a file has no lines: the row itself, or what is wrong with it. An error ends the reading.
pub(crate) type TakeRow<'t> = dyn FnMut(usize, Result<Row, Error>) -> Result<(), Error> + 't;

/// A kind of file that holds rows.
trait Container: Sync {
    /// Whether a file is of this kind, from its first bytes after a byte order mark and white space.
    fn recognises(&self, beginning: &[u8], file: &DataFile<'_>) -> bool;

    /// Gives each row to `take`. What is wrong with a single row goes to `take`, too. Returns what the file consists of,
    /// if its first bytes do not say it.
    ///
    /// # Errors
    /// What makes the rest of the file unreadable, and every error of `take`.
    fn read(&self, source: Source<'_>, take: &mut TakeRow<'_>) -> Result<Option<Content>, Error>;
}

/// The file that is read, for messages.
#[derive(Clone, Copy)]
struct DataFile<'a> {
    path: &'a Path,
    /// Its own size; `None` if the bytes do not come from a file.
    n_bytes: Option<u64>,
    /// Set while the file is being unpacked: the largest size allowed, in bytes.
    unpacking: Option<u64>,
    /// What separates the documents of a plain text.
    separator: &'a Separator,
}

impl DataFile<'_> {
    /// What a failure of the reader means for this file.
    fn failed(&self, error: io::Error) -> Error {
        let Some(limit) = self.unpacking else { return Error::io("read", self.path)(error) };
        if error.get_ref().is_some_and(|inner| inner.is::<TooMuch>()) {
            let packed = self.n_bytes.unwrap_or(0);
            return Error::UnpacksTooFar { path: self.path.to_owned(), packed, limit };
        }
        Error::io("unpack", self.path)(error)
    }
}

/// The bytes of a data file, from the current line on.
struct Source<'a> {
    file: DataFile<'a>,
    lines: Lines<Box<dyn BufRead + 'a>>,
}

/// What a file consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Text that begins a JSON object or array.
    Json,
    /// Other text, or none.
    OtherText,
    /// A table, which has no lines.
    Table,
}

impl Content {
    /// What the place of a row is.
    pub(crate) fn place_name(self) -> &'static str {
        if self == Self::Table { "row" } else { "line" }
    }
}

/// Reads a file, whatever container it is, and gives each row to `take`.
///
/// # Errors
/// [`Error::Io`], [`Error::NotAFile`], [`Error::OtherFormat`], [`Error::UnpacksTooFar`], [`Error::BrokenArray`],
/// [`Error::BrokenParquet`], and every error of `take`.
pub(crate) fn read_file(
    path: &Path,
    separator: &Separator,
    take: &mut TakeRow<'_>,
) -> Result<Content, Error> {
    let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
    if !metadata.is_file() {
        // Checked before the file is opened: a pipe that nobody writes to would never answer.
        let kind = if metadata.is_dir() { "a directory" } else { "a device, a pipe or a socket" };
        return Err(Error::NotAFile { path: path.to_owned(), kind });
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    let source = DataFile { path, n_bytes: Some(metadata.len()), unpacking: None, separator };
    read_source(source, Box::new(BufReader::new(file)), take)
}

/// As [`read_file`], from a reader; the path is used for messages, and for files that only their name gives away.
///
/// # Errors
/// Those of [`read_file`].
pub(crate) fn read_bytes(
    path: &Path,
    bytes: impl BufRead,
    separator: &Separator,
    take: &mut TakeRow<'_>,
) -> Result<Content, Error> {
    read_source(DataFile { path, n_bytes: None, unpacking: None, separator }, Box::new(bytes), take)
}

fn read_source<'a>(
    file: DataFile<'a>,
    bytes: Box<dyn BufRead + 'a>,
    take: &mut TakeRow<'_>,
) -> Result<Content, Error> {
    let mut source = Source { file, lines: Lines::new(bytes) };
    let beginning = source.lines.beginning().map_err(|error| file.failed(error))?;
    let is_json = beginning.first().is_some_and(|byte| matches!(byte, b'{' | b'['));
    let content = if is_json { Content::Json } else { Content::OtherText };
    if let Some(container) = CONTAINERS.iter().find(|container| container.recognises(beginning, &file)) {
        return Ok(container.read(source, take)?.unwrap_or(content));
    }
    if let Some(format) = Format::of_bytes(&beginning[..beginning.len().min(Format::N_BYTES)], file.path) {
        return Err(Error::OtherFormat { path: file.path.to_owned(), format });
    }
    json_lines::JsonLines.read(source, take)?;
    Ok(content)
}
