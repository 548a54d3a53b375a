//! The columns of a row: under which names its texts are found, and what can be wrong with them.

use serde_json::{Map, Value};

use crate::rows::kind_of;

pub(crate) const PROMPT_COLUMNS: [&str; 3] = ["prompt", "instruction", "question"];
pub(crate) const COMPLETIONS_COLUMNS: [&str; 2] = ["completions", "responses"];
pub(crate) const COMPLETION_COLUMNS: [&str; 4] = ["completion", "response", "output", "answer"];
pub(crate) const TEXT_COLUMNS: [&str; 1] = ["text"];
pub(crate) const PAIR_COLUMNS: [&str; 2] = ["chosen", "rejected"];
/// What is asked about, next to the question itself: Alpaca's column and Dolly's.
const MATERIAL_COLUMNS: [&str; 2] = ["input", "context"];
/// What else can be part of a prompt: instructions for the whole dialogue, and its earlier turns.
const UNREAD_COLUMNS: [&str; 3] = ["system", "system_prompt", "history"];
/// Lists of turns.
const CHAT_COLUMNS: [&str; 2] = ["messages", "conversations"];
/// What an hh-rlhf transcript puts before every answer; a prompt cut from one ends with it.
pub(crate) const ASSISTANT: &str = "\n\nAssistant:";

/// What is wrong with the columns of a row; [`crate::read_rows`] adds the place, and the columns to
/// "missing".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("missing column {}", alternatives(columns))]
    Missing { columns: &'static [&'static str] },
    #[error("column `{column}` must be a string, found {found}")]
    NotText { column: &'static str, found: &'static str },
    #[error("column `{column}` is empty")]
    Empty { column: &'static str },
    #[error("column `{column}` next to `prompt` is not read, and the prompt may need it")]
    Material { column: &'static str },
    #[error("column `{column}` is not read, and the prompt may need it")]
    Unread { column: &'static str },
    #[error("column `label` is false, which marks a bad answer: it must not be imitated")]
    BadAnswer,
    #[error("column `score_chosen` must be above `score_rejected`, found {chosen} and {rejected}")]
    ChosenScore { chosen: f64, rejected: f64 },
    #[error("column `{column}` has no text after the last shared \"\\n\\nAssistant:\"")]
    EmptyTurn { column: &'static str },
    #[error(
        "missing column {}, and `chosen` and `rejected` are not transcripts that share a beginning up to \
         \"\\n\\nAssistant:\"",
        alternatives(&PROMPT_COLUMNS)
    )]
    NoSharedPrompt,
    #[error("columns `chosen` and `rejected` are the same")]
    Same,
    #[error("column `margin` must be a positive number up to 1e30, found {found}")]
    Margin { found: String },
    #[error("column `{column}` must be an array, found {found}")]
    NotArray { column: &'static str, found: &'static str },
    #[error("column `{column}` must hold two completions or more, found {n}")]
    TooFew { column: &'static str, n: usize },
    #[error("completion {idx} of column `{column}` is {fault}")]
    Completion { column: &'static str, idx: usize, fault: String },
    #[error("column `scores` must hold a number for each of the {expected} completions, found {found}")]
    ScoreCount { expected: usize, found: usize },
    #[error("score {idx} must be a number from -1e30 to 1e30, found {found}")]
    NotScore { idx: usize, found: String },
    #[error("column `ranking` must name each of the {expected} completions once, from 0 to {}: {fault}", expected - 1)]
    Ranking { expected: usize, fault: String },
    #[error("all completions are tied: there is nothing to learn from")]
    AllTied,
}

/// The prompt, if there is a column for it.
pub(crate) fn prompt(row: &Map<String, Value>) -> Result<Option<String>, Fault> {
    if let Some(column) =
        UNREAD_COLUMNS.into_iter().find(|column| row.get(*column).is_some_and(says_something))
    {
        return Err(Fault::Unread { column });
    }
    let Some(column) = present(row, &PROMPT_COLUMNS) else { return Ok(None) };
    let mut prompt = text(row, &PROMPT_COLUMNS)?.to_owned();
    for material in MATERIAL_COLUMNS {
        match row.get(material).filter(|value| says_something(value)) {
            None => {}
            // A whole prompt may have it in itself already, or before the question: nobody knows.
            Some(_) if column == "prompt" => return Err(Fault::Material { column: material }),
            Some(Value::String(material)) => prompt += &format!("\n\n{material}"),
            Some(other) => return Err(Fault::NotText { column: material, found: kind_of(other) }),
        }
    }
    Ok(Some(prompt))
}

/// Whether a value holds anything: not null, and not a text or list without content.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !is_blank(text),
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// Whether a text has no visible character: white space, and the characters of no width that `char::is_whitespace` does
/// not know.
pub(crate) fn is_blank(text: &str) -> bool {
    let is_invisible = |c| matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    text.chars().all(|c| c.is_whitespace() || c.is_control() || is_invisible(c))
}

/// What to do about a file all of whose rows have a fault like this one.
pub(crate) fn column_advice(fault: &str, columns: &[String]) -> String {
    if let Some(chat) = CHAT_COLUMNS.iter().find(|chat| columns.iter().any(|column| column == *chat)) {
        return format!("chats in `{chat}` are not read yet: give each row a `prompt` and a `completion`");
    }
    if fault.starts_with("missing") {
        return format!(
            "rename the columns: a prompt is read from {}, a completion from {}, a pair from `chosen` and `rejected`, \
             a ranking from {} with `scores` or `ranking`, plain text from `text`",
            alternatives(&PROMPT_COLUMNS),
            alternatives(&COMPLETION_COLUMNS),
            alternatives(&COMPLETIONS_COLUMNS)
        );
    }
    if fault.ends_with("must be a string, found an array") {
        return "lists of messages are not read yet: give the texts themselves, as strings".into();
    }
    if fault.contains("is not read, and the prompt may need it") {
        return "put its text into the prompt, or remove the column if the prompt does not need it".into();
    }
    "fix the rows of the file".into()
}

/// The text of the first of the columns that is there.
pub(crate) fn text<'r>(
    row: &'r Map<String, Value>,
    columns: &'static [&'static str],
) -> Result<&'r str, Fault> {
    let column = present(row, columns).ok_or(Fault::Missing { columns })?;
    match &row[column] {
        Value::String(text) if is_blank(text) => Err(Fault::Empty { column }),
        Value::String(text) => Ok(text),
        other => Err(Fault::NotText { column, found: kind_of(other) }),
    }
}

pub(crate) fn present(row: &Map<String, Value>, columns: &'static [&'static str]) -> Option<&'static str> {
    columns.iter().copied().find(|&column| row.get(column).is_some_and(|value| !value.is_null()))
}

/// The array in a column that is there.
pub(crate) fn array<'r>(row: &'r Map<String, Value>, column: &'static str) -> Result<&'r [Value], Fault> {
    row[column]
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| Fault::NotArray { column, found: kind_of(&row[column]) })
}

fn alternatives(columns: &[&str]) -> String {
    let quoted: Vec<_> = columns.iter().map(|column| format!("`{column}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Comparison, Demonstration, Lesson, Prompt};
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use serde_json::json;

    fn check<T: DeserializeOwned + Serialize>(row: Value, expected: Value) {
        let record: T = serde_json::from_value(row).unwrap();
        assert_eq!(serde_json::to_value(record).unwrap(), expected);
    }

    fn check_error<T: DeserializeOwned>(row: Value, expected: &str) {
        let message = serde_json::from_value::<T>(row).err().unwrap().to_string();
        assert!(message.contains(expected), "{message:?}, expected {expected:?}");
    }

    #[test]
    fn what_a_prompt_may_need_is_not_ignored() {
        for column in ["system", "system_prompt", "history", "context", "input"] {
            for nothing in [Value::Null, json!(""), json!([])] {
                check::<Prompt>(json!({"prompt": "p", column: nothing}), json!({"prompt": "p"}));
            }
            let says = format!("column `{column}`");
            check_error::<Prompt>(json!({"prompt": "p", column: "x"}), &says);
            check_error::<Comparison>(
                json!({"prompt": "p", "chosen": "a", "rejected": "b", column: ["x"]}),
                &says,
            );
        }
        let transcripts =
            json!({"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b", "system": "x"});
        check_error::<Comparison>(transcripts, "column `system` is not read");
        let no_prompt = json!({"text": "p", "completion": "c"});
        check_error::<Lesson>(no_prompt, "missing column `prompt`");
    }

    #[test]
    fn texts_that_cannot_be_seen_are_empty() {
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
        check::<Prompt>(
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
        check::<Prompt>(json!({"question": "Who?", "context": "Ada."}), json!({"prompt": "Who?\n\nAda."}));
        check::<Prompt>(
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
        check::<Prompt>(row(json!("x")), json!({"prompt": "i\n\nx"}));
    }
}
