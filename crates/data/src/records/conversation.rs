//! A conversation of one or more turns.

use serde::Serialize;
use temper_tokenizer::Message;

use super::columns::present;
use super::{Fault, Purpose, Record, Row};
use crate::families::messages;

/// The column that holds a list of messages.
pub(super) const MESSAGES: [&str; 1] = ["messages"];

/// A conversation whose answers are imitated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conversation {
    /// What was said, in order; at least one message is the assistant's.
    pub messages: Vec<Message>,
}

impl Record for Conversation {
    const PURPOSE: Purpose = Purpose::Demonstrations;

    fn from_row(row: &Row) -> Result<Self, Fault> {
        let column = present(row, &MESSAGES).ok_or_else(|| Fault::missing(&MESSAGES, ""))?;
        let messages = messages(row, column)?;
        if !messages.iter().any(Message::is_of_assistant) {
            let message =
                format!("column `{column}` has no message of the assistant, so nothing can be learned");
            return Err(Fault::new(message));
        }
        Ok(Self { messages })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_error};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_conversation_has_a_message_of_the_assistant() {
        let [user, assistant] = ["user", "assistant"].map(|role| json!({"role": role, "content": role}));
        let row = json!({"messages": [user, assistant], "source": 1});
        check::<Conversation>(row, json!({"messages": [user, assistant]}));
        check_error::<Conversation>(json!({"messages": [user]}), "no message of the assistant");
        let broken = json!({"messages": [user, {"role": "assistant"}]});
        check_error::<Conversation>(broken, "message 2 of column `messages` has no `content`");
        check_error::<Conversation>(json!({"messages": "x"}), "column `messages` must be a list of messages");
    }
}
