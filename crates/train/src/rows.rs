//! Rows of data files: JSON lines or a JSON array, plain or gzipped, with the line of every row.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::error::{Error, one_line};

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
}

/// The rows of several files.
#[derive(Clone, Debug)]
pub struct AllRows<T> {
    /// Each row with the place that it came from.
    pub rows: Vec<(Place, T)>,
    /// How many bad rows were left out.
    pub skipped: usize,
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

/// Reads one file. A first byte `[` makes it an array, anything else JSON lines; gzip is recognised by its
/// content. Blank lines, a byte order mark and CRLF are fine.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read or unpacked, [`Error::NoRows`] if nothing is in it (or left of
/// it), and [`Error::BrokenJson`] for an array that is no JSON. By [`BadRows::Refuse`] also the first bad
/// row: [`Error::InvalidUtf8`], [`Error::BrokenJson`], [`Error::NotAnObject`] or [`Error::BadRow`].
pub fn read_rows<T: DeserializeOwned>(path: &Path, policy: BadRows) -> Result<Rows<T>, Error> {
    const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
    let mut bytes = fs::read(path).map_err(Error::io("read", path))?;
    if bytes.starts_with(&GZIP_MAGIC) {
        let limit = UNPACKED_AT_LEAST.max(MOST_PACKED.saturating_mul(bytes.len() as u64));
        bytes = unpack(&bytes, limit).map_err(Error::io("unpack", path))?;
    }
    parse_rows(path, &bytes, policy)
}

/// Unpacks gzip, up to `limit` bytes.
fn unpack(packed: &[u8], limit: u64) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let decoder = flate2::read::MultiGzDecoder::new(packed);
    decoder.take(limit.saturating_add(1)).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > limit {
        let message = format!("its {} bytes unpack to more than {limit}", packed.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(unpacked)
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
    let mut all = AllRows { rows: Vec::new(), skipped: 0 };
    for path in paths {
        let path: Arc<Path> = path.as_ref().into();
        let file = read_rows(&path, policy)?;
        all.skipped += file.skipped;
        all.rows.extend(file.rows.into_iter().map(|(line, row)| (Place { path: path.clone(), line }, row)));
    }
    Ok(all)
}

fn parse_rows<T: DeserializeOwned>(path: &Path, bytes: &[u8], policy: BadRows) -> Result<Rows<T>, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let pieces = if bytes.trim_ascii_start().first() == Some(&b'[') {
        // After this check the splitter sees well-formed JSON only.
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| broken_json(path, 1, &error))?;
        split_array(bytes)
    } else {
        bytes.split(|&byte| byte == b'\n').enumerate().map(|(index, line)| (index + 1, line)).collect()
    };

    let mut rows = Rows { rows: Vec::new(), skipped: 0 };
    for (line, piece) in pieces {
        let piece = piece.trim_ascii();
        if piece.is_empty() {
            continue;
        }
        match (parse_row(path, line, piece), policy) {
            (Ok(row), _) => rows.rows.push((line, row)),
            (Err(error), BadRows::Refuse) => return Err(error),
            (Err(error), BadRows::Skip) => {
                tracing::debug!("skipped {error}");
                rows.skipped += 1;
            }
        }
    }
    if rows.rows.is_empty() {
        return Err(Error::NoRows { path: path.to_owned(), skipped: rows.skipped });
    }
    Ok(rows)
}

fn parse_row<T: DeserializeOwned>(path: &Path, line: usize, bytes: &[u8]) -> Result<T, Error> {
    let text = std::str::from_utf8(bytes).map_err(|error| Error::InvalidUtf8 {
        path: path.to_owned(),
        line: line + newlines(&bytes[..error.valid_up_to()]),
    })?;
    let value: Value = serde_json::from_str(text).map_err(|error| broken_json(path, line, &error))?;
    let Value::Object(row) = &value else {
        return Err(Error::NotAnObject { path: path.to_owned(), line, found: kind_of(&value) });
    };
    let columns = row.keys().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", ");
    serde_json::from_value(value).map_err(|error| {
        let mut message = one_line(&error.to_string());
        if message.starts_with("missing") {
            message += &if columns.is_empty() {
                "; the row is empty".into()
            } else {
                format!("; the row has {columns}")
            };
        }
        Error::BadRow { path: path.to_owned(), line, message }
    })
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

fn broken_json(path: &Path, first_line: usize, error: &serde_json::Error) -> Error {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    Error::BrokenJson {
        path: path.to_owned(),
        line: first_line + error.line().saturating_sub(1),
        column: error.column(),
        message: one_line(message),
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// The elements of a well-formed JSON array, each with the 1-based line on which it starts.
fn split_array(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut elements = Vec::new();
    let mut start: Option<(usize, usize)> = None;
    let (mut line, mut depth, mut in_string, mut escaped) = (1, 0usize, false, false);
    for (at, &byte) in bytes.iter().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        let ends_element = depth == 1 && matches!(byte, b',' | b']');
        if ends_element {
            if let Some((line, from)) = start.take() {
                elements.push((line, &bytes[from..at]));
            }
        } else if depth >= 1 && start.is_none() && !byte.is_ascii_whitespace() {
            start = Some((line, at));
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'\n' => line += 1,
            _ => {}
        }
    }
    elements
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::io::Write;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        a: u32,
    }

    fn parse(bytes: &[u8], policy: BadRows) -> Result<Rows<Row>, Error> {
        parse_rows(Path::new("f"), bytes, policy)
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
        let none = parse(b"{\"b\":1}\n", BadRows::Skip).unwrap_err();
        assert_eq!(none.to_string(), "f: no rows left, 1 bad ones were skipped");
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
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&vec![b' '; 100_000]).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(unpack(&packed, 100_000).unwrap().len(), 100_000);
        let error = unpack(&packed, 99_999).unwrap_err().to_string();
        assert!(error.ends_with("unpack to more than 99999"), "{error}");
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
