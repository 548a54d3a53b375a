//! A row for SFT: whatever a policy can learn to imitate.

use serde::Serialize;
use serde_json::Value;

use super::columns::{COMPLETION, PROMPT, present};
use super::conversation::MESSAGES;
use super::plain_text::TEXT;
use super::{
    Comparison, Conversation, Demonstration, Fault, PlainText, Purpose, Record, Row, TrainingRecord,
    first_question, question,
};

/// A row for SFT: a demonstration, the chosen side of a pair, or plain text that is mixed in among demonstrations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum SftRow {
    /// The completion is learned.
    Demonstration(Demonstration),
    /// The better side of a pair, whose completion is learned like any other.
    Chosen(Demonstration),
    /// The answers of the assistant are learned.
    Conversation(Conversation),
    /// All of it is learned.
    PlainText(PlainText),
}

impl SftRow {
    /// The text, if it is plain text.
    pub fn plain_text(&self) -> Option<&str> {
        match self {
            Self::PlainText(row) => Some(&row.text),
            Self::Demonstration(_) | Self::Chosen(_) | Self::Conversation(_) => None,
        }
    }
}

impl Record for SftRow {
    const PURPOSE: Purpose = Purpose::Demonstrations;
    fn from_row(row: &Row) -> Result<Self, Fault> {
        let has = |columns| present(row, columns).is_some();
        if row.get("label") == Some(&Value::Bool(false)) {
            return Err(Fault::unused("column `label` is false, which marks a bad answer"));
        }
        if !has(&COMPLETION) && Comparison::is_pair(row) {
            let Comparison { prompt, mut completions, .. } = Comparison::from_pair(row)?;
            return Ok(Self::Chosen(Demonstration { prompt, completion: completions.swap_remove(0) }));
        }
        if !has(&PROMPT) && !has(&COMPLETION) && has(&MESSAGES) {
            return Conversation::from_row(row).map(Self::Conversation);
        }
        if !has(&PROMPT) && !has(&COMPLETION) && has(&TEXT) {
            return PlainText::from_row(row).map(Self::PlainText);
        }
        Demonstration::from_row(row).map(Self::Demonstration)
    }
}

impl TrainingRecord for SftRow {
    fn question(&self) -> &str {
        match self {
            Self::Demonstration(row) | Self::Chosen(row) => question(&row.prompt),
            Self::Conversation(row) => first_question(&row.messages),
            Self::PlainText(row) => &row.text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_error};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_without_a_prompt_is_plain_text() {
        check::<SftRow>(json!({"text": "All of it."}), json!({"text": "All of it."}));
        let demonstration = json!({"prompt": "p", "completion": " c"});
        check::<SftRow>(json!({"prompt": "p", "completion": " c", "text": "p c"}), demonstration);
        check_error::<SftRow>(json!({"text": " "}), "column `text` is empty");
        check_error::<SftRow>(json!({"text": 3}), "column `text` must be a string, found a number");
        check_error::<PlainText>(json!({"prompt": "p"}), "missing column `text`");
        check_error::<SftRow>(json!({}), "missing column `prompt`, `instruction` or `question`");
    }

    #[test]
    fn the_chosen_side_of_a_pair_is_imitated() {
        let expected = json!({"prompt": "p", "completion": "a"});
        check::<SftRow>(json!({"prompt": "p", "chosen": "a", "rejected": "b"}), expected.clone());
        check::<SftRow>(
            json!({"chosen": "\n\nHuman: p\n\nAssistant: a", "rejected": "\n\nHuman: p\n\nAssistant: b"}),
            json!({"prompt": "\n\nHuman: p\n\nAssistant:", "completion": " a"}),
        );
        let pair = json!({"prompt": "p", "chosen": "a", "rejected": "b"});
        let row = SftRow::from_row(pair.as_object().unwrap()).unwrap();
        assert!(matches!(row, SftRow::Chosen(_)), "{row:?}");
        // A row with a completion column is a demonstration.
        check::<SftRow>(json!({"prompt": "p", "completion": "a", "chosen": "c", "rejected": "b"}), expected);
        check_error::<SftRow>(json!({"prompt": "p", "chosen": "a"}), "missing column `rejected`");
    }

    #[test]
    fn an_answer_that_is_labelled_bad_is_not_imitated() {
        let row = |label: Value| json!({"prompt": "p", "completion": "c", "label": label});
        check::<SftRow>(row(json!(true)), json!({"prompt": "p", "completion": "c"}));
        check_error::<SftRow>(row(json!(false)), "column `label` is false");
        // It can be scored like any other.
        check::<Demonstration>(row(json!(false)), json!({"prompt": "p", "completion": "c"}));
    }
}
