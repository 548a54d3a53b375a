//! Lines of standard input, one at a time: whatever somebody sends, it takes no more memory than one of them may.

use std::io::{self, BufRead, Read};

/// Bytes of the longest line. No context holds as many tokens.
const MOST_BYTES: u64 = 1 << 24;

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// What was typed.
    Text(String),
    /// Not UTF-8.
    NotUtf8,
    /// Of more bytes than are read; the rest of it was skipped.
    TooLong,
}

impl Line {
    /// The text, or what is wrong with the line.
    pub fn text(self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text),
            Self::NotUtf8 => Err("the line is not UTF-8".into()),
            Self::TooLong => Err(format!("the line has more than {MOST_BYTES} bytes")),
        }
    }
}

/// Reads the next line; `None` at the end of the input.
pub fn next_line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    limited_line(input, MOST_BYTES)
}

fn limited_line(input: &mut impl BufRead, most: u64) -> io::Result<Option<Line>> {
    let mut bytes = Vec::new();
    // Two more for the end of the line.
    if input.by_ref().take(most + 2).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let ended = bytes.last() == Some(&b'\n');
    if ended {
        bytes.pop();
        bytes.pop_if(|byte| *byte == b'\r');
    }
    if bytes.len() as u64 > most {
        if !ended {
            input.skip_until(b'\n')?;
        }
        return Ok(Some(Line::TooLong));
    }
    Ok(Some(String::from_utf8(bytes).map_or(Line::NotUtf8, Line::Text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_a_bad_one_does_not_end_the_input() {
        let mut input = &b"one\r\n\n\xff\n12345678\n123456789\n123456789012345\r\nlast"[..];
        let mut lines = Vec::new();
        while let Some(line) = limited_line(&mut input, 8).unwrap() {
            lines.push(line);
        }
        let text = |text: &str| Line::Text(text.into());
        let expected = [
            text("one"),
            text(""),
            Line::NotUtf8,
            text("12345678"),
            Line::TooLong,
            Line::TooLong,
            text("last"),
        ];
        assert_eq!(lines, expected);
    }
}
