//! A model directory without its weights: what decides which texts fit.

use std::path::{Path, PathBuf};

use temper_model::{LoadOptions, ModelConfig, adapter_chain};
use temper_tokenizer::{PromptRef, TextSide};

use crate::{Error, PromptFault};

/// The shape and the text side of a model, whatever its head. It is cheap to load, so that texts can be checked before
/// any weights are read.
#[derive(Clone, Debug)]
pub struct Outline {
    /// The shape of the network.
    pub config: ModelConfig,
    /// The tokenizer with its template, as stored.
    pub text: TextSide,
}

impl Outline {
    /// Reads `config.json`, the tokenizer and the template of a model directory.
    ///
    /// # Errors
    /// Files that are missing or damaged.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        Self::load_with(dir, &LoadOptions::default())
    }

    /// [`Outline::load`] with options.
    ///
    /// # Errors
    /// As [`Outline::load`].
    pub fn load_with(dir: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let config = name_config_file(dir, ModelConfig::load_with(dir, options))?;
        Ok(Self { config, text: load_text(dir, options)? })
    }

    /// The ids of a prompt, if the model can answer it.
    ///
    /// # Errors
    /// A prompt without any token, one that fills the context, and one that the template refuses.
    pub fn encode<'p>(&self, prompt: impl Into<PromptRef<'p>>) -> Result<Vec<u32>, PromptFault> {
        encode_prompt(&self.text, self.config.max_seq_len, prompt.into())
    }

    /// The most tokens that one of the prompts and an answer of at most `max_new_tokens` to it can have together.
    ///
    /// # Errors
    /// A prompt that the template refuses.
    pub fn longest_row<'p>(
        &self,
        prompts: impl IntoIterator<Item = impl Into<PromptRef<'p>>>,
        max_new_tokens: usize,
    ) -> Result<usize, Error> {
        let mut longest = 0;
        for prompt in prompts {
            longest = longest.max(self.text.encode_prompt(prompt)?.len());
        }
        Ok(longest.saturating_add(max_new_tokens).min(self.config.max_seq_len))
    }
}

/// The text side of a model directory. What an adapter lacks of it, the tokenizer or the template, is that of the model which
/// it adapts.
///
/// # Errors
/// Files that are missing or damaged.
pub fn load_text(dir: &Path, options: &LoadOptions) -> Result<TextSide, Error> {
    let (mut dirs, base) = adapter_chain(dir, options).map_err(Error::Model)?;
    dirs.push(base);
    let has_tokenizer = |dir: &PathBuf| dir.join("tokenizer.json").exists();
    let first = dirs.iter().position(has_tokenizer).unwrap_or(dirs.len() - 1);
    let mut text = TextSide::load(&dirs[first])?;
    for dir in &dirs[first + 1..] {
        if !text.has_template {
            let TextSide { template, has_template, .. } = TextSide::load(dir)?;
            (text.template, text.has_template) = (template, has_template);
        }
    }
    Ok(text)
}

/// The ids of a prompt that a model with this context can answer.
pub(crate) fn encode_prompt(
    text: &TextSide,
    context: usize,
    prompt: PromptRef<'_>,
) -> Result<Vec<u32>, PromptFault> {
    let tokens = text.encode_prompt(prompt)?;
    match tokens.len() {
        0 => Err(PromptFault::Empty),
        n_tokens if n_tokens >= context => Err(PromptFault::TooLong { n_tokens, context }),
        _ => Ok(tokens),
    }
}

/// The length of the rows to encode: the model's context, or the setting `max_seq_len` where that is not 0.
///
/// # Errors
/// [`Error::MaxSeqLen`] for a setting beyond the context.
pub fn context_len(setting: usize, config: &ModelConfig) -> Result<usize, Error> {
    let context = config.max_seq_len;
    match setting {
        0 => Ok(context),
        _ if setting > context => Err(Error::MaxSeqLen { setting, context }),
        _ => Ok(setting),
    }
}

/// Adds the path of `config.json` to the one error of the model that does not say it.
pub(crate) fn name_config_file<T>(dir: &Path, loaded: Result<T, temper_model::Error>) -> Result<T, Error> {
    loaded.map_err(|error| match error {
        source @ temper_model::Error::Config { .. } => {
            Error::ConfigFile { path: dir.join("config.json"), source }
        }
        error => Error::Model(error),
    })
}

/// Refuses a tokenizer with more tokens than the model has embedding rows: some ids would have no embedding.
pub(crate) fn check_vocabulary(text: &TextSide, config: &ModelConfig) -> Result<(), Error> {
    let (n_tokens, n_rows) = (text.tokenizer.vocab_size(), config.vocab_size);
    if n_tokens > n_rows {
        return Err(Error::Vocabulary { dir: text.dir.clone(), n_tokens, n_rows });
    }
    Ok(())
}
