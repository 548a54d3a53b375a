//! What people read: lines on standard error, and text on a terminal.
//!
//! Standard error may be a pipe that nobody reads any more or a full disk. A run must not end because of that, so every
//! failure to write to it is ignored. Nothing else in this crate writes to standard error.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;

/// A longer line is cut in its middle: it quotes something of the user's that nobody wants to read in full.
const LONGEST: usize = 1200;
/// How much of the end of such a line stays; it often says where something is.
const TAIL: usize = 400;

/// The progress bar that is on the terminal. Lines are written above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Says which progress bar is on the terminal, if any.
pub fn show_bar(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// One line on standard error.
pub fn say(line: &str) {
    write(&format!("{}\n", one_line(line)));
}

/// Several lines on standard error.
pub fn say_lines(text: &str) {
    let lines: Vec<String> =
        text.lines().map(|line| shortened(&visible(line, &['\t'])).into_owned()).collect();
    write(&format!("{}\n", lines.join("\n")));
}

/// A sign on standard error that input is expected, without a line break.
pub fn ask(sign: &str) {
    write(sign);
}

fn write(text: &str) {
    let write = || {
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    };
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Standard error for warnings and debug lines of libraries.
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        say_lines(String::from_utf8_lossy(bytes).trim_end_matches('\n'));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message as one line of bounded length, without control characters.
pub fn one_line(message: &str) -> String {
    shortened(&visible(&message.replace('\n', " "), &[])).into_owned()
}

/// A text with escapes in place of control characters and of those that change the direction of writing, but for
/// those in `kept`: a terminal would obey them.
pub fn visible<'a>(text: &'a str, kept: &[char]) -> Cow<'a, str> {
    let is_hidden = |c: char| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (c.is_control() || turns) && !kept.contains(&c)
    };
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { shown.extend(c.escape_debug()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Whether a text can go to a terminal as it is.
pub fn is_printable(text: &str) -> bool {
    text.lines().all(|line| visible(line, &['\t']) == line && shortened(line) == line)
}

/// A line with `…` in place of its middle, if it is too long.
fn shortened(line: &str) -> Cow<'_, str> {
    // Bytes first: they are counted already.
    if line.len() <= LONGEST {
        return Cow::Borrowed(line);
    }
    let at = |n: usize| line.char_indices().nth(n).map(|(at, _)| at);
    let back = |n: usize| line.char_indices().rev().nth(n - 1).map(|(at, _)| at);
    match (at(LONGEST), at(LONGEST - TAIL), back(TAIL)) {
        (Some(_), Some(head), Some(tail)) => Cow::Owned(format!("{}…{}", &line[..head], &line[tail..])),
        _ => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let text = "a\x1b]0;x\x07\r\u{9b}31m\u{202e}b\nc\td";
        assert_eq!(visible(text, &['\n', '\t']), "a\\u{1b}]0;x\\u{7}\\r\\u{9b}31m\\u{202e}b\nc\td");
        assert_eq!(one_line(text), "a\\u{1b}]0;x\\u{7}\\r\\u{9b}31m\\u{202e}b c\\td");
        assert!(matches!(visible("Grüße 👍🏽 \u{200d}", &[]), Cow::Borrowed(_)));
    }

    #[test]
    fn a_long_line_keeps_its_beginning_and_its_end() {
        let line = format!("unknown key `{}` in big.toml:7", "ü".repeat(1_000_000));
        let short = one_line(&line);
        assert_eq!(short.chars().count(), LONGEST + 1);
        assert!(short.starts_with("unknown key `üü") && short.ends_with("ü` in big.toml:7"));
        assert!(short.contains("ü…ü"));
        let fits = "ü".repeat(LONGEST);
        assert_eq!(one_line(&fits), fits);
    }
}
