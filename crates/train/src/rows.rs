//! Rows of data files: JSON lines or a JSON array, plain or gzipped, with the line of every row.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::columns::column_advice;
use crate::error::{Error, one_line};
use crate::format::Format;
use crate::lines::{LONGEST_ROW, Limited, Line, Lines, TooLong, TooMuch, each_element, newlines};

/// What to do with a row that is not what it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadRows {
    /// Fail, naming the first one.
    #[default]
    Refuse,
    /// Leave it out and count it.
    Skip,
}

/// The rows of one file.
#[derive(Clone, Debug)]
pub struct Rows<T> {
    /// Each row with its 1-based line.
    pub rows: Vec<(usize, T)>,
    /// How many bad rows were left out.
    pub skipped: usize,
    /// What is wrong with the first of these, with its place.
    pub first_skipped: Option<String>,
}

/// The rows of several files.
#[derive(Clone, Debug)]
pub struct AllRows<T> {
    /// Each row with the place that it came from.
    pub rows: Vec<(Place, T)>,
    /// How many bad rows were left out, of all files together.
    pub skipped: usize,
    /// Each file, in the order given.
    pub files: Vec<FileRows>,
}

/// How many rows one of several files gave.
#[derive(Clone, Debug)]
pub struct FileRows {
    /// The data file.
    pub path: Arc<Path>,
    /// Rows that were read.
    pub n_rows: usize,
    /// Bad rows that were left out.
    pub skipped: usize,
    /// What is wrong with the first of these, with its place.
    pub first_skipped: Option<String>,
}

/// Where a row stands, for messages: `path:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The data file.
    pub path: Arc<Path>,
    /// 1-based line.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// A gzipped file may unpack to this many bytes, whatever its size: …
const UNPACKED_AT_LEAST: u64 = 1 << 30;
/// … or to this many times its own, which no text of people reaches. More is a trap or an accident, and would
/// only fill the memory.
const MOST_PACKED: u64 = 100;
/// How many columns of a row a message lists.
const COLUMNS_LISTED: usize = 20;

/// Reads one file. A first byte `[` makes it an array, anything else JSON lines; gzip is recognised by its
/// content. Blank lines, a byte order mark and CRLF are fine.
///
/// JSON lines are read one after the other, so that only the rows themselves take memory; an array is read as a
/// whole.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read or unpacked, [`Error::NotAFile`] for a directory, a device or a pipe,
/// [`Error::OtherFormat`] for a file that is something else, [`Error::UnpacksTooFar`] for gzip without end,
/// [`Error::NoRows`] if nothing is in it, [`Error::NoGoodRow`] if none of its rows can be used, and
/// [`Error::BrokenArray`] for an array that is not JSON. By [`BadRows::Refuse`] also the first bad row:
/// [`Error::InvalidUtf8`], [`Error::BrokenJson`], [`Error::NotAnObject`] or [`Error::BadRow`].
pub fn read_rows<T: DeserializeOwned>(path: &Path, policy: BadRows) -> Result<Rows<T>, Error> {
    const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
    let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
    if !metadata.is_file() {
        // Checked before it is opened: a pipe that nobody writes to would never answer.
        let kind = if metadata.is_dir() { "a directory" } else { "a device, a pipe or a socket" };
        return Err(Error::NotAFile { path: path.to_owned(), kind });
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut file = BufReader::new(file);
    if !file.fill_buf().map_err(Error::io("read", path))?.starts_with(&GZIP_MAGIC) {
        return parse_rows(path, file, policy, |error| Error::io("read", path)(error));
    }
    let packed = metadata.len();
    let limit = UNPACKED_AT_LEAST.max(MOST_PACKED.saturating_mul(packed));
    let unpacked = Limited::new(flate2::bufread::MultiGzDecoder::new(file), limit);
    parse_rows(path, BufReader::new(unpacked), policy, |error| {
        if error.get_ref().is_some_and(|inner| inner.is::<TooMuch>()) {
            return Error::UnpacksTooFar { path: path.to_owned(), packed, limit };
        }
        Error::io("unpack", path)(error)
    })
}

/// Reads several files, one after the other.
///
/// # Errors
///
/// Those of [`read_rows`].
pub fn read_all<T: DeserializeOwned>(
    paths: &[impl AsRef<Path>],
    policy: BadRows,
) -> Result<AllRows<T>, Error> {
    let mut all = AllRows { rows: Vec::new(), skipped: 0, files: Vec::new() };
    for path in paths {
        let path: Arc<Path> = path.as_ref().into();
        let Rows { rows, skipped, first_skipped } = read_rows(&path, policy)?;
        all.skipped += skipped;
        all.files.push(FileRows { path: path.clone(), n_rows: rows.len(), skipped, first_skipped });
        all.rows.extend(rows.into_iter().map(|(line, row)| (Place { path: path.clone(), line }, row)));
    }
    Ok(all)
}

/// The rows of a reader; `failed` makes an error of one that the reader gives.
fn parse_rows<T: DeserializeOwned>(
    path: &Path,
    mut reader: impl BufRead,
    policy: BadRows,
    failed: impl Fn(io::Error) -> Error,
) -> Result<Rows<T>, Error> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let beginning = reader.fill_buf().map_err(&failed)?;
    if let Some(format) = Format::of_bytes(&beginning[..beginning.len().min(Format::N_BYTES)], path) {
        return Err(Error::OtherFormat { path: path.to_owned(), format });
    }
    if beginning.starts_with(BYTE_ORDER_MARK) {
        reader.consume(BYTE_ORDER_MARK.len());
    }
    let mut lines = Lines::new(reader);
    let first_byte = lines.skip_white_space().map_err(&failed)?;
    let mut found = Found { path, policy, rows: Vec::new(), n_bad: 0, first_bad: None };
    if first_byte == Some(b'[') {
        let mut bytes = Vec::new();
        let line = lines.rest(&mut bytes).map_err(&failed)?;
        // After this check the elements are well-formed JSON.
        serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|error| broken_array(path, line, &error))?;
        each_element(&bytes, line, |line, piece| found.take(line, Ok(piece)))?;
    } else {
        while let Some((line, piece)) = lines.next().map_err(&failed)? {
            found.take(line, piece)?;
        }
    }
    found.finish(first_byte)
}

/// What is wrong with a row.
struct Bad {
    error: Box<Error>,
    /// The columns of the row, where it has any.
    columns: Vec<String>,
}

impl From<Error> for Bad {
    fn from(error: Error) -> Self {
        Self { error: Box::new(error), columns: Vec::new() }
    }
}

/// What was read of one file so far.
struct Found<'p, T> {
    path: &'p Path,
    policy: BadRows,
    rows: Vec<(usize, T)>,
    n_bad: usize,
    /// The first bad row.
    first_bad: Option<Bad>,
}

impl<T: DeserializeOwned> Found<'_, T> {
    /// Takes in one row.
    ///
    /// A bad one before any good one is kept in mind until a good one follows: where there is none, the whole file is
    /// of another kind, and skipping rows would not help.
    fn take(&mut self, line: usize, piece: Line<'_>) -> Result<(), Error> {
        let parsed = match piece {
            Ok(piece) => parse_row(self.path, line, piece),
            Err(TooLong) => {
                let message = format!("the line has more than {} MiB", LONGEST_ROW >> 20);
                Err(Bad::from(Error::BadRow { path: self.path.to_owned(), line, message }))
            }
        };
        match parsed {
            Ok(row) => self.rows.push((line, row)),
            Err(bad) => {
                tracing::debug!("bad row: {}", bad.error);
                self.n_bad += 1;
                self.first_bad.get_or_insert(bad);
            }
        }
        if self.policy == BadRows::Refuse
            && !self.rows.is_empty()
            && let Some(bad) = self.first_bad.take()
        {
            return Err(*bad.error);
        }
        Ok(())
    }

    fn finish(self, first_byte: Option<u8>) -> Result<Rows<T>, Error> {
        let path = self.path.to_owned();
        if !self.rows.is_empty() {
            let first_skipped = self.first_bad.map(|bad| bad.error.to_string());
            return Ok(Rows { rows: self.rows, skipped: self.n_bad, first_skipped });
        }
        let Some(Bad { error: first, columns }) = self.first_bad else { return Err(Error::NoRows { path }) };
        let is_json = first_byte.is_some_and(|byte| matches!(byte, b'{' | b'['));
        if let Some(format) = Format::of_name(&path)
            && !is_json
        {
            return Err(Error::OtherFormat { path, format });
        }
        let advice = match &*first {
            Error::InvalidUtf8 { .. } => "save the file as UTF-8".into(),
            Error::BrokenJson { .. } if is_json => {
                "each line must be one whole JSON object; objects that span several lines must be in a JSON array"
                    .into()
            }
            Error::BrokenJson { .. } | Error::NotAnObject { .. } => {
                "each line must be one JSON object, such as {\"prompt\": \"…\", \"completion\": \"…\"}".into()
            }
            Error::BadRow { message, .. } => column_advice(message, &columns),
            _ => "fix the rows of the file".into(),
        };
        Err(Error::NoGoodRow { first, n_rows: self.n_bad, advice })
    }
}

/// The columns of a row, each of which is there once.
struct Columns(Map<String, Value>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if columns.contains_key(&name) {
                        return Err(A::Error::custom(format!(
                            "column `{}` is there twice",
                            shortened(&name)
                        )));
                    }
                    columns.insert(name, value);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// A row, or what is wrong with it.
fn parse_row<T: DeserializeOwned>(path: &Path, line: usize, bytes: &[u8]) -> Result<T, Bad> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line + newlines(&bytes[..error.valid_up_to()]);
        Error::InvalidUtf8 { path: path.to_owned(), line }
    })?;
    let bad = |message: String| Error::BadRow { path: path.to_owned(), line, message };
    if !text.starts_with('{') {
        let error = match serde_json::from_str::<Value>(text) {
            Ok(value) => Error::NotAnObject { path: path.to_owned(), line, found: kind_of(&value) },
            Err(error) => broken_json(path, line, &error),
        };
        return Err(error.into());
    }
    let Columns(row) = serde_json::from_str(text).map_err(|error| {
        if error.is_data() { bad(without_place(&error)) } else { broken_json(path, line, &error) }
    })?;
    let columns: Vec<String> = row.keys().cloned().collect();
    serde_json::from_value(Value::Object(row)).map_err(|error| {
        let mut message = one_line(&error.to_string());
        if message.starts_with("missing") {
            message += &if columns.is_empty() {
                "; the row is empty".into()
            } else {
                format!("; the row has {}", listed(&columns))
            };
        }
        Bad { error: Box::new(bad(message)), columns }
    })
}

/// The names of columns, as many as one line should hold.
fn listed(columns: &[String]) -> String {
    let names = columns.iter().take(COLUMNS_LISTED).map(|column| format!("`{}`", shortened(column)));
    let names = names.collect::<Vec<_>>().join(", ");
    match columns.len().saturating_sub(COLUMNS_LISTED) {
        0 => names,
        others => format!("{names} and {others} more"),
    }
}

/// The beginning of a name that may be anything.
fn shortened(name: &str) -> String {
    const N_CHARS: usize = 60;
    match name.char_indices().nth(N_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// What a JSON value is, in words.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// What the JSON parser says, without the place, which it counts from the row.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    one_line(message.split(" at line ").next().unwrap_or(&message))
}

fn broken_json(path: &Path, first_line: usize, error: &serde_json::Error) -> Error {
    Error::BrokenJson {
        path: path.to_owned(),
        line: first_line + error.line().saturating_sub(1),
        column: error.column(),
        message: without_place(error),
    }
}

/// The same of a whole array, or what a file of text is that begins with a bracket.
fn broken_array(path: &Path, first_line: usize, error: &serde_json::Error) -> Error {
    let path = path.to_owned();
    if let Some(format) = Format::of_name(&path) {
        return Error::OtherFormat { path, format };
    }
    let line = first_line + error.line().saturating_sub(1);
    Error::BrokenArray { path, line, column: error.column(), message: without_place(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::io::{Read, Write};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        a: u32,
    }

    fn parse(bytes: &[u8], policy: BadRows) -> Result<Rows<Row>, Error> {
        parse_named("f", bytes, policy)
    }

    fn parse_named(name: &str, bytes: &[u8], policy: BadRows) -> Result<Rows<Row>, Error> {
        let path = Path::new(name);
        parse_rows(path, bytes, policy, |error| Error::io("read", path)(error))
    }

    fn check(bytes: &[u8], expected: &[(usize, u32)]) {
        let rows = parse(bytes, BadRows::Refuse).unwrap();
        let got: Vec<_> = rows.rows.iter().map(|(line, row)| (*line, row.a)).collect();
        assert_eq!(got, expected);
    }

    fn check_error(bytes: &[u8], expected: &str) {
        let message = parse(bytes, BadRows::Refuse).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message:?}, expected {expected:?}");
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn lines_and_arrays_are_read_with_their_lines() {
        check(b"{\"a\":1}\n{\"a\":2}", &[(1, 1), (2, 2)]);
        check(b"\xef\xbb\xbf{\"a\":1}\r\n\r\n  \n{\"a\":2,\"b\":[]}\r\n", &[(1, 1), (4, 2)]);
        check(
            b"\n [ {\"a\":1},\n{\n\"a\":2, \"b\":\"],[\\\"\\\\\"},{\"a\":3}\n]\n",
            &[(2, 1), (3, 2), (4, 3)],
        );
        check(b"\xef\xbb\xbf[{\"a\":1}]", &[(1, 1)]);
    }

    #[test]
    fn bad_files_are_refused_with_their_line() {
        check_error(b"", "f: no rows");
        check_error(b"\n \n", "f: no rows");
        check_error(b"[ ]", "f: no rows");
        check_error(b"{\"a\":1}\n{\"a\":", "f:2: broken JSON: EOF while parsing a value");
        check_error(b"{\"a\":1}\n\xff\n", "f:2: not valid UTF-8");
        check_error(b"{\"a\":1}\n7", "f:2: expected an object, found a number");
        check_error(b"{\"a\":1}\n{\"b\":1,\"c\":2}", "f:2: missing field `a`; the row has `b`, `c`");
        check_error(b"{}", "f:1: missing field `a`; the row is empty");
        check_error(b"{\"a\":\"x\"}", "f:1: invalid type: string \"x\", expected u32");
        check_error(b"[\n{\"a\":1},\n{\"a\":2}\n", "f:4: broken JSON: EOF while parsing a list");
        check_error(b"[\n{\"a\":1},\n3]", "f:3: expected an object, found a number");
        check_error(b"[\n{\"a\":1},\n{\n\"a\":\"\xff\"}]", "f:4: not valid UTF-8");
        check_error(b"[\n{\"a\":1},\n{\n\"a\":\"\\ud800\"}]", "f:4: broken JSON: ");
    }

    #[test]
    fn bad_rows_are_skipped_and_counted_on_request() {
        let rows = parse(b"{\"a\":1}\n\xff\n{\n[]\n{\"b\":1}\n{\"a\":6}", BadRows::Skip).unwrap();
        assert_eq!(rows.rows, [(1, Row { a: 1 }), (6, Row { a: 6 })]);
        assert_eq!(rows.skipped, 4);
        assert!(rows.first_skipped.unwrap().starts_with("f:2: not valid UTF-8"));
    }

    #[test]
    fn gzip_is_recognised_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"{\"a\":1}\n\n{\"a\":2}\n").unwrap();
        let packed = encoder.finish().unwrap();
        fs::write(&path, &packed).unwrap();
        assert_eq!(read_rows::<Row>(&path, BadRows::Refuse).unwrap().rows[1], (3, Row { a: 2 }));
        fs::write(&path, &packed[..packed.len() / 2]).unwrap();
        let cut = read_rows::<Row>(&path, BadRows::Skip).unwrap_err();
        assert!(matches!(cut, Error::Io { action: "unpack", .. }), "{cut}");
    }

    #[test]
    fn gzip_that_unpacks_without_end_is_an_error() {
        // A thousandth of its size, and more than a gibibyte.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl.gz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let megabyte = vec![b'\n'; 1 << 20];
        (0..1025).for_each(|_| encoder.write_all(&megabyte).unwrap());
        fs::write(&path, encoder.finish().unwrap()).unwrap();
        let error = read_rows::<Row>(&path, BadRows::Skip).unwrap_err();
        assert!(error.to_string().ends_with("unpack to more than 1073741824"), "{error}");
        assert!(error.hint().unwrap().contains("gunzip"), "{error}");
    }

    #[test]
    fn a_line_without_end_is_a_bad_row() {
        let endless = io::repeat(b'x').take(LONGEST_ROW as u64 + 1).chain(b"\n{\"a\":7}".as_slice());
        let path = Path::new("f");
        let rows = parse_rows::<Row>(path, BufReader::new(endless), BadRows::Skip, |error| {
            Error::io("read", path)(error)
        });
        let rows = rows.unwrap();
        assert_eq!((rows.rows, rows.skipped), (vec![(2, Row { a: 7 })], 1));
        assert_eq!(rows.first_skipped.unwrap(), "f:1: the line has more than 256 MiB");
    }

    #[test]
    fn a_column_that_is_there_twice_makes_a_bad_row() {
        check_error(b"{\"a\":1}\n{\"a\":1,\"a\":2}", "f:2: column `a` is there twice");
        check_error(b"[{\"a\":1},\n{\"b\":1,\"a\":1,\"b\":2}]", "f:2: column `b` is there twice");
        assert_eq!(parse(b"{\"a\":1}\n{\"a\":1,\"a\":2}", BadRows::Skip).unwrap().skipped, 1);
    }

    #[test]
    fn where_no_row_is_good_the_hint_is_about_the_whole_file() {
        let check = |name: &str, bytes: &[u8], says: &str, hint: &str| {
            for policy in [BadRows::Refuse, BadRows::Skip] {
                let error = parse_named(name, bytes, policy).unwrap_err();
                assert!(error.to_string().contains(says), "{error}");
                let advice = error.hint().unwrap();
                assert!(advice.contains(hint) && !advice.contains("--skip-bad-rows"), "{advice}");
            }
        };
        let columns = "`question`";
        check(
            "f",
            b"{\"b\":1}\n{\"c\":1}",
            "f:1: missing field `a`; the row has `b` (none of the 2",
            columns,
        );
        check("f", b"{\"b\":1}", "f:1: missing field `a`; the row has `b`", columns);
        check("f", b"{\n\"a\": 1\n}", "f:1: broken JSON", "one whole JSON object");
        check("f", b"a,b\n1,2\n", "f:1: broken JSON", "one JSON object");
        check("f.csv", b"a,b\n1,2\n", "f.csv is a CSV file; Temper reads JSON lines", "read_csv(\"f.csv\")");
        check("f.txt", b"All is well.\n", "f.txt is plain text", "{\"text\": \"");
        check("f.txt", b"[Chorus] All is well.\n", "f.txt is plain text", "{\"text\": \"");
        check("f.jsonl", b"PAR1\x15\0", "f.jsonl is a Parquet file", "read_parquet(\"f.jsonl\")");
        check("f", b"\xe9t\xe9\n", "f:1: not valid UTF-8", "save the file as UTF-8");
        check("f.json", b"[{\"a\":1},", "f.json:1: broken JSON", "JSON array");
        // JSON under the name of something else is read.
        assert_eq!(parse_named("f.txt", b"{\"a\":1}", BadRows::Refuse).unwrap().rows.len(), 1);
        // With a good row among them, skipping helps.
        let error = parse(b"{\"b\":1}\n{\"a\":1}", BadRows::Refuse).unwrap_err();
        assert!(error.hint().unwrap().contains("--skip-bad-rows"), "{error}");
    }

    #[test]
    fn a_message_lists_some_columns_of_a_row_with_many() {
        let row: Vec<String> = (0..5000).map(|i| format!("\"{}{i}\": 1", "x".repeat(100))).collect();
        let error = parse(format!("{{{}}}", row.join(",")).as_bytes(), BadRows::Refuse).unwrap_err();
        let message = error.to_string();
        assert!(message.len() < 2000 && message.contains("and 4980 more"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_a_file_is_refused_before_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        for (path, kind) in [(dir.path(), "a directory"), (Path::new("/dev/zero"), "a device")] {
            let error = read_rows::<Row>(path, BadRows::Skip).unwrap_err();
            assert!(
                error.to_string().contains(&format!("it is {kind}")) && error.hint().is_some(),
                "{error}"
            );
        }
    }

    #[test]
    fn several_files_keep_path_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["1.jsonl", "2.json"].map(|name| dir.path().join(name));
        fs::write(&one, "{\"a\":1}\nbad\n").unwrap();
        fs::write(&two, "[{\"a\":2},\n{\"a\":3}]").unwrap();
        let all = read_all::<Row>(&[&one, &two], BadRows::Skip).unwrap();
        assert_eq!((all.rows.len(), all.skipped), (3, 1));
        assert_eq!(all.rows[2].0.to_string(), format!("{}:2", two.display()));
        let files: Vec<_> = all.files.iter().map(|file| (&*file.path, file.n_rows, file.skipped)).collect();
        assert_eq!(files, [(one.as_path(), 1, 1), (two.as_path(), 2, 0)]);
        assert!(all.files[0].first_skipped.as_ref().unwrap().contains("1.jsonl:2: broken JSON"));
        let missing = read_all::<Row>(&[dir.path().join("none")], BadRows::Skip).unwrap_err();
        assert!(matches!(missing, Error::Io { action: "read", .. }));
        assert!(read_rows::<Row>(dir.path(), BadRows::Refuse).is_err());
    }

    #[test]
    fn deep_nesting_is_an_error() {
        check_error(
            &[b"[".repeat(100_000), b"]".repeat(100_000)].concat(),
            "f:1: broken JSON: recursion limit",
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            for policy in [BadRows::Refuse, BadRows::Skip] {
                let _ = parse(&bytes, policy);
            }
        }

        #[test]
        fn no_almost_json_makes_it_panic(text in "[\\[{]?[\\[\\]{}:,\"\\\\a10 \n]{0,40}") {
            for policy in [BadRows::Refuse, BadRows::Skip] {
                let _ = parse(text.as_bytes(), policy);
            }
        }

        #[test]
        fn an_array_reads_as_its_lines_do(rows in prop::collection::vec((any::<u32>(), ".{0,9}"), 1..9)) {
            let objects = rows.iter().map(|(a, b)| serde_json::json!({"a": a, "b": b}).to_string());
            let objects: Vec<_> = objects.collect();
            let lines = parse(objects.join("\n").as_bytes(), BadRows::Refuse).unwrap();
            let array = parse(format!("[{}]", objects.join(",\n")).as_bytes(), BadRows::Refuse).unwrap();
            prop_assert_eq!(lines.rows, array.rows);
        }
    }
}
