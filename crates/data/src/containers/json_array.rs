//! A JSON array of objects.

use serde::de::IgnoredAny;

use super::json::{parse_object, without_place};
use super::{Container, Content, DataFile, Format, Source, TakeRow};
use crate::error::Error;

/// A file that begins with `[`. It is read as a whole, because only its end tells whether it is JSON.
pub(super) struct JsonArray;

impl Container for JsonArray {
    fn recognises(&self, beginning: &[u8], _: &DataFile<'_>) -> bool {
        beginning.starts_with(b"[")
    }

    fn read(&self, source: Source<'_>, take: &mut TakeRow<'_>) -> Result<Option<Content>, Error> {
        let Source { file, mut lines } = source;
        let mut bytes = Vec::new();
        let line = lines.rest(&mut bytes).map_err(|error| file.failed(error))?;
        // After this check the elements are well-formed JSON.
        serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|error| broken_array(&file, line, &error))?;
        each_element(&bytes, line, |line, element| take(line, parse_object(file.path, line, element)))?;
        Ok(None)
    }
}

/// What is wrong with the array, or which format the file is: text may begin with a bracket, too.
fn broken_array(file: &DataFile<'_>, first_line: usize, error: &serde_json::Error) -> Error {
    let path = file.path.to_owned();
    if let Some(format) = Format::of_name(&path) {
        return Error::OtherFormat { path, format };
    }
    let line = first_line + error.line().saturating_sub(1);
    Error::BrokenArray { path, line, column: error.column(), message: without_place(error) }
}

/// Gives `visit` each element of a well-formed JSON array, with the line on which it starts, where the array starts on
/// `first_line`. A list of all elements could take many times the memory of the array.
fn each_element(
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
