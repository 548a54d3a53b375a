//! The text side of a model: a tokenizer with its template.

use std::path::{Path, PathBuf};

use crate::{
    ChatTemplate, Date, Error, Example, LearnedTurns, Message, Overflow, Piece, PromptRef, Template,
    Tokenizer,
};

/// A tokenizer with its template: everything that turns text into the ids of one model, and back.
///
/// Every model directory and every checkpoint stores it next to the weights.
///
/// ```
/// use temper_tokenizer::{Template, TextSide, Tokenizer};
///
/// let text = TextSide::new(Tokenizer::byte(), Template::bare()); // [BOS]{prompt}[SEP] and {completion}[EOS]
/// let example = text.encode_answer("2+2?", "4", true)?;
/// assert_eq!([example.prompt().first(), example.prompt().last()], [Some(&1), Some(&2)]);
/// assert_eq!(text.tokenizer.decode(example.completion()), "4");
/// # Ok::<(), temper_tokenizer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TextSide {
    /// Turns text into ids and ids into text.
    pub tokenizer: Tokenizer,
    /// Puts a prompt and its completion together.
    pub template: Template,
    /// Whether the model directory has a template of its own: a `template.json` or a chat template. It is never replaced.
    pub has_template: bool,
    /// The directory it was read from, for messages. A preset has its name here.
    pub dir: PathBuf,
}

impl TextSide {
    /// Joins a tokenizer and a template that were not read from a directory.
    ///
    /// The template counts as the model's own: [`TextSide::settle`] and [`TextSide::adopt`] do not replace it.
    pub fn new(tokenizer: Tokenizer, template: Template) -> Self {
        Self { tokenizer, template, has_template: true, dir: PathBuf::new() }
    }

    /// The tokenizer of a preset of this name, whose template is not decided yet: see [`TextSide::settle`].
    pub fn preset(name: &str, tokenizer: Tokenizer) -> Self {
        Self { tokenizer, template: Template::plain(), has_template: false, dir: name.into() }
    }

    /// Reads `tokenizer.json` and the template of a model directory: its `template.json`, or else its chat template.
    ///
    /// Without either, the template is [`Template::plain`], which adds nothing to a text. A stage replaces it with
    /// [`TextSide::settle`].
    ///
    /// # Errors
    /// Files that are missing or damaged, and a template that needs a special token that the tokenizer lacks.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let tokenizer = Tokenizer::from_dir(dir)?;
        let own = Template::of_dir(dir, &tokenizer)?;
        let has_template = own.is_some();
        let template = own.unwrap_or_else(Template::plain);
        Ok(Self { tokenizer, template, has_template, dir: dir.to_owned() })
    }

    /// Writes tokenizer and template into a model directory. The byte tokenizer also gets a chat template in
    /// `tokenizer_config.json`, which puts text together as the template does.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        self.tokenizer.save_for(dir, Some(&self.template))?;
        self.template.save(dir)
    }

    /// [`TextSide::save`] for a reward model that pads with `pad`: see [`Tokenizer::score_padding`].
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn save_for_scores(&self, dir: &Path, pad: Option<u32>) -> Result<(), Error> {
        self.tokenizer.save_for_scores(dir, Some(&self.template), pad)?;
        self.template.save(dir)
    }

    /// Chooses the template for training, if the directory has none.
    ///
    /// `setting` is a name of [`Template::NAMES`], or `auto`: [`Template::notebook`] for the byte tokenizer and
    /// [`Template::plain_eos`] for any other.
    ///
    /// # Errors
    /// [`Error::UnknownTemplate`], [`Error::MissingSpecial`].
    pub fn settle(&mut self, setting: &str) -> Result<(), Error> {
        if self.has_template {
            return Ok(());
        }
        let template = match (setting, &self.tokenizer) {
            ("auto", Tokenizer::Byte(_)) => Template::notebook(),
            ("auto", Tokenizer::Pretrained(_)) => Template::plain_eos(),
            (name, _) => Template::by_name(name)?,
        };
        template.check(&self.tokenizer)?;
        self.template = template;
        Ok(())
    }

    /// The date that a chat template takes for today.
    pub fn date(&self) -> Option<Date> {
        self.template.chat_template().map(ChatTemplate::date)
    }

    /// Sets the date that a chat template takes for today, unless the directory has stored one.
    pub fn freeze_date(&mut self, date: Date) {
        if let Some(chat) = self.template.chat_mut().filter(|chat| !chat.is_dated) {
            chat.template = chat.template.clone().with_date(date);
        }
    }

    /// Takes the template of another model with the same tokenizer, if this directory has none, so that both put text
    /// together alike; or the date of the same chat template, if this directory has not stored one. Returns whether
    /// that changed the template.
    pub fn adopt(&mut self, other: &Self) -> bool {
        let has_same_chat = match (self.template.chat(), other.template.chat_template()) {
            (Some(own), Some(theirs)) => !own.is_dated && own.template.source() == theirs.source(),
            _ => false,
        };
        let may_adopt = (!self.has_template || has_same_chat)
            && self.tokenizer.fingerprint() == other.tokenizer.fingerprint()
            && other.template.check(&self.tokenizer).is_ok();
        let changes = may_adopt && self.template.hash() != other.template.hash();
        if changes {
            self.template = other.template.clone();
        }
        changes
    }

    /// Whether ids of one model mean the same to the other.
    ///
    /// This hashes both tokenizers: ask once, not for every batch.
    pub fn same_as(&self, other: &Self) -> bool {
        self.difference(other).is_none()
    }

    /// The first thing that differs: `tokenizer`, `template`, `end token`, `start token` or `separator token`.
    ///
    /// An end token in only one of the templates is not a difference, because [`TextSide::example_of_ids`] adds or
    /// removes it.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.tokenizer.fingerprint() != other.tokenizer.fingerprint() {
            return Some("tokenizer");
        }
        let without_end = |text: &Self| {
            let completion = text.template.completion();
            completion.strip_suffix(&[Piece::Eos]).unwrap_or(completion).to_vec()
        };
        let chat = |text: &Self| text.template.chat_template().map(ChatTemplate::hash);
        if self.template.prompt() != other.template.prompt()
            || without_end(self) != without_end(other)
            || chat(self) != chat(other)
        {
            return Some("template");
        }
        if self.eos() != other.eos() {
            return Some("end token");
        }
        let (own, others) = (self.tokenizer.special(), other.tokenizer.special());
        let pieces = || self.template.prompt().iter().chain(self.template.completion());
        let differs = |piece, own, other| pieces().any(|used| *used == piece) && own != other;
        match () {
            () if differs(Piece::Bos, own.bos, others.bos) => Some("start token"),
            () if differs(Piece::Sep, own.sep, others.sep) => Some("separator token"),
            () => None,
        }
    }

    /// The id that ends a completion in training: the end of a turn in a chat template, or else the end token of the
    /// tokenizer.
    pub fn eos(&self) -> u32 {
        let turn_end = self.template.chat().and_then(|chat| chat.turn_end);
        turn_end.unwrap_or(self.tokenizer.special().eos)
    }

    /// The ids that end a completion in generation, in order: [`Tokenizer::end_tokens`] and [`TextSide::eos`].
    pub fn end_tokens(&self) -> Vec<u32> {
        let mut ids = self.tokenizer.end_tokens();
        ids.push(self.eos());
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// [`Template::encode_prompt`] with this tokenizer.
    ///
    /// # Errors
    /// Those of [`Template::encode_prompt`].
    pub fn encode_prompt<'p>(&self, prompt: impl Into<PromptRef<'p>>) -> Result<Vec<u32>, Error> {
        self.template.encode_prompt(&self.tokenizer, prompt)
    }

    /// [`Template::encode_prompt_truncated`] with this tokenizer.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`], and those of [`Template::encode_prompt`].
    pub fn encode_prompt_truncated<'p>(
        &self,
        prompt: impl Into<PromptRef<'p>>,
        max_len: usize,
    ) -> Result<Vec<u32>, Error> {
        self.template.encode_prompt_truncated(&self.tokenizer, prompt, max_len)
    }

    /// [`Template::encode_answer`] with this tokenizer.
    ///
    /// # Errors
    /// Those of [`Template::encode_prompt`].
    pub fn encode_answer<'p>(
        &self,
        prompt: impl Into<PromptRef<'p>>,
        answer: &str,
        ended: bool,
    ) -> Result<Example, Error> {
        self.template.encode_answer(&self.tokenizer, prompt, answer, ended)
    }

    /// [`Template::encode_answer_to_fit`] with this tokenizer.
    ///
    /// # Errors
    /// [`Error::PromptTooLong`], and those of [`Template::encode_prompt`].
    pub fn encode_answer_to_fit<'p>(
        &self,
        prompt: impl Into<PromptRef<'p>>,
        answer: &str,
        ended: bool,
        max_len: usize,
    ) -> Result<Example, Error> {
        self.template.encode_answer_to_fit(&self.tokenizer, prompt, answer, ended, max_len)
    }

    /// [`Template::encode_example`] with this tokenizer.
    ///
    /// # Errors
    /// Those of [`Template::encode_prompt`].
    pub fn encode_example<'p>(
        &self,
        prompt: impl Into<PromptRef<'p>>,
        completion: &str,
        max_len: usize,
        overflow: Overflow,
    ) -> Result<Option<Example>, Error> {
        self.template.encode_example(&self.tokenizer, prompt, completion, max_len, overflow)
    }

    /// [`Template::encode_conversation`] with this tokenizer.
    ///
    /// # Errors
    /// Those of [`Template::encode_conversation`].
    pub fn encode_conversation(
        &self,
        messages: &[Message],
        learned: LearnedTurns,
        max_len: usize,
        overflow: Overflow,
    ) -> Result<Option<Example>, Error> {
        self.template.encode_conversation(&self.tokenizer, messages, learned, max_len, overflow)
    }

    /// Sampled ids as the example that a model of the same texts would learn.
    ///
    /// An answer that ended loses its end token, whichever of [`TextSide::end_tokens`] it is, and gets the one that this
    /// template ends a completion with, if it does. An answer that did not end stays as it is.
    pub fn example_of_ids(&self, prompt: &[u32], answer: &[u32], ended: bool) -> Example {
        let eos = self.eos();
        let answer = match answer {
            [text @ .., last] if ended && self.end_tokens().contains(last) => text,
            _ => answer,
        };
        let template_ends =
            self.template.chat().is_some() || self.template.completion().contains(&Piece::Eos);
        let end = (ended && template_ends).then_some(eos);
        let tokens = prompt.iter().chain(answer).copied().chain(end).collect();
        Example::new(tokens, prompt.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text side of a directory with a tokenizer of words, whose end token `config.json` names.
    fn words(eos: u32) -> (tempfile::TempDir, TextSide) {
        let dir = tempfile::tempdir().unwrap();
        let json = serde_json::json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "<end>": 3, "<turn>": 4}, "unk_token": "a"}});
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let config = serde_json::json!({"eos_token_id": eos});
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let text = TextSide::load(dir.path()).unwrap();
        (dir, text)
    }

    #[test]
    fn tokenizers_with_different_end_tokens_exchange_no_ids() {
        let ((_a, first), (_b, second)) = (words(3), words(4));
        assert_eq!(first.tokenizer.fingerprint(), second.tokenizer.fingerprint());
        assert_eq!(first.difference(&second), Some("end token"));
        let (_c, third) = words(3);
        assert!(first.same_as(&third));
    }

    #[test]
    fn an_end_token_in_only_one_template_is_not_a_difference_and_everything_else_is() {
        let (_dir, plain) = words(3);
        let with = |template: Template| TextSide { template, ..plain.clone() };
        assert!(plain.same_as(&with(Template::plain_eos())));
        assert_eq!(plain.difference(&with(Template::bare())), Some("template"));
        let tail = vec![Piece::Completion, Piece::Text("b".into()), Piece::Eos];
        let tail = Template::new("tail", vec![Piece::Prompt], tail).unwrap();
        assert_eq!(plain.difference(&with(tail)), Some("template"));
    }

    #[test]
    fn a_directory_without_a_template_takes_the_one_of_the_setting_or_of_the_reward_model() {
        let (_dir, mut text) = words(3);
        assert_eq!(text.template, Template::plain());
        text.settle("auto").unwrap();
        assert_eq!(text.template, Template::plain_eos());
        assert!(text.settle("notebook").is_err(), "the tokenizer has no separator");
        text.settle("plain").unwrap();
        let mut reward = text.clone();
        reward.settle("plain_eos").unwrap();
        assert!(text.adopt(&reward) && text.template == Template::plain_eos());
        assert!(!text.adopt(&reward), "nothing changes");

        let mut byte = TextSide { tokenizer: Tokenizer::byte(), ..text.clone() };
        byte.settle("auto").unwrap();
        assert_eq!(byte.template, Template::notebook());
        assert!(!byte.adopt(&reward), "its tokenizer is a different one");
        let mut own = TextSide { template: Template::plain(), has_template: true, ..text };
        own.settle("plain_eos").unwrap();
        assert!(!own.adopt(&reward) && own.template == Template::plain(), "a template of its own stays");
    }

    #[test]
    fn ids_get_the_end_that_the_template_teaches_and_no_other() {
        let with_end = TextSide::new(Tokenizer::byte(), Template::plain_eos());
        let without_end = TextSide::new(Tokenizer::byte(), Template::plain());
        let tokens =
            |text: &TextSide, answer: &[u32], ended| text.example_of_ids(&[1, 2], answer, ended).tokens;
        assert_eq!(tokens(&with_end, &[5, 3], true), [1, 2, 5, 3]);
        assert_eq!(tokens(&without_end, &[5, 3], true), [1, 2, 5]);
        assert_eq!(
            tokens(&without_end, &[5, 4], false),
            [1, 2, 5, 4],
            "without an end, the last token is text"
        );
        assert_eq!(tokens(&with_end, &[5, 4], false), [1, 2, 5, 4]);
        // The stop token 4 ended these.
        assert_eq!(tokens(&with_end, &[5, 4], true), [1, 2, 5, 4, 3]);
        assert_eq!(tokens(&without_end, &[5, 4], true), [1, 2, 5, 4]);
    }

    #[test]
    fn an_answer_that_ended_with_another_end_token_gets_the_one_of_the_template() {
        let (dir, mut text) = words(3);
        let json = serde_json::json!({"eos_token_id": [4, 3]});
        std::fs::write(dir.path().join("generation_config.json"), json.to_string()).unwrap();
        text = TextSide { template: Template::plain_eos(), ..TextSide::load(&text.dir).unwrap() };
        assert_eq!((text.eos(), text.end_tokens()), (3, vec![3, 4]));
        let tokens = |answer: &[u32], ended| text.example_of_ids(&[0], answer, ended).tokens;
        assert_eq!(tokens(&[1, 4], true), [0, 1, 3]);
        assert_eq!(tokens(&[1, 4], false), [0, 1, 4]);
        text.template = Template::plain();
        assert_eq!(text.example_of_ids(&[0], &[1, 4], true).tokens, [0, 1]);
    }
}
