//! The kinds of rows that the stages learn from, under any of the column names that are in use.
//!
//! | field | columns, first one that is there and not null |
//! | --- | --- |
//! | `prompt` | `prompt`, `instruction` or `question`; after these two, a blank line and each non-empty one of `input` and `context` |
//! | `completion` | `completion`, `response`, `output`, `answer` |
//! | plain text | `text`, where there is neither a prompt nor a completion |
//! | `completions`, ranked | `completions` or `responses`, with `scores` or `ranking` |
//! | a pair of them | `chosen`, `rejected`, `margin` if given; without a prompt column, whole hh-rlhf transcripts |
//!
//! `scores` holds a number for each completion, the higher the better, equal ones tied. `ranking` holds the indices of
//! all completions from best to worst, tied ones in a list of their own: `[2, [0, 1], 3]`. If both are there, `scores`
//! count.
//!
//! Other columns are ignored, except for those that would change what a row means and that Temper does not read. These
//! are refused unless they are empty: `input` and `context` next to `prompt`, `system`, `system_prompt` and `history`
//! (all of them part of what was asked); and a `score_chosen` that is not above `score_rejected`. Among rows for SFT,
//! `label: false` is refused too: it marks a bad answer.
//!
//! Texts without a visible character count as empty and are refused.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::columns::{
    ASSISTANT, COMPLETION_COLUMNS, COMPLETIONS_COLUMNS, Fault, PAIR_COLUMNS, PROMPT_COLUMNS, TEXT_COLUMNS,
    array, is_blank, present, prompt, text,
};
use crate::rows::kind_of;

/// Largest size of a score or margin: f32 holds it, and its product with any coefficient that is allowed.
const LARGEST: f64 = 1e30;

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

/// A row for SFT: a demonstration, or plain text mixed in among them. The chosen side of a pair is a demonstration too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Lesson {
    /// The completion is learned.
    Demonstration(Demonstration),
    /// The better side of a pair, whose completion is learned like any other.
    Chosen(Demonstration),
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
        Self::from_row(&Map::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Lesson {
    fn from_row(row: &Map<String, Value>) -> Result<Self, Fault> {
        let has = |columns| present(row, columns).is_some();
        if row.get("label") == Some(&Value::Bool(false)) {
            return Err(Fault::BadAnswer);
        }
        if !has(&COMPLETION_COLUMNS) && has(&PAIR_COLUMNS) {
            let Comparison { prompt, mut completions, .. } = Comparison::from_pair(row)?;
            return Ok(Self::Chosen(Demonstration { prompt, completion: completions.swap_remove(0) }));
        }
        if !has(&PROMPT_COLUMNS) && !has(&COMPLETION_COLUMNS) && has(&TEXT_COLUMNS) {
            return PlainText::from_row(row).map(Self::PlainText);
        }
        Demonstration::from_row(row).map(Self::Demonstration)
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
        if present(row, &PAIR_COLUMNS).is_none() {
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
        let score = |column| row.get(column).and_then(Value::as_f64);
        if let (Some(chosen), Some(rejected)) = (score("score_chosen"), score("score_rejected"))
            && chosen <= rejected
        {
            return Err(Fault::ChosenScore { chosen, rejected });
        }
        if present(row, &["margin"]).is_some() {
            let margin = row["margin"].as_f64().filter(|margin| *margin > 0.0 && *margin <= LARGEST);
            pair.scores[0] = margin.ok_or_else(|| Fault::Margin { found: row["margin"].to_string() })?;
        }
        Ok(pair)
    }
}

fn completions(values: &[Value], column: &'static str) -> Result<Vec<String>, Fault> {
    if values.len() < 2 {
        return Err(Fault::TooFew { column, n: values.len() });
    }
    let mut found: Vec<String> = Vec::with_capacity(values.len());
    for (idx, value) in values.iter().enumerate() {
        let fault = |fault: String| Fault::Completion { column, idx, fault };
        let text = value.as_str().ok_or_else(|| fault(format!("{}, not a string", kind_of(value))))?;
        if is_blank(text) {
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

/// Cuts two transcripts after the last `"\n\nAssistant:"` that lies in their common beginning.
fn split_transcripts(chosen: &str, rejected: &str) -> Result<Comparison, Fault> {
    if chosen == rejected {
        return Err(Fault::Same);
    }
    let pairs = chosen.char_indices().zip(rejected.chars());
    let shared = pairs.take_while(|((_, a), b)| a == b).last().map_or(0, |((at, a), _)| at + a.len_utf8());
    let end = chosen[..shared].rfind(ASSISTANT).ok_or(Fault::NoSharedPrompt)? + ASSISTANT.len();
    for (column, transcript) in [("chosen", chosen), ("rejected", rejected)] {
        if is_blank(&transcript[end..]) {
            return Err(Fault::EmptyTurn { column });
        }
    }
    Ok(Comparison::pair(&chosen[..end], &chosen[end..], &rejected[end..]))
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
    fn the_chosen_side_of_a_pair_is_a_lesson() {
        let expected = json!({"prompt": "p", "completion": "a"});
        check::<Lesson>(json!({"prompt": "p", "chosen": "a", "rejected": "b"}), expected.clone());
        check::<Lesson>(
            json!({"chosen": "\n\nHuman: p\n\nAssistant: a", "rejected": "\n\nHuman: p\n\nAssistant: b"}),
            json!({"prompt": "\n\nHuman: p\n\nAssistant:", "completion": " a"}),
        );
        let row: Lesson =
            serde_json::from_value(json!({"prompt": "p", "chosen": "a", "rejected": "b"})).unwrap();
        assert!(matches!(row, Lesson::Chosen(_)), "it is told from a demonstration: {row:?}");
        // A completion of its own counts.
        check::<Lesson>(json!({"prompt": "p", "completion": "a", "chosen": "c", "rejected": "b"}), expected);
        check_error::<Lesson>(json!({"prompt": "p", "chosen": "a"}), "missing column `rejected`");
    }

    #[test]
    fn an_answer_that_is_labelled_bad_is_no_lesson() {
        let row = |label: Value| json!({"prompt": "p", "completion": "c", "label": label});
        check::<Lesson>(row(json!(true)), json!({"prompt": "p", "completion": "c"}));
        check_error::<Lesson>(row(json!(false)), "column `label` is false");
        // It can be scored like any other.
        check::<Demonstration>(row(json!(false)), json!({"prompt": "p", "completion": "c"}));
    }

    #[test]
    fn a_pair_whose_scores_say_otherwise_is_refused() {
        let row = |chosen: f64, rejected: f64| json!({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": chosen, "score_rejected": rejected});
        check::<Comparison>(
            row(8.0, 7.5),
            json!({"prompt": "p", "completions": ["a", "b"], "scores": [1.0, 0.0]}),
        );
        check_error::<Comparison>(row(7.5, 7.5), "must be above `score_rejected`, found 7.5 and 7.5");
        check_error::<Comparison>(row(1.0, 7.5), "must be above `score_rejected`");
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
