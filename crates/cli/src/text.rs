//! Models with their text side: what a directory holds.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Device;
use temper_model::{CausalLm, ModelConfig, PRESETS, ScalarModel};
use temper_tokenizer::{Template, Tokenizer};
use temper_train::Seed;

use crate::failure::hinted;

/// The text side of a model directory.
#[derive(Clone, Debug)]
pub struct TextSide {
    pub tokenizer: Tokenizer,
    /// As stored; plain where there is none.
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
        Ok(Self { tokenizer, template, has_template })
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
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        if self.tokenizer.fingerprint() != other.tokenizer.fingerprint() {
            return Some("tokenizer");
        }
        (self.template.hash() != other.template.hash()).then_some("template")
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
    let model = named(dir, CausalLm::load(dir, device))?;
    let text = TextSide::load(dir)?;
    text.check_vocabulary(model.config(), dir)?;
    Ok((model, text))
}

/// A reward model and its text side.
pub fn load_reward_model(dir: &Path, device: &Device) -> Result<(ScalarModel, TextSide)> {
    let model = named(dir, ScalarModel::load(dir, device))?;
    let text = TextSide::load(dir)?;
    text.check_vocabulary(model.config(), dir)?;
    Ok((model, text))
}

/// What `temper sft` starts from: a directory, or fresh weights of a preset; with the template to train on.
pub fn start(spec: &str, template: &str, seed: u64, device: &Device) -> Result<(CausalLm, TextSide)> {
    let dir = Path::new(spec);
    let (model, mut text) = if dir.is_dir() {
        load_policy(dir, device)?
    } else if PRESETS.contains(&spec) {
        let config = ModelConfig::preset(spec)?;
        let tokenizer = Tokenizer::byte();
        if config.vocab_size != tokenizer.vocab_size() {
            return Err(hinted(
                format!("the preset `{spec}` has no tokenizer of its own"),
                "give a directory with its weights and tokenizer.json",
            ));
        }
        let model = CausalLm::new(&config, &mut Seed(seed).stream("init"), device);
        (model, TextSide { tokenizer, template: Template::plain(), has_template: false })
    } else {
        return Err(hinted(
            format!("`{spec}` is neither a model directory nor a preset"),
            format!("presets: {}", PRESETS.join(", ")),
        ));
    };
    if !text.has_template {
        text.template = match (template, &text.tokenizer) {
            ("auto", Tokenizer::Byte(_)) => Template::notebook(),
            ("auto", _) => Template::plain_eos(),
            (name, _) => Template::by_name(name).context("`template`")?,
        };
        text.template.check(&text.tokenizer)?;
    }
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
