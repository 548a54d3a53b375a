//! Rows of data files as records, with the place of every row.

use std::fmt;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use crate::containers::{Content, TakeRow, data_files, read_bytes, read_file};
use crate::error::Error;
use crate::file_reader::FileReader;
use crate::options::ReadOptions;
use crate::records::Record;

/// What to do with a row that is not what it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadRows {
    /// Fail, naming the first one.
    #[default]
    Refuse,
    /// Leave it out and count it.
    Skip,
}

/// The records of some data files.
#[derive(Clone, Debug)]
pub struct Rows<R> {
    /// The records, in the order of the files.
    pub records: Vec<R>,
    /// The place of each record.
    pub places: Vec<Place>,
    /// Each file, in the order given.
    pub files: Vec<FileRows>,
    /// What the rows are for, in words; see [`Rows::with_purpose`].
    pub(crate) purpose: &'static str,
}

/// How many rows one of several files has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRows {
    /// The data file.
    pub path: Arc<Path>,
    /// Rows that were read.
    pub n_rows: usize,
    /// Bad rows that were left out.
    pub n_skipped: usize,
    /// What is wrong with the first of these, with its place.
    pub first_skipped: Option<String>,
    /// Rows that are as they should be and of no use for what they were read for, such as ties, by the reason.
    pub unused: Vec<UnusedRows>,
    /// The families that rows were recognised as, and the number of examples of each, in the order of the file.
    pub families: Vec<(&'static str, usize)>,
    /// What the places of its rows are: `line` or `row`.
    pub place_name: &'static str,
}

impl FileRows {
    /// All examples of the file, whether they were read or left out.
    pub fn n_examples(&self) -> usize {
        self.n_rows + self.n_skipped + self.n_unused()
    }

    /// How many are of no use for what they were read for.
    pub fn n_unused(&self) -> usize {
        self.unused.iter().map(|unused| unused.n).sum()
    }
}

/// Rows of a file that are left out for the same reason, although nothing is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedRows {
    /// The reason, about several rows: `their two answers are tied`.
    pub reason: String,
    /// How many.
    pub n: usize,
    /// The place of the first one in its file.
    pub first: usize,
}

/// The place of a row, for messages: `path:line`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The data file.
    pub path: Arc<Path>,
    /// 1-based line; the 1-based row of a Parquet file, which has no lines.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Reads data files, one after the other: JSON lines, JSON arrays or plain text, gzipped or not, and Parquet. A file is
/// recognised by its content, and plain text by its name; blank lines, a byte order mark and CRLF are fine. A directory is its data files ([`data_files`]).
///
/// # Errors
///
/// [`Error::Io`] if a file cannot be read or unpacked, [`Error::NotAFile`] for a device or a pipe, those of
/// [`data_files`] for a directory, [`Error::OtherFormat`] for a file of another format, [`Error::UnpacksTooFar`] for gzip
/// without end, [`Error::NoRows`] if a file is empty, [`Error::NoGoodRow`] if none of its rows can be used,
/// [`Error::BrokenArray`] for an array that is not JSON, and [`Error::BrokenParquet`]. By [`BadRows::Refuse`] also the first bad row:
/// [`Error::InvalidUtf8`], [`Error::BrokenJson`], [`Error::NotAnObject`] or [`Error::BadRow`].
pub fn read_rows<R: Record>(
    paths: &[impl AsRef<Path>],
    options: impl Into<ReadOptions>,
) -> Result<Rows<R>, Error> {
    let options = options.into();
    let mut rows = Rows { records: Vec::new(), places: Vec::new(), files: Vec::new(), purpose: "" };
    for path in data_files(paths)? {
        rows.append(&path, &options, |take| read_file(&path, &options.separator, take))?;
    }
    Ok(rows)
}

impl<R: Record> Rows<R> {
    /// Reads one file from a reader; the path is used for messages, and for formats that only the name gives away.
    ///
    /// # Errors
    /// Those of [`read_rows`].
    pub fn from_reader(
        path: &Path,
        bytes: impl BufRead,
        options: impl Into<ReadOptions>,
    ) -> Result<Self, Error> {
        let mut rows = Self { records: Vec::new(), places: Vec::new(), files: Vec::new(), purpose: "" };
        let options = options.into();
        rows.append(path, &options, |take| read_bytes(path, bytes, &options.separator, take))?;
        Ok(rows)
    }

    /// Adds the rows of one file; `read` gives each of them to its argument.
    fn append(
        &mut self,
        path: &Path,
        options: &ReadOptions,
        read: impl FnOnce(&mut TakeRow<'_>) -> Result<Content, Error>,
    ) -> Result<(), Error> {
        let mut file = FileReader::new(path, options);
        let content = read(&mut |line, row| file.take(line, row))?;
        file.finish()?;
        let FileReader { records, n_bad: n_skipped, first_bad, unused, families, .. } =
            file.with_any_record(content)?;
        let first_skipped = first_bad.map(|bad| bad.error.to_string());
        let path: Arc<Path> = path.into();
        self.files.push(FileRows {
            path: path.clone(),
            n_rows: records.len(),
            n_skipped,
            first_skipped,
            unused,
            families,
            place_name: content.place_name(),
        });
        for (line, record) in records {
            self.places.push(Place { path: path.clone(), line });
            self.records.push(record);
        }
        Ok(())
    }
}

impl<R> Rows<R> {
    /// The same rows; notes about them say that they are this, for example "training data".
    #[must_use]
    pub fn with_purpose(self, purpose: &'static str) -> Self {
        Self { purpose, ..self }
    }

    /// How many bad rows were left out, of all files together.
    pub fn n_skipped(&self) -> usize {
        self.files.iter().map(|file| file.n_skipped).sum()
    }

    /// Each record with its place.
    pub fn into_placed(self) -> impl Iterator<Item = (Place, R)> {
        self.places.into_iter().zip(self.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{Fault, Purpose, Row};
    use proptest::prelude::*;
    use std::fs;
    use std::io::{self, BufReader, Read, Write};

    /// The number in column `a`.
    #[derive(Debug, PartialEq)]
    struct Number(u64);

    impl Record for Number {
        const PURPOSE: Purpose = Purpose::Answers;

        fn from_row(row: &Row) -> Result<Self, Fault> {
            let a = row.get("a").ok_or_else(|| Fault::missing(&["a"], ""))?;
            a.as_u64().map(Number).ok_or_else(|| Fault::wrong_type("a", "a number", a))
        }
    }

    fn parse(bytes: &[u8], policy: BadRows) -> Result<Rows<Number>, Error> {
        parse_named("f", bytes, policy)
    }

    fn parse_named(name: &str, bytes: &[u8], policy: BadRows) -> Result<Rows<Number>, Error> {
        Rows::from_reader(Path::new(name), bytes, policy)
    }

    /// The line and the number of each row.
    fn numbers(rows: &Rows<Number>) -> Vec<(usize, u64)> {
        rows.places.iter().zip(&rows.records).map(|(place, row)| (place.line, row.0)).collect()
    }

    fn check(bytes: &[u8], expected: &[(usize, u64)]) {
        assert_eq!(numbers(&parse(bytes, BadRows::Refuse).unwrap()), expected);
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

    /// The bytes need not come from a file of that name.
    #[test]
    fn gzip_is_unpacked_from_any_reader() {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(b"{\"text\": \"a\"}\n").unwrap();
        let bytes = packer.finish().unwrap();
        let rows =
            Rows::<crate::PlainText>::from_reader(Path::new("none.jsonl"), bytes.as_slice(), BadRows::Refuse);
        assert_eq!(rows.unwrap().records, [crate::PlainText { text: "a".into() }]);
    }

    #[test]
    fn bad_files_are_refused_with_their_line() {
        check_error(b"", "f: no rows");
        check_error(b"\n \n", "f: no rows");
        check_error(b"[ ]", "f: no rows");
        check_error(b"{\"a\":1}\n{\"a\":", "f:2: broken JSON: EOF while parsing a value");
        check_error(b"{\"a\":1}\n\xff\n", "f:2: not valid UTF-8");
        check_error(b"{\"a\":1}\n7", "f:2: expected an object, found a number");
        check_error(b"{\"a\":1}\n{\"b\":1,\"c\":2}", "f:2: missing column `a`; the row has `b`, `c`");
        check_error(b"{}", "f:1: missing column `a`; the row is empty");
        check_error(b"{\"a\":\"x\"}", "f:1: column `a` must be a number, found a string");
        check_error(b"[\n{\"a\":1},\n{\"a\":2}\n", "f:4: broken JSON: EOF while parsing a list");
        check_error(b"[\n{\"a\":1},\n3]", "f:3: expected an object, found a number");
        check_error(b"[\n{\"a\":1},\n{\n\"a\":\"\xff\"}]", "f:4: not valid UTF-8");
        check_error(b"[\n{\"a\":1},\n{\n\"a\":\"\\ud800\"}]", "f:4: broken JSON: ");
    }

    #[test]
    fn bad_rows_are_skipped_and_counted_on_request() {
        let rows = parse(b"{\"a\":1}\n\xff\n{\n[]\n{\"b\":1}\n{\"a\":6}", BadRows::Skip).unwrap();
        assert_eq!((numbers(&rows), rows.n_skipped()), (vec![(1, 1), (6, 6)], 4));
        assert!(rows.files[0].first_skipped.as_ref().unwrap().starts_with("f:2: not valid UTF-8"));
    }

    #[test]
    fn ties_are_left_out_and_counted_and_other_names_of_columns_are_read() {
        let lines = r#"{"q": "p", "chosen": "a", "rejected": "b", "score_chosen": 2, "score_rejected": 1}
            {"q": "p", "chosen": "a", "rejected": "b", "score_chosen": 2, "score_rejected": 2}"#;
        let read = |lines: &str| {
            let columns = "prompt=q".parse().unwrap();
            let options = ReadOptions { columns, ..ReadOptions::default() };
            Rows::<crate::Comparison>::from_reader(Path::new("f"), lines.as_bytes(), options)
        };
        let rows = read(lines).unwrap();
        assert_eq!(rows.records, [crate::Comparison::pair("p", "a", "b")]);
        let unused = UnusedRows { reason: "their two answers have equal scores".into(), n: 1, first: 2 };
        assert_eq!((&rows.files[0].unused[..], rows.n_skipped()), (&[unused][..], 0));
        assert_eq!(rows.files[0].families, [("UltraFeedback binarized", 2)]);
        let error = read(lines.lines().last().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("equal scores") && error.hint().unwrap().contains("inspect"),
            "{error}"
        );
    }

    #[test]
    fn gzip_is_recognised_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"{\"a\":1}\n\n{\"a\":2}\n").unwrap();
        let packed = encoder.finish().unwrap();
        fs::write(&path, &packed).unwrap();
        let rows = read_rows::<Number>(&[&path], BadRows::Refuse).unwrap();
        assert_eq!(numbers(&rows), [(1, 1), (3, 2)]);
        fs::write(&path, &packed[..packed.len() / 2]).unwrap();
        let cut = read_rows::<Number>(&[&path], BadRows::Skip).unwrap_err();
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
        let error = read_rows::<Number>(&[&path], BadRows::Skip).unwrap_err();
        assert!(error.to_string().ends_with("unpack to more than 1073741824"), "{error}");
        assert!(error.hint().unwrap().contains("gunzip"), "{error}");
    }

    #[test]
    fn a_line_without_end_is_a_bad_row() {
        let endless = io::repeat(b'x').take((1 << 28) + 1).chain(b"\n{\"a\":7}".as_slice());
        let rows = Rows::from_reader(Path::new("f"), BufReader::new(endless), BadRows::Skip).unwrap();
        assert_eq!((numbers(&rows), rows.n_skipped()), (vec![(2, 7)], 1));
        assert_eq!(rows.files[0].first_skipped.as_ref().unwrap(), "f:1: the line has more than 256 MiB");
    }

    #[test]
    fn a_column_that_occurs_twice_makes_a_bad_row() {
        check_error(b"{\"a\":1}\n{\"a\":1,\"a\":2}", "f:2: column `a` is there twice");
        check_error(b"[{\"a\":1},\n{\"b\":1,\"a\":1,\"b\":2}]", "f:2: column `b` is there twice");
        assert_eq!(parse(b"{\"a\":1}\n{\"a\":1,\"a\":2}", BadRows::Skip).unwrap().n_skipped(), 1);
    }

    #[test]
    fn if_no_row_is_good_the_hint_is_about_the_whole_file() {
        let check = |name: &str, bytes: &[u8], expected: &str, hint: &str| {
            for policy in [BadRows::Refuse, BadRows::Skip] {
                let error = parse_named(name, bytes, policy).unwrap_err();
                assert!(error.to_string().contains(expected), "{error}");
                let advice = error.hint().unwrap();
                assert!(advice.contains(hint) && !advice.contains("--skip-bad-rows"), "{advice}");
            }
        };
        let columns = "--columns prompt=NAME,completion=NAME";
        check(
            "f",
            b"{\"b\":1}\n{\"c\":1}",
            "f:1: missing column `a`; the row has `b` (none of the 2",
            columns,
        );
        check("f", b"{\"b\":1}", "f:1: missing column `a`; the row has `b`", columns);
        check("f", b"{\n\"a\": 1\n}", "f:1: broken JSON", "one whole JSON object");
        check("f", b"a,b\n1,2\n", "f:1: broken JSON", "one JSON object");
        check("f.csv", b"a,b\n1,2\n", "f.csv is a CSV file; Temper reads JSON lines", "read_csv(\"f.csv\")");
        check("f.txt", b"All is well.\n", "f.txt is plain text", "temper sft");
        check("f.txt", b"[Chorus] All is well.\n", "f.txt is plain text", "temper sft");
        check("f.txt", b"\xe9t\xe9\n", "f.txt:1: not valid UTF-8", "save the file as UTF-8");
        check("f.jsonl", b"PAR1\x15\0", "cannot read the Parquet file f.jsonl: ", "copy the file again");
        check("f", b"\xe9t\xe9\n", "f:1: not valid UTF-8", "save the file as UTF-8");
        check("f.json", b"[{\"a\":1},", "f.json:1: broken JSON", "JSON array");
        // JSON under the name of something else is read.
        assert_eq!(parse_named("f.txt", b"{\"a\":1}", BadRows::Refuse).unwrap().records.len(), 1);
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
        let error = read_rows::<Number>(&["/dev/zero"], BadRows::Skip).unwrap_err();
        assert!(error.to_string().contains("it is a device") && error.hint().is_some(), "{error}");
    }

    #[test]
    fn several_files_keep_path_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["1.jsonl", "2.json"].map(|name| dir.path().join(name));
        fs::write(&one, "{\"a\":1}\nbad\n").unwrap();
        fs::write(&two, "[{\"a\":2},\n{\"a\":3}]").unwrap();
        let all = read_rows::<Number>(&[&one, &two], BadRows::Skip).unwrap();
        assert_eq!((all.records.len(), all.n_skipped()), (3, 1));
        assert_eq!(all.places[2].to_string(), format!("{}:2", two.display()));
        let files: Vec<_> = all.files.iter().map(|file| (&*file.path, file.n_rows, file.n_skipped)).collect();
        assert_eq!(files, [(one.as_path(), 1, 1), (two.as_path(), 2, 0)]);
        assert!(all.files[0].first_skipped.as_ref().unwrap().contains("1.jsonl:2: broken JSON"));
        let missing = read_rows::<Number>(&[dir.path().join("none")], BadRows::Skip).unwrap_err();
        assert!(matches!(missing, Error::Io { action: "read", .. }));
        assert!(read_rows::<Number>(&[dir.path()], BadRows::Refuse).is_err());
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
        fn almost_json_never_makes_it_panic(text in "[\\[{]?[\\[\\]{}:,\"\\\\a10 \n]{0,40}") {
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
            prop_assert_eq!(lines.records, array.records);
        }
    }
}
