//! Instructions and questions with their answers.

use serde_json::{Value, json};
use temper_tokenizer::Message;

use super::messages::optional_text;
use super::pairs::tldr_prompt;
use super::with;
use crate::records::{Fault, Purpose, Row, has_content, material, present, text};

/// The columns of a question itself.
const QUESTION: [&str; 2] = ["instruction", "question"];
/// Instructions for the whole dialogue.
const SYSTEM: [&str; 2] = ["system", "system_prompt"];

/// Alpaca, Dolly, GSM8K and their like. A row with `system` or `history` is a conversation.
pub(super) fn instruction(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    let is_conversation = row.get("history").is_some_and(has_content)
        || SYSTEM.iter().any(|column| row.get(*column).is_some_and(has_content));
    let Some(question) = present(row, &QUESTION).filter(|_| is_conversation && purpose != Purpose::Texts)
    else {
        return Ok(rows.to_vec());
    };
    let mut turns = Vec::new();
    for column in SYSTEM {
        let system = optional_text(row, column)?;
        if !system.is_empty() {
            turns.push(Message::new("system", system));
        }
    }
    let history = row.get("history").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for exchange in history {
        let (Some(asked), Some(answered)) = (exchange[0].as_str(), exchange[1].as_str()) else {
            return Err(Fault::new("column `history` must hold pairs of a question and its answer"));
        };
        turns.extend([Message::user(asked), Message::assistant(answered)]);
    }
    let asked = text(row, &[question])?.to_owned() + &material(row)?;
    turns.push(Message::user(&asked));
    let read = [&SYSTEM[..], &QUESTION, &["history", "input", "context"]].concat();
    Ok(vec![with(row, &read, [("prompt", json!(turns))])])
}

/// The summaries of Reddit that OpenAI fine-tuned on.
pub(super) fn tldr(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    let [subreddit, title] = [optional_text(row, "subreddit")?, optional_text(row, "title")?];
    let prompt = tldr_prompt(Some(subreddit), Some(title), text(row, &["post"])?);
    let asked = with(row, &["subreddit", "title", "post"], [("prompt", prompt.into())]);
    if purpose == Purpose::Prompts {
        return Ok(vec![asked]);
    }
    let summary = format!(" {}", text(row, &["summary"])?.trim());
    Ok(vec![with(&asked, &["summary"], [("completion", summary.into())])])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_error};
    use super::*;
    use Purpose::{Demonstrations, Prompts};

    #[test]
    fn a_system_text_and_a_history_make_a_conversation() {
        let plain = json!({"instruction": "i", "input": "x", "output": "o", "system": "", "history": []});
        check("Alpaca", &[plain.clone()], Demonstrations, &[plain]);
        let row =
            json!({"instruction": "i", "input": "x", "output": "o", "system": "s", "history": [["q", "a"]]});
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let prompt =
            json!([turn("system", "s"), turn("user", "q"), turn("assistant", "a"), turn("user", "i\n\nx")]);
        check("Alpaca", &[row], Demonstrations, &[json!({"prompt": prompt, "output": "o"})]);
        let orca = json!({"system_prompt": "s", "question": "q", "response": "a"});
        let prompt = json!([turn("system", "s"), turn("user", "q")]);
        check("GSM8K", &[orca], Prompts, &[json!({"prompt": prompt, "response": "a"})]);
        let bad = json!({"instruction": "i", "output": "o", "history": ["q"]});
        check_error(&[bad], Demonstrations, "column `history` must hold pairs");
    }

    #[test]
    fn the_columns_of_dolly_and_gsm8k_are_read_as_they_are() {
        let dolly = json!({"instruction": "i", "context": "c", "response": "r", "category": "qa"});
        check("Dolly", &[dolly.clone()], Demonstrations, &[dolly]);
        let gsm8k = json!({"question": "q", "answer": "4\n#### 4"});
        check("GSM8K", &[gsm8k.clone()], Prompts, &[gsm8k]);
        check(
            "plain text",
            &[json!({"text": "t", "label": 1})],
            Demonstrations,
            &[json!({"text": "t", "label": 1})],
        );
    }

    #[test]
    fn a_post_and_its_summary_are_a_demonstration() {
        let row = json!({"id": "1", "subreddit": "S", "title": "T", "post": "P", "summary": "Sum."});
        let prompt = "SUBREDDIT: r/S\n\nTITLE: T\n\nPOST: P\n\nTL;DR:";
        check(
            "TL;DR",
            &[row.clone()],
            Demonstrations,
            &[json!({"id": "1", "prompt": prompt, "completion": " Sum."})],
        );
        check("TL;DR", &[row], Prompts, &[json!({"id": "1", "prompt": prompt, "summary": "Sum."})]);
    }
}
