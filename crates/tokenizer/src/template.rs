//! How a prompt and its completion become one sequence, as data.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{ChatTemplate, Error, SpecialTokens, Tokenizer, hash::stable_hash, special::read_json};

/// One part of a template.
///
/// In JSON: `{"text":"Instruct:"}`, `"<bos>"`, `"<sep>"`, `"<eos>"`, `"<prompt>"`, `"<completion>"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// Text that every sequence has.
    #[serde(rename = "text")]
    Text(String),
    /// The start token.
    #[serde(rename = "<bos>")]
    Bos,
    /// The separator.
    #[serde(rename = "<sep>")]
    Sep,
    /// The end token.
    #[serde(rename = "<eos>")]
    Eos,
    /// The text of the prompt.
    #[serde(rename = "<prompt>")]
    Prompt,
    /// The text of the completion.
    #[serde(rename = "<completion>")]
    Completion,
}

/// The pieces of a prompt and those of a completion. Each holds its own text exactly once.
///
/// A checkpoint stores it as `template.json`, so that generation and scoring put text together just as
/// training did:
///
/// ```
/// use temper_tokenizer::Template;
///
/// let json = r#"{"name":"qa","prompt":["<bos>",{"text":"Q: "},"<prompt>",{"text":" A:"}],
///                "completion":["<completion>","<eos>"]}"#;
/// let template: Template = serde_json::from_str(json)?;
/// assert_eq!(template.name(), "qa");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// The chat template of an instruct model is one, too: see [`Template::of_chat`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Template {
    name: String,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Pieces { prompt: Vec<Piece>, completion: Vec<Piece> },
    Chat(ModelChat),
}

/// A chat template with what a [`Template`] has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelChat {
    pub(crate) template: ChatTemplate,
    /// The special token that ends an answer.
    pub(crate) turn_end: Option<u32>,
    /// Whether its date is final: it was stored.
    pub(crate) is_dated: bool,
}

impl Template {
    /// The names that [`Template::by_name`] knows.
    pub const NAMES: [&'static str; 4] = ["notebook", "bare", "plain", "plain_eos"];

    /// A template of one's own.
    ///
    /// # Errors
    ///
    /// If `prompt` does not hold [`Piece::Prompt`] exactly once, or `completion` not
    /// [`Piece::Completion`], or either holds the other's.
    pub fn new(name: &str, prompt: Vec<Piece>, completion: Vec<Piece>) -> Result<Self, Error> {
        let count = |pieces: &[Piece], piece: Piece| pieces.iter().filter(|other| **other == piece).count();
        let bad = |part, other| Err(Error::BadTemplate { template: name.to_owned(), part, other });
        if count(&prompt, Piece::Prompt) != 1 || count(&prompt, Piece::Completion) != 0 {
            return bad("prompt", "completion");
        }
        if count(&completion, Piece::Completion) != 1 || count(&completion, Piece::Prompt) != 0 {
            return bad("completion", "prompt");
        }
        Ok(Self { name: name.to_owned(), form: Form::Pieces { prompt, completion } })
    }

    /// The chat template of an instruct model. A prompt that is a text becomes one message of the user, a
    /// transcript of hh-rlhf the messages in it.
    ///
    /// `template.json` stores only its date, as `{"name":"chat","date":"2026-11-29"}`; the template itself stays in
    /// `chat_template.jinja` or in `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::ChatNeedsTokenizer`] for the byte tokenizer, and a template that fails on a question with its answer.
    pub fn of_chat(template: ChatTemplate, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let Tokenizer::Pretrained(pretrained) = tokenizer else { return Err(Error::ChatNeedsTokenizer) };
        let turn_end = template.turn_end(pretrained)?;
        Ok(Self {
            name: CHAT.to_owned(),
            form: Form::Chat(ModelChat { template, turn_end, is_dated: false }),
        })
    }

    /// Reads `template.json` of a model directory, or else its chat template, if the tokenizer is not the byte tokenizer,
    /// which has a template of its own. `None` without either.
    ///
    /// # Errors
    ///
    /// Files that cannot be read or are no templates, and a template that does not fit the tokenizer.
    pub(crate) fn of_dir(dir: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>, Error> {
        let stored = read_json(&dir.join(FILE_NAME))?;
        let chat = || ChatTemplate::load(dir);
        let template = match stored {
            None if matches!(tokenizer, Tokenizer::Byte(_)) => None,
            None => chat()?.map(|chat| Self::of_chat(chat, tokenizer)).transpose()?,
            Some(json) if json["name"] == CHAT && json["prompt"].is_null() => {
                let path = dir.join(FILE_NAME);
                let date = json["date"].as_str().unwrap_or_default().parse()?;
                let chat = chat()?.ok_or(Error::NoChatTemplate { path })?.with_date(date);
                let mut template = Self::of_chat(chat, tokenizer)?;
                template.chat_mut().expect("it is a chat template").is_dated = true;
                Some(template)
            }
            Some(_) => Self::load(dir)?,
        };
        if let Some(template) = &template {
            template.check(tokenizer)?;
        }
        Ok(template)
    }

    /// The chat template, if it is one.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat().map(|chat| &chat.template)
    }

    pub(crate) fn chat(&self) -> Option<&ModelChat> {
        match &self.form {
            Form::Pieces { .. } => None,
            Form::Chat(chat) => Some(chat),
        }
    }

    pub(crate) fn chat_mut(&mut self) -> Option<&mut ModelChat> {
        match &mut self.form {
            Form::Pieces { .. } => None,
            Form::Chat(chat) => Some(chat),
        }
    }

    /// The notebook's: `[BOS]Instruct:{prompt}[SEP]` and `{completion}[EOS]`.
    pub fn notebook() -> Self {
        let instruct = Piece::Text("Instruct:".to_owned());
        Self::built_in("notebook", vec![Piece::Bos, instruct, Piece::Prompt, Piece::Sep], true)
    }

    /// The notebook's without its `Instruct:`: `[BOS]{prompt}[SEP]` and `{completion}[EOS]`.
    pub fn bare() -> Self {
        Self::built_in("bare", vec![Piece::Bos, Piece::Prompt, Piece::Sep], true)
    }

    /// Nothing added: how a directory without a `template.json` is read.
    pub fn plain() -> Self {
        Self::built_in("plain", vec![Piece::Prompt], false)
    }

    /// `{prompt}` and `{completion}[EOS]`: what SFT of a Hugging Face model trains on.
    pub fn plain_eos() -> Self {
        Self::built_in("plain_eos", vec![Piece::Prompt], true)
    }

    fn built_in(name: &str, prompt: Vec<Piece>, ends: bool) -> Self {
        let mut completion = vec![Piece::Completion];
        completion.extend(ends.then_some(Piece::Eos));
        Self { name: name.to_owned(), form: Form::Pieces { prompt, completion } }
    }

    /// One of the built-in templates.
    ///
    /// # Errors
    ///
    /// If there is none of that name; the message lists [`Template::NAMES`].
    pub fn by_name(name: &str) -> Result<Self, Error> {
        match name {
            "notebook" => Ok(Self::notebook()),
            "bare" => Ok(Self::bare()),
            "plain" => Ok(Self::plain()),
            "plain_eos" => Ok(Self::plain_eos()),
            _ => Err(Error::UnknownTemplate { name: name.to_owned(), known: Self::NAMES.to_vec() }),
        }
    }

    /// Reads the pieces in `dir/template.json`; `None` without such a file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not a template.
    pub fn load(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(FILE_NAME);
        let parse = |json| {
            serde_json::from_value(json).map_err(|source| Error::BadJson { path: path.clone(), source })
        };
        read_json(&path)?.map(parse).transpose()
    }

    /// Writes `dir/template.json`.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE_NAME);
        fs::create_dir_all(dir).map_err(|source| Error::write(dir, source))?;
        let json = serde_json::to_string_pretty(self).expect("strings and lists are JSON");
        fs::write(&path, json + "\n").map_err(|source| Error::write(&path, source))
    }

    /// A hash of the pieces, whatever the name, or of what a chat template writes: equal hashes put text together in the
    /// same way.
    pub fn hash(&self) -> String {
        if let Some(chat) = self.chat() {
            return chat.template.hash();
        }
        let pieces = (self.prompt(), self.completion());
        stable_hash(&serde_json::to_vec(&pieces).expect("strings and lists are JSON"))
    }

    /// Whether the tokenizer has the special tokens that the pieces need.
    ///
    /// # Errors
    ///
    /// If one is missing. The `encode_*` methods would leave such a piece out.
    pub fn check(&self, tokenizer: &Tokenizer) -> Result<(), Error> {
        let SpecialTokens { bos, sep, .. } = tokenizer.special();
        for (piece, id, token) in [(Piece::Bos, bos, "<bos>"), (Piece::Sep, sep, "<sep>")] {
            if id.is_none() && self.prompt().iter().chain(self.completion()).any(|other| *other == piece) {
                return Err(Error::MissingSpecial { template: self.name.clone(), token });
            }
        }
        Ok(())
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pieces before a completion; a chat template has none.
    pub fn prompt(&self) -> &[Piece] {
        match &self.form {
            Form::Pieces { prompt, .. } => prompt,
            Form::Chat(_) => &[],
        }
    }

    /// The pieces from a completion on; a chat template has none.
    pub fn completion(&self) -> &[Piece] {
        match &self.form {
            Form::Pieces { completion, .. } => completion,
            Form::Chat(_) => &[],
        }
    }
}

const FILE_NAME: &str = "template.json";
/// The name of every chat template.
const CHAT: &str = "chat";

/// A template as it is written, before [`Template::new`] has looked at it. Pieces for a prompt and a completion, or the
/// date of a chat template.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prompt: Vec<Piece>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    completion: Vec<Piece>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    date: Option<String>,
}

impl From<Template> for Written {
    fn from(template: Template) -> Self {
        let date = template.chat_template().map(|chat| chat.date().to_string());
        let Template { name, form } = template;
        match form {
            Form::Pieces { prompt, completion } => Self { name, prompt, completion, date },
            Form::Chat(_) => Self { name, prompt: Vec::new(), completion: Vec::new(), date },
        }
    }
}

impl TryFrom<Written> for Template {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self, Error> {
        Self::new(&written.name, written.prompt, written.completion)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_readable_and_comes_back() {
        let json = serde_json::to_string(&Template::notebook()).unwrap();
        assert_eq!(
            json,
            r#"{"name":"notebook","prompt":["<bos>",{"text":"Instruct:"},"<prompt>","<sep>"],"completion":["<completion>","<eos>"]}"#
        );
        assert_eq!(serde_json::from_str::<Template>(&json).unwrap(), Template::notebook());
    }

    #[test]
    fn every_listed_name_is_a_template_of_that_name() {
        for name in Template::NAMES {
            assert_eq!(Template::by_name(name).unwrap().name(), name);
        }
        let error = Template::by_name("notebok").unwrap_err().to_string();
        assert_eq!(error, "`template` must be one of notebook, bare, plain, plain_eos, got `notebok`");
    }

    #[test]
    fn the_hash_ignores_the_name_and_nothing_else() {
        let renamed = Template { name: "other".to_owned(), ..Template::bare() };
        assert_eq!(renamed.hash(), Template::bare().hash());
        let mut hashes: Vec<String> =
            Template::NAMES.map(|name| Template::by_name(name).unwrap().hash()).into();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), Template::NAMES.len());
        // Written into checkpoints, so it may never change.
        assert_eq!(Template::notebook().hash(), NOTEBOOK_HASH);
    }

    const NOTEBOOK_HASH: &str = "7e572e9a7bc74d43d9c240b03312d5f5";

    #[test]
    fn a_directory_without_template_has_none_and_a_saved_one_loads() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Template::load(dir.path()).unwrap(), None);
        Template::notebook().save(dir.path()).unwrap();
        assert_eq!(Template::load(dir.path()).unwrap(), Some(Template::notebook()));
    }

    #[test]
    fn a_broken_template_file_is_an_error_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        for (json, expected) in [
            ("{", "EOF"),
            (r#"{"name":"x","prompt":["<prompt>"]}"#, "missing field `completion`"),
            (
                r#"{"name":"x","prompt":["<prompt>"],"completion":["<completion>"],"eos":1}"#,
                "unknown field `eos`",
            ),
            (r#"{"name":"x","prompt":["<bos>"],"completion":["<completion>"]}"#, "exactly one `<prompt>`"),
            (r#"{"name":"x","prompt":["<prompt>"],"completion":["<prompt>"]}"#, "exactly one `<completion>`"),
            (
                r#"{"name":"x","prompt":["<prompt>","<end>"],"completion":["<completion>"]}"#,
                "unknown variant `<end>`",
            ),
        ] {
            fs::write(&path, json).unwrap();
            let error = Template::load(dir.path()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("template.json"), "{error}");
        }
    }
}
