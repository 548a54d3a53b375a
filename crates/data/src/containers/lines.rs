//! The lines of a reader, and readers that end with an error where there is too much.

use std::io::{self, BufRead, Read};

/// The longest line of JSON lines, in bytes: a file without line ends must not fill the memory.
pub(crate) const LONGEST_LINE: usize = 1 << 28;

/// A reader that fails after so many bytes.
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
    text: Vec<u8>,
}

/// A line of more than [`LONGEST_LINE`] bytes.
pub(crate) struct TooLong;

/// The text of a line, without white space around it.
pub(crate) type Line<'a> = Result<&'a [u8], TooLong>;

impl<R: BufRead> Lines<R> {
    /// From the first line.
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, line: 1, text: Vec::new() }
    }

    /// The first bytes of the text: what the reader has at hand after a byte order mark and white space.
    pub(crate) fn beginning(&mut self) -> io::Result<&[u8]> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        if self.reader.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
            self.reader.consume(BYTE_ORDER_MARK.len());
        }
        self.skip_white_space()?;
        self.reader.fill_buf()
    }

    /// The line at which the reader is, from 1.
    pub(crate) fn number(&self) -> usize {
        self.line
    }

    /// The reader, at its present place.
    pub(crate) fn into_reader(self) -> R {
        self.reader
    }

    /// Appends everything that is left to `bytes`, and returns the line at which it starts.
    pub(crate) fn rest(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        self.reader.read_to_end(bytes)?;
        Ok(self.line)
    }

    /// Skips white space, blank lines included, in constant memory. Returns the byte after it.
    fn skip_white_space(&mut self) -> io::Result<Option<u8>> {
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
        self.text.clear();
        (&mut self.reader).take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut self.text)?;
        let line = self.line;
        self.line += 1;
        if self.text.len() > LONGEST_LINE && !self.text.ends_with(b"\n") {
            self.reader.skip_until(b'\n')?;
            return Ok(Some((line, Err(TooLong))));
        }
        Ok(Some((line, Ok(self.text.trim_ascii()))))
    }
}

/// How many lines end in `bytes`.
pub(crate) fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte == b'\n').count()
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
        let (line, text) = lines.next().unwrap().unwrap();
        assert_eq!((line, text.ok().unwrap()), ((3 << 20) + 1, b"{\"a\":7}".as_slice()));
        assert!(lines.text.capacity() < 1000 && lines.next().unwrap().is_none());
    }
}
