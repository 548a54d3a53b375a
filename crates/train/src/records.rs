//! The kinds of rows that the stages learn from, under any of the column names that are in use.
//!
//! | field | columns, first one that is there and not null |
//! | --- | --- |
//! | `prompt` | `prompt`, `instruction` (with a non-empty `input` after a blank line), `question` |
//! | `completion` | `completion`, `response`, `output`, `answer` |
//! | `chosen`, `rejected` | the same; without a prompt column, whole hh-rlhf transcripts |
//!
//! Other columns are ignored. Texts of white space only count as empty and are refused.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::rows::kind_of;

const PROMPT_COLUMNS: [&str; 3] = ["prompt", "instruction", "question"];
const COMPLETION_COLUMNS: [&str; 4] = ["completion", "response", "output", "answer"];
/// What an hh-rlhf transcript puts before every answer; a prompt cut from one ends with it.
const ASSISTANT: &str = "\n\nAssistant:";

/// A prompt and a completion to imitate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Demonstration {
    /// What was asked.
    pub prompt: String,
    /// How to answer.
    pub completion: String,
}

/// A prompt and two completions, the better one named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// What was asked.
    pub prompt: String,
    /// The better completion.
    pub chosen: String,
    /// The worse completion.
    pub rejected: String,
}

/// A prompt alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prompt {
    /// What is asked.
    pub prompt: String,
}

/// What is wrong with the columns of a row; [`crate::read_rows`] adds the place, and the columns to
/// "missing".
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("missing column {}", alternatives(columns))]
    Missing { columns: &'static [&'static str] },
    #[error("column `{column}` must be a string, found {found}")]
    NotText { column: &'static str, found: &'static str },
    #[error("column `{column}` is empty")]
    Empty { column: &'static str },
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
}

impl<'de> Deserialize<'de> for Demonstration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_row(&Map::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Comparison {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_row(&Map::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_row(&Map::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Demonstration {
    fn from_row(row: &Map<String, Value>) -> Result<Self, Fault> {
        let prompt = prompt(row)?.ok_or(Fault::Missing { columns: &PROMPT_COLUMNS })?;
        let completion = text(row, &COMPLETION_COLUMNS)?;
        Ok(Self { prompt, completion: completion.to_owned() })
    }
}

impl Comparison {
    fn from_row(row: &Map<String, Value>) -> Result<Self, Fault> {
        let prompt = prompt(row)?;
        let chosen = text(row, &["chosen"])?;
        let rejected = text(row, &["rejected"])?;
        let comparison = match prompt {
            Some(prompt) => Self { prompt, chosen: chosen.to_owned(), rejected: rejected.to_owned() },
            None => split_transcripts(chosen, rejected)?,
        };
        if comparison.chosen == comparison.rejected { Err(Fault::Same) } else { Ok(comparison) }
    }
}

impl Prompt {
    fn from_row(row: &Map<String, Value>) -> Result<Self, Fault> {
        let prompt = prompt(row)?.ok_or(Fault::Missing { columns: &PROMPT_COLUMNS })?;
        Ok(Self { prompt })
    }
}

/// The prompt, if there is a column for it.
fn prompt(row: &Map<String, Value>) -> Result<Option<String>, Fault> {
    let Some(column) = present(row, &PROMPT_COLUMNS) else { return Ok(None) };
    let mut prompt = text(row, &PROMPT_COLUMNS)?.to_owned();
    if column == "instruction" && present(row, &["input"]).is_some() {
        match text(row, &["input"]) {
            Ok(input) => prompt += &format!("\n\n{input}"),
            Err(Fault::Empty { .. }) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(Some(prompt))
}

/// The text of the first of the columns that is there.
fn text<'r>(row: &'r Map<String, Value>, columns: &'static [&'static str]) -> Result<&'r str, Fault> {
    let column = present(row, columns).ok_or(Fault::Missing { columns })?;
    match &row[column] {
        Value::String(text) if text.trim().is_empty() => Err(Fault::Empty { column }),
        Value::String(text) => Ok(text),
        other => Err(Fault::NotText { column, found: kind_of(other) }),
    }
}

fn present(row: &Map<String, Value>, columns: &'static [&'static str]) -> Option<&'static str> {
    columns.iter().copied().find(|&column| row.get(column).is_some_and(|value| !value.is_null()))
}

/// Cuts two transcripts after the last `"\n\nAssistant:"` that lies in their common beginning.
fn split_transcripts(chosen: &str, rejected: &str) -> Result<Comparison, Fault> {
    if chosen == rejected {
        return Err(Fault::Same);
    }
    let pairs = chosen.char_indices().zip(rejected.chars());
    let shared = pairs.take_while(|((_, a), b)| a == b).last().map_or(0, |((at, a), _)| at + a.len_utf8());
    let end = chosen[..shared].rfind(ASSISTANT).ok_or(Fault::NoSharedPrompt)? + ASSISTANT.len();
    for (column, transcript) in [("chosen", chosen), ("rejected", rejected)] {
        if transcript[end..].trim().is_empty() {
            return Err(Fault::EmptyTurn { column });
        }
    }
    Ok(Comparison {
        prompt: chosen[..end].to_owned(),
        chosen: chosen[end..].to_owned(),
        rejected: rejected[end..].to_owned(),
    })
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
    use proptest::prelude::*;
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
    fn demonstrations_come_under_many_names() {
        let expected = json!({"prompt": "p", "completion": " c"});
        for prompt in PROMPT_COLUMNS {
            for completion in COMPLETION_COLUMNS {
                check::<Demonstration>(json!({prompt: "p", completion: " c", "source": 1}), expected.clone());
            }
        }
        check::<Demonstration>(json!({"prompt": null, "question": "p", "answer": " c"}), expected);
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

    #[test]
    fn a_wrong_column_is_named() {
        check_error::<Demonstration>(json!({"x": 1}), "missing column `prompt`, `instruction` or `question`");
        check_error::<Demonstration>(json!({"prompt": "p"}), "missing column `completion`, `response`");
        check_error::<Demonstration>(json!({"prompt": "p", "output": " \n"}), "column `output` is empty");
        check_error::<Demonstration>(json!({"prompt": " ", "output": "o"}), "column `prompt` is empty");
        check_error::<Prompt>(json!({"prompt": []}), "column `prompt` must be a string, found an array");
        check_error::<Comparison>(json!({"prompt": "p", "chosen": "a"}), "missing column `rejected`");
        check_error::<Comparison>(
            json!({"prompt": "p", "chosen": "", "rejected": "b"}),
            "column `chosen` is empty",
        );
        check_error::<Comparison>(json!({"prompt": "p", "chosen": "a", "rejected": "a"}), "are the same");
    }

    #[test]
    fn transcripts_split_at_the_last_shared_answer() {
        let pair = |chosen: &str, rejected: &str| json!({"chosen": chosen, "rejected": rejected});
        let prompt = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:";
        check::<Comparison>(
            pair(&format!("{prompt} Yes, é"), &format!("{prompt} Yes, è")),
            json!({"prompt": prompt, "chosen": " Yes, é", "rejected": " Yes, è"}),
        );
        check_error::<Comparison>(pair("a b", "a c"), "share a beginning");
        check_error::<Comparison>(pair("\n\nAssistant: x", "\n\nHuman: x"), "share a beginning");
        check_error::<Comparison>(pair(prompt, &format!("{prompt} x")), "`chosen` has no text after");
        check_error::<Comparison>(pair(prompt, prompt), "are the same");
    }

    proptest! {
        #[test]
        fn splitting_loses_nothing(prompt in "[aé\n]{0,9}", a in "[ab é]{1,9}", b in "[ab è]{1,9}") {
            let [chosen, rejected] = [a, b].map(|turn| format!("{prompt}{ASSISTANT}{turn}"));
            if let Ok(split) = split_transcripts(&chosen, &rejected) {
                prop_assert_eq!(&split.prompt, &format!("{prompt}{ASSISTANT}"));
                prop_assert_eq!(format!("{}{}", split.prompt, split.chosen), chosen);
                prop_assert_eq!(format!("{}{}", split.prompt, split.rejected), rejected);
            }
        }
    }
}
