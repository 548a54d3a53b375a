//! The Jinja environment that transformers gives to a chat template.
//!
//! The source is `_compile_jinja_template` in `utils/chat_template_utils.py` of transformers 5.24.

use minijinja::{
    Environment, Error, ErrorKind, State, Value, escape_formatter,
    syntax::SyntaxConfig,
    value::{ValueKind, from_args},
};
use minijinja_contrib::pycompat;
use serde_json::Value as Json;

use super::{
    date::Date,
    generation,
    json::{float, tojson},
};

/// The name of the only template, which messages of `minijinja` contain together with a line.
pub(super) const NAME: &str = "line";

/// Compiles a chat template.
pub(super) fn compile(source: String) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", tojson);
    env.add_filter("trim", trim);
    env.add_filter(generation::FILTER, |text: Value| text);
    // Jinja's undefined value has a length and items, namely none.
    let is_sequence =
        |kind| matches!(kind, ValueKind::Undefined | ValueKind::Seq | ValueKind::Map | ValueKind::String);
    env.add_test("sequence", move |value: &Value| is_sequence(value.kind()));
    env.add_test("iterable", move |value: &Value| {
        is_sequence(value.kind()) || value.kind() == ValueKind::Iterable
    });
    env.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    env.set_formatter(|out, state, value| match value.kind() {
        ValueKind::Number if !value.is_integer() => Ok(out.write_str(&float(f64::try_from(value.clone())?))?),
        _ => escape_formatter(out, state, value),
    });
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

/// Makes the filter that replaces `{% generation %}` put marks around what the block writes.
pub(super) fn mark_generation(env: &mut Environment<'_>, [open, close]: [char; 2]) {
    env.add_filter(generation::FILTER, move |text: &str| format!("{open}{text}{close}"));
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
        "split" if args.first().is_none_or(Value::is_none) && args.len() < 2 => {
            Ok(text.split(is_space).filter(|word| !word.is_empty()).map(Value::from).collect())
        }
        "splitlines" if args.is_empty() => Ok(lines(text).into_iter().map(Value::from).collect()),
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

/// Python's `splitlines`, which knows more line ends than Rust.
fn lines(text: &str) -> Vec<&str> {
    let is_end =
        |char: char| matches!(char, '\n'..='\r' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(is_end) {
        let (line, after) = rest.split_at(end);
        lines.push(line);
        let end_len =
            if after.starts_with("\r\n") { 2 } else { after.chars().next().map_or(0, char::len_utf8) };
        rest = &after[end_len..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}
