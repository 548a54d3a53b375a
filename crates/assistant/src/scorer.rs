//! The score of an answer in PPO: a reward model, a program, an endpoint, or a weighted sum of them.

use std::time::Duration;

use temper_scorer::{Endpoint, Program, Retries, Stop};
use temper_tokenizer::TextSide;

use crate::{Answer, Error, RewardModel};

/// Which sources score an answer in addition to a reward model, and how much each source counts.
#[derive(Clone, Debug, PartialEq)]
pub struct ScorerSpec {
    /// Weight of the reward model's score.
    pub model_weight: f32,
    /// The command of a program that scores: see [`Program`].
    pub program: Option<String>,
    /// Weight of the program's score.
    pub program_weight: f32,
    /// The address of an endpoint that scores: see [`Endpoint`].
    pub endpoint: Option<String>,
    /// Weight of the endpoint's score.
    pub endpoint_weight: f32,
    /// How long the program or the endpoint may take for one call, including all retries.
    pub time_limit: Duration,
    /// Rows that the reward model reads together.
    pub batch_size: usize,
}

impl Default for ScorerSpec {
    /// A reward model alone.
    fn default() -> Self {
        Self {
            model_weight: 1.0,
            program: None,
            program_weight: 1.0,
            endpoint: None,
            endpoint_weight: 1.0,
            time_limit: Duration::from_secs(60),
            batch_size: crate::BATCH_SIZE,
        }
    }
}

/// The sources of a score, ready to be asked.
pub struct Scorer<'a> {
    model: Option<(f32, ModelSource<'a>)>,
    program: Option<(f32, Program)>,
    endpoint: Option<(f32, Endpoint)>,
}

/// How a reward model reads the answers of a policy.
struct ModelSource<'a> {
    model: &'a RewardModel,
    /// Whether it reads the sampled ids as they are. Otherwise it reads their text.
    reads_ids: bool,
    batch_size: usize,
}

impl ModelSource<'_> {
    fn score(&self, answers: &[Answer]) -> Result<Vec<f32>, Error> {
        if self.reads_ids {
            return Ok(self.model.score_ids(answers, self.batch_size));
        }
        self.model.score_texts(&answers.iter().map(Answer::as_text).collect::<Vec<_>>())
    }
}

impl<'a> Scorer<'a> {
    /// Starts the program, if there is one. Nothing is scored yet.
    ///
    /// `policy` is the text side of the model whose answers are scored. Calls end early when `stop` says so.
    ///
    /// # Errors
    /// [`Error::Weight`], and a program or an address that cannot be used.
    pub fn open(
        spec: &ScorerSpec,
        model: Option<&'a RewardModel>,
        policy: &TextSide,
        stop: &Stop,
    ) -> Result<Self, Error> {
        let weights = [spec.model_weight, spec.program_weight, spec.endpoint_weight];
        if let Some(weight) = weights.into_iter().find(|weight| !weight.is_finite()) {
            return Err(Error::Weight { weight });
        }
        let endpoint = spec.endpoint.as_ref();
        let endpoint = endpoint.map(|url| Endpoint::new(url, spec.time_limit, Retries::default(), stop));
        let endpoint = endpoint.transpose()?;
        let program = spec.program.as_ref();
        let program = program.map(|command| Program::start(command, spec.time_limit, stop)).transpose()?;
        let source = |model: &'a RewardModel| ModelSource {
            model,
            reads_ids: model.text.same_as(policy),
            batch_size: spec.batch_size,
        };
        Ok(Self {
            model: model.map(|model| (spec.model_weight, source(model))),
            program: program.map(|program| (spec.program_weight, program)),
            endpoint: endpoint.map(|endpoint| (spec.endpoint_weight, endpoint)),
        })
    }

    /// The weighted sum of the scores that the sources give to each answer.
    ///
    /// Programs, endpoints and reward models with another template get an answer without what the policy's template puts
    /// around a completion.
    ///
    /// # Errors
    /// Those of the sources.
    pub fn score(&mut self, answers: &[Answer]) -> Result<Vec<f32>, Error> {
        let mut total = vec![0.0; answers.len()];
        let mut add = |weight: f32, scores: Vec<f32>| {
            total.iter_mut().zip(scores).for_each(|(total, score)| *total += weight * score);
        };
        if let Some((weight, model)) = &self.model {
            add(*weight, model.score(answers)?);
        }
        let texts: Vec<temper_scorer::Answer<'_>> = answers.iter().map(Answer::as_text).collect();
        if let Some((weight, program)) = &mut self.program {
            add(*weight, program.score(&texts)?);
        }
        if let Some((weight, endpoint)) = &self.endpoint {
            add(*weight, endpoint.score(&texts)?);
        }
        Ok(total)
    }
}
