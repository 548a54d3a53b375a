//! The Jinja environment that transformers gives to a chat template.
//!
//! The source is `_compile_jinja_template` in `utils/chat_template_utils.py` of transformers 5.24.

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind, from_args},
};
use minijinja_contrib::pycompat;
use serde_json::Value as Json;

use super::{date::Date, json::tojson};

/// The name of the only template, which messages of `minijinja` contain together with a line.
pub(super) const NAME: &str = "line";

/// Compiles a chat template.
pub(super) fn compile(source: String) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", tojson);
    env.add_filter("trim", trim);
    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception")
            .with_source(Refusal(message.to_string())))
    });
    env.remove_global("debug");
    env.add_template_owned(NAME, source)?;
    Ok(env)
}

/// What a template said through `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refusal(pub(super) String);

/// The function `strftime_now`, at noon of a fixed date.
pub(super) fn strftime_now(date: Date) -> Value {
    Value::from_function(move |format: &str| {
        date.format(format).map_err(|code| {
            Error::new(ErrorKind::InvalidOperation, format!("`strftime_now` does not know the code `{code}`"))
        })
    })
}

/// The function that a `{% generation %}` block calls: it puts marks around what the block writes.
pub(super) fn generation(marks: Option<[char; 2]>) -> Value {
    Value::from_function(move |state: &mut State, kwargs: Kwargs| {
        let caller: Value = kwargs.get("caller")?;
        let text = caller.call(state, &[])?;
        Ok::<_, Error>(match marks {
            Some([open, close]) => Value::from(format!("{open}{text}{close}")),
            None => text,
        })
    })
}

/// JSON as a value that a template can use.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(bool) => Value::from(*bool),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::from(number),
            (_, Some(number)) => Value::from(number),
            _ => Value::from(number.as_f64()),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(key, item)| (key.as_str(), value(item))))
        }
    }
}

/// The filter `trim`: it takes any value, and white space is what Python takes for it.
fn trim(value: &Value, chars: Option<&str>) -> String {
    if value.is_undefined() { String::new() } else { strip(&value.to_string(), chars, true, true).to_owned() }
}

/// Methods of Python's strings that `pycompat` lacks or understands differently, and then those of `pycompat`.
fn method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if value.kind() != ValueKind::String {
        return pycompat::unknown_method_callback(state, value, method, args);
    }
    let text = value.as_str().unwrap_or_default();
    let stripped = |start, end| {
        let (chars,): (Option<&str>,) = from_args(args)?;
        Ok(Value::from(strip(text, chars, start, end)))
    };
    match method {
        "strip" => stripped(true, true),
        "lstrip" => stripped(true, false),
        "rstrip" => stripped(false, true),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (split, rest) = match method {
                "partition" => (text.split_once(separator), [text, "", ""]),
                _ => (text.rsplit_once(separator), ["", "", text]),
            };
            let parts = split.map_or(rest, |(before, after)| [before, separator, after]);
            Ok(Value::from(parts.map(Value::from).to_vec()))
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Python's `strip`, at the start, at the end or at both.
fn strip<'a>(text: &'a str, chars: Option<&str>, start: bool, end: bool) -> &'a str {
    let is_cut = |char: char| chars.map_or_else(|| is_space(char), |chars| chars.contains(char));
    let text = if start { text.trim_start_matches(is_cut) } else { text };
    if end { text.trim_end_matches(is_cut) } else { text }
}

/// Whether Python's `isspace` is true: it also takes the four separators of ASCII.
fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char)
}
