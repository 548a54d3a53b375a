//! Formats that Temper does not read, recognised so that the error can name them.

use std::fmt;
use std::path::Path;

/// A format that a data file has and that Temper does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Columns of Apache Arrow, as `datasets` saves them.
    Arrow,
    /// A workbook of Excel.
    Excel,
    /// Any other zip archive.
    Zip,
    /// A tar archive.
    Tar,
    /// Compressed by Zstandard, xz, bzip2 or 7-Zip.
    Compressed(&'static str),
    /// An SQLite database.
    Sqlite,
    /// A PDF document.
    Pdf,
    /// Text in UTF-16.
    Utf16,
    /// Values between commas.
    Csv,
    /// Values between tabs.
    Tsv,
    /// Text that is not JSON. It is read as plain text, and is of no use where that is.
    Text,
}

impl Format {
    /// How many bytes of a file [`Format::of_bytes`] needs.
    pub(crate) const N_BYTES: usize = 262;

    /// The format of a file that begins with `bytes`, if they are characteristic of one.
    pub(crate) fn of_bytes(bytes: &[u8], path: &Path) -> Option<Self> {
        const MAGIC: [(&[u8], Format); 11] = [
            (b"ARROW1\0\0", Format::Arrow),
            (b"\xff\xff\xff\xff", Format::Arrow),
            (b"PK\x03\x04", Format::Zip),
            (b"\x28\xb5\x2f\xfd", Format::Compressed("Zstandard")),
            (b"\xfd7zXZ\0", Format::Compressed("xz")),
            (b"BZh", Format::Compressed("bzip2")),
            (b"7z\xbc\xaf\x27\x1c", Format::Compressed("7-Zip")),
            (b"SQLite format 3\0", Format::Sqlite),
            (b"%PDF-", Format::Pdf),
            (b"\xff\xfe", Format::Utf16),
            (b"\xfe\xff", Format::Utf16),
        ];
        if bytes.get(257..262) == Some(b"ustar") {
            return Some(Self::Tar);
        }
        let (_, format) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic))?;
        let is_workbook = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("xlsx"));
        Some(if *format == Self::Zip && is_workbook { Self::Excel } else { *format })
    }

    /// The format of a file whose content is not JSON, from its name.
    pub(crate) fn of_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_lowercase();
        match name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "txt" | "text" | "md" => Some(Self::Text),
            _ => None,
        }
    }

    /// What is read instead.
    pub(crate) fn instead(self) -> &'static str {
        match self {
            Self::Text => "rows with more columns than a text are read here",
            _ => "Temper reads JSON lines, JSON arrays and plain text, also gzipped, and Parquet",
        }
    }

    /// How to convert such a file into one that Temper reads.
    pub(crate) fn advice(self, path: &Path) -> String {
        let pandas = |read: &str| {
            let name = path.display();
            format!(
                "convert it, for example in Python: pandas.{read}(\"{name}\").to_json(\"rows.jsonl\", \
                 orient=\"records\", lines=True)"
            )
        };
        match self {
            Self::Arrow => {
                "convert it, for example in Python: datasets.Dataset.from_file(…).to_json(\"rows.jsonl\")"
                    .into()
            }
            Self::Excel => pandas("read_excel"),
            Self::Csv => pandas("read_csv"),
            Self::Tsv => pandas("read_table"),
            Self::Zip | Self::Tar | Self::Compressed(_) => "unpack it and give the files in it".into(),
            Self::Sqlite | Self::Pdf => "export its rows as JSON lines, one object in each line".into(),
            Self::Utf16 => "save the file as UTF-8".into(),
            Self::Text => {
                "`temper sft` and `--ptx-data` read plain text; for anything else give rows of JSON, such as \
                 {\"prompt\": \"…\", \"completion\": \"…\"}"
                    .into()
            }
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arrow => "an Arrow file",
            Self::Excel => "an Excel workbook",
            Self::Zip => "a zip archive",
            Self::Tar => "a tar archive",
            Self::Compressed(by) => return write!(f, "compressed by {by}"),
            Self::Sqlite => "an SQLite database",
            Self::Pdf => "a PDF document",
            Self::Utf16 => "text in UTF-16",
            Self::Csv => "a CSV file",
            Self::Tsv => "a TSV file",
            Self::Text => "plain text",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognised_by_their_first_bytes() {
        let check = |bytes: &[u8], name: &str, expected: Option<Format>| {
            assert_eq!(Format::of_bytes(bytes, Path::new(name)), expected, "{name}");
        };
        check(b"PK\x03\x04\x14", "rows.XLSX", Some(Format::Excel));
        check(b"PK\x03\x04\x14", "rows.zip", Some(Format::Zip));
        check(b"\xff\xfe{\0\"\0", "rows.json", Some(Format::Utf16));
        check(b"\xff\xff\xff\xff\x10\x01", "data.arrow", Some(Format::Arrow));
        check(&[&[0; 257], b"ustar".as_slice()].concat(), "rows.tar", Some(Format::Tar));
        for json in [b"{\"a\": 1}".as_slice(), b"[", b"\xef\xbb\xbf{", b"", b"PAR1"] {
            check(json, "rows.csv", None);
        }
    }

    #[test]
    fn formats_of_text_are_recognised_by_the_name() {
        let of_name = |name| Format::of_name(Path::new(name));
        assert_eq!(of_name("data/rows.CSV"), Some(Format::Csv));
        assert_eq!(of_name("rows.tsv.gz"), Some(Format::Tsv));
        assert_eq!(of_name("book.txt"), Some(Format::Text));
        for name in ["rows.jsonl", "rows", "rows.gz", ""] {
            assert_eq!(of_name(name), None, "{name}");
        }
    }
}
