//! Completions of one prompt, ranked: what a reward model and DPO learn from.

use serde::Serialize;
use serde_json::Value;
use temper_tokenizer::Prompt;

use super::columns::{array, is_blank, optional_prompt, present, prompt, text};
use super::transcripts::split_transcripts;
use super::{Fault, Purpose, Record, Row, TrainingRecord, question};
use crate::containers::kind_of;

/// Columns that ranked completions are read from.
const COMPLETIONS: [&str; 2] = ["completions", "responses"];
/// Columns of a pair.
const PAIR: [&str; 2] = ["chosen", "rejected"];

/// Largest size of a score or margin: f32 holds it, and its product with any coefficient that is allowed.
const LARGEST: f64 = 1e30;

/// A prompt and two or more completions, ranked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What was asked.
    pub prompt: Prompt,
    /// Two or more ways to answer, all different.
    pub completions: Vec<String>,
    /// How good each is: the higher the better, equal ones are tied. Not all are.
    ///
    /// Only differences count. For a pair that is 1 or the row's `margin`, for a `ranking` the number of places
    /// between.
    pub scores: Vec<f64>,
}

impl Comparison {
    /// A better and a worse completion.
    #[must_use]
    pub fn pair(prompt: impl Into<Prompt>, chosen: &str, rejected: &str) -> Self {
        Self {
            prompt: prompt.into(),
            completions: vec![chosen.into(), rejected.into()],
            scores: vec![1.0, 0.0],
        }
    }

    /// Whether a row has either side of a pair.
    pub(super) fn is_pair(row: &Row) -> bool {
        present(row, &PAIR).is_some()
    }

    /// The comparison in a row with `chosen` and `rejected`.
    pub(super) fn from_pair(row: &Row) -> Result<Self, Fault> {
        if !Self::is_pair(row) {
            return Err(Fault::missing(&["chosen", "completions", "responses"], ""));
        }
        let prompt = optional_prompt(row)?;
        let chosen = text(row, &["chosen"])?;
        let rejected = text(row, &["rejected"])?;
        let mut pair = match prompt {
            Some(prompt) => Self::pair(prompt, chosen, rejected),
            None => split_transcripts(chosen, rejected)?,
        };
        if pair.completions[0] == pair.completions[1] {
            return Err(same_completions());
        }
        let score = |column| row.get(column).and_then(Value::as_f64);
        if let (Some(chosen), Some(rejected)) = (score("score_chosen"), score("score_rejected"))
            && chosen <= rejected
        {
            if chosen == rejected {
                return Err(Fault::unused("their two answers have equal scores"));
            }
            return Err(Fault::new(format_args!(
                "column `score_chosen` must be above `score_rejected`, found {chosen} and {rejected}"
            )));
        }
        if present(row, &["margin"]).is_some() {
            let margin = row["margin"].as_f64().filter(|margin| *margin > 0.0 && *margin <= LARGEST);
            pair.scores[0] = margin.ok_or_else(|| {
                let value = &row["margin"];
                Fault::new(format_args!(
                    "column `margin` must be a positive number up to 1e30, found {value}"
                ))
            })?;
        }
        Ok(pair)
    }
}

impl Record for Comparison {
    const PURPOSE: Purpose = Purpose::Comparisons;
    fn from_row(row: &Row) -> Result<Self, Fault> {
        let Some(column) = present(row, &COMPLETIONS) else { return Self::from_pair(row) };
        let prompt = prompt(row)?;
        let completions = read_completions(array(row, column)?, column)?;
        let scores = match present(row, &["scores", "ranking"]) {
            Some("scores") => read_scores(array(row, "scores")?, completions.len())?,
            Some(_) => read_ranking(array(row, "ranking")?, completions.len())?,
            None => return Err(Fault::missing(&["scores", "ranking"], "")),
        };
        if scores.iter().all(|score| *score == scores[0]) {
            return Err(Fault::unused("all completions are tied"));
        }
        Ok(Self { prompt, completions, scores })
    }
}

impl TrainingRecord for Comparison {
    fn question(&self) -> &str {
        question(&self.prompt)
    }
}

fn read_completions(values: &[Value], column: &'static str) -> Result<Vec<String>, Fault> {
    if values.len() < 2 {
        let n = values.len();
        return Err(Fault::new(format_args!(
            "column `{column}` must hold two completions or more, found {n}"
        )));
    }
    let mut completions: Vec<String> = Vec::with_capacity(values.len());
    for (idx, value) in values.iter().enumerate() {
        let fault =
            |fault: String| Fault::new(format_args!("completion {idx} of column `{column}` is {fault}"));
        let text = value.as_str().ok_or_else(|| fault(format!("{}, not a string", kind_of(value))))?;
        if is_blank(text) {
            return Err(fault("empty".into()));
        }
        if let Some(twin) = completions.iter().position(|other| other == text) {
            return Err(fault(format!("the same as completion {twin}")));
        }
        completions.push(text.to_owned());
    }
    Ok(completions)
}

fn read_scores(values: &[Value], n: usize) -> Result<Vec<f64>, Fault> {
    if values.len() != n {
        let n_values = values.len();
        return Err(Fault::new(format_args!(
            "column `scores` must hold a number for each of the {n} completions, found {n_values}"
        )));
    }
    let score = |(idx, value): (usize, &Value)| {
        let score = value.as_f64().filter(|score| score.abs() <= LARGEST);
        score.ok_or_else(|| {
            Fault::new(format_args!("score {idx} must be a number from -1e30 to 1e30, found {value}"))
        })
    };
    values.iter().enumerate().map(score).collect()
}

/// Scores that fall by 1 from place to place; the last place has 0.
fn read_ranking(places: &[Value], n: usize) -> Result<Vec<f64>, Fault> {
    let fault = |fault: String| {
        let last = n - 1;
        Fault::new(format_args!(
            "column `ranking` must name each of the {n} completions once, from 0 to {last}: {fault}"
        ))
    };
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

/// The two completions of a pair do not differ.
pub(super) fn same_completions() -> Fault {
    Fault::new("columns `chosen` and `rejected` are the same")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_error};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pair_whose_scores_say_otherwise_is_refused() {
        let row = |chosen: f64, rejected: f64| json!({"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": chosen, "score_rejected": rejected});
        check::<Comparison>(
            row(8.0, 7.5),
            json!({"prompt": "p", "completions": ["a", "b"], "scores": [1.0, 0.0]}),
        );
        check_error::<Comparison>(row(1.0, 7.5), "must be above `score_rejected`, found 1 and 7.5");
        // A tie is not wrong, and is left out.
        let tie = Comparison::from_row(row(7.5, 7.5).as_object().unwrap()).unwrap_err();
        assert!(tie.is_unused() && tie.to_string().ends_with("equal scores"), "{tie}");
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
        check_error::<Comparison>(row(json!([0, -0.0, 0])), "all completions are tied");
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
}
