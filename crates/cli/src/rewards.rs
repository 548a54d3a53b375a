//! What scores an answer in PPO: a reward model, a program, an endpoint, or a weighted sum of them.

use std::time::Duration;

use anyhow::Result;
use temper_model::ScalarModel;
use temper_ppo::Sample;
use temper_scorer::{Answer, Endpoint, Program, Retries};

use crate::args::RewardSources;
use crate::commands::ppo::score_samples;
use crate::failure::hinted;

/// The sources that were given, each with its weight.
pub struct Rewards<'a> {
    model: Option<(f32, &'a ScalarModel)>,
    program: Option<(f32, Program)>,
    endpoint: Option<(f32, Endpoint)>,
    batch_size: usize,
}

impl<'a> Rewards<'a> {
    /// Starts the program, if there is one; nothing is scored yet.
    pub fn open(sources: &RewardSources, model: Option<&'a ScalarModel>, batch_size: usize) -> Result<Self> {
        for weight in [sources.reward_weight, sources.program_weight, sources.url_weight] {
            if !weight.is_finite() {
                return Err(hinted(
                    format!("the weight {weight} is not a finite number"),
                    "for example `0.5`",
                ));
            }
        }
        if !(sources.reward_seconds > 0.0 && sources.reward_seconds < 1e9) {
            let seconds = sources.reward_seconds;
            return Err(hinted(format!("`--reward-seconds {seconds}` is no time limit"), "for example `60`"));
        }
        let limit = Duration::from_secs_f64(sources.reward_seconds);
        let program =
            sources.reward_program.as_ref().map(|command| Program::start(command, limit)).transpose()?;
        let endpoint = sources.reward_url.as_ref().map(|url| Endpoint::new(url, limit, Retries::default()));
        Ok(Self {
            model: model.map(|model| (sources.reward_weight, model)),
            program: program.map(|program| (sources.program_weight, program)),
            endpoint: endpoint.transpose()?.map(|endpoint| (sources.url_weight, endpoint)),
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
        if let Some((weight, model)) = self.model {
            add(weight, score_samples(model, samples, self.batch_size));
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
