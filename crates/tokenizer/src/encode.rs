//! Prompts, answers and conversations as ids: the one place where text becomes the ids of a model.

use std::borrow::Cow;

use crate::{
    Error, Example, LearnedTurns, Message, Overflow, Piece, PromptRef, Template, Tokenizer,
    chat::messages_of_transcript,
};

impl Template {
    /// The ids of a prompt, up to where generation starts: for the notebook's template, after `[SEP]`.
    ///
    /// # Errors
    /// [`Error::NotAPrompt`] for a conversation that ends with an answer, [`Error::Role`], [`Error::NoContent`], and
    /// what a chat template refuses.
    pub fn encode_prompt<'p>(
        &self,
        tokenizer: &Tokenizer,
        prompt: impl Into<PromptRef<'p>>,
    ) -> Result<Vec<u32>, Error> {
        Ok(self.whole(tokenizer, prompt.into(), None)?.tokens)
    }

    /// A prompt with an answer that may have been stopped by its length. If it `ended`, it gets what the template has
    /// after a completion; if not, it gets no end that it did not have.
    ///
    /// # Errors
    /// Those of [`Template::encode_prompt`].
    pub fn encode_answer<'p>(
        &self,
        tokenizer: &Tokenizer,
        prompt: impl Into<PromptRef<'p>>,
        answer: &str,
        ended: bool,
    ) -> Result<Example, Error> {
        self.whole(tokenizer, prompt.into(), Some((answer, ended)))
    }

    /// As [`Template::encode_prompt`], with at most `max_len` ids: what is too much is cut from the left. The first turns
    /// of a conversation go first, then the left of the last question. The template around them stays.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] if not even one token of the question would be left, and those of
    /// [`Template::encode_prompt`].
    pub fn encode_prompt_truncated<'p>(
        &self,
        tokenizer: &Tokenizer,
        prompt: impl Into<PromptRef<'p>>,
        max_len: usize,
    ) -> Result<Vec<u32>, Error> {
        let prompt = prompt.into();
        match self.fit(tokenizer, prompt, None, max_len)? {
            Ok(example) => Ok(example.tokens),
            Err(shortest) => Err(self.too_long(shortest.tokens.len(), max_len)),
        }
    }

    /// A prompt with its completion in at most `max_len` ids; `None` if it does not fit and is dropped.
    ///
    /// # Errors
    /// Those of [`Template::encode_prompt`].
    pub fn encode_example<'p>(
        &self,
        tokenizer: &Tokenizer,
        prompt: impl Into<PromptRef<'p>>,
        completion: &str,
        max_len: usize,
        overflow: Overflow,
    ) -> Result<Option<Example>, Error> {
        let (prompt, answer) = (prompt.into(), Some((completion, true)));
        match overflow {
            Overflow::Drop => {
                let example = self.whole(tokenizer, prompt, answer)?;
                Ok(Some(example).filter(|example| example.tokens.len() <= max_len))
            }
            Overflow::TruncatePrompt => Ok(self.fit(tokenizer, prompt, answer, max_len)?.ok()),
        }
    }

    /// A prompt with an answer in at most `max_len` ids, which is cut if it must be: the left of the prompt goes first, and
    /// if that is not enough, the right of the answer goes too, with its end. [`Example::n_cut`] counts both.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`] if not even one token of the answer would be left, and those of
    /// [`Template::encode_prompt`].
    pub fn encode_answer_to_fit<'p>(
        &self,
        tokenizer: &Tokenizer,
        prompt: impl Into<PromptRef<'p>>,
        answer: &str,
        ended: bool,
        max_len: usize,
    ) -> Result<Example, Error> {
        let prompt = prompt.into();
        let shortest = match self.fit(tokenizer, prompt, Some((answer, ended)), max_len)? {
            Ok(example) => return Ok(example),
            Err(shortest) => shortest,
        };
        if shortest.prompt_len >= max_len {
            return Err(self.too_long(shortest.prompt_len + 1, max_len));
        }
        let whole = self.whole(tokenizer, prompt, Some((answer, ended)))?;
        let open = self.whole(tokenizer, prompt, Some((answer, false)))?;
        let mut tokens = [shortest.prompt(), open.completion()].concat();
        tokens.truncate(max_len);
        let n_cut = whole.tokens.len() - tokens.len();
        Ok(Example { n_cut, ..Example::new(tokens, shortest.prompt_len) })
    }

    /// A conversation up to its last answer, in at most `max_len` ids; `None` if it does not fit and is dropped. To fit, it
    /// loses its first turns; an answer is never cut.
    ///
    /// # Errors
    /// [`Error::NoAssistantTurn`], [`Error::Role`], [`Error::NoContent`], and what a chat template refuses.
    pub fn encode_conversation(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        learned: LearnedTurns,
        max_len: usize,
        overflow: Overflow,
    ) -> Result<Option<Example>, Error> {
        // Messages after the last answer have nothing to learn.
        let last = messages.iter().rposition(Message::is_of_assistant).ok_or(Error::NoAssistantTurn)?;
        let messages = &messages[..=last];
        let whole = self.conversation(tokenizer, messages, learned)?;
        let n_tokens = whole.tokens.len();
        let (mut example, mut messages) = (whole, Cow::Borrowed(messages));
        while example.tokens.len() > max_len {
            match without_first_turn(&messages) {
                Some(fewer) if overflow == Overflow::TruncatePrompt => messages = Cow::Owned(fewer),
                _ => return Ok(None),
            }
            example = self.conversation(tokenizer, &messages, learned)?;
        }
        Ok(Some(Example { n_cut: n_tokens - example.tokens.len(), ..example }))
    }

    /// What a policy said without the text that the template itself has around a completion, which the policy has
    /// learned to say too. Another template puts its own text there.
    pub fn completion_of<'a>(&self, answer: &'a str) -> &'a str {
        if self.chat().is_some() {
            return answer;
        }
        let text = |piece: &'_ Piece| match piece {
            Piece::Text(text) => text.clone(),
            _ => String::new(),
        };
        let (before, after) = self.completion().split_at(self.place_of_completion());
        let before: String = before.iter().map(text).collect();
        let after: String = after.iter().map(text).collect();
        let answer = answer.strip_prefix(before.as_str()).unwrap_or(answer);
        answer.strip_suffix(after.as_str()).unwrap_or(answer)
    }

    fn too_long(&self, needed: usize, max_len: usize) -> Error {
        Error::PromptTooLong { template: self.name().to_owned(), needed, max_len }
    }

    /// A prompt and an answer to it if given, uncut.
    fn whole(
        &self,
        tokenizer: &Tokenizer,
        prompt: PromptRef<'_>,
        answer: Option<(&str, bool)>,
    ) -> Result<Example, Error> {
        if let Some(messages) = self.transcript(prompt) {
            return self.whole(tokenizer, PromptRef::Messages(&messages), answer.map(without_blank));
        }
        let example = self.example_cut(tokenizer, prompt, 0, answer)?;
        Ok(example.expect("a question without a cut has enough tokens"))
    }

    /// As [`Template::whole`] without about `n_cut` tokens of the last question; `None` if it does not have more.
    fn example_cut(
        &self,
        tokenizer: &Tokenizer,
        prompt: PromptRef<'_>,
        n_cut: usize,
        answer: Option<(&str, bool)>,
    ) -> Result<Option<Example>, Error> {
        match (self.chat(), tokenizer) {
            (None, _) => self.example_of_pieces(tokenizer, prompt, n_cut, answer),
            (Some(_), Tokenizer::Byte(_)) => Err(Error::ChatNeedsTokenizer),
            (Some(chat), Tokenizer::Pretrained(tokenizer)) => chat.example(tokenizer, prompt, n_cut, answer),
        }
    }

    /// A whole conversation up to its last answer.
    pub(crate) fn conversation(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        learned: LearnedTurns,
    ) -> Result<Example, Error> {
        match (self.chat(), tokenizer) {
            (None, _) => self.conversation_of_pieces(tokenizer, messages, learned),
            (Some(_), Tokenizer::Byte(_)) => Err(Error::ChatNeedsTokenizer),
            (Some(chat), Tokenizer::Pretrained(tokenizer)) => {
                let conversation = chat.template.encode_conversation(tokenizer, messages, learned)?;
                Ok(conversation.into_example())
            }
        }
    }

    /// A prompt with an answer, if given, in at most `max_len` ids; or else the shortest that it can be.
    fn fit(
        &self,
        tokenizer: &Tokenizer,
        prompt: PromptRef<'_>,
        answer: Option<(&str, bool)>,
        max_len: usize,
    ) -> Result<Result<Example, Example>, Error> {
        if let Some(messages) = self.transcript(prompt) {
            return self.fit(tokenizer, PromptRef::Messages(&messages), answer.map(without_blank), max_len);
        }
        let mut example = self.whole(tokenizer, prompt, answer)?;
        let n_tokens = example.tokens.len();
        let mut fewer;
        let mut prompt = prompt;
        while example.tokens.len() > max_len
            && let PromptRef::Messages(messages) = prompt
            && let Some(messages) = without_first_turn(messages)
        {
            fewer = messages;
            prompt = PromptRef::Messages(&fewer);
            example = self.whole(tokenizer, prompt, answer)?;
        }
        let mut n_cut = 0;
        while example.tokens.len() > max_len {
            n_cut += example.tokens.len() - max_len;
            match self.example_cut(tokenizer, prompt, n_cut, answer)? {
                Some(shorter) => example = shorter,
                None => return Ok(Err(self.shortest(tokenizer, prompt, answer)?)),
            }
        }
        Ok(Ok(Example { n_cut: n_tokens - example.tokens.len(), ..example }))
    }

    /// The messages of a prompt of hh-rlhf. A chat template has its own marks for who speaks.
    fn transcript(&self, prompt: PromptRef<'_>) -> Option<Vec<Message>> {
        match prompt {
            PromptRef::Text(text) => self.chat().and_then(|_| messages_of_transcript(text)),
            PromptRef::Messages(_) => None,
        }
    }

    /// A prompt with one token of its last question.
    fn shortest(
        &self,
        tokenizer: &Tokenizer,
        prompt: PromptRef<'_>,
        answer: Option<(&str, bool)>,
    ) -> Result<Example, Error> {
        let question = match prompt {
            PromptRef::Text(text) => text,
            PromptRef::Messages(messages) => messages.last().map_or("", Message::text),
        };
        let mut example = self.whole(tokenizer, prompt, answer)?;
        let mut n_cut = tokenizer.encode(question).len().saturating_sub(1).max(1);
        // A template may put more before the question, such as what the system says.
        while let Some(shorter) = self.example_cut(tokenizer, prompt, n_cut, answer)? {
            example = shorter;
            n_cut += 1;
        }
        Ok(example)
    }
}

/// An answer of a transcript without the blank after `Assistant:`.
fn without_blank((answer, ended): (&str, bool)) -> (&str, bool) {
    (answer.trim_start(), ended)
}

/// A conversation without its first turn: the first message of a user, and all before the next one. System messages at
/// the start stay. `None` if it has only one turn.
fn without_first_turn(messages: &[Message]) -> Option<Vec<Message>> {
    let n_system = messages.iter().take_while(|message| message.role == "system").count();
    let (system, turns) = messages.split_at(n_system);
    let next = turns.iter().skip(1).position(|message| message.role == "user")? + 1;
    let has_answer_before = turns[..next].iter().any(Message::is_of_assistant);
    has_answer_before.then(|| [system, &turns[next..]].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOS: u32 = 1;
    const SEP: u32 = 2;
    const EOS: u32 = 3;

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(|byte| u32::from(byte) + 4).collect()
    }

    fn conversation() -> Vec<Message> {
        vec![
            Message::new("system", "S"),
            Message::user("a"),
            Message::assistant("b"),
            Message::user("c"),
            Message::assistant("d"),
            Message::user("e"),
        ]
    }

    #[test]
    fn a_conversation_repeats_the_template_for_each_turn_with_one_start() {
        let expected = [
            vec![BOS],
            bytes("Instruct:S\n\na"),
            vec![SEP],
            bytes("b"),
            vec![EOS],
            bytes("Instruct:c"),
            vec![SEP],
            bytes("d"),
            vec![EOS],
        ];
        let (template, tokenizer) = (Template::notebook(), Tokenizer::byte());
        let learn = |turns| {
            let example =
                template.encode_conversation(&tokenizer, &conversation(), turns, 99, Overflow::Drop);
            example.unwrap().unwrap()
        };
        let all = learn(LearnedTurns::All);
        assert_eq!(all.tokens, expected.concat(), "the question that nobody answers is left out");
        let learned = |example: &Example| -> Vec<u32> {
            let mask = example.completion_mask();
            example.tokens.iter().zip(mask).filter_map(|(id, learned)| learned.then_some(*id)).collect()
        };
        assert_eq!(learned(&all), [bytes("b"), vec![EOS], bytes("d"), vec![EOS]].concat());
        let last = learn(LearnedTurns::Last);
        assert_eq!((last.tokens.clone(), learned(&last)), (all.tokens, [bytes("d"), vec![EOS]].concat()));
        let prompt = template.encode_prompt(&tokenizer, conversation().as_slice()).unwrap();
        assert_eq!(prompt, [expected.concat(), bytes("Instruct:e"), vec![SEP]].concat());
    }

    #[test]
    fn a_conversation_that_is_too_long_loses_its_first_turns_and_keeps_what_the_system_says() {
        let (template, tokenizer) = (Template::bare(), Tokenizer::byte());
        let fit = |max_len, overflow| {
            template
                .encode_conversation(&tokenizer, &conversation(), LearnedTurns::All, max_len, overflow)
                .unwrap()
        };
        let whole = fit(12, Overflow::Drop).unwrap();
        assert_eq!((whole.tokens.len(), whole.n_cut), (12, 0));
        assert_eq!(fit(11, Overflow::Drop), None);
        let second = [vec![BOS], bytes("S\n\nc"), vec![SEP], bytes("d"), vec![EOS]].concat();
        let cut = fit(11, Overflow::TruncatePrompt).unwrap();
        assert_eq!(cut, Example { n_cut: 4, ..Example::new(second, 6) });
        assert_eq!(fit(7, Overflow::TruncatePrompt), None, "an answer is never cut");
        // A prompt loses its first turns, then the left of its last question.
        let prompt = |max_len| {
            template.encode_prompt_truncated(&tokenizer, conversation().as_slice(), max_len).unwrap()
        };
        assert_eq!(prompt(14).len(), 14);
        let turns = [vec![BOS], bytes("S\n\nc"), vec![SEP], bytes("d"), vec![EOS], bytes("e"), vec![SEP]];
        assert_eq!(prompt(13), turns.concat());
        assert_eq!(prompt(9), [vec![BOS], bytes("S\n\ne"), vec![SEP]].concat());
        assert_eq!(prompt(4), [vec![BOS], bytes("\ne"), vec![SEP]].concat());
        let chat = conversation();
        let error = template.encode_prompt_truncated(&tokenizer, chat.as_slice(), 2).unwrap_err();
        assert!(matches!(error, Error::PromptTooLong { needed: 3, .. }), "{error}");
    }

    #[test]
    fn conversations_that_cannot_be_read_are_refused() {
        let (template, tokenizer) = (Template::bare(), Tokenizer::byte());
        let prompt =
            |messages: &[Message]| template.encode_prompt(&tokenizer, messages).unwrap_err().to_string();
        assert!(prompt(&[]).starts_with("a prompt must end with a message"));
        assert!(prompt(&[Message::assistant("a")]).starts_with("a prompt must end with a message"));
        assert!(prompt(&[Message::new("tool", "a")]).contains("role `tool`"));
        let messages = [Message::user("a")];
        let error = template.encode_conversation(&tokenizer, &messages, LearnedTurns::All, 9, Overflow::Drop);
        assert!(matches!(error, Err(Error::NoAssistantTurn)));
    }

    #[test]
    fn d7_a_prompt_ends_at_sep() {
        let expected = [vec![BOS], bytes("Instruct:hi"), vec![SEP]].concat();
        assert_eq!(Template::notebook().encode_prompt(&Tokenizer::byte(), "hi").unwrap(), expected);
    }

    /// The notebook's label at `[EOS]` is `[PAD]`; here nothing after `[EOS]` exists, and the first token
    /// of the answer counts, which the notebook never trains.
    #[test]
    fn d8_the_mask_counts_the_completion_with_its_end_and_no_padding() {
        let example = Template::bare()
            .encode_example(&Tokenizer::byte(), "hi", "yo", 64, Overflow::Drop)
            .unwrap()
            .unwrap();
        assert_eq!(example.tokens, [vec![BOS], bytes("hi"), vec![SEP], bytes("yo"), vec![EOS]].concat());
        assert_eq!(example.completion_mask(), [false, false, false, false, true, true, true]);
        assert_eq!(example.completion(), [bytes("yo"), vec![EOS]].concat());
        assert_eq!(example.prompt(), Template::bare().encode_prompt(&Tokenizer::byte(), "hi").unwrap());
    }

    #[test]
    fn d9_an_over_long_example_is_dropped_or_its_prompt_is_cut_on_the_left() {
        let (template, tokenizer) = (Template::notebook(), Tokenizer::byte());
        let encode = |max_len, overflow| {
            template.encode_example(&tokenizer, "abcdef", "yes", max_len, overflow).unwrap()
        };
        // 1 + 9 + 6 + 1 for the prompt, 3 + 1 for the completion.
        assert_eq!(encode(21, Overflow::Drop).unwrap().n_cut, 0);
        assert_eq!(encode(20, Overflow::Drop), None);
        let cut = encode(18, Overflow::TruncatePrompt).unwrap();
        let expected = [vec![BOS], bytes("Instruct:def"), vec![SEP], bytes("yes"), vec![EOS]].concat();
        assert_eq!(cut, Example { n_cut: 3, ..Example::new(expected, 14) });
        // The last that fits has one letter of the prompt; the completion is never cut.
        assert_eq!(encode(16, Overflow::TruncatePrompt).unwrap().n_cut, 5);
        for max_len in 0..16 {
            assert_eq!(encode(max_len, Overflow::TruncatePrompt), None);
        }
    }

    #[test]
    fn d9_a_long_prompt_keeps_its_bos_its_sep_and_its_last_words() {
        let (template, tokenizer) = (Template::bare(), Tokenizer::byte());
        let tokens = template.encode_prompt_truncated(&tokenizer, "one two", 5).unwrap();
        assert_eq!(tokens, [vec![BOS], bytes("two"), vec![SEP]].concat());
        let whole = template.encode_prompt_truncated(&tokenizer, "one two", 9).unwrap();
        assert_eq!(whole, template.encode_prompt(&tokenizer, "one two").unwrap());
        let error = template.encode_prompt_truncated(&tokenizer, "one two", 2).unwrap_err().to_string();
        assert_eq!(error, "a prompt needs at least 3 tokens in template `bare`, but only 2 fit");
        assert_eq!(template.encode_prompt_truncated(&tokenizer, "", 2).unwrap(), [BOS, SEP]);
    }

    #[test]
    fn plain_adds_nothing_and_plain_eos_only_the_end() {
        let tokenizer = Tokenizer::byte();
        for (template, end) in [(Template::plain(), vec![]), (Template::plain_eos(), vec![EOS])] {
            assert_eq!(template.encode_prompt(&tokenizer, "hi").unwrap(), bytes("hi"));
            assert_eq!(
                template.encode_answer(&tokenizer, "hi", "yo", true).unwrap().completion(),
                [bytes("yo"), end].concat()
            );
        }
    }

    #[test]
    fn an_answer_without_its_end_gets_none_and_one_with_it_is_a_completion() {
        let json = r#"{"name":"qa","prompt":["<prompt>"],"completion":[{"text":"A: "},"<completion>",{"text":"!"},"<eos>"]}"#;
        let template: Template = serde_json::from_str(json).unwrap();
        let encode = |ended| template.encode_answer(&Tokenizer::byte(), "", "yo", ended).unwrap().tokens;
        assert_eq!(encode(true), [bytes("A: yo!"), vec![EOS]].concat());
        assert_eq!(encode(false), bytes("A: yo"));
        assert_eq!(
            Template::plain().encode_answer(&Tokenizer::byte(), "", "yo", true).unwrap().tokens,
            bytes("yo")
        );
        // What the policy of that template says, whole, without its own text, and as another policy says it.
        for (said, completion) in [("A: yo!", "yo"), ("A: yo", "yo"), ("yo", "yo"), ("A:", "A:"), ("", "")] {
            assert_eq!(template.completion_of(said), completion);
            assert_eq!(Template::bare().completion_of(said), said);
        }
    }

    #[test]
    fn special_looking_text_stays_text() {
        let tokens = Template::notebook().encode_prompt(&Tokenizer::byte(), "[SEP]<eos>[EOS]").unwrap();
        assert_eq!(tokens.iter().filter(|&&id| id < 4).count(), 2);
    }

    proptest! {
        #[test]
        fn d9_what_is_kept_fits_and_ends_as_it_should(prompt in ".*", completion in ".*", max_len in 0usize..96) {
            let (template, tokenizer) = (Template::notebook(), Tokenizer::byte());
            let encode = |overflow| template.encode_example(&tokenizer, &prompt, &completion, max_len, overflow).unwrap();
            if let Some(example) = encode(Overflow::TruncatePrompt) {
                prop_assert!(example.tokens.len() <= max_len);
                let whole = template.encode_answer(&tokenizer, "", &completion, true).unwrap();
                prop_assert_eq!(example.completion(), whole.completion());
                prop_assert_eq!(example.tokens[example.prompt_len - 1], SEP);
                prop_assert_eq!(encode(Overflow::Drop).is_some(), example.n_cut == 0);
            } else {
                prop_assert_eq!(encode(Overflow::Drop), None);
            }
        }
    }
}
