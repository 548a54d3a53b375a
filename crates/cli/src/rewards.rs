//! What scores an answer in PPO: a reward model, a program, an endpoint, or a weighted sum of them.

use std::time::Duration;

use anyhow::Result;
use temper_model::ScalarModel;
use temper_ppo::Sample;
use temper_scorer::{Answer, Endpoint, Program, Retries, Stop};
use temper_tokenizer::{Example, Template};

use crate::answers::{Said, TextEnd, example_of_ids, score_texts};
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
    Ids {
        model: &'a ScalarModel,
        /// How the texts end that it learned.
        end: TextEnd,
    },
    /// The text, put together anew.
    Text {
        model: &'a ScalarModel,
        /// Its own.
        text: &'a TextSide,
        /// What the policy has learned to put around its completions.
        policy: &'a Template,
    },
}

impl RewardModel<'_> {
    fn score(&self, samples: &[Sample<'_>], batch_size: usize) -> Result<Vec<f32>> {
        match *self {
            Self::Ids { model, end } => Ok(score_samples(model, samples, end, batch_size)),
            Self::Text { model, text, policy } => {
                let said: Vec<Said<'_>> = (samples.iter())
                    .map(|sample| Said {
                        prompt: sample.prompt,
                        completion: policy.completion_of(&sample.completion),
                        ended: sample.ended,
                    })
                    .collect();
                score_texts(model, text, &said)
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

/// A reward model as a scoring function: the sampled ids as they are, never text encoded again. A reward model whose
/// template does not end a completion reads an answer without its end token.
pub fn score_samples(
    model: &ScalarModel,
    samples: &[Sample<'_>],
    end: TextEnd,
    batch_size: usize,
) -> Vec<f32> {
    let example = |sample: &Sample<'_>| {
        example_of_ids(sample.prompt_tokens, sample.completion_tokens, sample.ended, end)
    };
    let examples: Vec<Example> = samples.iter().map(example).collect();
    temper_reward::score(model, &examples.iter().collect::<Vec<_>>(), batch_size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_data::Comparison;
    use temper_data::Rankings;
    use temper_tokenizer::{Overflow, Tokenizer};

    /// Both stages are given the same directory, which has no template.json.
    #[test]
    fn the_ids_that_reward_learns_are_those_that_ppo_scores() {
        let dir = tempfile::tempdir().unwrap();
        // Two bytes change places, so that it is not the byte tokenizer but anybody's.
        Tokenizer::byte().save(dir.path()).unwrap();
        let path = dir.path().join("tokenizer.json");
        let mut file: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        file["model"]["vocab"]["a"] = 102.into();
        file["model"]["vocab"]["b"] = 101.into();
        std::fs::write(&path, file.to_string()).unwrap();
        assert!(matches!(Tokenizer::from_dir(dir.path()).unwrap(), Tokenizer::Pretrained(_)));

        for setting in ["auto", "plain", "plain_eos", "bare"] {
            let mut reward = TextSide::load(dir.path()).unwrap();
            reward.settle(setting).unwrap();
            let mut policy = TextSide::load(dir.path()).unwrap();
            policy.settle("auto").unwrap();
            policy.adopt(&reward);
            assert!(policy.same_as(&reward), "{setting}");

            let comparison = Comparison::pair("What?", "A cab.", "No.");
            let data = Rankings::new(&[comparison], &reward.tokenizer, &reward.template, 64, Overflow::Drop);
            let learned = &data.unwrap().rankings[0].completions[0];

            let prompt = policy.template.encode_prompt(&policy.tokenizer, "What?");
            let mut answer = policy.tokenizer.encode("A cab.");
            answer.push(policy.tokenizer.special().eos);
            assert_eq!(&example_of_ids(&prompt, &answer, true, reward.end()), learned, "{setting}");
            assert_eq!(learned.tokens.ends_with(&[3]), setting != "plain");
        }
    }
}
