//! The pieces of a data file, one after the other: lines of a reader, or elements of an array.

use std::io::{self, BufRead, Read};

use crate::error::Error;

/// The longest line of JSON lines, in bytes: a file without line ends must not fill the memory.
pub(crate) const LONGEST_ROW: usize = 1 << 28;

/// Gives at most so many bytes; one more is an error.
pub(crate) struct Limited<R> {
    inner: R,
    left: u64,
}

/// There are more bytes than allowed.
#[derive(Debug, thiserror::Error)]
#[error("too many bytes")]
pub(crate) struct TooMuch;

impl<R> Limited<R> {
    /// At most `limit` bytes of `inner`.
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| io::Error::other(TooMuch))?;
        Ok(n)
    }
}

/// Lines that are not blank.
pub(crate) struct Lines<R> {
    reader: R,
    /// The 1-based line at which the reader is.
    line: usize,
    row: Vec<u8>,
}

/// A line of more than [`LONGEST_ROW`] bytes.
pub(crate) struct TooLong;

/// What is in a line, without white space around it.
pub(crate) type Line<'a> = Result<&'a [u8], TooLong>;

impl<R: BufRead> Lines<R> {
    /// From the first line.
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, line: 1, row: Vec::new() }
    }

    /// Everything that is left, and the line at which it starts.
    pub(crate) fn rest(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        self.reader.read_to_end(bytes)?;
        Ok(self.line)
    }

    /// Passes over white space, blank lines included, which takes no memory however much there is of it. Returns the
    /// byte after it.
    pub(crate) fn skip_white_space(&mut self) -> io::Result<Option<u8>> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let n = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.line += newlines(&buffer[..n]);
            let next = buffer.get(n).copied();
            let is_end = buffer.is_empty();
            self.reader.consume(n);
            if is_end || next.is_some() {
                return Ok(next);
            }
        }
    }

    /// The next line with its number, without white space around it.
    pub(crate) fn next(&mut self) -> io::Result<Option<(usize, Line<'_>)>> {
        if self.skip_white_space()?.is_none() {
            return Ok(None);
        }
        self.row.clear();
        (&mut self.reader).take(LONGEST_ROW as u64 + 1).read_until(b'\n', &mut self.row)?;
        let line = self.line;
        self.line += 1;
        if self.row.len() > LONGEST_ROW && !self.row.ends_with(b"\n") {
            self.reader.skip_until(b'\n')?;
            return Ok(Some((line, Err(TooLong))));
        }
        Ok(Some((line, Ok(self.row.trim_ascii()))))
    }
}

pub(crate) fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
}

/// Gives `visit` each element of a well-formed JSON array, with the line on which it starts, where the array starts
/// on `first_line`. A list of them all could take many times the memory of the array.
pub(crate) fn each_element(
    bytes: &[u8],
    first_line: usize,
    mut visit: impl FnMut(usize, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut start: Option<(usize, usize)> = None;
    let (mut line, mut depth, mut in_string, mut escaped) = (first_line, 0usize, false, false);
    for (at, &byte) in bytes.iter().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        let ends_element = depth == 1 && matches!(byte, b',' | b']');
        if ends_element {
            if let Some((line, from)) = start.take() {
                visit(line, bytes[from..at].trim_ascii())?;
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn one_byte_more_than_allowed_is_an_error() {
        let read = |limit| io::read_to_string(Limited::new([b'x'; 100_000].as_slice(), limit));
        assert_eq!(read(100_000).unwrap().len(), 100_000);
        assert!(read(99_999).unwrap_err().get_ref().unwrap().is::<TooMuch>());
    }

    #[test]
    fn blank_lines_take_no_memory() {
        let newlines = io::repeat(b'\n').take(3 << 20).chain(b"{\"a\":7}".as_slice());
        let mut lines = Lines::new(BufReader::new(newlines));
        let (line, row) = lines.next().unwrap().unwrap();
        assert_eq!((line, row.ok().unwrap()), ((3 << 20) + 1, b"{\"a\":7}".as_slice()));
        assert!(lines.row.capacity() < 1000 && lines.next().unwrap().is_none());
    }
}
