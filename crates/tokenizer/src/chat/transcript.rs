//! Transcripts of hh-rlhf: a whole dialogue as one text.

use super::Message;

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// The messages of a prompt of hh-rlhf, which starts with `"\n\nHuman:"` and ends with `"\n\nAssistant:"`. `None` for
/// every other text. The blanks around a message are not part of it.
pub(crate) fn messages_of_transcript(text: &str) -> Option<Vec<Message>> {
    let mut rest = text.trim_end().strip_suffix(ASSISTANT)?;
    if !rest.starts_with(HUMAN) {
        return None;
    }
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let (role, said) = match rest.strip_prefix(HUMAN) {
            Some(said) => ("user", said),
            None => ("assistant", &rest[ASSISTANT.len()..]),
        };
        let len =
            [HUMAN, ASSISTANT].iter().filter_map(|marker| said.find(marker)).min().unwrap_or(said.len());
        messages.push(Message::new(role, said[..len].trim()));
        rest = &said[len..];
    }
    Some(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_is_a_conversation_and_other_texts_are_not() {
        let text = "\n\nHuman: Hi\n\nAssistant: Hello\nthere.\n\nHuman: Two\n\nparts?\n\nAssistant:";
        let expected =
            [Message::user("Hi"), Message::assistant("Hello\nthere."), Message::user("Two\n\nparts?")];
        assert_eq!(messages_of_transcript(text).unwrap(), expected);
        assert_eq!(messages_of_transcript("\n\nHuman:\n\nAssistant: ").unwrap(), [Message::user("")]);
        for other in [
            "Hi",
            "",
            "\n\nAssistant:",
            "\n\nHuman: Hi",
            "Human: Hi\n\nAssistant:",
            "\n\nHuman: a\n\nAssistant: b",
        ] {
            assert_eq!(messages_of_transcript(other), None, "{other}");
        }
    }
}
