use serde::Deserialize;
use serde_json::Value;

use crate::escape::escape_up_to;
use crate::number;

/// Characters of one text that are shown.
const MOST_CHARACTERS: usize = 400;

/// One row of a stage's `samples.jsonl`: an answer of its model at some step. The stage writes them, the report reads
/// them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct StageAnswer {
    /// Updates or rollouts before it.
    pub step: u64,
    prompt: Value,
    answer: String,
    /// Whether it ended by itself.
    pub ended: bool,
    /// Tokens that it might have had, where the file says so.
    pub max_new_tokens: Option<usize>,
    score: Option<f64>,
    gold: Option<f64>,
}

/// A prompt with its first and its last answer.
struct Change<'a> {
    first: &'a StageAnswer,
    last: &'a StageAnswer,
}

impl StageAnswer {
    /// Reads every line that is such an answer; also counts those that are not, a torn last one left aside.
    pub fn parse_all(text: &str) -> (Vec<Self>, usize) {
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let (mut answers, mut bad_lines) = (Vec::<Self>::new(), 0);
        for (idx, line) in lines.iter().enumerate() {
            match serde_json::from_str::<Self>(line) {
                Ok(answer) => {
                    // A resumed run repeats the steps after its checkpoint.
                    answers.retain(|other| other.step <= answer.step);
                    answers.push(answer);
                }
                Err(_) if idx + 1 == lines.len() && !text.ends_with('\n') => {}
                Err(_) => bad_lines += 1,
            }
        }
        (answers, bad_lines)
    }

    /// The text of the prompt: a conversation has a line for each message.
    fn prompt(&self) -> String {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let Value::Array(messages) = &self.prompt else {
            return text(&self.prompt).unwrap_or_else(|| self.prompt.to_string());
        };
        let said = |message: &Value| {
            let said = text(&message["content"]).unwrap_or_default();
            if messages.len() == 1 {
                said
            } else {
                format!("{}: {said}", text(&message["role"]).unwrap_or_default())
            }
        };
        messages.iter().map(said).collect::<Vec<_>>().join("\n")
    }
}

/// The table of the same prompts, answered at the first and at the last step that has answers. Nothing without answers.
pub fn table(answers: &[StageAnswer], unit: &str) -> String {
    let steps = answers.iter().map(|answer| answer.step);
    let (Some(first), Some(last)) = (steps.clone().min(), steps.max()) else { return String::new() };
    let changes: Vec<Change<'_>> = answers
        .iter()
        .filter(|answer| answer.step == last)
        .filter_map(|answer| {
            let before = answers.iter().find(|other| other.step == first && other.prompt == answer.prompt)?;
            Some(Change { first: before, last: answer })
        })
        .collect();
    let when = |step: u64| {
        if step == 0 {
            "before training".to_owned()
        } else {
            format!("after {}", number::counted(step as f64, unit))
        }
    };
    let scores = changes.iter().any(|change| change.last.score.is_some());
    let gold = changes.iter().any(|change| change.last.gold.is_some());
    let mut html = format!(
        "<h3>What the model says</h3>\n<p>The same held-out prompts, answered {}{}. The most probable token was taken each \
         time.{}</p>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Answers to held-out prompts\">\
         <table class=\"answers\"><thead><tr><th scope=\"col\">Prompt</th>",
        when(first),
        if first == last { String::new() } else { format!(" and {}", when(last)) },
        if scores { " A score is what the stage learns from, not a proof of a better answer." } else { "" },
    );
    if first != last {
        html.push_str(&format!("<th scope=\"col\">{}</th>", capital(&when(first))));
    }
    html.push_str(&format!("<th scope=\"col\">{}</th>", capital(&when(last))));
    for (name, _) in [("Score", scores), ("Gold", gold)].into_iter().filter(|(_, is_there)| *is_there) {
        html.push_str(&format!("<th scope=\"col\" class=\"n\">{name}</th>"));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for Change { first: before, last: after } in changes {
        let prompt = escape_up_to(&after.prompt(), MOST_CHARACTERS);
        html.push_str(&format!("<tr><th scope=\"row\">{prompt}</th>"));
        if first != last {
            html.push_str(&format!("<td>{}</td>", cell(before)));
        }
        html.push_str(&format!("<td>{}</td>", cell(after)));
        let values = [(scores, before.score, after.score), (gold, before.gold, after.gold)];
        for (_, before, after) in values.into_iter().filter(|(is_there, ..)| *is_there) {
            let shown =
                |value: Option<f64>| value.map_or("–".to_owned(), |value| number::signed_fixed(value, 2));
            let before = if first == last { String::new() } else { format!("{} → ", shown(before)) };
            html.push_str(&format!("<td class=\"n\">{before}{}</td>", shown(after)));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// An answer, and whether it was cut off.
fn cell(answer: &StageAnswer) -> String {
    let text = match answer.answer.as_str() {
        "" => "<em class=\"note\">(empty)</em>".to_owned(),
        text => escape_up_to(text, MOST_CHARACTERS),
    };
    let end = if answer.ended { "" } else { " <em class=\"note\">(does not end)</em>" };
    format!("{text}{end}")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(rows: &str) -> String {
        table(&StageAnswer::parse_all(rows).0, "rollouts")
    }

    #[test]
    fn the_first_answer_is_next_to_the_last_one() {
        let rows = "{\"step\":0,\"prompt\":\"<a>\",\"answer\":\"old & new\",\"ended\":false,\"score\":-1}\n\
                    {\"step\":5,\"prompt\":\"<a>\",\"answer\":\"middle\",\"ended\":true,\"score\":0}\n\
                    {\"step\":9,\"prompt\":\"<a>\",\"answer\":\"\",\"ended\":true,\"score\":2.5}\n";
        let html = html(rows);
        assert!(
            html.contains("&lt;a&gt;")
                && html.contains("old &amp; new <em class=\"note\">(does not end)</em>")
        );
        assert!(html.contains("Before training</th>") && html.contains("After 9 rollouts</th>"), "{html}");
        assert!(html.contains("(empty)") && html.contains("−1.00 → 2.50"), "{html}");
        assert!(!html.contains("middle") && !html.contains("Gold"), "{html}");
    }

    #[test]
    fn a_single_step_and_a_conversation_have_one_column() {
        let rows = "{\"step\":4,\"prompt\":[{\"role\":\"user\",\"content\":\"hi\"}],\"answer\":\"yes\",\"ended\":true}\n";
        let html = html(rows);
        assert!(
            html.contains("<th scope=\"row\">hi</th>") && html.contains("answered after 4 rollouts."),
            "{html}"
        );
        assert_eq!(html.matches("<td").count(), 1);
        assert_eq!(table(&[], "steps"), "");
    }

    #[test]
    fn other_rows_are_counted_and_a_repeated_step_counts_once() {
        let row = |step: u64, answer: &str| {
            format!("{{\"step\":{step},\"prompt\":\"p\",\"answer\":\"{answer}\",\"ended\":true}}\n")
        };
        let text = [row(0, "a"), row(5, "b"), row(3, "c"), "7\n".into(), "{\"step\":9".into()].concat();
        let (answers, bad_lines) = StageAnswer::parse_all(&text);
        let kept: Vec<_> = answers.iter().map(|answer| answer.answer.as_str()).collect();
        assert_eq!((kept, bad_lines), (vec!["a", "c"], 1));
    }
}
