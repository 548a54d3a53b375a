//! Several answers to a prompt, with a score or a rank for each.

use serde_json::{Value, json};

use super::pairs::helpsteer_prompt;
use super::{answers_read, has, with};
use crate::records::{Comparison, Fault, Purpose, Record, Row, is_blank, present, text};

/// What answers with scores are for a purpose. An answer that occurs twice counts once, with its first score; an empty one
/// does not count. `row` has the other columns.
pub(super) fn ranked(
    row: &Row,
    prompt: Value,
    answers: impl IntoIterator<Item = (String, f64)>,
    purpose: Purpose,
) -> Result<Vec<Row>, Fault> {
    if purpose == Purpose::Prompts {
        return Ok(vec![with(row, &[], [("prompt", prompt)])]);
    }
    let mut different: Vec<(String, f64)> = Vec::new();
    for (answer, score) in answers {
        if !is_blank(&answer) && different.iter().all(|(other, _)| *other != answer) {
            different.push((answer, score));
        }
    }
    let by_score = |a: &&(String, f64), b: &&(String, f64)| a.1.total_cmp(&b.1);
    // Of equals the first one is the best: `max_by` takes the last.
    let Some((best, highest)) = different.iter().rev().max_by(by_score) else {
        return Err(Fault::unused("they have no answer with a score"));
    };
    let is_tied = different.iter().all(|(_, score)| score == highest);
    if purpose == Purpose::Comparisons {
        if is_tied {
            let reason =
                if different.len() < 2 { "they have fewer than two answers with scores" } else { TIED };
            return Err(Fault::unused(reason));
        }
        let (completions, scores): (Vec<&str>, Vec<f64>) =
            different.iter().map(|(answer, score)| (answer.as_str(), *score)).unzip();
        let columns = [("prompt", prompt), ("completions", json!(completions)), ("scores", json!(scores))];
        return Ok(vec![with(row, &[], columns)]);
    }
    let worst = different.iter().min_by(by_score).filter(|_| !is_tied);
    Ok(vec![match worst {
        // As a pair, so that whoever learns from it says that it takes the better side.
        Some((worst, _)) if purpose == Purpose::Demonstrations => {
            let sides =
                [("prompt", prompt), ("chosen", best.clone().into()), ("rejected", worst.clone().into())];
            with(row, &[], sides)
        }
        _ => with(row, &[], [("prompt", prompt), ("completion", best.clone().into())]),
    }])
}

const TIED: &str = "all their answers are tied";

/// Whether a row holds Temper's own rankings.
pub(super) fn is_ranking(row: &Row) -> bool {
    present(row, &["completions", "responses"]).is_some() && present(row, &["scores", "ranking"]).is_some()
}

/// Temper's own rankings.
pub(super) fn ranking(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    if matches!(purpose, Purpose::Comparisons | Purpose::Prompts | Purpose::Texts) {
        return Ok(rows.to_vec());
    }
    let row = &rows[0];
    let Comparison { prompt, completions, scores } = Comparison::from_row(row)?;
    let row = with(row, &["completions", "responses", "scores", "ranking"], []);
    ranked(&row, json!(prompt), completions.into_iter().zip(scores), purpose)
}

/// Whether `completions` are those of UltraFeedback: objects with a `response`.
pub(super) fn is_ultrafeedback(row: &Row) -> bool {
    has(row, &["instruction"]) && first(row, "completions", "response").is_some()
}

/// Whether `answers` are those of Nectar: objects with an `answer` and a `rank`.
pub(super) fn is_nectar(row: &Row) -> bool {
    has(row, &["prompt"]) && first(row, "answers", "rank").is_some()
}

/// A field of the first object in a list.
fn first<'r>(row: &'r Row, column: &str, field: &str) -> Option<&'r Value> {
    row.get(column)?.get(0)?.get(field)
}

/// The original UltraFeedback, ranked by `overall_score`, or by the mean of the ratings of an answer that has none.
pub(super) fn ultrafeedback(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    let prompt = text(row, &["instruction"])?.into();
    let completions = row["completions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let answers = completions.iter().filter_map(|completion| {
        let score =
            number(&completion["overall_score"]).or_else(|| mean_rating(&completion["annotations"]))?;
        Some((completion["response"].as_str()?.to_owned(), score))
    });
    let row = with(row, answers_read(purpose, &["completions"]), []);
    ranked(&with(&row, &["instruction"], []), prompt, answers, purpose)
}

/// A number, or a text that is one, as the ratings of UltraFeedback are.
fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    number.is_finite().then_some(number)
}

/// The mean of the `Rating` of each aspect; aspects without a number do not count.
fn mean_rating(annotations: &Value) -> Option<f64> {
    let ratings: Vec<f64> =
        annotations.as_object()?.values().filter_map(|aspect| number(&aspect["Rating"])).collect();
    (!ratings.is_empty()).then(|| ratings.iter().sum::<f64>() / ratings.len() as f64)
}

/// Berkeley's Nectar: the lower the rank, the better. The prompts are transcripts like those of hh-rlhf, and so are the
/// answers here.
pub(super) fn nectar(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    let prompt = text(row, &["prompt"])?;
    let is_transcript = prompt.trim_end().ends_with("\n\nAssistant:");
    let (prompt, before) = if is_transcript { (prompt.trim_end(), " ") } else { (prompt, "") };
    let answers = row["answers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let answers = answers.iter().filter_map(|answer| {
        let text = answer["answer"].as_str().filter(|text| !is_blank(text))?;
        Some((format!("{before}{}", text.trim_start()), -number(&answer["rank"])?))
    });
    ranked(&with(row, answers_read(purpose, &["answers"]), []), prompt.into(), answers, purpose)
}

/// NVIDIA's HelpSteer and HelpSteer2: neighbouring rows answer the same prompt, and are ranked by `helpfulness`.
pub(super) fn helpsteer(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let prompt = helpsteer_prompt(text(&rows[0], &["prompt"])?);
    let mut answers = Vec::with_capacity(rows.len());
    for row in rows {
        let score = number(&row["helpfulness"]);
        let score = score.ok_or_else(|| Fault::wrong_type("helpfulness", "a number", &row["helpfulness"]))?;
        answers.push((text(row, &["response"])?.to_owned(), score));
    }
    if purpose == Purpose::Answers {
        let columns = |answer: String| [("prompt", prompt.clone()), ("completion", answer.into())];
        let answers = rows.iter().zip(answers);
        return Ok(answers.map(|(row, (answer, _))| with(row, &["response"], columns(answer))).collect());
    }
    ranked(&with(&rows[0], answers_read(purpose, &["response"]), []), prompt, answers, purpose)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_error};
    use super::*;
    use Purpose::{Answers, Comparisons, Demonstrations, Prompts};

    #[test]
    fn ultrafeedback_is_ranked_by_its_overall_scores_or_else_its_ratings() {
        let rated = |text: &str, ratings: [&str; 2]| {
            json!({"model": "m", "response": text,
            "annotations": {"helpfulness": {"Rating": ratings[0]}, "honesty": {"Rating": ratings[1], "Rationale": "…"}}})
        };
        let mut scored = rated("c", ["5", "5"]);
        scored["overall_score"] = json!(2.5);
        let completions = json!([
            rated("a", ["4", "2"]),
            rated("b", ["N/A", "5"]),
            scored,
            rated("d", ["N/A", "N/A"]),
            rated("a", ["1", "1"])
        ]);
        let row = json!({"source": "s", "instruction": "p", "models": ["m"], "completions": completions});
        let rest = json!({"source": "s", "models": ["m"], "prompt": "p"});
        let with = |columns: Value| {
            let mut row = rest.clone();
            row.as_object_mut().unwrap().append(&mut columns.as_object().unwrap().clone());
            row
        };
        let ranking = with(json!({"completions": ["a", "b", "c"], "scores": [3.0, 5.0, 2.5]}));
        check("UltraFeedback", &[row.clone()], Comparisons, &[ranking]);
        check(
            "UltraFeedback",
            &[row.clone()],
            Demonstrations,
            &[with(json!({"chosen": "b", "rejected": "c"}))],
        );
        check("UltraFeedback", &[row.clone()], Answers, &[with(json!({"completion": "b"}))]);
        let asked = with(json!({"completions": row["completions"]}));
        check("UltraFeedback", &[row], Prompts, &[asked]);
    }

    #[test]
    fn the_lowest_rank_of_nectar_is_the_best_and_equal_ranks_tie() {
        let row = |ranks: [f64; 3]| {
            let answers: Vec<_> = ["a", "b", "c"]
                .iter()
                .zip(ranks)
                .map(|(text, rank)| json!({"answer": text, "rank": rank}))
                .collect();
            json!({"prompt": "\n\nHuman: q\n\nAssistant: ", "answers": answers, "turns": 1})
        };
        let expected = json!({"prompt": "\n\nHuman: q\n\nAssistant:", "completions": [" a", " b", " c"], "scores": [-2.0, -1.0, -2.0], "turns": 1});
        check("Nectar", &[row([2.0, 1.0, 2.0])], Comparisons, &[expected]);
        check_error(&[row([1.0, 1.0, 1.0])], Comparisons, "all their answers are tied");
    }

    #[test]
    fn neighbouring_rows_of_helpsteer_answer_the_same_prompt() {
        let row = |prompt: &str, response: &str, helpfulness: u8| json!({"prompt": prompt, "response": response, "helpfulness": helpfulness, "verbosity": 1});
        let rows = [row("p", "a", 1), row("p", "b", 3), row("q", "c", 2), row("p", "d", 4), row("p", "e", 0)];
        let ranking = |helpfulness, completions: [&str; 2], scores: [f64; 2]| json!({"prompt": "p", "completions": completions, "scores": scores, "helpfulness": helpfulness, "verbosity": 1});
        check_error(&rows, Comparisons, "fewer than two answers");
        let pairs = [&rows[..2], &rows[3..]].concat();
        check("HelpSteer", &pairs[..2], Comparisons, &[ranking(1, ["a", "b"], [1.0, 3.0])]);
        let answers = |prompt: &str, completion: &str, helpfulness: u8| json!({"prompt": prompt, "completion": completion, "helpfulness": helpfulness, "verbosity": 1});
        check("HelpSteer", &rows[1..3], Answers, &[answers("p", "b", 3), answers("q", "c", 2)]);
        let chosen = json!({"prompt": "p", "chosen": "d", "rejected": "e", "helpfulness": 4, "verbosity": 1});
        let single = json!({"prompt": "q", "completion": "c", "helpfulness": 2, "verbosity": 1});
        check("HelpSteer", &rows[2..], Demonstrations, &[single, chosen]);
    }

    #[test]
    fn the_best_of_a_ranking_is_a_demonstration() {
        let row = json!({"prompt": "p", "completions": ["a", "b", "c"], "ranking": [[1, 2], 0], "id": 3});
        check("rankings", &[row.clone()], Comparisons, &[row.clone()]);
        check(
            "rankings",
            &[row],
            Demonstrations,
            &[json!({"prompt": "p", "chosen": "b", "rejected": "a", "id": 3})],
        );
    }
}
