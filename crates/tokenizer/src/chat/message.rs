//! Messages, and prompts that are a text or a conversation so far.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One message of a conversation.
///
/// In JSON: `{"role": "user", "content": "Hi"}`. The content may also be a list of parts, which must all be text:
/// `[{"type": "text", "text": "Hi"}]`. A chat template sees every other field as well. A field that is `null` counts as
/// absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "MessageFields")]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or another role that the chat template knows.
    pub role: String,
    /// What is said. A message that only calls a tool says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// All other fields, such as `tool_calls`.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Message {
    /// A message without other fields.
    #[must_use]
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.into(), content: Some(content.into()), other: Map::new() }
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

    /// What is said; empty if nothing is.
    pub fn text(&self) -> &str {
        self.content.as_deref().unwrap_or_default()
    }

    /// Whether the assistant says it.
    pub fn is_of_assistant(&self) -> bool {
        self.role == ASSISTANT
    }
}

/// The role whose turns are learned.
const ASSISTANT: &str = "assistant";

/// A message as it is written, with any value as its content.
#[derive(Deserialize)]
struct MessageFields {
    role: String,
    content: Option<Value>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl TryFrom<MessageFields> for Message {
    type Error = String;

    fn try_from(MessageFields { role, content, mut other }: MessageFields) -> Result<Self, String> {
        other.retain(|_, value| !value.is_null());
        let content = match content {
            None if other.is_empty() => return Err("no `content`".into()),
            None => None,
            Some(Value::String(text)) => Some(text),
            Some(Value::Array(parts)) => Some(parts.iter().map(part_text).collect::<Result<_, _>>()?),
            Some(_) => return Err("`content` must be a text or a list of parts".into()),
        };
        Ok(Self { role, content, other })
    }
}

/// The text of a part of the content; parts are joined as they are.
fn part_text(part: &Value) -> Result<String, String> {
    match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text.into()),
        (Some(kind), _) => Err(format!("`content` has a part of type `{kind}`, only `text` is read")),
        (None, _) => Err("a part of `content` has no `type`".into()),
    }
}

/// What was asked: a text, or the conversation so far.
///
/// A model with a chat template takes a text as one message of the user, and a transcript of hh-rlhf
/// (`"\n\nHuman: …\n\nAssistant:"`) as the messages in it.
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
            Self::Messages([message]) if message.role == "user" => f.write_str(message.text()),
            Self::Messages(messages) => {
                for (idx, message) in messages.iter().enumerate() {
                    let end = if idx == 0 { "" } else { "\n" };
                    write!(f, "{end}{}: {}", message.role, message.text())?;
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
        assert_eq!((&message.content, &message.other["tool_calls"]), (&None, &json!([1])));
        assert_eq!(json!(message), json!({"role": "assistant", "tool_calls": [1]}));
        let silent = json!({"role": "user", "content": null, "name": null});
        assert_eq!(serde_json::from_value::<Message>(silent).unwrap_err().to_string(), "no `content`");
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
