//! Models with their text side: what a directory holds.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::Device;
use temper_model::{CausalLm, ModelConfig, PRESETS, ScalarModel};
use temper_tokenizer::{Piece, Template, Tokenizer};
use temper_train::Seed;

use crate::answers::TextEnd;
use crate::failure::hinted;
use crate::warning;

/// The text side of a model directory.
#[derive(Clone, Debug)]
pub struct TextSide {
    /// Where it was read, for messages; the name of a preset where there is no directory.
    pub dir: PathBuf,
    pub tokenizer: Tokenizer,
    /// As stored. A directory without one is plain to read and to complete; see [`TextSide::settle`] for training and
    /// [`load_reward_model`] for scoring.
    pub template: Template,
    /// Whether the directory brought its own template.
    pub has_template: bool,
}

impl TextSide {
    /// Reads `tokenizer.json` and `template.json`.
    pub fn load(dir: &Path) -> Result<Self> {
        let tokenizer = Tokenizer::from_dir(dir)?;
        let stored = Template::load(dir)?;
        let has_template = stored.is_some();
        let template = stored.unwrap_or_else(Template::plain);
        template.check(&tokenizer)?;
        Ok(Self { dir: dir.to_owned(), tokenizer, template, has_template })
    }

    /// Takes the template that training uses where the directory brings none, by the setting `template`: `auto` is the
    /// notebook's for the byte tokenizer, and prompt, completion and end token for any other.
    pub fn settle(&mut self, setting: &str) -> Result<()> {
        if !self.has_template {
            self.template = match (setting, &self.tokenizer) {
                ("auto", Tokenizer::Byte(_)) => Template::notebook(),
                ("auto", _) => Template::plain_eos(),
                (name, _) => Template::by_name(name).context("`template`")?,
            };
            self.template.check(&self.tokenizer)?;
        }
        Ok(())
    }

    /// Takes the template of a reward model where the directory brings none, so that both stages put text together
    /// alike. Says whether that changed it.
    pub fn adopt(&mut self, reward: &Self) -> bool {
        let fits = !self.has_template
            && self.tokenizer.fingerprint() == reward.tokenizer.fingerprint()
            && reward.template.check(&self.tokenizer).is_ok();
        let changes = fits && self.template.hash() != reward.template.hash();
        if changes {
            self.template = reward.template.clone();
        }
        changes
    }

    /// How a completion ends.
    pub fn end(&self) -> TextEnd {
        let template_ends = self.template.completion().contains(&Piece::Eos);
        TextEnd { eos: self.tokenizer.special().eos, template_ends }
    }

    /// Chat templates are not applied: says so once for each directory that has nothing else, and what is used.
    fn warn_of_chat_template(&self) -> Result<()> {
        if !self.has_template && Tokenizer::has_chat_template(&self.dir)? {
            let dir = self.dir.display();
            warning::once(&format!("chat template of {dir}"), || {
                format!(
                    "{dir} has a chat template, which is not applied: a prompt and its completion are put together by \
                     the template `{}`, or by a template.json in that directory",
                    self.template.name()
                )
            });
        }
        Ok(())
    }

    /// Refuses a vocabulary that the model does not have: ids would point nowhere.
    pub fn check_vocabulary(&self, config: &ModelConfig, dir: &Path) -> Result<()> {
        let (tokens, rows) = (self.tokenizer.vocab_size(), config.vocab_size);
        if tokens > rows {
            return Err(hinted(
                format!("{}: the tokenizer has {tokens} tokens, the model {rows}", dir.display()),
                "tokenizer.json and model.safetensors belong to different models",
            ));
        }
        Ok(())
    }

    /// Whether ids of the one mean the same in the other.
    pub fn same_as(&self, other: &Self) -> bool {
        self.difference(other).is_none()
    }

    /// The first thing in which the texts of two directories are put together differently.
    ///
    /// An end token in only one of the templates is no difference: sampled ids have it exactly where an answer ended.
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.tokenizer.fingerprint() != other.tokenizer.fingerprint() {
            return Some("tokenizer");
        }
        let without_end = |text: &Self| {
            let completion = text.template.completion();
            completion.strip_suffix(&[Piece::Eos]).unwrap_or(completion).to_vec()
        };
        if self.template.prompt() != other.template.prompt() || without_end(self) != without_end(other) {
            return Some("template");
        }
        let (own, others) = (self.tokenizer.special(), other.tokenizer.special());
        if own.eos != others.eos {
            return Some("end token");
        }
        let pieces = || self.template.prompt().iter().chain(self.template.completion());
        let differs = |piece, own, other| pieces().any(|used| *used == piece) && own != other;
        match () {
            () if differs(Piece::Bos, own.bos, others.bos) => Some("start token"),
            () if differs(Piece::Sep, own.sep, others.sep) => Some("separator token"),
            () => None,
        }
    }
}

/// Adds the file where the model's own message has none.
fn named<T>(dir: &Path, loaded: Result<T, temper_model::Error>) -> Result<T> {
    match loaded {
        Err(error @ temper_model::Error::Config { .. }) => {
            Err(error).with_context(|| dir.join("config.json").display().to_string())
        }
        loaded => Ok(loaded?),
    }
}

/// A language model and its text side, for use.
pub fn load_policy(dir: &Path, device: &Device) -> Result<(CausalLm, TextSide)> {
    let (model, text) = policy(dir, device)?;
    text.warn_of_chat_template()?;
    Ok((model, text))
}

/// A language model and its text side, for a stage: where the directory brings no template, by the setting `template`.
pub fn load_policy_to_train(dir: &Path, template: &str, device: &Device) -> Result<(CausalLm, TextSide)> {
    let (model, mut text) = policy(dir, device)?;
    text.settle(template)?;
    text.warn_of_chat_template()?;
    Ok((model, text))
}

fn policy(dir: &Path, device: &Device) -> Result<(CausalLm, TextSide)> {
    let model = named(dir, CausalLm::load(dir, device))?;
    let text = TextSide::load(dir)?;
    text.check_vocabulary(model.config(), dir)?;
    Ok((model, text))
}

/// A reward model and its text side. A score is read at the end of a text, so that a directory without a template ends
/// a completion with the end token.
pub fn load_reward_model(dir: &Path, device: &Device) -> Result<(ScalarModel, TextSide)> {
    let model = named(dir, ScalarModel::load(dir, device))?;
    let mut text = TextSide::load(dir)?;
    if !text.has_template {
        text.template = Template::plain_eos();
    }
    text.check_vocabulary(model.config(), dir)?;
    text.warn_of_chat_template()?;
    Ok((model, text))
}

/// The shape of the model in a directory, whatever its head.
pub fn load_config(dir: &Path) -> Result<ModelConfig> {
    named(dir, ModelConfig::load(dir))
}

/// What `temper sft` starts from: a directory, or fresh weights of a preset; with the template to train on.
pub fn start(spec: &str, template: &str, seed: u64, device: &Device) -> Result<(CausalLm, TextSide)> {
    let dir = Path::new(spec);
    if dir.is_dir() {
        return load_policy_to_train(dir, template, device);
    }
    if !PRESETS.contains(&spec) {
        return Err(hinted(
            format!("`{spec}` is neither a model directory nor a preset"),
            format!("presets: {}", PRESETS.join(", ")),
        ));
    }
    let config = ModelConfig::preset(spec)?;
    let tokenizer = Tokenizer::byte();
    if config.vocab_size != tokenizer.vocab_size() {
        return Err(hinted(
            format!("the preset `{spec}` has no tokenizer of its own"),
            "give a directory with its weights and tokenizer.json",
        ));
    }
    let model = CausalLm::new(&config, &mut Seed(seed).stream("init"), device);
    let mut text =
        TextSide { dir: dir.to_owned(), tokenizer, template: Template::plain(), has_template: false };
    text.settle(template)?;
    Ok((model, text))
}

/// The context to encode for: the model's, or the setting where that is given and fits.
pub fn context_len(setting: usize, config: &ModelConfig) -> Result<usize> {
    if setting > config.max_seq_len {
        return Err(hinted(
            format!("`max_seq_len` is {setting}, the model's context has {} tokens", config.max_seq_len),
            "lower `max_seq_len`, or start from a model with a longer context",
        ));
    }
    Ok(if setting == 0 { config.max_seq_len } else { setting })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text side of a directory that holds a tokenizer of words, whose end token `config.json` names.
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
    fn tokenizers_that_differ_in_their_end_token_exchange_no_ids() {
        let ((_a, first), (_b, second)) = (words(3), words(4));
        assert_eq!(first.tokenizer.fingerprint(), second.tokenizer.fingerprint());
        assert_eq!(first.difference(&second), Some("end token"));
        let (_c, third) = words(3);
        assert!(first.same_as(&third));
    }

    #[test]
    fn an_end_token_in_one_template_alone_is_no_difference_and_everything_else_is() {
        let (_dir, plain) = words(3);
        let with = |template: Template| TextSide { template, ..plain.clone() };
        assert!(plain.same_as(&with(Template::plain_eos())));
        assert_eq!(plain.difference(&with(Template::bare())), Some("template"));
        let tail = vec![Piece::Completion, Piece::Text("b".into()), Piece::Eos];
        let tail = Template::new("tail", vec![Piece::Prompt], tail).unwrap();
        assert_eq!(plain.difference(&with(tail)), Some("template"));
    }

    #[test]
    fn a_directory_without_a_template_takes_that_of_the_setting_or_of_the_reward_model() {
        let (_dir, mut text) = words(3);
        assert_eq!(text.template, Template::plain());
        text.settle("auto").unwrap();
        assert_eq!(text.template, Template::plain_eos());
        assert!(text.settle("notebook").is_err(), "it has no separator");
        text.settle("plain").unwrap();
        let mut reward = text.clone();
        reward.settle("plain_eos").unwrap();
        assert!(text.adopt(&reward) && text.template == Template::plain_eos());
        assert!(!text.adopt(&reward), "nothing changes");

        let mut byte = TextSide { tokenizer: Tokenizer::byte(), ..text.clone() };
        byte.settle("auto").unwrap();
        assert_eq!(byte.template, Template::notebook());
        assert!(!byte.adopt(&reward), "its tokenizer is another one");
        let mut own = TextSide { template: Template::plain(), has_template: true, ..text };
        own.settle("plain_eos").unwrap();
        assert!(!own.adopt(&reward) && own.template == Template::plain(), "what it brings stays");
    }
}
