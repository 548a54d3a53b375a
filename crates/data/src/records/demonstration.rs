//! A prompt with a completion to imitate.

use serde::Serialize;
use temper_tokenizer::Prompt;

use super::columns::{COMPLETION, prompt, text};
use super::{Fault, Purpose, Record, Row};

/// A prompt and a completion to imitate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Demonstration {
    /// What was asked.
    pub prompt: Prompt,
    /// How to answer.
    pub completion: String,
}

impl Record for Demonstration {
    const PURPOSE: Purpose = Purpose::Answers;
    fn from_row(row: &Row) -> Result<Self, Fault> {
        let prompt = prompt(row)?;
        let completion = text(row, &COMPLETION)?;
        Ok(Self { prompt, completion: completion.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::columns::PROMPT;
    use super::super::testing::{check, check_error};
    use super::*;
    use crate::{Comparison, PromptRow};
    use serde_json::json;

    #[test]
    fn demonstrations_come_under_many_names() {
        let expected = json!({"prompt": "p", "completion": " c"});
        for prompt in PROMPT {
            for completion in COMPLETION {
                check::<Demonstration>(json!({prompt: "p", completion: " c", "source": 1}), expected.clone());
            }
        }
        check::<Demonstration>(json!({"prompt": null, "question": "p", "answer": " c"}), expected);
    }

    #[test]
    fn a_wrong_column_is_named() {
        check_error::<Demonstration>(json!({"x": 1}), "missing column `prompt`, `instruction` or `question`");
        check_error::<Demonstration>(json!({"prompt": "p"}), "missing column `completion`, `response`");
        check_error::<Demonstration>(json!({"prompt": "p", "output": " \n"}), "column `output` is empty");
        check_error::<Demonstration>(json!({"prompt": " ", "output": "o"}), "column `prompt` is empty");
        check_error::<PromptRow>(json!({"prompt": []}), "column `prompt` has no message");
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
}
