//! A chat template, and the texts that it writes.

use std::{fmt, path::Path, sync::Arc};

use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json};

use super::{
    Date, Message,
    environment::{self, Refusal},
    generation::{self, Marks},
};
use crate::{Error, hash::stable_hash, pretrained::read, special::read_json};

/// The Jinja template that an instruct model comes with: it writes a conversation as one text.
///
/// It renders as in transformers. The date that a template may ask for is fixed when the template is made.
///
/// ```
/// use temper_tokenizer::{ChatTemplate, Message};
///
/// let source = "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}\n{% endfor %}";
/// let template = ChatTemplate::new(source, [("bos_token", "<s>")])?;
/// assert_eq!(template.render(&[Message::user("Hi")], false)?, "<s>user: Hi\n");
/// # Ok::<(), temper_tokenizer::Error>(())
/// ```
#[derive(Clone)]
pub struct ChatTemplate {
    shared: Arc<Shared>,
    date: Date,
}

struct Shared {
    /// The file, or nothing for a template that was made from a text.
    place: String,
    source: String,
    env: Environment<'static>,
    /// Whether the template says itself what the assistant wrote.
    marks_generation: bool,
    special_tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// The largest source that is taken, in bytes.
    pub const MAX_SOURCE_LEN: usize = 1 << 20;

    /// A template from its source. `special_tokens` are variables of the template, such as `bos_token`.
    ///
    /// # Errors
    ///
    /// [`Error::ChatTemplate`] with the line, [`Error::ChatTemplateTooLarge`].
    pub fn new<'a>(
        source: &str,
        special_tokens: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Error> {
        let special_tokens = special_tokens.into_iter().map(|(name, token)| (name.into(), token.into()));
        Self::compile("", source, special_tokens.collect())
    }

    /// Reads the template of a model directory: `chat_template.jinja`, or else `chat_template` of
    /// `tokenizer_config.json`. `None` if the directory has neither.
    ///
    /// Of a list of templates it takes the one with the name `default`. The special tokens come from
    /// `tokenizer_config.json` and `special_tokens_map.json`, and the date is today.
    ///
    /// # Errors
    ///
    /// Files that cannot be read or have the wrong form, and the errors of [`ChatTemplate::new`].
    pub fn load(dir: &Path) -> Result<Option<Self>, Error> {
        let config_path = dir.join("tokenizer_config.json");
        let config = read_json(&config_path)?.unwrap_or_default();
        let template_path = dir.join("chat_template.jinja");
        let refuse = |path: &Path, reason: &str| Error::ChatTemplate {
            place: in_file(path),
            reason: reason.to_owned(),
        };
        let (path, source) = match read(&template_path)? {
            Some(bytes) => {
                let source = String::from_utf8(bytes);
                (&template_path, source.map_err(|_| refuse(&template_path, "it is not UTF-8"))?)
            }
            None => match &config["chat_template"] {
                Json::Null => return Ok(None),
                Json::String(source) => (&config_path, source.clone()),
                list => {
                    let mut named = list.as_array().into_iter().flatten();
                    let default = named.find(|item| item["name"] == "default");
                    let reason =
                        "`chat_template` is neither a text nor a list with a template of the name `default`";
                    let source = default.and_then(|item| item["template"].as_str());
                    (&config_path, source.ok_or_else(|| refuse(&config_path, reason))?.to_owned())
                }
            },
        };
        let mut sources = vec![&config];
        // As in transformers: a config that lists its added tokens is complete.
        let map = read_json(&dir.join("special_tokens_map.json"))?.unwrap_or_default();
        if config["added_tokens_decoder"].is_null() {
            sources.insert(0, &map);
        }
        let token = |name: &str| {
            sources.iter().find_map(|json| {
                let value = &json[name];
                Some((name.to_owned(), value.get("content").unwrap_or(value).as_str()?.to_owned()))
            })
        };
        let special_tokens = SPECIAL_TOKENS.iter().filter_map(|name| token(name)).collect();
        Self::compile(&in_file(path), &source, special_tokens).map(Some)
    }

    fn compile(place: &str, source: &str, special_tokens: Vec<(String, String)>) -> Result<Self, Error> {
        if source.len() > Self::MAX_SOURCE_LEN {
            let (len, max) = (source.len(), Self::MAX_SOURCE_LEN);
            return Err(Error::ChatTemplateTooLarge { place: place.into(), len, max });
        }
        // Jinja knows one kind of line end.
        let (rewritten, marks_generation) =
            generation::rewrite(&source.replace("\r\n", "\n").replace('\r', "\n"));
        let env = environment::compile(rewritten)
            .map_err(|error| Error::ChatTemplate { place: place.into(), reason: one_line(&error) })?;
        let (place, source) = (place.to_owned(), source.to_owned());
        let shared = Shared { place, source, env, marks_generation, special_tokens };
        Ok(Self { shared: Arc::new(shared), date: Date::today() })
    }

    /// The same template on another day.
    #[must_use]
    pub fn with_date(self, date: Date) -> Self {
        Self { date, ..self }
    }

    /// The day that the template takes for today.
    pub fn date(&self) -> Date {
        self.date
    }

    /// The Jinja source, as it was read.
    pub fn source(&self) -> &str {
        &self.shared.source
    }

    /// Whether the template has `{% generation %}`, and so says itself what the assistant wrote.
    pub fn marks_generation(&self) -> bool {
        self.shared.marks_generation
    }

    /// The text of a conversation. With `add_generation_prompt`, it ends where the assistant would begin its answer.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationRefused`] with the template's own message, and [`Error::ChatTemplate`] or
    /// [`Error::ChatTemplateEndless`] if the template fails.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, Error> {
        self.render_json(&messages.iter().map(fields).collect::<Vec<_>>(), add_generation_prompt, None)
    }

    /// Characters that occur neither in the template nor in the messages.
    pub(super) fn unused_marks(&self, messages: &[Json]) -> Result<Marks, Error> {
        let text = Json::from(messages).to_string();
        let is_unused = |char: &char| !text.contains(*char) && !self.source().contains(*char);
        // The last ones have their place in the encoder.
        let mut unused = ('\u{100000}'..='\u{10ff00}').filter(is_unused);
        let mut next = || unused.next().ok_or(Error::NoUnusedCharacter);
        Ok(Marks { open: next()?, close: next()?, broken: next()? })
    }

    /// The text of messages that [`fields`] has prepared.
    pub(super) fn render_json(
        &self,
        messages: &[Json],
        add_generation_prompt: bool,
        generation_marks: Option<[char; 2]>,
    ) -> Result<String, Error> {
        let Shared { env, special_tokens, .. } = &*self.shared;
        let n_bytes: usize = messages.iter().map(n_bytes).sum();
        let messages: Vec<Value> = messages.iter().map(environment::value).collect();
        let tokens = special_tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str())));
        let context = Value::from_pairs(tokens.chain([
            ("messages", Value::from(messages)),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            // Always there in transformers, and nothing without tools.
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("strftime_now", environment::strftime_now(self.date)),
        ]));
        let mut env = env.clone();
        env.set_fuel(Some((FUEL + FUEL_PER_BYTE * n_bytes) as u64));
        if let Some(marks) = generation_marks {
            environment::mark_generation(&mut env, marks);
        }
        let template = env.get_template(environment::NAME);
        let text =
            template.and_then(|template| template.render(context)).map_err(|error| self.failure(&error))?;
        if text.len() > MAX_LEN + MAX_LEN_PER_BYTE * n_bytes {
            return Err(Error::ChatTemplateEndless { place: self.shared.place.clone() });
        }
        Ok(text)
    }

    fn failure(&self, error: &minijinja::Error) -> Error {
        let place = self.shared.place.clone();
        let mut source = Some(error as &(dyn std::error::Error + 'static));
        while let Some(error) = source {
            if let Some(Refusal(message)) = error.downcast_ref() {
                return Error::ConversationRefused { place, message: single_line(message) };
            }
            if let Some(error) = error.downcast_ref::<minijinja::Error>()
                && error.kind() == ErrorKind::OutOfFuel
            {
                return Error::ChatTemplateEndless { place };
            }
            source = error.source();
        }
        Error::ChatTemplate { place, reason: one_line(error) }
    }

    /// A hash of what the template writes for a fixed conversation on its date: equal hashes put text together alike.
    ///
    /// It does not depend on how the template is written. A template that refuses a conversation hashes its message.
    pub fn hash(&self) -> String {
        let system = Message::new("system", "Be brief.");
        let chat = [Message::user("Hello?"), Message::assistant("Hi."), Message::user("2+2?")];
        let with_system: Vec<Message> = [system].iter().chain(&chat).cloned().collect();
        let texts = [&chat[..], &with_system]
            .map(|messages| self.render(messages, true).unwrap_or_else(|error| error.to_string()));
        stable_hash(Json::from(texts.to_vec()).to_string().as_bytes())
    }
}

/// Steps of the template engine for any conversation; a step writes up to 64 bytes.
const FUEL: usize = 2_000_000;
/// Further steps for each byte of the messages.
const FUEL_PER_BYTE: usize = 16;
/// Bytes of text for any conversation.
const MAX_LEN: usize = 1 << 20;
/// Further bytes of text for each byte of the messages.
const MAX_LEN_PER_BYTE: usize = 16;

/// The variables that transformers gives to a template.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

fn in_file(path: &Path) -> String {
    format!(" `{}`", path.display())
}

/// What a template sees of a message. As in transformers, a field that is null is left out, and the reasoning of an
/// assistant has the names that different templates know.
pub(super) fn fields(message: &Message) -> Json {
    let Message { role, content, other } = message;
    let mut fields = Map::new();
    let reasoning = ["reasoning_content", "thinking", "reasoning"]
        .into_iter()
        .find_map(|name| other.get(name).filter(|value| !value.is_null()));
    if let Some(reasoning) = reasoning {
        fields.insert("thinking".into(), reasoning.clone());
    }
    fields.insert("role".into(), role.as_str().into());
    fields.extend(content.iter().map(|text| ("content".into(), text.as_str().into())));
    for (name, value) in other.iter().filter(|(_, value)| !value.is_null()) {
        fields.insert(name.clone(), value.clone());
    }
    if let Some(reasoning) = reasoning {
        fields.insert("reasoning_content".into(), reasoning.clone());
    }
    fields.into()
}

/// Roughly the size of the JSON.
fn n_bytes(json: &Json) -> usize {
    match json {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(|item| n_bytes(item) + 1).sum(),
        Json::Object(fields) => fields.iter().map(|(key, item)| key.len() + n_bytes(item) + 1).sum(),
        _ => 1,
    }
}

/// What the template engine says, and on which line of the template.
fn one_line(error: &minijinja::Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    single_line(&format!("{}{detail}{line}", error.kind()))
}

/// A text of others, short enough for a line.
fn single_line(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Whether both are written alike, for the same day.
impl PartialEq for ChatTemplate {
    fn eq(&self, other: &Self) -> bool {
        let (own, others) = (&*self.shared, &*other.shared);
        self.date == other.date && own.source == others.source && own.special_tokens == others.special_tokens
    }
}

impl Eq for ChatTemplate {}

impl fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("hash", &self.hash())
            .field("date", &self.date.to_string())
            .finish_non_exhaustive()
    }
}
