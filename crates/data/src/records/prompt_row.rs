//! A prompt: what PPO samples completions for.

use serde::Serialize;
use temper_tokenizer::Prompt;

use super::columns::{prompt, prompt_columns};
use super::{Fault, Purpose, Record, Row, TrainingRecord, question};

/// A prompt, and what else its row says: reference answers, for example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PromptRow {
    /// What is asked.
    pub prompt: Prompt,
    /// The columns that are not part of the prompt, as they were written. A null column is absent.
    #[serde(skip_serializing_if = "Row::is_empty")]
    pub columns: Row,
}

impl PromptRow {
    /// A prompt alone.
    pub fn new(prompt: impl Into<Prompt>) -> Self {
        Self { prompt: prompt.into(), columns: Row::new() }
    }
}

impl Record for PromptRow {
    const PURPOSE: Purpose = Purpose::Prompts;
    fn from_row(row: &Row) -> Result<Self, Fault> {
        let asked = prompt_columns(row);
        let others = row.iter().filter(|(name, value)| !value.is_null() && !asked.contains(&name.as_str()));
        let columns = others.map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(Self { prompt: prompt(row)?, columns })
    }
}

impl TrainingRecord for PromptRow {
    fn question(&self) -> &str {
        question(&self.prompt)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_asked_is_kept_as_it_was_written() {
        let others = json!({"answer": "4\n#### 4", "tests": [{"in": 1, "out": [2.5, null]}], "id": 7});
        for asked in [
            json!({"prompt": "p"}),
            json!({"question": "p", "context": ""}),
            json!({"prompt": null, "instruction": "p", "input": null}),
        ] {
            let mut row = asked.as_object().unwrap().clone();
            row.append(&mut others.as_object().unwrap().clone());
            check::<PromptRow>(row.into(), json!({"prompt": "p", "columns": others}));
        }
        // Only the first column that a prompt can be read from is the prompt.
        check::<PromptRow>(
            json!({"question": "q", "prompt": "p", "answer": null}),
            json!({"prompt": "p", "columns": {"question": "q"}}),
        );
    }
}
