//! The ids of a rendered conversation.

use std::{collections::HashMap, ops::Range};

use tokenizers::AddedToken;

use crate::{Error, guard::guarded};

/// Turns rendered text into ids: what the template writes may be a special token, what a message says may not.
pub(crate) struct ChatEncoder {
    /// Finds special tokens in a text, as transformers does.
    special: tokenizers::Tokenizer,
    /// Takes special tokens for text, and knows one token more: the anchor.
    plain: tokenizers::Tokenizer,
    anchor: Option<u32>,
    special_tokens: HashMap<u32, AddedToken>,
}

/// A token and the bytes of the text that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) id: u32,
    pub(crate) range: Range<usize>,
}

/// A text that no conversation contains, which takes the place of a special token.
const ANCHOR: &str = "\u{10fffd}anchor\u{10fffc}";

impl ChatEncoder {
    pub(crate) fn new(inner: &tokenizers::Tokenizer) -> Self {
        let mut special = inner.clone();
        // Some cut white space off the places of tokens. Without special tokens they change no ids.
        special.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        let mut plain = special.clone();
        special.set_encode_special_tokens(false);
        plain.set_encode_special_tokens(true);
        let added = guarded(|| plain.add_tokens([AddedToken::from(ANCHOR, false).normalized(false)]));
        let anchor = added.and_then(Result::ok).and_then(|_| plain.token_to_id(ANCHOR));
        let added = special.get_added_tokens_decoder();
        let special_tokens = added.into_iter().filter(|(_, token)| token.special).collect();
        Self { special, plain, anchor, special_tokens }
    }

    /// Whether a token has a meaning of its own.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.special_tokens.contains_key(&id)
    }

    /// Whether the text of a token spells a special token: the unknown token stands for other texts.
    fn is_spelled(&self, text: &str, token: &Token) -> bool {
        let is_spelled_by = |special: &AddedToken| {
            // A text that is normalised first may spell it in other letters.
            special.normalized || text[token.range.clone()].trim() == special.content.trim()
        };
        !token.range.is_empty() && self.special_tokens.get(&token.id).is_some_and(is_spelled_by)
    }

    /// The places at which a mark breaks every special token that a text spells.
    pub(crate) fn spelled(&self, text: &str) -> Result<Vec<usize>, Error> {
        let may_be_in = |special: &AddedToken| special.normalized || text.contains(&special.content);
        if !self.special_tokens.values().any(may_be_in) {
            return Ok(Vec::new());
        }
        let tokens = encode(&self.special, text)?;
        Ok(tokens
            .into_iter()
            .filter(|token| self.is_spelled(text, token))
            .map(|Token { range, .. }| {
                // Some tokens take the white space in front of them.
                let spelling = text[range.clone()].trim_start();
                let first = spelling.chars().next().map_or(0, char::len_utf8);
                let start = range.end - spelling.len();
                if first == spelling.len() { start } else { start + first }
            })
            .collect())
    }

    /// The tokens of a text, in which a special token with a break in it is text.
    pub(crate) fn encode(&self, text: &str, breaks: &[usize]) -> Result<Vec<Token>, Error> {
        let tokens = encode(&self.special, text)?;
        if breaks.is_empty() {
            return Ok(tokens);
        }
        let Some(anchor) = self.anchor.filter(|_| !text.contains(ANCHOR)) else {
            return Err(Error::NoUnusedCharacter);
        };
        let is_broken = |range: &Range<usize>| {
            let is_one_char = text[range.clone()].chars().nth(1).is_none();
            breaks.iter().any(|place| range.contains(place) && (is_one_char || *place > range.start))
        };
        // Encoding piece by piece would give the words after a special token another start, in some tokenizers.
        let mut anchored = String::with_capacity(text.len());
        let mut anchors = Vec::new();
        let mut end = 0;
        for token in tokens {
            if self.is_spelled(text, &token) && !is_broken(&token.range) {
                anchored.push_str(&text[end..token.range.start]);
                anchored.push_str(ANCHOR);
                end = token.range.end;
                anchors.push(token);
            }
        }
        anchored.push_str(&text[end..]);
        let mut anchors = anchors.into_iter();
        // Where the text continues after the last anchor, in both texts.
        let (mut place, mut anchored_place) = (0, 0);
        let mut tokens = Vec::new();
        for token in encode(&self.plain, &anchored)? {
            if token.id == anchor
                && let Some(special) = anchors.next()
            {
                (place, anchored_place) = (special.range.end, token.range.end);
                tokens.push(special);
            // A word model may know a special token as a word.
            } else if !self.is_spelled(&anchored, &token) {
                let at = |bytes: usize| bytes - anchored_place + place;
                tokens.push(Token { id: token.id, range: at(token.range.start)..at(token.range.end) });
            }
        }
        Ok(tokens)
    }
}

fn encode(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<Token>, Error> {
    let encoding = guarded(|| tokenizer.encode(text, false))
        .ok_or_else(|| Error::CannotEncode { reason: "the `tokenizers` crate panics on it".into() })?
        .map_err(|error| Error::CannotEncode { reason: error.to_string() })?;
    let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end);
    Ok(encoding.get_ids().iter().zip(ranges).map(|(&id, range)| Token { id, range }).collect())
}
