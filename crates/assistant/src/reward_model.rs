//! A model that scores answers.

use std::path::Path;

use burn::tensor::Device;
use temper_model::{LoadOptions, ScalarModel};
use temper_tokenizer::{Error as TokenizerError, Example, PromptRef, Template, TextSide};

use crate::once::warn_once;
use crate::outline::{check_vocabulary, load_text, name_config_file};
use crate::{Answer, BATCH_SIZE, Error, Export, RowFault};

/// A reward model with its text side.
#[derive(Clone, Debug)]
pub struct RewardModel {
    /// The network.
    pub model: ScalarModel,
    /// Its tokenizer with its template.
    pub text: TextSide,
}

impl RewardModel {
    /// Loads a model directory.
    ///
    /// A score is read at the end of a text, so a directory without a template ends a completion with the end token.
    ///
    /// # Errors
    /// Files that are missing or damaged, a language model's directory, and a tokenizer that does not fit the network.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, Error> {
        Self::load_with(dir, device, &LoadOptions::default())
    }

    /// [`RewardModel::load`] with options.
    ///
    /// # Errors
    /// As [`RewardModel::load`].
    pub fn load_with(dir: &Path, device: &Device, options: &LoadOptions) -> Result<Self, Error> {
        let model = name_config_file(dir, ScalarModel::load_with(dir, device, options))?;
        let mut text = load_text(dir, options)?;
        if !text.has_template {
            text.template = Template::plain_eos();
        }
        check_vocabulary(&text, model.config())?;
        Ok(Self { model, text })
    }

    /// Writes a model directory.
    ///
    /// # Errors
    /// Files that cannot be written, and weights that are not finite.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        Export::export(&self.model, &self.text, dir)
    }

    /// The model's context, in tokens.
    pub fn context(&self) -> usize {
        self.model.config().max_seq_len
    }

    /// A prompt with its completion as the ids that the model would have learned, for [`ScalarModel::score_rows`].
    ///
    /// # Errors
    /// A row beyond the context, one without any token, and one that the template refuses.
    pub fn encode_row<'p>(
        &self,
        prompt: impl Into<PromptRef<'p>>,
        completion: &str,
        ended: bool,
    ) -> Result<Example, RowFault> {
        let example = self.text.encode_answer(prompt, completion, ended)?;
        let (n_tokens, context) = (example.tokens.len(), self.context());
        match n_tokens {
            0 => Err(RowFault::NoTokens),
            _ if n_tokens > context => Err(RowFault::TooLong { n_tokens, context }),
            _ => Ok(example),
        }
    }

    /// Scores a policy's answers: their ids if these mean the same to both models, as in PPO, and their text otherwise.
    ///
    /// # Errors
    /// [`Error::NoRoom`] for ids that do not fit, [`Error::NonFiniteScore`], and those of
    /// [`RewardModel::score_texts`].
    pub fn score(&self, policy: &TextSide, answers: &[Answer]) -> Result<Vec<f64>, Error> {
        let scores = if self.text.same_as(policy) {
            let longest = answers.iter().map(|answer| self.example(answer).tokens.len()).max().unwrap_or(0);
            if longest > self.context() {
                return Err(self.no_room(longest));
            }
            self.score_ids(answers, BATCH_SIZE)
        } else {
            let texts: Vec<temper_scorer::Answer<'_>> = answers.iter().map(Answer::as_text).collect();
            self.score_texts(&texts)?
        };
        if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
            return Err(Error::NonFiniteScore { dir: self.text.dir.clone(), index, score: scores[index] });
        }
        Ok(scores.into_iter().map(f64::from).collect())
    }

    /// Scores the sampled ids as they are, `batch_size` rows at a time. The policy must have the same texts as this model
    /// ([`TextSide::same_as`]).
    ///
    /// # Panics
    /// If an answer with its prompt is longer than the context: see [`RewardModel::check_room`].
    pub fn score_ids(&self, answers: &[Answer], batch_size: usize) -> Vec<f32> {
        let examples: Vec<Example> = answers.iter().map(|answer| self.example(answer)).collect();
        self.score_examples(&examples, batch_size)
    }

    /// Scores texts, encoded by the model's own template and tokenizer.
    ///
    /// A text that is too long is cut, with one warning, because a run must not end after hours because of one answer. The
    /// left of the prompt goes first. If that is not enough, the right of the answer goes too, with its end.
    ///
    /// # Errors
    /// [`Error::TemplateTooLong`], [`Error::NoTokens`].
    pub fn score_texts(&self, answers: &[temper_scorer::Answer<'_>]) -> Result<Vec<f32>, Error> {
        let (mut examples, mut n_cut) = (Vec::with_capacity(answers.len()), 0);
        for answer in answers {
            let (example, is_cut) = encode_to_fit(&self.text, answer, self.context())?;
            n_cut += usize::from(is_cut);
            examples.push(example);
        }
        if n_cut > 0 {
            let (dir, n, context) = (self.text.dir.display(), answers.len(), self.context());
            warn_once(&format!("cut for {dir}"), || {
                format!(
                    "{n_cut} of {n} answers are too long, with their prompts, for the {context} tokens of {dir}: they \
                     are scored without the left of the prompt, and if that is not enough, without the right of the \
                     answer"
                )
            });
        }
        Ok(self.score_examples(&examples, BATCH_SIZE))
    }

    /// Scores encoded rows, `batch_size` of them at a time.
    fn score_examples(&self, examples: &[Example], batch_size: usize) -> Vec<f32> {
        let rows: Vec<_> = examples.iter().map(Example::row).collect();
        self.model.score_rows(&rows, batch_size)
    }

    /// Compares the context with the most tokens that an answer of `policy` and its prompt can have, `needed`. Ids that
    /// may not fit are refused, because they cannot be cut. Texts that may not fit lead to a warning.
    ///
    /// # Errors
    /// [`Error::NoRoom`].
    pub fn check_room(&self, policy: &TextSide, needed: usize) -> Result<(), Error> {
        let context = self.context();
        if needed <= context {
            return Ok(());
        }
        if self.text.same_as(policy) {
            return Err(self.no_room(needed));
        }
        let dir = self.text.dir.display();
        warn_once(&format!("room in {dir}"), || {
            format!(
                "a prompt and its answer may have {needed} tokens, the context of {dir} has {context}: \
                 what is too long for it is cut before it is scored"
            )
        });
        Ok(())
    }

    fn example(&self, answer: &Answer) -> Example {
        self.text.example_of_ids(&answer.prompt_tokens, &answer.tokens, answer.ended)
    }

    fn no_room(&self, needed: usize) -> Error {
        Error::NoRoom { dir: self.text.dir.clone(), needed, context: self.context() }
    }
}

/// One text in at most `context` tokens, and whether it was cut to fit.
fn encode_to_fit(
    text: &TextSide,
    answer: &temper_scorer::Answer<'_>,
    context: usize,
) -> Result<(Example, bool), Error> {
    let dir = || text.dir.clone();
    let example = text.encode_answer_to_fit(answer.prompt, answer.completion, answer.ended, context);
    match example {
        Ok(example) if example.tokens.is_empty() => Err(Error::NoTokens { dir: dir() }),
        Ok(example) => {
            let is_cut = example.n_cut > 0;
            Ok((example, is_cut))
        }
        Err(TokenizerError::PromptTooLong { .. }) => Err(Error::TemplateTooLong { dir: dir(), context }),
        Err(source) => Err(Error::Template { dir: dir(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use temper_model::{Decoder, ModelConfig, Pooling};
    use temper_tokenizer::Tokenizer;

    fn text(template: Template) -> TextSide {
        TextSide { dir: "rm".into(), ..TextSide::new(Tokenizer::byte(), template) }
    }

    fn reward_model(context: usize, template: Template) -> RewardModel {
        let config = ModelConfig { max_seq_len: context, ..ModelConfig::preset("gpt2-tiny").unwrap() };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let backbone = Decoder::new(&config, &mut rng, &Device::flex());
        RewardModel { model: ScalarModel::new(backbone, Pooling::Last, &mut rng), text: text(template) }
    }

    fn bytes(text: &str) -> Vec<u32> {
        Tokenizer::byte().encode(text)
    }

    #[test]
    fn a_text_that_is_too_long_loses_the_left_of_its_prompt_and_then_the_right_of_its_answer() {
        let text = text(Template::bare());
        let answer = temper_scorer::Answer::new("abc", "yes", true);
        let encode = |context| encode_to_fit(&text, &answer, context).unwrap();
        let example = |tokens: Vec<u32>, prompt_len| Example {
            n_cut: 9 - tokens.len(),
            ..Example::new(tokens, prompt_len)
        };
        let whole = [vec![1], bytes("abc"), vec![2], bytes("yes"), vec![3]].concat();
        assert_eq!(encode(9), (example(whole, 5), false));
        let left = [vec![1], bytes("c"), vec![2], bytes("yes"), vec![3]].concat();
        assert_eq!(encode(7), (example(left, 3), true));
        // A false end would be worse than a missing one.
        let right = [vec![1], bytes("c"), vec![2], bytes("yes")].concat();
        assert_eq!(encode(6), (example(right, 3), true));
        let error = encode_to_fit(&text, &answer, 3).unwrap_err().to_string();
        assert!(error.contains("no answer fits into the 3 tokens of rm"), "{error}");
    }

    /// Each broken byte decodes to U+FFFD, which is three tokens of text: the ids fit, their text does not.
    #[test]
    fn an_answer_whose_ids_fit_is_scored_however_long_its_text_would_be() {
        let reward = reward_model(16, Template::bare());
        let broken: Vec<u32> = vec![0xff + 4; 12];
        let answer = Answer::of_ids(&reward.text, "B", vec![1, 70, 2], broken.clone(), vec![], false);
        assert!(answer.completion.len() > 16);
        let scores = reward.score(&reward.text, std::slice::from_ref(&answer)).unwrap();
        let example = Example::new([vec![1, 70, 2], broken].concat(), 3);
        assert_eq!(scores, [f64::from(reward.model.score_rows(&[example.row()], 1)[0])]);
        // As text it is cut, and gets a score all the same.
        let policy = text(Template::notebook());
        let cut = reward.score(&policy, std::slice::from_ref(&answer)).unwrap();
        assert!(cut[0].is_finite() && cut != scores);
    }

    #[test]
    fn a_context_that_answers_can_outgrow_is_refused_for_ids_and_accepted_for_texts() {
        let reward = reward_model(16, Template::bare());
        reward.check_room(&reward.text, 16).unwrap();
        let error = reward.check_room(&reward.text, 17).unwrap_err().to_string();
        assert!(error.contains("may have 17 tokens, the context of rm has 16"), "{error}");
        reward.check_room(&text(Template::notebook()), 17).unwrap();
    }

    #[test]
    fn ids_beyond_the_context_are_an_error_and_not_a_panic() {
        let reward = reward_model(4, Template::bare());
        let answer = Answer::of_ids(&reward.text, "B", vec![1, 70, 2], vec![80, 3], vec![], true);
        let error = reward.score(&reward.text, &[answer]).unwrap_err().to_string();
        assert!(error.contains("may have 5 tokens, the context of rm has 4"), "{error}");
    }

    #[test]
    fn a_score_that_is_not_finite_is_an_error_that_names_the_model_and_the_prompt() {
        let mut reward = reward_model(16, Template::bare());
        reward.model = reward.model.rescaled(f64::NAN, 0.0);
        let answer = Answer::of_ids(&reward.text, "B", vec![1, 70, 2], vec![80, 3], vec![], true);
        let error = reward.score(&reward.text, &[answer]).unwrap_err();
        assert!(error.to_string().contains("rm scores the answer to prompt 1 as NaN"), "{error}");
    }
}
