//! Messages, and prompts that are a text or a conversation so far.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};

/// One message of a conversation.
///
/// In JSON: `{"role": "user", "content": "Hi"}`. The content may also be a list of parts, which must all be text:
/// `[{"type": "text", "text": "Hi"}]`. A chat template sees every other field as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or another role that the chat template knows.
    pub role: String,
    /// What is said.
    #[serde(deserialize_with = "content")]
    pub content: String,
    /// All other fields, such as `tool_calls`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Message {
    /// A message without other fields.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.into(), content: content.into(), other: Map::new() }
    }

    /// A message of the user.
    #[must_use]
    pub fn user(content: &str) -> Self {
        Self::new("user", content)
    }

    /// A message of the assistant, whose turn a language model learns.
    #[must_use]
    pub fn assistant(content: &str) -> Self {
        Self::new(ASSISTANT, content)
    }

    /// Whether the assistant says it.
    pub fn is_of_assistant(&self) -> bool {
        self.role == ASSISTANT
    }
}

/// The role whose turns are learned.
const ASSISTANT: &str = "assistant";

/// A text, or a list of parts of text, which are joined as they are. `null` is an empty text: an assistant that only
/// calls a tool says nothing.
fn content<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let parts = match Value::deserialize(deserializer)? {
        Value::String(text) => return Ok(text),
        Value::Null => return Ok(String::new()),
        Value::Array(parts) => parts,
        _ => return Err(D::Error::custom("`content` must be a text or a list of parts")),
    };
    let text = |part: &Value| match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text.to_owned()),
        (Some(kind), _) => {
            Err(D::Error::custom(format_args!("`content` has a part of type `{kind}`, only `text` is read")))
        }
        (None, _) => Err(D::Error::custom("a part of `content` has no `type`")),
    };
    parts.iter().map(text).collect()
}

/// What was asked: a text, or the conversation so far.
///
/// A model with a chat template takes a text as one message of the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// The conversation so far, which ends before an answer.
    Messages(Vec<Message>),
}

/// A borrowed [`Prompt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PromptRef<'a> {
    /// A text.
    Text(&'a str),
    /// The conversation so far, which ends before an answer.
    Messages(&'a [Message]),
}

/// A text is shown as it is, and so is the only message of a user; other conversations have a line for each role.
impl fmt::Display for PromptRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Messages([message]) if message.role == "user" => f.write_str(&message.content),
            Self::Messages(messages) => {
                for (idx, Message { role, content, .. }) in messages.iter().enumerate() {
                    let end = if idx == 0 { "" } else { "\n" };
                    write!(f, "{end}{role}: {content}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        PromptRef::from(self).fmt(f)
    }
}

impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<Message>> for Prompt {
    fn from(messages: Vec<Message>) -> Self {
        Self::Messages(messages)
    }
}

impl From<PromptRef<'_>> for Prompt {
    fn from(prompt: PromptRef<'_>) -> Self {
        match prompt {
            PromptRef::Text(text) => Self::Text(text.into()),
            PromptRef::Messages(messages) => Self::Messages(messages.into()),
        }
    }
}

impl<'a> From<&'a Prompt> for PromptRef<'a> {
    fn from(prompt: &'a Prompt) -> Self {
        match prompt {
            Prompt::Text(text) => Self::Text(text),
            Prompt::Messages(messages) => Self::Messages(messages),
        }
    }
}

impl<'a> From<&'a str> for PromptRef<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&&'a str> for PromptRef<'a> {
    fn from(text: &&'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for PromptRef<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [Message]> for PromptRef<'a> {
    fn from(messages: &'a [Message]) -> Self {
        Self::Messages(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_content_may_be_a_list_of_texts_and_other_fields_are_kept() {
        let json = json!({"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]});
        assert_eq!(serde_json::from_value::<Message>(json).unwrap(), Message::user("a b"));
        let called = json!({"role": "assistant", "content": null, "tool_calls": [1]});
        let message: Message = serde_json::from_value(called).unwrap();
        assert_eq!((message.content.as_str(), &message.other["tool_calls"]), ("", &json!([1])));
        let image = json!({"role": "user", "content": [{"type": "image"}]});
        let error = serde_json::from_value::<Message>(image).unwrap_err().to_string();
        assert_eq!(error, "`content` has a part of type `image`, only `text` is read");
    }

    #[test]
    fn a_prompt_is_a_text_or_messages_and_is_shown_as_text() {
        let prompt = |json| serde_json::from_value::<Prompt>(json).unwrap();
        assert_eq!(prompt(json!("Hi")).to_string(), "Hi");
        assert_eq!(prompt(json!([{"role": "user", "content": "Hi"}])).to_string(), "Hi");
        let two =
            prompt(json!([{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}]));
        assert_eq!(two.to_string(), "system: Be short.\nuser: Hi");
        assert_eq!(serde_json::to_value(Prompt::from("Hi")).unwrap(), json!("Hi"));
    }
}
