//! An answer to a prompt, as a policy or a person gave it.

use serde::Serialize;
use serde_json::Value;
use temper_tokenizer::Prompt;

use super::{Demonstration, Fault, Purpose, Record, Row};

/// A prompt, what was answered, and whether the answer ended by itself: what a reward model, a judge or a scoring
/// program is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What was asked.
    pub prompt: Prompt,
    /// The answer as text, without what a template puts around a completion.
    pub completion: String,
    /// Whether the answer ended by itself, and not because it reached a limit of tokens. In a data file: the column
    /// `ended`, true if the row has none.
    pub ended: bool,
}

impl Record for Answer {
    const PURPOSE: Purpose = Purpose::Answers;
    fn from_row(row: &Row) -> Result<Self, Fault> {
        let Demonstration { prompt, completion } = Demonstration::from_row(row)?;
        let ended = match row.get("ended") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(ended)) => *ended,
            Some(other) => {
                return Err(Fault::new(format_args!("column `ended` must be true or false, found {other}")));
            }
        };
        Ok(Self { prompt, completion, ended })
    }
}

#[cfg(test)]
mod tests {
    use super::super::WithColumns;
    use super::super::testing::{check, check_error};
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_ended_unless_its_row_says_otherwise() {
        let row = |ended: Value| json!({"question": "p", "answer": "c", "ended": ended});
        let answer = |ended: bool| json!({"prompt": "p", "completion": "c", "ended": ended});
        check::<Answer>(json!({"prompt": "p", "completion": "c"}), answer(true));
        check::<Answer>(row(Value::Null), answer(true));
        check::<Answer>(row(json!(false)), answer(false));
        check_error::<Answer>(row(json!("no")), "column `ended` must be true or false, found \"no\"");
    }

    #[test]
    fn all_columns_of_a_row_can_be_kept() {
        let row = json!({"prompt": "p", "output": "c", "id": 7});
        let row = row.as_object().unwrap();
        let with_columns = WithColumns::<Answer>::from_row(row).unwrap();
        assert_eq!((with_columns.record.completion.as_str(), &with_columns.columns), ("c", row));
    }
}
