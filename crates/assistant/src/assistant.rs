//! A language model that answers prompts.

use std::path::Path;

use burn::tensor::Device;
use rand::Rng;
use temper_model::{CausalLm, Finish, GenerateOptions, LoadOptions, ModelConfig, PRESETS, generate};
use temper_tokenizer::{Example, Prompt, PromptRef, TextSide, Tokenizer};

use crate::export::export_fresh;
use crate::outline::{check_vocabulary, encode_prompt, load_text, name_config_file};
use crate::{
    Answer, BATCH_SIZE, Error, Export, PromptFault, RowFault, Sampling, answer_logprobs, batch_seed,
};

/// The file that marks a model directory whose weights have learned nothing. No checkpoint has it.
pub(crate) const FRESH: &str = "fresh.json";

/// Most bytes for the keys and values of one batch, which are reserved before the first token: 64 GiB.
const MOST_CACHE_BYTES: u64 = 64 << 30;

/// A language model with its text side.
#[derive(Clone, Debug)]
pub struct Assistant {
    /// The network.
    pub model: CausalLm,
    /// Its tokenizer with its template.
    pub text: TextSide,
}

impl Assistant {
    /// Loads a model directory, to use it as it is.
    ///
    /// # Errors
    /// Files that are missing or damaged, a reward model's directory, and a tokenizer that does not fit the network.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        Self::load_with(dir, device, &LoadOptions::default())
    }

    /// [`Assistant::load`] with options.
    ///
    /// # Errors
    /// As [`Assistant::load`].
    pub fn load_with(dir: &Path, device: &Device, options: &LoadOptions) -> Result<Self, Error> {
        Self::read(dir, device, options)
    }

    /// Loads a model directory for a stage, which chooses a template where the directory has none: see
    /// [`TextSide::settle`].
    ///
    /// # Errors
    /// As [`Assistant::load`], and a template that the tokenizer cannot serve.
    pub fn load_to_train(
        dir: &Path,
        template: &str,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<Self, Error> {
        let mut assistant = Self::read(dir, device, options)?;
        assistant.text.settle(template)?;
        Ok(assistant)
    }

    /// Fresh weights of a preset, with the byte tokenizer.
    ///
    /// # Errors
    /// [`Error::PresetWithoutTokenizer`] for a preset with another vocabulary, an unknown preset, an unknown template.
    pub fn fresh(preset: &str, template: &str, rng: &mut impl Rng, device: &Device) -> Result<Self, Error> {
        let config = ModelConfig::preset(preset).map_err(Error::Model)?;
        let tokenizer = Tokenizer::byte();
        if config.vocab_size != tokenizer.vocab_size() {
            return Err(Error::PresetWithoutTokenizer { preset: preset.to_owned() });
        }
        let mut text = TextSide::preset(preset, tokenizer);
        text.settle(template)?;
        Ok(Self { model: CausalLm::new(&config, rng, device), text })
    }

    /// What the first stage starts from: a model directory, or fresh weights of the preset of that name.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], and those of [`Assistant::load_to_train`] and [`Assistant::fresh`].
    pub fn start(
        spec: &str,
        template: &str,
        rng: &mut impl Rng,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<Self, Error> {
        let dir = Path::new(spec);
        if dir.is_dir() {
            Self::load_to_train(dir, template, device, options)
        } else if PRESETS.contains(&spec) {
            Self::fresh(spec, template, rng, device)
        } else {
            Err(Error::UnknownModel { spec: spec.to_owned() })
        }
    }

    /// Writes a model directory.
    ///
    /// # Errors
    /// Files that cannot be written, and weights that are not finite.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        Export::export(&self.model, &self.text, dir)
    }

    /// Whether a stage that starts from this has weights that have learned nothing: those of a preset, or of a directory
    /// that [`Assistant::save_fresh`] wrote.
    pub fn is_fresh(spec: &str) -> bool {
        let dir = Path::new(spec);
        !dir.is_dir() || dir.join(FRESH).exists()
    }

    /// Writes weights that have learned nothing as a model directory that a stage starts from. Unlike [`Assistant::save`]
    /// it stores no date of a chat template, and no template where none was chosen: the stage does.
    ///
    /// # Errors
    /// As [`Assistant::save`].
    pub fn save_fresh(&self, dir: &Path) -> Result<(), Error> {
        export_fresh(&self.model, &self.text, dir)
    }

    /// The model's context, in tokens.
    pub fn context(&self) -> usize {
        self.model.config().max_seq_len
    }

    /// The ids of a prompt, if the model can answer it.
    ///
    /// # Errors
    /// A prompt without any token, one that fills the context, and one that the template refuses.
    pub fn encode<'p>(&self, prompt: impl Into<PromptRef<'p>>) -> Result<Vec<u32>, PromptFault> {
        encode_prompt(&self.text, self.context(), prompt.into())
    }

    /// The ids of a prompt and its completion, if the model can read them.
    ///
    /// # Errors
    /// A row beyond the context, a prompt without any token, after which no token could be predicted, and one that the
    /// template refuses.
    pub fn encode_row<'p>(
        &self,
        prompt: impl Into<PromptRef<'p>>,
        completion: &str,
    ) -> Result<Example, RowFault> {
        let example = self.text.encode_answer(prompt, completion, true)?;
        let (n_tokens, context) = (example.tokens.len(), self.context());
        match example.prompt_len {
            _ if n_tokens > context => Err(RowFault::TooLong { n_tokens, context }),
            0 => Err(RowFault::EmptyPrompt),
            _ => Ok(example),
        }
    }

    /// Log-probability of each token of a completion given everything before it, in nats.
    ///
    /// # Panics
    /// If the prompt is empty, or the row longer than the context: see [`Assistant::encode_row`].
    pub fn logprobs(&self, prompt: &[u32], completion: &[u32]) -> Vec<f32> {
        answer_logprobs(&self.model, &[(prompt, completion)], self.model.config().vocab_size, 1.0).remove(0)
    }

    /// Samples one answer to each prompt, in batches of [`BATCH_SIZE`].
    ///
    /// The same seed gives the same answers, whatever the machine's number of threads.
    ///
    /// # Errors
    /// [`Error::Prompt`] for the first prompt that cannot be answered, before any is answered; and those of
    /// [`Assistant::answer_batch`].
    pub fn answer<'p>(
        &self,
        prompts: impl IntoIterator<Item = impl Into<PromptRef<'p>>>,
        sampling: &Sampling,
        seed: u64,
    ) -> Result<Vec<Answer>, Error> {
        let mut rows: Vec<(Prompt, Vec<u32>)> = Vec::new();
        for (index, prompt) in prompts.into_iter().map(Into::into).enumerate() {
            let tokens = self.encode(prompt).map_err(|source| {
                let dir = self.text.dir.clone();
                Error::Prompt { index, dir, source }
            })?;
            rows.push((prompt.into(), tokens));
        }
        let mut answers = Vec::with_capacity(rows.len());
        for (batch, rows) in rows.chunks(BATCH_SIZE).enumerate() {
            answers.extend(self.answer_batch(rows, sampling, batch_seed(seed, batch as u64))?);
        }
        Ok(answers)
    }

    /// Samples one answer to each prompt, all of them together. Each prompt is given as text and as the ids that
    /// [`Assistant::encode`] makes of it.
    ///
    /// # Errors
    /// Numbers of `sampling` out of range, [`Error::Memory`], [`Error::NonFiniteLogits`].
    pub fn answer_batch(
        &self,
        prompts: &[(Prompt, Vec<u32>)],
        sampling: &Sampling,
        seed: u64,
    ) -> Result<Vec<Answer>, Error> {
        let options = sampling.options(seed)?;
        let rows: Vec<Vec<u32>> = prompts.iter().map(|(_, tokens)| tokens.clone()).collect();
        // No answer is longer than the context, so nothing more is reserved.
        let max_new_tokens = sampling.max_new_tokens.min(self.context());
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        check_memory(self.model.config(), rows.len(), longest, max_new_tokens)?;
        let options = GenerateOptions {
            end_tokens: self.text.end_tokens(),
            n_tokens: self.text.tokenizer.vocab_size(),
            missing_tokens: self.text.tokenizer.missing_ids(),
            max_new_tokens,
            ..options
        };
        let completions = generate(&self.model, &rows, &options).map_err(|error| match error {
            temper_model::Error::NonFiniteOutput => Error::NonFiniteLogits { dir: self.text.dir.clone() },
            error => Error::Model(error),
        })?;
        let answers = prompts.iter().zip(rows).zip(completions).map(|(((prompt, _), row), completion)| {
            let ended = completion.finish == Finish::Stop;
            Answer::of_ids(&self.text, prompt.clone(), row, completion.tokens, completion.logprobs, ended)
        });
        Ok(answers.collect())
    }

    fn read(dir: &Path, device: &Device, options: &LoadOptions) -> Result<Self, Error> {
        let model = name_config_file(dir, CausalLm::load_with(dir, device, options))?;
        let text = load_text(dir, options)?;
        check_vocabulary(&text, model.config())?;
        Ok(Self { model, text })
    }
}

/// Refuses a key-value cache that no machine has room for: reserving it would end the program.
fn check_memory(
    config: &ModelConfig,
    n_prompts: usize,
    longest: usize,
    max_new_tokens: usize,
) -> Result<(), Error> {
    let n_columns = (longest + max_new_tokens) as u64;
    let bytes_per_column =
        (2 * size_of::<f32>() * config.n_layers * config.n_kv_heads() * config.d_head()) as u64;
    let bytes = bytes_per_column.saturating_mul(n_columns).saturating_mul(n_prompts as u64);
    if bytes > MOST_CACHE_BYTES {
        return Err(Error::Memory { n_prompts, max_new_tokens, gib: bytes >> 30 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_beyond_all_memory_is_refused_before_it_is_reserved() {
        let config = ModelConfig { max_seq_len: 1 << 20, ..ModelConfig::preset("medium").unwrap() };
        check_memory(&config, 1, 100, 1 << 20).unwrap();
        let error = check_memory(&config, 64, 100, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("64 answers of up to 1048576 tokens at once would need"), "{error}");
    }
}
