//! Prompts and answers as the ids of a template of pieces.

use crate::{Error, Example, LearnedTurns, Message, Piece, PromptRef, Template, Tokenizer};

/// A question and its answer, which the last turn of a prompt does not have yet.
struct Turn {
    asked: String,
    answer: Option<String>,
}

/// A prompt as turns. What a system message says comes before the first question, as a paragraph of its own, and so do
/// several messages of the user in a row.
///
/// # Errors
/// [`Error::Role`] for a message of anybody else, and [`Error::NoContent`] for one that only calls a tool.
fn turns(prompt: PromptRef<'_>) -> Result<Vec<Turn>, Error> {
    let messages = match prompt {
        PromptRef::Text(text) => return Ok(vec![Turn { asked: text.to_owned(), answer: None }]),
        PromptRef::Messages(messages) => messages,
    };
    let mut turns: Vec<Turn> = Vec::new();
    for Message { role, content, .. } in messages {
        let content = content.as_ref().ok_or_else(|| Error::NoContent { role: role.clone() })?;
        match (role.as_str(), turns.last_mut()) {
            ("system" | "user", Some(Turn { asked, answer: None })) => *asked += &format!("\n\n{content}"),
            ("system" | "user", _) => turns.push(Turn { asked: content.clone(), answer: None }),
            ("assistant", Some(Turn { answer: answer @ None, .. })) => *answer = Some(content.clone()),
            ("assistant", Some(Turn { answer: Some(answer), .. })) => *answer += &format!("\n\n{content}"),
            ("assistant", None) => turns.push(Turn { asked: String::new(), answer: Some(content.clone()) }),
            _ => return Err(Error::Role { role: role.clone() }),
        }
    }
    Ok(turns)
}

impl Template {
    /// A prompt, without the first `n_cut` tokens of the last question, and an answer to it if given, which gets an end
    /// only if it `ended`. `None` if the question does not have that many tokens and one more.
    pub(crate) fn example_of_pieces(
        &self,
        tokenizer: &Tokenizer,
        prompt: PromptRef<'_>,
        n_cut: usize,
        answer: Option<(&str, bool)>,
    ) -> Result<Option<Example>, Error> {
        let turns = turns(prompt)?;
        let Some((Turn { asked, answer: None }, before)) = turns.split_last() else {
            return Err(Error::NotAPrompt { reason: "does not" });
        };
        let mut tokens = Vec::new();
        for turn in before {
            self.push_question(&mut tokens, tokenizer, &tokenizer.encode(&turn.asked));
            let answer = turn.answer.as_deref().unwrap_or_default();
            self.push_answer(&mut tokens, tokenizer, answer, true);
        }
        let question = tokenizer.encode(asked);
        if n_cut > 0 && n_cut >= question.len() {
            return Ok(None);
        }
        self.push_question(&mut tokens, tokenizer, &question[n_cut..]);
        let prompt_len = tokens.len();
        if let Some((answer, ended)) = answer {
            self.push_answer(&mut tokens, tokenizer, answer, ended);
        }
        Ok(Some(Example::new(tokens, prompt_len)))
    }

    /// A conversation, up to its last answer.
    pub(crate) fn conversation_of_pieces(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        learned: LearnedTurns,
    ) -> Result<Example, Error> {
        let mut example = Example::default();
        let mut end_of_answer = None;
        for Turn { asked, answer } in turns(PromptRef::Messages(messages))? {
            let Some(answer) = answer else { break };
            self.push_question(&mut example.tokens, tokenizer, &tokenizer.encode(&asked));
            let start = example.tokens.len();
            match end_of_answer {
                Some(end) if learned == LearnedTurns::All => example.between.push(end..start),
                _ => example.prompt_len = start,
            }
            self.push_answer(&mut example.tokens, tokenizer, &answer, true);
            end_of_answer = Some(example.tokens.len());
        }
        if end_of_answer.is_none() { Err(Error::NoAssistantTurn) } else { Ok(example) }
    }

    /// Appends a question. Only the first one of a conversation has the start token.
    fn push_question(&self, tokens: &mut Vec<u32>, tokenizer: &Tokenizer, text: &[u32]) {
        let is_first = tokens.is_empty();
        let pieces = self.prompt().iter().filter(|piece| is_first || **piece != Piece::Bos);
        push(tokens, pieces, tokenizer, text);
    }

    /// Appends an answer, which gets what the template has after a completion only if it `ended`.
    fn push_answer(&self, tokens: &mut Vec<u32>, tokenizer: &Tokenizer, answer: &str, ended: bool) {
        let pieces = self.completion();
        let end = if ended { pieces.len() } else { self.place_of_completion() + 1 };
        push(tokens, pieces[..end].iter(), tokenizer, &tokenizer.encode(answer));
    }

    /// Where the completion's own text stands among its pieces.
    pub(crate) fn place_of_completion(&self) -> usize {
        let mut pieces = self.completion().iter();
        pieces.position(|piece| *piece == Piece::Completion).expect("checked when the template was made")
    }
}

/// Puts `text` where the pieces have their prompt or completion. A token that the tokenizer lacks is left
/// out; `Template::check` is where that is an error.
fn push<'p>(
    tokens: &mut Vec<u32>,
    pieces: impl Iterator<Item = &'p Piece>,
    tokenizer: &Tokenizer,
    text: &[u32],
) {
    let special = tokenizer.special();
    for piece in pieces {
        match piece {
            Piece::Text(fixed) => tokens.extend(tokenizer.encode(fixed)),
            Piece::Bos => tokens.extend(special.bos),
            Piece::Sep => tokens.extend(special.sep),
            Piece::Eos => tokens.push(special.eos),
            Piece::Prompt | Piece::Completion => tokens.extend(text),
        }
    }
}
