//! The kinds of rows that the stages learn from, under any of the column names that are in use.
//!
//! | field | columns, first one that is there and not null |
//! | --- | --- |
//! | `prompt` | `prompt`, `instruction` (with a non-empty `input` after a blank line), `question` |
//! | `completion` | `completion`, `response`, `output`, `answer` |
//! | plain text | `text`, where there is no prompt |
//! | `completions`, ranked | `completions` or `responses`, with `scores` or `ranking` |
//! | a pair of them | `chosen`, `rejected`, `margin` if given; without a prompt column, whole hh-rlhf transcripts |
//!
//! `scores` holds a number for each completion, the higher the better, equal ones tied. `ranking` holds the indices of
//! all completions from best to worst, tied ones in a list of their own: `[2, [0, 1], 3]`. If both are there, `scores`
//! count.
//!
//! Other columns are ignored. Texts of white space only count as empty and are refused.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::rows::kind_of;

const PROMPT_COLUMNS: [&str; 3] = ["prompt", "instruction", "question"];
const COMPLETIONS_COLUMNS: [&str; 2] = ["completions", "responses"];
const COMPLETION_COLUMNS: [&str; 4] = ["completion", "response", "output", "answer"];
const TEXT_COLUMNS: [&str; 1] = ["text"];
/// Largest size of a score or margin: f32 holds it, and its product with any coefficient that is allowed.
const LARGEST: f64 = 1e30;
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

/// Text without a prompt, all of it to be learned, as in pretraining.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlainText {
    /// The text.
    pub text: String,
}

/// A row for SFT: a demonstration, or plain text mixed in among them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Lesson {
    /// The completion is learned.
    Demonstration(Demonstration),
    /// All of it is learned.
    PlainText(PlainText),
}

/// A prompt and two or more completions, ranked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What was asked.
    pub prompt: String,
    /// Two or more ways to answer, all different.
    pub completions: Vec<String>,
    /// How good each is: the higher the better, equal ones are tied. Not all are.
    ///
    /// Only differences count. For a pair that is 1 or the row's `margin`, for a `ranking` the number of places
    /// between.
    pub scores: Vec<f64>,
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

impl<'de> Deserialize<'de> for PlainText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_row(&Map::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Lesson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let row = Map::deserialize(deserializer)?;
        let is_plain = present(&row, &PROMPT_COLUMNS).is_none() && present(&row, &TEXT_COLUMNS).is_some();
        let lesson = if is_plain {
            PlainText::from_row(&row).map(Self::PlainText)
        } else {
            Demonstration::from_row(&row).map(Self::Demonstration)
        };
        lesson.map_err(D::Error::custom)
    }
}

impl PlainText {
    fn from_row(row: &Map<String, Value>) -> Result<Self, Fault> {
        Ok(Self { text: text(row, &TEXT_COLUMNS)?.to_owned() })
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
    /// A better and a worse completion.
    #[must_use]
    pub fn pair(prompt: &str, chosen: &str, rejected: &str) -> Self {
        Self {
            prompt: prompt.into(),
            completions: vec![chosen.into(), rejected.into()],
            scores: vec![1.0, 0.0],
        }
    }

    fn from_row(row: &Map<String, Value>) -> Result<Self, Fault> {
        let Some(column) = present(row, &COMPLETIONS_COLUMNS) else { return Self::from_pair(row) };
        let prompt = prompt(row)?.ok_or(Fault::Missing { columns: &PROMPT_COLUMNS })?;
        let completions = completions(array(row, column)?, column)?;
        let scores = match present(row, &["scores", "ranking"]) {
            Some("scores") => read_scores(array(row, "scores")?, completions.len())?,
            Some(_) => read_ranking(array(row, "ranking")?, completions.len())?,
            None => return Err(Fault::Missing { columns: &["scores", "ranking"] }),
        };
        if scores.iter().all(|score| score.total_cmp(&scores[0]).is_eq()) {
            return Err(Fault::AllTied);
        }
        Ok(Self { prompt, completions, scores })
    }

    fn from_pair(row: &Map<String, Value>) -> Result<Self, Fault> {
        if present(row, &["chosen", "rejected"]).is_none() {
            return Err(Fault::Missing { columns: &["chosen", "completions", "responses"] });
        }
        let prompt = prompt(row)?;
        let chosen = text(row, &["chosen"])?;
        let rejected = text(row, &["rejected"])?;
        let mut pair = match prompt {
            Some(prompt) => Self::pair(&prompt, chosen, rejected),
            None => split_transcripts(chosen, rejected)?,
        };
        if pair.completions[0] == pair.completions[1] {
            return Err(Fault::Same);
        }
        if present(row, &["margin"]).is_some() {
            let margin = row["margin"].as_f64().filter(|margin| *margin > 0.0 && *margin <= LARGEST);
            pair.scores[0] = margin.ok_or_else(|| Fault::Margin { found: row["margin"].to_string() })?;
        }
        Ok(pair)
    }
}

fn array<'r>(row: &'r Map<String, Value>, column: &'static str) -> Result<&'r [Value], Fault> {
    row[column]
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| Fault::NotArray { column, found: kind_of(&row[column]) })
}

fn completions(values: &[Value], column: &'static str) -> Result<Vec<String>, Fault> {
    if values.len() < 2 {
        return Err(Fault::TooFew { column, n: values.len() });
    }
    let mut found: Vec<String> = Vec::with_capacity(values.len());
    for (idx, value) in values.iter().enumerate() {
        let fault = |fault: String| Fault::Completion { column, idx, fault };
        let text = value.as_str().ok_or_else(|| fault(format!("{}, not a string", kind_of(value))))?;
        if text.trim().is_empty() {
            return Err(fault("empty".into()));
        }
        if let Some(twin) = found.iter().position(|other| other == text) {
            return Err(fault(format!("the same as completion {twin}")));
        }
        found.push(text.to_owned());
    }
    Ok(found)
}

fn read_scores(values: &[Value], n: usize) -> Result<Vec<f64>, Fault> {
    if values.len() != n {
        return Err(Fault::ScoreCount { expected: n, found: values.len() });
    }
    let score = |(idx, value): (usize, &Value)| {
        let found = value.as_f64().filter(|score| score.abs() <= LARGEST);
        found.ok_or_else(|| Fault::NotScore { idx, found: value.to_string() })
    };
    values.iter().enumerate().map(score).collect()
}

/// Scores that fall by 1 from place to place; the last place has 0.
fn read_ranking(places: &[Value], n: usize) -> Result<Vec<f64>, Fault> {
    let fault = |fault: String| Fault::Ranking { expected: n, fault };
    let mut scores = vec![None; n];
    for (place, value) in places.iter().enumerate() {
        let tied = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for entry in tied {
            let idx = entry.as_u64().and_then(|idx| usize::try_from(idx).ok()).filter(|idx| *idx < n);
            let idx = idx.ok_or_else(|| fault(format!("found {entry}")))?;
            if scores[idx].replace((places.len() - 1 - place) as f64).is_some() {
                return Err(fault(format!("{idx} is named twice")));
            }
        }
    }
    let missing =
        |(idx, score): (usize, Option<f64>)| score.ok_or_else(|| fault(format!("{idx} is missing")));
    scores.into_iter().enumerate().map(missing).collect()
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
    Ok(Comparison::pair(&chosen[..end], &chosen[end..], &rejected[end..]))
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
    fn a_lesson_without_a_prompt_is_plain_text() {
        check::<Lesson>(json!({"text": "All of it."}), json!({"text": "All of it."}));
        let demonstration = json!({"prompt": "p", "completion": " c"});
        check::<Lesson>(json!({"prompt": "p", "completion": " c", "text": "p c"}), demonstration);
        check_error::<Lesson>(json!({"text": " "}), "column `text` is empty");
        check_error::<Lesson>(json!({"text": 3}), "column `text` must be a string, found a number");
        check_error::<PlainText>(json!({"prompt": "p"}), "missing column `text`");
        check_error::<Lesson>(json!({}), "missing column `prompt`, `instruction` or `question`");
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
        check_error::<Comparison>(
            json!({"prompt": "p"}),
            "missing column `chosen`, `completions` or `responses`",
        );
    }

    #[test]
    fn a_pair_may_have_a_margin() {
        let row = |margin: Value| json!({"prompt": "p", "chosen": "a", "rejected": "b", "margin": margin});
        check::<Comparison>(
            row(json!(2.5)),
            json!({"prompt": "p", "completions": ["a", "b"], "scores": [2.5, 0.0]}),
        );
        check::<Comparison>(
            row(Value::Null),
            json!({"prompt": "p", "completions": ["a", "b"], "scores": [1.0, 0.0]}),
        );
        for wrong in [json!(0), json!(-1), json!("2"), json!(1e308)] {
            check_error::<Comparison>(row(wrong), "column `margin` must be a positive number");
        }
    }

    #[test]
    fn a_ranking_names_every_completion_from_best_to_worst() {
        let row = |ranking: Value| json!({"prompt": "p", "completions": ["a", "b", "c"], "ranking": ranking});
        let ranked = |scores: Value| json!({"prompt": "p", "completions": ["a", "b", "c"], "scores": scores});
        check::<Comparison>(row(json!([1, 2, 0])), ranked(json!([0.0, 2.0, 1.0])));
        check::<Comparison>(row(json!([[2, 0], 1])), ranked(json!([1.0, 0.0, 1.0])));
        check_error::<Comparison>(
            row(json!([0, 1])),
            "each of the 3 completions once, from 0 to 2: 2 is missing",
        );
        check_error::<Comparison>(row(json!([0, 1, 3])), "found 3");
        check_error::<Comparison>(row(json!([0, 1, -1])), "found -1");
        check_error::<Comparison>(row(json!([0, 1, 1])), "1 is named twice");
        check_error::<Comparison>(row(json!([[0, 1, 2]])), "all completions are tied");
        check_error::<Comparison>(row(json!("012")), "column `ranking` must be an array, found a string");
    }

    #[test]
    fn scores_rank_and_may_tie() {
        let row = |scores: Value| json!({"question": "p", "responses": ["a", "b", "c"], "scores": scores, "ranking": [2, 1, 0]});
        let ranked = |scores: Value| json!({"prompt": "p", "completions": ["a", "b", "c"], "scores": scores});
        check::<Comparison>(row(json!([1, 3, 1])), ranked(json!([1.0, 3.0, 1.0])));
        check_error::<Comparison>(row(json!([1, 3])), "a number for each of the 3 completions, found 2");
        check_error::<Comparison>(
            row(json!([1, "x", 2])),
            "score 1 must be a number from -1e30 to 1e30, found \"x\"",
        );
        check_error::<Comparison>(row(json!([2, 2, 2])), "all completions are tied");
    }

    #[test]
    fn completions_are_texts_and_differ() {
        let row = |completions: Value| json!({"prompt": "p", "completions": completions, "scores": [1, 2]});
        check_error::<Comparison>(row(json!(["a"])), "two completions or more, found 1");
        check_error::<Comparison>(row(json!(["a", " "])), "completion 1 of column `completions` is empty");
        check_error::<Comparison>(
            row(json!(["a", 4])),
            "completion 1 of column `completions` is a number, not a string",
        );
        check_error::<Comparison>(row(json!(["a", "a"])), "is the same as completion 0");
        check_error::<Comparison>(
            json!({"prompt": "p", "completions": ["a", "b"]}),
            "missing column `scores` or `ranking`",
        );
    }

    #[test]
    fn transcripts_split_at_the_last_shared_answer() {
        let pair = |chosen: &str, rejected: &str| json!({"chosen": chosen, "rejected": rejected});
        let prompt = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:";
        check::<Comparison>(
            pair(&format!("{prompt} Yes, é"), &format!("{prompt} Yes, è")),
            json!({"prompt": prompt, "completions": [" Yes, é", " Yes, è"], "scores": [1.0, 0.0]}),
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
                prop_assert_eq!(format!("{}{}", split.prompt, split.completions[0]), chosen);
                prop_assert_eq!(format!("{}{}", split.prompt, split.completions[1]), rejected);
            }
        }
    }
}
