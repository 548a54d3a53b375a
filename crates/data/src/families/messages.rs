//! Lists of messages in columns.

use serde_json::{Map, Value, json};
use temper_tokenizer::Message;

use crate::containers::kind_of;
use crate::records::{Fault, Row};

/// Names of ShareGPT for who speaks, with those of chat templates.
const SPEAKERS: [(&str, &str); 14] = [
    ("human", "user"),
    ("user", "user"),
    ("prompter", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("model", "assistant"),
    ("assistant", "assistant"),
    ("function_call", "assistant"),
    ("system", "system"),
    ("tool", "tool"),
    ("observation", "tool"),
    ("function_response", "tool"),
];

/// The messages in a column that is present: a list of them, or a single one.
pub(crate) fn messages(row: &Row, column: &str) -> Result<Vec<Message>, Fault> {
    let values = match &row[column] {
        Value::Array(values) => values.as_slice(),
        Value::Object(_) => std::slice::from_ref(&row[column]),
        other => return Err(Fault::wrong_type(column, "a list of messages", other)),
    };
    if values.is_empty() {
        return Err(Fault::new(format_args!("column `{column}` has no message")));
    }
    let numbered = values.iter().enumerate();
    let read = |(idx, value): (usize, &Value)| {
        message(value)
            .map_err(|fault| Fault::new(format_args!("message {} of column `{column}` {fault}", idx + 1)))
    };
    numbered.map(read).collect()
}

/// A message of either form: `role` and `content`, or `from` and `value`. Fields that are null are absent.
fn message(value: &Value) -> Result<Message, String> {
    let Value::Object(fields) = value else { return Err(format!("is {}, not an object", kind_of(value))) };
    let given = fields.iter().filter(|(_, value)| !value.is_null());
    let mut fields: Map<String, Value> = given.map(|(name, value)| (name.clone(), value.clone())).collect();
    if !fields.contains_key("role")
        && let Some(speaker) = fields.remove("from")
    {
        let speaker = speaker.as_str().unwrap_or_default().to_lowercase();
        let (_, role) = SPEAKERS.iter().find(|(name, _)| *name == speaker).ok_or_else(|| {
            format!("is from `{}`, a speaker that Temper does not know", speaker.escape_debug())
        })?;
        fields.insert("role".into(), (*role).into());
        if let Some(value) = fields.remove("value") {
            fields.insert("content".into(), value);
        }
    }
    if !fields.contains_key("role") {
        return Err("has no `role`".into());
    }
    if fields.len() == 1 {
        return Err("has no `content`".into());
    }
    serde_json::from_value(fields.into()).map_err(|error| format!("cannot be read: {error}"))
}

/// The conversation so far as the value of a column. The only message of a user is its text, which every model can read.
pub(super) fn prompt_value(messages: Vec<Message>) -> Value {
    match messages.as_slice() {
        [only] if only.role == "user" && only.other.is_empty() => only.text().into(),
        _ => json!(messages),
    }
}

/// The text of the one answer that `messages` must be.
pub(super) fn answer(messages: &[Message], column: &str) -> Result<String, Fault> {
    match messages {
        [only] if only.is_of_assistant() && only.other.is_empty() => Ok(only.text().to_owned()),
        [only] if only.is_of_assistant() => {
            let message = format_args!("the answer in column `{column}` has fields besides its text");
            Err(Fault::new(message))
        }
        _ => Err(Fault::new(format_args!(
            "column `{column}` must hold one answer of the assistant after what was asked"
        ))),
    }
}

/// The value of an optional column that holds a text; empty where the row has none.
pub(super) fn optional_text<'r>(row: &'r Row, column: &str) -> Result<&'r str, Fault> {
    match row.get(column) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Fault::wrong_type(column, "a string", other)),
    }
}
