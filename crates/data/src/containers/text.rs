//! Plain text: its documents as rows with a `text`.

use std::io::{BufRead, Read};
use std::str::FromStr;

use serde_json::Value;

use super::lines::{LONGEST_LINE, newlines};
use super::{Container, Content, DataFile, Format, Source, TakeRow};
use crate::error::Error;
use crate::records::{Row, is_blank};

/// What separates the documents of a plain text. As text: `file`, `blank-lines`, `lines`, or the mark itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Separator {
    /// Nothing: a file is one document.
    File,
    /// Blank lines, so that each paragraph is a document.
    BlankLines,
    /// Line ends, so that each line is a document.
    Lines,
    /// A mark that belongs to no document, wherever it is in a line.
    Mark(String),
}

/// The mark between the documents of many plain texts, such as TinyStories. A file without it is one document.
impl Default for Separator {
    fn default() -> Self {
        Self::Mark("<|endoftext|>".into())
    }
}

impl FromStr for Separator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "file" => Ok(Self::File),
            "blank-lines" => Ok(Self::BlankLines),
            "lines" => Ok(Self::Lines),
            mark if mark.contains('\n') || is_blank(mark) => {
                Err("give `file`, `blank-lines`, `lines`, or a mark without line ends such as <|endoftext|>"
                    .into())
            }
            mark => Ok(Self::Mark(mark.into())),
        }
    }
}

/// A file whose name says that it is plain text, unless it begins as JSON or as something else that is known.
///
/// Only one document at a time is in memory. White space around a document does not count.
pub(super) struct PlainTextFile;

impl Container for PlainTextFile {
    fn recognises(&self, beginning: &[u8], file: &DataFile<'_>) -> bool {
        Format::of_name(file.path) == Some(Format::Text)
            && !begins_as_json(beginning)
            && Format::of_bytes(&beginning[..beginning.len().min(Format::N_BYTES)], file.path).is_none()
    }

    fn read(&self, source: Source<'_>, take: &mut TakeRow<'_>) -> Result<Option<Content>, Error> {
        let Source { file, lines } = source;
        let mut number = lines.number();
        let mut reader = lines.into_reader();
        let mut documents = Documents { file, first_line: number, bytes: Vec::new(), is_too_long: false };
        let mut line = Vec::new();
        loop {
            line.clear();
            // A part of a longer line is read like a line: only its mark could be cut in two.
            let part = (&mut reader).take(LONGEST_LINE as u64).read_until(b'\n', &mut line);
            if part.map_err(|error| file.failed(error))? == 0 {
                break;
            }
            match file.separator {
                Separator::File => documents.push(&line, number),
                Separator::BlankLines if line.trim_ascii().is_empty() => documents.end(take)?,
                Separator::BlankLines => documents.push(&line, number),
                Separator::Lines => {
                    documents.push(&line, number);
                    if line.ends_with(b"\n") {
                        documents.end(take)?;
                    }
                }
                Separator::Mark(mark) => {
                    let mut rest = line.as_slice();
                    while let Some(at) = find(rest, mark.as_bytes()) {
                        documents.push(&rest[..at], number);
                        documents.end(take)?;
                        rest = &rest[at + mark.len()..];
                    }
                    documents.push(rest, number);
                }
            }
            number += newlines(&line);
        }
        documents.end(take)?;
        Ok(Some(Content::OtherText))
    }
}

/// Whether a text begins as a JSON object, or as an array of objects: JSON under the name of a text is read as JSON.
fn begins_as_json(text: &[u8]) -> bool {
    let object = match text.strip_prefix(b"[") {
        Some(elements) => elements.trim_ascii_start(),
        None => text,
    };
    object.strip_prefix(b"{").is_some_and(|inside| matches!(inside.trim_ascii_start(), [b'"' | b'}', ..]))
}

/// Where `mark` begins in `line`.
fn find(line: &[u8], mark: &[u8]) -> Option<usize> {
    line.windows(mark.len()).position(|window| window == mark)
}

/// Collects the bytes of one document after the other.
struct Documents<'a> {
    file: DataFile<'a>,
    /// The line on which the document begins.
    first_line: usize,
    bytes: Vec<u8>,
    is_too_long: bool,
}

impl Documents<'_> {
    /// Adds bytes of the line `number` to the document.
    fn push(&mut self, bytes: &[u8], number: usize) {
        if self.bytes.is_empty() {
            let start = bytes.len() - bytes.trim_ascii_start().len();
            self.first_line = number;
            self.bytes.extend_from_slice(&bytes[start..]);
        } else if !self.is_too_long {
            self.bytes.extend_from_slice(bytes);
        }
        if self.bytes.len() > LONGEST_LINE {
            self.is_too_long = true;
            self.bytes.truncate(1);
        }
    }

    /// Gives the document to `take`, unless it is blank.
    fn end(&mut self, take: &mut TakeRow<'_>) -> Result<(), Error> {
        let bytes = std::mem::take(&mut self.bytes);
        let (path, line) = (self.file.path.to_owned(), self.first_line);
        if std::mem::take(&mut self.is_too_long) {
            let message = format!(
                "the text has more than {} MiB; say what separates its documents with `--separator`",
                LONGEST_LINE >> 20
            );
            return take(line, Err(Error::BadRow { path, line, message }));
        }
        let bytes = bytes.trim_ascii_end();
        match str::from_utf8(bytes) {
            Ok(text) if is_blank(text) => Ok(()),
            Ok(text) => {
                let row = Row::from_iter([("text".to_owned(), Value::from(text))]);
                take(line, Ok(row))
            }
            Err(error) => {
                let line = line + newlines(&bytes[..error.valid_up_to()]);
                take(line, Err(Error::InvalidUtf8 { path, line }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::read_bytes;
    use std::path::Path;

    /// The documents of a file with their lines, and what is wrong with others.
    fn documents(name: &str, bytes: &[u8], separator: &str) -> Vec<(usize, String)> {
        let mut read = Vec::new();
        read_bytes(Path::new(name), bytes, &separator.parse().unwrap(), &mut |line, row| {
            let text = match row {
                Ok(row) => row["text"].as_str().unwrap().to_owned(),
                Err(error) => error.to_string(),
            };
            read.push((line, text));
            Ok(())
        })
        .unwrap();
        read
    }

    fn check(bytes: &str, separator: &str, expected: &[(usize, &str)]) {
        let read = documents("f.txt", bytes.as_bytes(), separator);
        let read: Vec<(usize, &str)> = read.iter().map(|(line, text)| (*line, text.as_str())).collect();
        assert_eq!(read, expected, "{bytes:?} by {separator}");
    }

    #[test]
    fn the_separator_says_what_a_document_is() {
        let text = "\nOne.\n\nStill one.\n<|endoftext|>\n\n Two.<|endoftext|>Three.\r\n \r\nEnd\n";
        check(text, "<|endoftext|>", &[(2, "One.\n\nStill one."), (7, "Two."), (7, "Three.\r\n \r\nEnd")]);
        check(text, "file", &[(2, text.trim())]);
        check(
            text,
            "blank-lines",
            &[(2, "One."), (4, "Still one.\n<|endoftext|>"), (7, "Two.<|endoftext|>Three."), (9, "End")],
        );
        check("a\n\n b \r\nc", "lines", &[(1, "a"), (3, "b"), (4, "c")]);
        check("a--b---c", "--", &[(1, "a"), (1, "b"), (1, "-c")]);
        check("\n \n", "file", &[]);
        check("\u{200b}\n\nx", "blank-lines", &[(3, "x")]);
    }

    #[test]
    fn only_text_under_the_name_of_a_text_is_text() {
        check("[Chorus]\nAll is well.", "file", &[(1, "[Chorus]\nAll is well.")]);
        check("{Chorus}", "file", &[(1, "{Chorus}")]);
        check("{\"text\": \"a\"}\n{\"text\": \"b\"}", "file", &[(1, "a"), (2, "b")]);
        check(" [ {\"text\": \"a\"}]", "file", &[(1, "a")]);
        let utf16 = b"\xff\xfeO\0n\0e\0";
        let error = read_bytes(Path::new("f.txt"), &utf16[..], &Separator::File, &mut |_, _| Ok(()));
        assert!(matches!(error, Err(Error::OtherFormat { format: Format::Utf16, .. })));
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_their_line_and_others_are_read() {
        let read = documents("f.txt", b"a\n\nb\nc\xff\nd\n\ne", "blank-lines");
        assert_eq!(read, [(1, "a".into()), (4, "f.txt:4: not valid UTF-8".into()), (7, "e".into())]);
    }

    #[test]
    fn a_document_without_end_is_a_bad_row() {
        let endless = std::io::repeat(b'x').take(LONGEST_LINE as u64 + 7).chain(b"<|endoftext|>y".as_slice());
        let mut read = Vec::new();
        let endless = std::io::BufReader::new(endless);
        read_bytes(Path::new("f.txt"), endless, &Separator::default(), &mut |line, row| {
            read.push((line, row.map_err(|error| error.to_string())));
            Ok(())
        })
        .unwrap();
        assert!(read[0].1.as_ref().unwrap_err().starts_with("f.txt:1: the text has more than 256 MiB"));
        assert_eq!((read.len(), &read[1].1.as_ref().unwrap()["text"]), (2, &Value::from("y")));
    }

    #[test]
    fn a_separator_is_a_name_or_a_mark() {
        assert_eq!("***".parse(), Ok(Separator::Mark("***".into())));
        for bad in ["", " ", "\n\n", "a\nb"] {
            assert!(bad.parse::<Separator>().unwrap_err().contains("blank-lines"));
        }
    }
}
