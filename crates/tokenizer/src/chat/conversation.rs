//! Conversations as ids, with a mask over what the assistant says.

use std::ops::Range;

use serde_json::Value as Json;

use super::{
    ChatTemplate, Message,
    encoder::{ChatEncoder, Token},
    generation::{self, Marks},
    template::fields,
};
use crate::{Error, Example, LearnedTurns, PretrainedTokenizer, PromptRef, template::ModelChat};

/// A conversation as it is learned. It ends with the end token of the assistant's last turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedConversation {
    /// The ids.
    pub tokens: Vec<u32>,
    /// For each id, whether it is learned: what the assistant says, with the end token of each turn.
    pub mask: Vec<bool>,
}

impl EncodedConversation {
    /// The same as one row, whose prompt ends where the first learned turn starts.
    pub fn into_example(self) -> Example {
        let Self { tokens, mask } = self;
        let prompt_len = mask.iter().position(|learned| *learned).unwrap_or(mask.len());
        let mut between: Vec<Range<usize>> = Vec::new();
        for idx in (prompt_len..mask.len()).filter(|idx| !mask[*idx]) {
            match between.last_mut() {
                Some(range) if range.end == idx => range.end += 1,
                _ => between.push(idx..idx + 1),
            }
        }
        Example { between, ..Example::new(tokens, prompt_len) }
    }
}

impl ModelChat {
    /// A prompt without the first `n_cut` tokens of its last message, and an answer to it if given, which loses its end
    /// token if it has not `ended`. `None` if the message does not have that many tokens and one more.
    pub(crate) fn example(
        &self,
        tokenizer: &PretrainedTokenizer,
        prompt: PromptRef<'_>,
        n_cut: usize,
        answer: Option<(&str, bool)>,
    ) -> Result<Option<Example>, Error> {
        let mut messages = match prompt {
            PromptRef::Text(text) => vec![Message::user(text)],
            PromptRef::Messages(messages) => messages.to_vec(),
        };
        if n_cut > 0 {
            let Some(last) = messages.last_mut() else { return Ok(None) };
            let ids = tokenizer.encode(last.text());
            if n_cut >= ids.len() {
                return Ok(None);
            }
            last.content = Some(tokenizer.decode(&ids[n_cut..]));
        }
        let Some((answer, ended)) = answer else {
            let tokens = self.template.encode_prompt(tokenizer, &messages)?;
            let prompt_len = tokens.len();
            return Ok(Some(Example::new(tokens, prompt_len)));
        };
        messages.push(Message::assistant(answer));
        let conversation = self.template.encode_conversation(tokenizer, &messages, LearnedTurns::Last)?;
        let mut example = conversation.into_example();
        if !ended {
            example.tokens.pop();
        }
        Ok(Some(example))
    }
}

/// A whole conversation as the template writes it, with what follows the last turn of the assistant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedConversation {
    /// The text.
    pub text: String,
    /// The ids of the text.
    pub tokens: Vec<u32>,
    /// For each id, whether it is learned.
    pub mask: Vec<bool>,
    /// The turns of the assistant that are learned, as bytes of the text.
    pub turns: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// The ids of a conversation, whichever role speaks last. With `add_generation_prompt`, they end where the
    /// assistant would begin its answer.
    ///
    /// They are those of transformers, with one difference: no text of a message becomes a special token.
    ///
    /// # Errors
    ///
    /// Those of [`ChatTemplate::render`], and [`Error::CannotEncode`].
    pub fn encode(
        &self,
        tokenizer: &PretrainedTokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, Error> {
        let encoder = tokenizer.chat_encoder();
        let chat = Chat::new(self, encoder, messages)?;
        let Text { text, breaks, .. } = chat.render(messages.len(), add_generation_prompt)?;
        Ok(encoder.encode(&text, &breaks)?.iter().map(|token| token.id).collect())
    }

    /// The ids of a conversation that the assistant answers next.
    ///
    /// # Errors
    ///
    /// [`Error::NotAPrompt`] if it is empty or the assistant speaks last, and those of [`ChatTemplate::encode`].
    pub fn encode_prompt(
        &self,
        tokenizer: &PretrainedTokenizer,
        messages: &[Message],
    ) -> Result<Vec<u32>, Error> {
        match messages.last() {
            None => Err(Error::NotAPrompt { reason: "has no messages" }),
            Some(last) if last.is_of_assistant() => {
                Err(Error::NotAPrompt { reason: "ends with a message of the assistant" })
            }
            Some(_) => self.encode(tokenizer, messages, true),
        }
    }

    /// The ids of a conversation up to the end of the assistant's last turn, and which of them are learned.
    ///
    /// What the assistant says is what `{% generation %}` encloses. In a template without that tag, it is what a turn
    /// adds to the text of the conversation before it, with generation prompt; then each of these texts must be the
    /// start of the next one. A learned turn ends with its end token, and what follows is not learned. A last turn
    /// without an end token gets the tokenizer's.
    ///
    /// # Errors
    ///
    /// [`Error::NoAssistantTurn`], [`Error::DoubtfulTurn`] if the text does not show what the assistant says, and those
    /// of [`ChatTemplate::encode`].
    pub fn encode_conversation(
        &self,
        tokenizer: &PretrainedTokenizer,
        messages: &[Message],
        turns: LearnedTurns,
    ) -> Result<EncodedConversation, Error> {
        let last = last_turn(messages)?;
        let Learned { mut tokens, mut mask, end, is_ended, .. } =
            self.learned(tokenizer, &messages[..=last], turns)?;
        tokens.truncate(end);
        mask.truncate(end);
        let mut tokens: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        if !is_ended {
            tokens.push(tokenizer.special().eos);
            mask.push(true);
        }
        Ok(EncodedConversation { tokens, mask })
    }

    /// The text and the ids of a whole conversation, and which of them are learned.
    ///
    /// The ids are those of the text: nothing is cut after the last turn, and no end token is added.
    ///
    /// # Errors
    ///
    /// Those of [`ChatTemplate::encode_conversation`].
    pub fn render_conversation(
        &self,
        tokenizer: &PretrainedTokenizer,
        messages: &[Message],
        turns: LearnedTurns,
    ) -> Result<RenderedConversation, Error> {
        last_turn(messages)?;
        let Learned { text, tokens, mask, turns, .. } = self.learned(tokenizer, messages, turns)?;
        Ok(RenderedConversation { text, tokens: tokens.iter().map(|token| token.id).collect(), mask, turns })
    }

    /// The special token that the template writes after what the assistant says, if it writes one.
    ///
    /// # Errors
    ///
    /// Those of [`ChatTemplate::encode`], except that a template which refuses a question with its answer has none.
    pub fn turn_end(&self, tokenizer: &PretrainedTokenizer) -> Result<Option<u32>, Error> {
        const ANSWER: &str = "This-is-the-answer";
        let text = match self.render(&[Message::user("Question?"), Message::assistant(ANSWER)], false) {
            Err(Error::ConversationRefused { .. }) => return Ok(None),
            text => text?,
        };
        let Some(start) = text.rfind(ANSWER) else { return Ok(None) };
        let end = start + ANSWER.len();
        let encoder = tokenizer.chat_encoder();
        let tokens = encoder.encode(&text, &[])?;
        let special = tokens.iter().find(|token| token.range.start >= end && encoder.is_special(token.id));
        Ok(special.filter(|token| text[end..token.range.start].trim().is_empty()).map(|token| token.id))
    }

    fn learned(
        &self,
        tokenizer: &PretrainedTokenizer,
        messages: &[Message],
        learned_turns: LearnedTurns,
    ) -> Result<Learned, Error> {
        let encoder = tokenizer.chat_encoder();
        let chat = Chat::new(self, encoder, messages)?;
        let (Text { text, breaks, .. }, turns) = match self.marks_generation() {
            true => chat.marked_turns(learned_turns)?,
            false => chat.turns_by_prefix(learned_turns)?,
        };
        let tokens = encoder.encode(&text, &breaks)?;
        let mut end_tokens = tokenizer.end_tokens().to_vec();
        end_tokens.extend(self.turn_end(tokenizer)?);
        let mut mask = vec![false; tokens.len()];
        let (mut end, mut is_ended) = (0, false);
        for turn in &turns {
            let (learned, has_end) = learned_tokens(&text, &tokens, turn, &end_tokens);
            mask[learned.clone()].fill(true);
            (end, is_ended) = (learned.end, has_end);
        }
        if !mask.contains(&true) {
            let reason = "nothing of the conversation is left to learn".into();
            return Err(Error::DoubtfulTurn { turn: None, reason });
        }
        Ok(Learned { text, tokens, mask, turns, end, is_ended })
    }
}

/// A rendered conversation with its mask.
struct Learned {
    text: String,
    tokens: Vec<Token>,
    mask: Vec<bool>,
    turns: Vec<Range<usize>>,
    /// The number of tokens up to the end of the last turn.
    end: usize,
    /// Whether the last turn has an end token.
    is_ended: bool,
}

/// The index of the last message of the assistant.
fn last_turn(messages: &[Message]) -> Result<usize, Error> {
    messages.iter().rposition(Message::is_of_assistant).ok_or(Error::NoAssistantTurn)
}

/// The tokens of a turn up to its end token, and whether it has one. A token that only overlaps the turn belongs to it.
fn learned_tokens(
    text: &str,
    tokens: &[Token],
    turn: &Range<usize>,
    end_tokens: &[u32],
) -> (Range<usize>, bool) {
    let first = tokens.partition_point(|token| token.range.end <= turn.start);
    let past = tokens.partition_point(|token| token.range.start < turn.end).max(first);
    let is_end = |token: &Token| end_tokens.contains(&token.id);
    if let Some(idx) = tokens[first..past].iter().position(is_end) {
        return (first..first + idx + 1, true);
    }
    // Templates may close the block before the end token.
    let is_blank = |token: &&Token| !is_end(token) && text[token.range.clone()].trim().is_empty();
    let blanks = tokens[past..].iter().take_while(is_blank).count();
    match tokens.get(past + blanks).is_some_and(is_end) {
        true => (first..past + blanks + 1, true),
        false => (first..past, false),
    }
}

/// A conversation that is ready to be rendered: its messages have marks in the special tokens that they spell.
struct Chat<'a> {
    template: &'a ChatTemplate,
    messages: &'a [Message],
    fields: Vec<Json>,
    marks: Marks,
}

/// A rendered text without its marks.
pub(super) struct Text {
    pub(super) text: String,
    /// What the template says that the assistant wrote.
    pub(super) generated: Vec<Range<usize>>,
    /// Where special tokens are broken, because a message spells them.
    pub(super) breaks: Vec<usize>,
}

impl<'a> Chat<'a> {
    fn new(
        template: &'a ChatTemplate,
        encoder: &ChatEncoder,
        messages: &'a [Message],
    ) -> Result<Self, Error> {
        let mut fields: Vec<Json> = messages.iter().map(fields).collect();
        let marks = template.unused_marks(&fields)?;
        for message in &mut fields {
            break_special_tokens(message, encoder, marks.broken)?;
        }
        Ok(Self { template, messages, fields, marks })
    }

    /// The text of the first messages.
    fn render(&self, n_messages: usize, add_generation_prompt: bool) -> Result<Text, Error> {
        let text = self.template.render_json(&self.fields[..n_messages], add_generation_prompt, None)?;
        generation::take_marks(&text, self.marks).ok_or(Error::NoUnusedCharacter)
    }

    /// As [`Chat::render`], with what the template says the assistant wrote.
    fn render_marked(&self, n_messages: usize) -> Result<Text, Error> {
        let Marks { open, close, .. } = self.marks;
        let marked = self.template.render_json(&self.fields[..n_messages], false, Some([open, close]))?;
        // A template may work with the text of the block, and then the marks could change what it does.
        let plain = self.render(n_messages, false)?.text;
        generation::take_marks(&marked, self.marks).filter(|marked| marked.text == plain).ok_or_else(|| {
            let reason = "the template changes the text of a `generation` block after it was written".into();
            Error::DoubtfulTurn { turn: None, reason }
        })
    }

    /// The text, and the turns that the template marks.
    fn marked_turns(&self, learned: LearnedTurns) -> Result<(Text, Vec<Range<usize>>), Error> {
        let text = self.render_marked(self.fields.len())?;
        let last = last_turn(self.messages)?;
        let n_before = if last == 0 { 0 } else { self.render_marked(last)?.generated.len() };
        let Some(last_turn) = text.generated.get(n_before..).filter(|turn| !turn.is_empty()) else {
            let reason = "the template has `generation` blocks, but writes none for it".into();
            return Err(Error::DoubtfulTurn { turn: Some(last + 1), reason });
        };
        let turns = match learned {
            LearnedTurns::All => text.generated.clone(),
            LearnedTurns::Last => last_turn.to_vec(),
        };
        Ok((text, turns))
    }

    /// The text, and what each turn adds to the text of the messages before it.
    fn turns_by_prefix(&self, learned: LearnedTurns) -> Result<(Text, Vec<Range<usize>>), Error> {
        let whole = self.render(self.fields.len(), false)?;
        let last = last_turn(self.messages)?;
        let mut turns = Vec::new();
        for (idx, message) in self.messages.iter().enumerate() {
            if !message.is_of_assistant() || (learned == LearnedTurns::Last && idx != last) {
                continue;
            }
            let doubtful = |reason: &str| {
                let hint = if idx == last { "" } else { "; to learn only the last turn may work" };
                Error::DoubtfulTurn { turn: Some(idx + 1), reason: format!("{reason}{hint}") }
            };
            let before = self.render(idx, true)?.text;
            let after = self.render(idx + 1, false)?.text;
            if !after.starts_with(&before) {
                return Err(doubtful("its text does not begin with the text of the prompt before it"));
            }
            if !whole.text.starts_with(&after) {
                return Err(doubtful("later messages change how the template writes it"));
            }
            turns.push(before.len()..after.len());
        }
        Ok((whole, turns))
    }
}

/// Puts a mark into every special token that a text of the message spells.
fn break_special_tokens(json: &mut Json, encoder: &ChatEncoder, mark: char) -> Result<(), Error> {
    match json {
        Json::String(text) => {
            for place in encoder.spelled(text)?.into_iter().rev() {
                text.insert(place, mark);
            }
        }
        Json::Array(items) => {
            for item in items {
                break_special_tokens(item, encoder, mark)?;
            }
        }
        Json::Object(fields) => {
            for (key, mut item) in std::mem::take(fields) {
                break_special_tokens(&mut item, encoder, mark)?;
                let mut key = Json::from(key);
                break_special_tokens(&mut key, encoder, mark)?;
                fields.insert(key.as_str().unwrap_or_default().to_owned(), item);
            }
        }
        _ => {}
    }
    Ok(())
}
