//! One JSON object as a row.

use std::fmt;
use std::path::Path;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::lines::newlines;
use crate::error::{Error, one_line};
use crate::records::Row;

/// The object in `bytes`, which start on `line`.
///
/// # Errors
/// [`Error::InvalidUtf8`], [`Error::BrokenJson`], [`Error::NotAnObject`], or [`Error::BadRow`] for a column that occurs
/// twice.
pub(super) fn parse_object(path: &Path, line: usize, bytes: &[u8]) -> Result<Row, Error> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line + newlines(&bytes[..error.valid_up_to()]);
        Error::InvalidUtf8 { path: path.to_owned(), line }
    })?;
    if !text.starts_with('{') {
        return Err(match serde_json::from_str::<Value>(text) {
            Ok(value) => Error::NotAnObject { path: path.to_owned(), line, found: kind_of(&value) },
            Err(error) => broken_json(path, line, &error),
        });
    }
    let parsed = serde_json::from_str(text).map(|Columns(row)| row);
    parsed.map_err(|error| {
        if !error.is_data() {
            return broken_json(path, line, &error);
        }
        Error::BadRow { path: path.to_owned(), line, message: without_place(&error) }
    })
}

/// The columns of a row. A column that occurs twice is refused.
struct Columns(Row);

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
                        let name = shortened(&name);
                        return Err(A::Error::custom(format!("column `{name}` is there twice")));
                    }
                    columns.insert(name, value);
                }
                Ok(Columns(columns))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// The beginning of a name that may be anything.
pub(crate) fn shortened(name: &str) -> String {
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
pub(super) fn without_place(error: &serde_json::Error) -> String {
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
