//! The columns of a row: the texts and lists in them, and what can be wrong with them.

use std::fmt;

use serde_json::Value;
use temper_tokenizer::Prompt;

use super::{Purpose, Row};
use crate::containers::kind_of;
use crate::families::{messages, nearest};

/// Columns that a prompt is read from.
pub(super) const PROMPT: [&str; 3] = ["prompt", "instruction", "question"];
/// Columns that a completion is read from.
pub(super) const COMPLETION: [&str; 4] = ["completion", "response", "output", "answer"];
/// What the prompt is about, next to the question itself: Alpaca's column and Dolly's.
const MATERIAL: [&str; 2] = ["input", "context"];
/// What else can be part of a prompt: instructions for the whole dialogue, and its earlier turns.
const UNREAD: [&str; 3] = ["system", "system_prompt", "history"];

/// What is wrong with the columns of a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    message: String,
    kind: FaultKind,
}

/// The faults that have an advice of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultKind {
    Missing,
    UnreadPrompt,
    Unused,
    Value,
    Other,
}

impl Fault {
    /// A fault that `message` describes, which names the column.
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), kind: FaultKind::Other }
    }

    /// The row has none of these columns; the message ends with `also`.
    pub(crate) fn missing(columns: &[&str], also: &str) -> Self {
        let message = format!("missing column {}{also}", alternatives(columns));
        Self { message, kind: FaultKind::Missing }
    }

    /// The rows are as they should be, and are of no use for what they are read for, because of this: "their answers are
    /// tied". Such rows are left out and counted.
    pub(crate) fn unused(reason: &str) -> Self {
        Self { message: reason.into(), kind: FaultKind::Unused }
    }

    /// The value of a column is not what it must be.
    pub(crate) fn wrong_type(column: &str, expected: &str, value: &Value) -> Self {
        let message = format!("column `{column}` must be {expected}, found {}", kind_of(value));
        Self { message, kind: FaultKind::Value }
    }

    /// A text without a visible character.
    fn empty(column: &str) -> Self {
        Self { message: format!("column `{column}` is empty"), kind: FaultKind::Value }
    }

    /// A column that is not read and may be part of what was asked.
    fn unread(column: &str, place: &str) -> Self {
        let message = format!("column `{column}` {place}is not read, and the prompt may need it");
        Self { message, kind: FaultKind::UnreadPrompt }
    }

    /// Whether the row lacks a column.
    pub(crate) fn is_missing_column(&self) -> bool {
        self.kind == FaultKind::Missing
    }

    /// Whether the row has the column, with a value that cannot be in it.
    pub(crate) fn is_wrong_value(&self) -> bool {
        self.kind == FaultKind::Value
    }

    /// Whether the row is left out without being wrong.
    pub(crate) fn is_unused(&self) -> bool {
        self.kind == FaultKind::Unused
    }
}

/// What to do about a file all of whose rows have a fault like this one; `columns` are those of its first row, which
/// were read for `purpose`.
pub(crate) fn advice(fault: &Fault, columns: &[String], purpose: Purpose) -> String {
    let has_one_of = |names: &[&str]| columns.iter().any(|column| names.contains(&column.as_str()));
    match fault.kind {
        FaultKind::Missing
            if purpose == Purpose::Comparisons && has_one_of(&PROMPT) && has_one_of(&COMPLETION) =>
        {
            "these are demonstrations, which `temper sft` learns from; comparisons have `chosen` and `rejected`, or \
             several `completions` with `scores`; say which columns to read with `--columns \
             prompt=NAME,chosen=NAME,rejected=NAME`"
                .into()
        }
        FaultKind::Missing => {
            let [one, other] = nearest(columns, purpose).map(|family| {
                let names: Vec<String> = family.columns.iter().map(|column| format!("`{column}`")).collect();
                format!("{} ({})", family.name, names.join(", "))
            });
            let names = match purpose {
                Purpose::Demonstrations | Purpose::Answers => "prompt=NAME,completion=NAME",
                Purpose::Comparisons => "prompt=NAME,chosen=NAME,rejected=NAME",
                Purpose::Prompts => "prompt=NAME",
                Purpose::Texts => "text=NAME",
            };
            format!(
                "the formats most like it are {one} and {other}; say which columns to read with `--columns {names}`"
            )
        }
        FaultKind::UnreadPrompt => {
            "put its text into the prompt, or remove the column if the prompt does not need it".into()
        }
        FaultKind::Unused => {
            "give rows that are of use here: `temper data inspect` shows what a file holds".into()
        }
        FaultKind::Value | FaultKind::Other => "fix the rows of the file".into(),
    }
}

/// The prompt, if the row has a column for it.
pub(super) fn optional_prompt(row: &Row) -> Result<Option<Prompt>, Fault> {
    if let Some(column) = UNREAD.into_iter().find(|column| row.get(*column).is_some_and(has_content)) {
        return Err(Fault::unread(column, ""));
    }
    let Some(column) = present(row, &PROMPT) else { return Ok(None) };
    let has_material = |column: &&&str| row.get(**column).is_some_and(has_content);
    if column == "prompt"
        && let Some(material) = MATERIAL.iter().find(has_material)
    {
        // A whole prompt may contain it already, or need it before the question: the row does not say.
        return Err(Fault::unread(material, "next to `prompt` "));
    }
    if row[column].is_array() {
        return Ok(Some(messages(row, column)?.into()));
    }
    let prompt = text(row, &PROMPT)?.to_owned() + &material(row)?;
    Ok(Some(prompt.into()))
}

/// The columns that [`optional_prompt`] makes the prompt of, those that are empty included.
pub(super) fn prompt_columns(row: &Row) -> Vec<&'static str> {
    present(row, &PROMPT).into_iter().chain(MATERIAL).chain(UNREAD).collect()
}

/// What a question is about, from the columns next to it, each part after a blank line.
pub(crate) fn material(row: &Row) -> Result<String, Fault> {
    let mut text = String::new();
    for column in MATERIAL {
        match row.get(column).filter(|value| has_content(value)) {
            None => {}
            Some(Value::String(part)) => text += &format!("\n\n{part}"),
            Some(other) => return Err(Fault::wrong_type(column, "a string", other)),
        }
    }
    Ok(text)
}

/// The prompt of a row that must have one.
pub(super) fn prompt(row: &Row) -> Result<Prompt, Fault> {
    optional_prompt(row)?.ok_or_else(|| Fault::missing(&PROMPT, ""))
}

/// Whether a value has any content: not null, and not an empty text, list or object.
pub(crate) fn has_content(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !is_blank(text),
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Whether a text has no visible character: only white space, and characters of no width that `char::is_whitespace` does
/// not include.
pub(crate) fn is_blank(text: &str) -> bool {
    let is_invisible = |c| matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    text.chars().all(|c| c.is_whitespace() || c.is_control() || is_invisible(c))
}

/// The text in the first of `columns` that is present.
pub(crate) fn text<'r>(row: &'r Row, columns: &[&'static str]) -> Result<&'r str, Fault> {
    let column = present(row, columns).ok_or_else(|| Fault::missing(columns, ""))?;
    match &row[column] {
        Value::String(text) if is_blank(text) => Err(Fault::empty(column)),
        Value::String(text) => Ok(text),
        other => Err(Fault::wrong_type(column, "a string", other)),
    }
}

/// The first of `columns` that the row has and that is not null.
pub(crate) fn present(row: &Row, columns: &[&'static str]) -> Option<&'static str> {
    columns.iter().copied().find(|&column| row.get(column).is_some_and(|value| !value.is_null()))
}

/// The array in a column that is present.
pub(super) fn array<'r>(row: &'r Row, column: &'static str) -> Result<&'r [Value], Fault> {
    let value = &row[column];
    value.as_array().map(Vec::as_slice).ok_or_else(|| Fault::wrong_type(column, "an array", value))
}

/// Names of columns as a list that ends with "or".
pub(super) fn alternatives(columns: &[&str]) -> String {
    let quoted: Vec<_> = columns.iter().map(|column| format!("`{column}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::super::testing::{check, check_error};
    use super::*;
    use crate::{Comparison, Demonstration, PromptRow, SftRow};
    use serde_json::json;

    #[test]
    fn the_advice_names_the_formats_most_like_a_row_and_how_to_name_its_columns() {
        let row = json!({"x": 1});
        let fault = Demonstration::from_row(row.as_object().unwrap()).unwrap_err();
        let columns = ["id".into(), "chosen_answer".into(), "rejected_answer".into()];
        let advice = advice(&fault, &columns, Purpose::Comparisons);
        assert!(advice.contains("preference without a prompt (`chosen`, `rejected`)"), "{advice}");
        assert!(advice.ends_with("`--columns prompt=NAME,chosen=NAME,rejected=NAME`"), "{advice}");
    }

    #[test]
    fn what_a_prompt_may_need_is_not_ignored() {
        for column in ["system", "system_prompt", "history", "context", "input"] {
            for nothing in [Value::Null, json!(""), json!([])] {
                check::<PromptRow>(json!({"prompt": "p", column: nothing}), json!({"prompt": "p"}));
            }
            let message = format!("column `{column}`");
            check_error::<PromptRow>(json!({"prompt": "p", column: "x"}), &message);
            check_error::<Comparison>(
                json!({"prompt": "p", "chosen": "a", "rejected": "b", column: ["x"]}),
                &message,
            );
        }
        let transcripts =
            json!({"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b", "system": "x"});
        check_error::<Comparison>(transcripts, "column `system` is not read");
        let no_prompt = json!({"text": "p", "completion": "c"});
        check_error::<SftRow>(no_prompt, "missing column `prompt`");
    }

    #[test]
    fn texts_without_a_visible_character_are_empty() {
        for blank in ["\u{200b}", "\u{feff} \u{2060}\n", "\u{200d}\u{200c}", "\0", "\u{3000}"] {
            check_error::<Demonstration>(
                json!({"prompt": "p", "completion": blank}),
                "`completion` is empty",
            );
            check_error::<Comparison>(
                json!({"prompt": "p", "completions": ["a", blank], "scores": [1, 0]}),
                "completion 1 of column `completions` is empty",
            );
        }
        // Joiners inside a text are part of it.
        check::<PromptRow>(
            json!({"prompt": "\u{1f468}\u{200d}\u{1f469}"}),
            json!({"prompt": "\u{1f468}\u{200d}\u{1f469}"}),
        );
    }

    #[test]
    fn the_context_of_a_question_is_part_of_the_prompt() {
        let row = |context: Value| json!({"instruction": "Who?", "context": context, "response": "Ada.", "category": "closed_qa"});
        check::<Demonstration>(
            row(json!("Ada wrote it.")),
            json!({"prompt": "Who?\n\nAda wrote it.", "completion": "Ada."}),
        );
        check::<Demonstration>(row(json!("")), json!({"prompt": "Who?", "completion": "Ada."}));
        check::<PromptRow>(json!({"question": "Who?", "context": "Ada."}), json!({"prompt": "Who?\n\nAda."}));
        check::<PromptRow>(
            json!({"instruction": "i", "input": "x", "context": "c"}),
            json!({"prompt": "i\n\nx\n\nc"}),
        );
    }

    #[test]
    fn the_input_follows_the_instruction_after_a_blank_line() {
        let row = |input: Value| json!({"instruction": "i", "input": input, "output": "o"});
        check::<Demonstration>(row(json!("x")), json!({"prompt": "i\n\nx", "completion": "o"}));
        for nothing in [json!(""), json!(" "), Value::Null] {
            check::<Demonstration>(row(nothing), json!({"prompt": "i", "completion": "o"}));
        }
        check_error::<Demonstration>(row(json!(3)), "column `input` must be a string, found a number");
        check::<PromptRow>(row(json!("x")), json!({"prompt": "i\n\nx", "columns": {"output": "o"}}));
    }
}
