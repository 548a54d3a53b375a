//! Answers to a few held-out prompts, again and again while a run trains: what the model says, not how it is measured.

use serde::Serialize;
use temper_data::{EncodedPrompt, MOST_ASKED};
use temper_model::{CausalLm, Completion, Finish, GenerateOptions, Sampler, generate};
use temper_tokenizer::{Prompt, TextSide};
use temper_train::{Run, settings};

use crate::Error;

/// Longest answer in tokens of a stage that does not sample by itself, where its model does not say how long its answers
/// are.
const NEW_TOKENS: usize = 64;
/// No such answer is longer, so that the samples of a run do not take longer than its updates.
const MOST_NEW_TOKENS: usize = 256;

settings! {
    /// Answers that show what a model says.
    pub struct SamplesConfig {
        /// Prompts of the evaluation data that are answered for samples.jsonl: before the first step, at every
        /// evaluation and at the end; 0: none.
        ///
        /// The most probable token is taken each time, so that the answers of two steps can be compared.
        pub samples: usize = 8, in 0..=MOST_ASKED,
    }
}

/// The prompts that a run answers to show what its model says.
#[derive(Debug)]
pub struct Samples<'a> {
    prompts: Vec<&'a EncodedPrompt>,
    text: &'a TextSide,
    options: GenerateOptions,
}

/// One line of `samples.jsonl`, to which the run adds the step.
#[derive(Debug, Serialize)]
struct Sample<'a> {
    prompt: &'a Prompt,
    answer: &'a str,
    ended: bool,
    /// Tokens that it might have had.
    max_new_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gold: Option<f32>,
}

impl<'a> Samples<'a> {
    /// The first distinct prompts that leave room for an answer of `model`, as many as the settings ask for. Answers may
    /// be as long as those that the model has learned or is about to learn, and have at most 256 tokens.
    pub fn new(
        config: &SamplesConfig,
        prompts: &'a [EncodedPrompt],
        text: &'a TextSide,
        model: &CausalLm,
    ) -> Self {
        let options = GenerateOptions {
            max_new_tokens: model.max_new_tokens().unwrap_or(NEW_TOKENS).min(MOST_NEW_TOKENS),
            end_tokens: text.end_tokens(),
            n_tokens: text.tokenizer.vocab_size(),
            missing_tokens: text.tokenizer.missing_ids(),
            ..GenerateOptions::default()
        };
        Self::with_options(config, prompts, text, model, options)
    }

    /// The same for a stage that samples by itself: its answers end as those that it samples, and as early. The most
    /// probable token is taken here too.
    pub fn with_options(
        config: &SamplesConfig,
        prompts: &'a [EncodedPrompt],
        text: &'a TextSide,
        model: &CausalLm,
        options: GenerateOptions,
    ) -> Self {
        let context = model.config().max_seq_len.min(options.max_seq_len);
        let mut chosen: Vec<&EncodedPrompt> = Vec::new();
        for prompt in prompts {
            if chosen.len() == config.samples {
                break;
            }
            let is_new = chosen.iter().all(|other| other.tokens != prompt.tokens);
            if is_new && prompt.tokens.len() < context {
                chosen.push(prompt);
            }
        }
        Self { prompts: chosen, text, options: GenerateOptions { sampler: Sampler::Greedy, ..options } }
    }

    /// Whether nothing is answered.
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// The prompts, for a judge of the answers.
    pub fn prompts(&self) -> &[&'a EncodedPrompt] {
        &self.prompts
    }

    /// Answers every prompt.
    ///
    /// # Errors
    /// [`temper_model::Error::NonFiniteOutput`].
    pub fn answers(&self, model: &CausalLm) -> Result<Vec<Completion>, temper_model::Error> {
        let rows: Vec<Vec<u32>> = self.prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
        generate(model, &rows, &self.options)
    }

    /// Appends answers to `samples.jsonl`, as they are after `step`. The scores are one for each answer, or none.
    ///
    /// # Errors
    /// Those of [`Run::log_sample`].
    pub fn log(
        &self,
        run: &mut Run,
        step: usize,
        answers: &[Completion],
        scores: &[f32],
        gold: &[f32],
    ) -> Result<(), temper_train::Error> {
        for (i, (asked, completion)) in self.prompts.iter().zip(answers).enumerate() {
            let decoded = self.text.tokenizer.decode(&completion.tokens);
            let sample = Sample {
                prompt: &asked.prompt,
                answer: self.text.template.completion_of(&decoded),
                ended: completion.finish == Finish::Stop,
                max_new_tokens: self.options.max_new_tokens,
                score: scores.get(i).copied(),
                gold: gold.get(i).copied(),
            };
            run.log_sample(step, &sample)?;
        }
        Ok(())
    }

    /// Answers every prompt and appends the answers to `samples.jsonl`: what a stage without a judge does.
    ///
    /// # Errors
    /// Those of [`Samples::answers`] and [`Samples::log`].
    pub fn take(&self, model: &CausalLm, run: &mut Run, step: usize) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        let answers = self.answers(model)?;
        Ok(self.log(run, step, &answers, &[], &[])?)
    }
}

impl SamplesConfig {
    /// The setting, and why it has no effect, where there are no held-out prompts.
    pub fn idle(&self, has_evaluation_data: bool) -> Option<(&'static str, &'static str)> {
        let why = "its prompts are those of the evaluation data, and none is given";
        (self.samples > 0 && !has_evaluation_data).then_some(("samples", why))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use temper_model::ModelConfig;
    use temper_tokenizer::{Template, Tokenizer};
    use temper_train::Seed;

    use super::*;

    #[test]
    fn the_first_distinct_prompts_that_leave_room_are_answered() {
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let config = ModelConfig { max_seq_len: 16, ..ModelConfig::preset("tiny").unwrap() };
        let model = CausalLm::new(&config, &mut Seed(0).stream("init"), &Device::flex());
        let asked = |prompt: &str| EncodedPrompt::new(prompt, text.encode_prompt(prompt).unwrap());
        let too_long = "x".repeat(14);
        let prompts: Vec<EncodedPrompt> =
            ["a", "a", too_long.as_str(), "b", "c"].into_iter().map(asked).collect();
        let samples = Samples::new(&SamplesConfig { samples: 2 }, &prompts, &text, &model);
        let chosen: Vec<String> = samples.prompts().iter().map(|asked| asked.prompt.to_string()).collect();
        assert_eq!(chosen, ["a", "b"]);

        let mut run = Run::ephemeral().unwrap();
        samples.take(&model, &mut run, 0).unwrap();
        let answers = samples.answers(&model).unwrap();
        samples.log(&mut run, 3, &answers, &[0.5, -1.0], &[]).unwrap();
        let file = std::fs::read_to_string(run.dir().join("samples.jsonl")).unwrap();
        let rows: Vec<serde_json::Value> =
            file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let steps: Vec<_> = rows.iter().map(|row| row["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [0, 0, 3, 3]);
        assert_eq!(rows[0]["answer"], rows[2]["answer"], "the model is the same");
        assert_eq!((&rows[0]["score"], &rows[3]["score"]), (&serde_json::Value::Null, &(-1.0).into()));
        assert!(rows[3]["prompt"] == "b" && rows[3]["ended"].is_boolean(), "{file}");

        let none = Samples::new(&SamplesConfig { samples: 0 }, &prompts, &text, &model);
        assert!(none.is_empty());
    }
}
