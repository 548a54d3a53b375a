//! What scores an answer in PPO: a reward model, a program, an endpoint, or a weighted sum of them.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use temper_model::ScalarModel;
use temper_ppo::Sample;
use temper_scorer::{Answer, Endpoint, Program, Retries, Stop};
use temper_tokenizer::{Example, Overflow, Template};

use crate::answers::{Said, score_texts};
use crate::args::RewardSources;
use crate::failure::hinted;
use crate::text::TextSide;

/// The sources that were given, each with its weight.
pub struct Rewards<'a> {
    model: Option<(f32, RewardModel<'a>)>,
    program: Option<(f32, Program)>,
    endpoint: Option<(f32, Endpoint)>,
    batch_size: usize,
}

/// A reward model and how it reads an answer.
#[derive(Clone, Copy)]
pub enum RewardModel<'a> {
    /// The sampled ids as they are: it has the policy's tokenizer and template.
    Ids(&'a ScalarModel),
    /// The text, put together anew.
    Text {
        model: &'a ScalarModel,
        /// Its own.
        text: &'a TextSide,
        dir: &'a Path,
        /// What the policy has learned to put around its completions.
        policy: &'a Template,
    },
}

impl RewardModel<'_> {
    fn score(&self, samples: &[Sample<'_>], batch_size: usize) -> Result<Vec<f32>> {
        match *self {
            Self::Ids(model) => Ok(score_samples(model, samples, batch_size)),
            Self::Text { model, text, dir, policy } => {
                let said: Vec<Said<'_>> = (samples.iter())
                    .map(|sample| Said {
                        prompt: sample.prompt,
                        completion: policy.completion_of(&sample.completion),
                        ended: sample.ended,
                    })
                    .collect();
                // A run must not end after hours because of one long prompt.
                score_texts(model, text, dir, &said, Overflow::TruncatePrompt)
            }
        }
    }
}

impl<'a> Rewards<'a> {
    /// Starts the program, if there is one; nothing is scored yet.
    pub fn open(
        sources: &RewardSources,
        model: Option<RewardModel<'a>>,
        batch_size: usize,
        stop: &Stop,
    ) -> Result<Self> {
        for weight in [sources.reward_weight, sources.program_weight, sources.url_weight] {
            if !weight.is_finite() {
                return Err(hinted(
                    format!("the weight {weight} is not a finite number"),
                    "for example `0.5`",
                ));
            }
        }
        let limit = time_limit("--reward-seconds", sources.reward_seconds)?;
        let endpoint =
            sources.reward_url.as_ref().map(|url| Endpoint::new(url, limit, Retries::default(), stop));
        let endpoint = endpoint.transpose()?;
        let program = sources
            .reward_program
            .as_ref()
            .map(|command| Program::start(command, limit, stop))
            .transpose()?;
        Ok(Self {
            model: model.map(|model| (sources.reward_weight, model)),
            program: program.map(|program| (sources.program_weight, program)),
            endpoint: endpoint.map(|endpoint| (sources.url_weight, endpoint)),
            batch_size,
        })
    }

    /// The weighted sum of what the sources say of each sample.
    pub fn score(
        &mut self,
        samples: &[Sample<'_>],
    ) -> Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>> {
        let mut total = vec![0.0; samples.len()];
        let mut add = |weight: f32, scores: Vec<f32>| {
            total.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
        };
        if let Some((weight, model)) = &self.model {
            add(*weight, model.score(samples, self.batch_size).map_err(boxed)?);
        }
        let answers: Vec<Answer<'_>> = (samples.iter())
            .map(|sample| Answer {
                prompt: sample.prompt,
                completion: &sample.completion,
                ended: sample.ended,
            })
            .collect();
        if let Some((weight, program)) = &mut self.program {
            add(*weight, program.score(&answers)?);
        }
        if let Some((weight, endpoint)) = &self.endpoint {
            add(*weight, endpoint.score(&answers)?);
        }
        Ok(total)
    }
}

/// The same error, whose hint can still be found.
pub fn boxed(error: anyhow::Error) -> Box<dyn std::error::Error + Send + Sync> {
    error.reallocate_into_boxed_dyn_error_without_backtrace()
}

/// The time limit that a flag gives.
pub fn time_limit(flag: &str, seconds: f64) -> Result<Duration> {
    if seconds > 0.0 && seconds < 1e9 {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(hinted(format!("`{flag} {seconds}` is not a time limit"), "for example `60`"))
}

/// A reward model as a scoring function: the sampled ids as they are, never text encoded again.
pub fn score_samples(model: &ScalarModel, samples: &[Sample<'_>], batch_size: usize) -> Vec<f32> {
    let examples: Vec<Example> = samples
        .iter()
        .map(|sample| Example {
            tokens: [sample.prompt_tokens, sample.completion_tokens].concat(),
            prompt_len: sample.prompt_tokens.len(),
            n_cut: 0,
        })
        .collect();
    temper_reward::score(model, &examples.iter().collect::<Vec<_>>(), batch_size)
}
