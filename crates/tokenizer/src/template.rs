//! How a prompt and its completion become one sequence, as data.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{Error, SpecialTokens, Tokenizer, hash::stable_hash, special::read_json};

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Template {
    name: String,
    prompt: Vec<Piece>,
    completion: Vec<Piece>,
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
        Ok(Self { name: name.to_owned(), prompt, completion })
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
        Self { name: name.to_owned(), prompt, completion }
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

    /// Reads `dir/template.json`; `None` if there is none.
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

    /// A hash of the pieces, whatever the name: equal hashes put text together in the same way.
    pub fn hash(&self) -> String {
        let json = serde_json::to_vec(&(&self.prompt, &self.completion)).expect("strings and lists are JSON");
        stable_hash(&json)
    }

    /// Whether the tokenizer has the special tokens that the pieces need.
    ///
    /// # Errors
    ///
    /// If one is missing. The `encode_*` methods would leave such a piece out.
    pub fn check(&self, tokenizer: &Tokenizer) -> Result<(), Error> {
        let SpecialTokens { bos, sep, .. } = tokenizer.special();
        for (piece, id, token) in [(Piece::Bos, bos, "<bos>"), (Piece::Sep, sep, "<sep>")] {
            if id.is_none() && self.prompt.iter().chain(&self.completion).any(|other| *other == piece) {
                return Err(Error::MissingSpecial { template: self.name.clone(), token });
            }
        }
        Ok(())
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pieces before a completion.
    pub fn prompt(&self) -> &[Piece] {
        &self.prompt
    }

    /// The pieces from a completion on.
    pub fn completion(&self) -> &[Piece] {
        &self.completion
    }
}

const FILE_NAME: &str = "template.json";

/// A template as it is written, before [`Template::new`] has looked at it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    name: String,
    prompt: Vec<Piece>,
    completion: Vec<Piece>,
}

impl TryFrom<Unchecked> for Template {
    type Error = Error;

    fn try_from(written: Unchecked) -> Result<Self, Error> {
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
