//! The loop of PPO (InstructGPT section 3.5; Schulman et al. 2017, Algorithm 1).
//!
//! ```text
//! for each rollout:
//!     sample answers to a batch of prompts, score them                                          ScoredAnswers::collect
//!     the first scores may set the scale                                                        Learner::set_scale
//!     record log-probabilities and values                                                       ScoredAnswers::record
//!     compute advantages and returns                                                            Estimator::targets
//!     for each pass and each minibatch: update policy and critic                                Learner::update
//!     adapt the KL coefficient β                                                                KlController::update
//!     evaluate, keep the best policy, write a checkpoint, where they are due
//! ```

use std::time::Instant;

use burn::module::Module;
use rand::RngExt;
use temper_data::{EncodedPrompt, Prompts, Texts};
use temper_model::CausalLm;
use temper_stage::Samples;
use temper_tokenizer::TextSide;
use temper_train::{Candidate, Run, Seed, is_due, shuffled};

use crate::checks::Checks;
use crate::evaluation::{Shown, evaluate};
use crate::guard::KlGuard;
use crate::learner::{Learner, LearningRates, Progress, UpdateInput};
use crate::metrics::{PpoMetrics, read_all};
use crate::networks::Critic;
use crate::rollout::{ScoredAnswers, sampling_options};
use crate::scores::Scorers;
use crate::{Error, PpoConfig, ScoreScale};

/// The networks of the stage. Policy and reference are two copies of the SFT model (D1: those of the notebook are new
/// networks with random weights).
#[derive(Debug)]
pub struct Models {
    /// The model that is trained.
    pub policy: CausalLm,
    /// The frozen model that the KL is measured against.
    pub ref_policy: CausalLm,
    /// The value function, where `advantage.kind` needs one.
    pub critic: Critic,
}

/// What the stage learns from; only prompts are required.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Prompts that the policy answers to learn from.
    pub prompts: &'a Prompts,
    /// Held-out prompts that the policy answers to be evaluated.
    pub eval_prompts: Option<&'a Prompts>,
    /// Pretraining text that is mixed into the updates (PPO-ptx).
    pub texts: Option<&'a Texts>,
}

impl<'a> From<&'a Prompts> for Data<'a> {
    fn from(prompts: &'a Prompts) -> Self {
        Self { prompts, eval_prompts: None, texts: None }
    }
}

/// Trains a policy for the scores of a scoring function, with a penalty that keeps it near its reference.
///
/// Returns the policy without gradients, or its moving average if the settings ask for one. The run directory gets
/// metrics, checkpoints and `final/`, with the critic, if there is one, in `critic/`. Whether the run was interrupted says
/// [`Run::interrupted`]; then it has a checkpoint, if one rollout was complete.
///
/// # Errors
/// Files, settings, prompts that leave no room for an answer, a scoring function that fails (after a complete rollout the
/// run has written a checkpoint then), or a loss that is not finite. A scoring function that fails while the run is interrupted ends it as
/// an interrupt does: with a checkpoint and without an error.
pub fn train<'a>(
    config: &PpoConfig,
    models: Models,
    text: &TextSide,
    data: impl Into<Data<'a>>,
    scorers: impl Into<Scorers<'a>>,
    run: &mut Run,
) -> Result<CausalLm, Error> {
    config.validate()?;
    let estimator = config.estimator();
    if estimator.needs_critic() && matches!(models.critic, Critic::None) {
        return Err(Error::NoCritic);
    }
    let (data, mut scorers) = (data.into(), scorers.into());
    let total_steps = config.training.total_steps(data.prompts.prompts.len());
    let ref_policy = models.ref_policy.valid();
    if let Some(dir) = run.finished() {
        return Ok(CausalLm::load(&dir, &ref_policy.device())?);
    }
    let context = shortest_context(config, &models);
    let mut learner = Learner::new(config, models.policy, models.critic, text.tokenizer.vocab_size());
    for prompts in std::iter::once(data.prompts).chain(data.eval_prompts) {
        check_room(config, prompts, context)?;
    }
    let mut checks = Checks::new(config);
    let mut guard = KlGuard::new(&config.training);
    let mut progress = Progress::default();
    if let Some((_, dir)) = run.resume_from() {
        progress = learner.resume(dir)?;
        guard.resume(progress.guard);
    }
    guard.keep(progress.step, run);
    run.started(total_steps);
    let asked = data.eval_prompts.map_or(&[][..], |data| data.prompts.as_slice());
    let options = sampling_options(config, &text.tokenizer, 0)?;
    let samples = Samples::with_options(&config.shown, asked, text, &ref_policy, options);
    if run.resume_from().is_none() {
        match Shown::take(&ref_policy, &text.tokenizer, &samples, 1, &mut scorers) {
            Ok(shown) => shown.log(&samples, run, 0)?,
            Err(error) => return stop_early(error, config, &learner, text, &progress, run),
        }
    }

    if run.resume_from().is_none() && guard.needs_a_start() {
        run.save_checkpoint(0, |dir| learner.save_checkpoint(dir, text, &progress))?;
    }

    while progress.step < total_steps || !progress.is_evaluated {
        // A run that was stopped during an evaluation continues with that evaluation.
        if progress.is_evaluated {
            let clock = Instant::now();
            let (step, seed) = (progress.step, Seed(config.training.seed));
            let prompts = rollout_prompts(data.prompts, config.training.batch_size, step, seed);
            let sample_seed = seed.stream_at("sample", step as u64).random();
            let models = learner.models(&ref_policy, &text.tokenizer);
            let scored =
                ScoredAnswers::collect(config, &models, &prompts, &mut scorers, sample_seed, step + 1);
            let scored = match scored {
                Ok(scored) => scored,
                Err(error) => return stop_early(error, config, &learner, text, &progress, run),
            };
            if let Some(scale) = learner.set_scale(scored.raw_scores()) {
                run.note(&note_of_scale(scale));
            }
            let rollout = scored.record(config, &learner.models(&ref_policy, &text.tokenizer));

            let kl_coef = learner.kl.coef;
            let targets = estimator.targets(&rollout, kl_coef);
            let mut metrics = PpoMetrics::of_rollout(&rollout, &targets, kl_coef);
            let rollout_seconds = clock.elapsed().as_secs_f64();

            let learning_rates = learning_rates(config, step, total_steps, guard.rate_factor());
            let texts = data.texts;
            let input =
                UpdateInput { rollout: &rollout, targets: &targets, texts, learning_rates, step, seed };
            let stats = learner.update(config, &input)?;
            learner.kl.update(metrics.kl, rollout.len());

            progress
                .complete_rollout(metrics.gold.unwrap_or(metrics.scores), config.training.checkpoint_every);
            metrics.set_update(&stats, &targets);
            metrics.episode = progress.step * rollout.len();
            metrics.lr = learning_rates.policy;
            metrics.set_times(rollout.len(), rollout_seconds, clock.elapsed().as_secs_f64());
            checks.check_scores(config, &read_all(vec![rollout.total_scores()]), progress.step, run);
            checks.check_metrics(&metrics, &read_all(vec![rollout.kl()]), progress.step, run);
            run.log(progress.step, total_steps, &metrics)?;
            if let Some(dir) = guard.after_rollout(progress.step, metrics.kl, run)? {
                progress = learner.resume(&dir)?;
                guard.resume(progress.guard);
                continue;
            }
            progress.guard = guard.to_store();
        }

        let step = progress.step;
        let is_last = step == total_steps;
        let mut candidate = None;
        if let Some(eval_prompts) = data.eval_prompts
            && (is_last || is_due(step, config.training.eval_every))
        {
            let policy = learner.evaluated_policy();
            let tokenizer = &text.tokenizer;
            let scale = learner.scale();
            let evaluated = evaluate(config, &policy, tokenizer, eval_prompts, step, scale, &mut scorers)
                .and_then(|evaluation| {
                    Ok((evaluation, Shown::take(&policy, tokenizer, &samples, step, &mut scorers)?))
                });
            // Both are logged together, so that a run that is stopped in between logs neither twice.
            let (evaluation, shown) = match evaluated {
                Ok(both) => both,
                Err(error) => return stop_early(error, config, &learner, text, &progress, run),
            };
            run.log_evaluation(step, &evaluation)?;
            shown.log(&samples, run, step)?;
            candidate = Some(match evaluation.gold {
                Some(gold) => ("eval/gold", gold),
                None => ("eval/scores", evaluation.scores),
            });
        }
        progress.is_evaluated = true;

        let is_checkpoint_due = is_due(step, config.training.checkpoint_every);
        if data.eval_prompts.is_none() && (is_last || is_checkpoint_due) {
            let metric = if scorers.gold.is_some() { "objective/gold" } else { "objective/scores" };
            candidate = Some((metric, progress.mean_recent_score()));
        }
        if let Some((metric, value)) = candidate.filter(|_| config.training.keep_best) {
            let candidate = Candidate { step, metric, value, lower_is_better: false };
            run.save_best(&candidate, |dir| learner.save(dir, text))?;
        }
        let is_interrupted = run.interrupted();
        if !is_last && (is_interrupted || is_checkpoint_due) || guard.stops() {
            run.save_checkpoint(step, |dir| learner.save_checkpoint(dir, text, &progress))?;
        }
        guard.check()?;
        if is_interrupted && !is_last {
            return Ok(learner.evaluated_policy());
        }
    }
    run.save_last_checkpoint(progress.step, |dir| learner.save_checkpoint(dir, text, &progress))?;
    learner.check_finite(data.prompts)?;
    run.save_final_or_checkpoint(
        progress.step,
        |dir| learner.save(dir, text),
        |dir| learner.save_checkpoint(dir, text, &progress),
    )?;
    Ok(learner.evaluated_policy())
}

/// What a run says when its first scores have set the scale.
fn note_of_scale(ScoreScale { mean, deviation }: ScoreScale) -> String {
    format!(
        "scores are now (raw score - {mean:.3}) / {deviation:.3}: the mean and the standard deviation of this rollout; \
         `objective/raw_scores` is what the scorer says"
    )
}

/// Ends a run whose answers could not be sampled or scored: a scorer may fail at any time, or be interrupted while it is
/// waited for.
///
/// What was learned until then is kept in a checkpoint, unless there is one already or the policy has diverged.
fn stop_early(
    error: Error,
    config: &PpoConfig,
    learner: &Learner,
    text: &TextSide,
    progress: &Progress,
    run: &mut Run,
) -> Result<CausalLm, Error> {
    let is_saved = progress.is_evaluated && is_due(progress.step, config.training.checkpoint_every);
    if progress.step > 0 && !is_saved && !matches!(error, Error::Diverged { .. }) {
        run.save_checkpoint(progress.step, |dir| learner.save_checkpoint(dir, text, progress))?;
    }
    if run.interrupted() { Ok(learner.evaluated_policy()) } else { Err(error) }
}

/// The schedule scales both rates by the same factor. `step` counts from 0.
fn learning_rates(config: &PpoConfig, step: usize, total_steps: usize, factor: f64) -> LearningRates {
    let rate = factor * config.training.learning_rate;
    let policy = config.training.schedule.learning_rate(rate, step, total_steps);
    let scale = policy / config.training.learning_rate;
    LearningRates { policy, critic: config.critic.learning_rate * scale }
}

/// Tokens that prompt and answer share: the shortest context of the networks, or `max_seq_len` where that is shorter.
fn shortest_context(config: &PpoConfig, models: &Models) -> usize {
    let critic = match &models.critic {
        Critic::Separate(critic) if config.estimator().needs_critic() => critic.config().max_seq_len,
        Critic::Separate(_) | Critic::ValueHead | Critic::None => usize::MAX,
    };
    let setting = if config.training.max_seq_len == 0 { usize::MAX } else { config.training.max_seq_len };
    [models.policy.config().max_seq_len, models.ref_policy.config().max_seq_len, critic, setting]
        .into_iter()
        .min()
        .expect("there are four")
}

/// Refuses prompts that leave no room for a whole answer, because most answers to them would be cut off.
fn check_room(config: &PpoConfig, prompts: &Prompts, max_seq_len: usize) -> Result<(), Error> {
    let limit = config.prompt_limit(max_seq_len)?;
    match prompts.prompts.iter().position(|prompt| prompt.tokens.len() > limit) {
        None => Ok(()),
        Some(index) => Err(Error::NoRoomForAnswer {
            index: index + 1,
            prompt_len: prompts.prompts[index].tokens.len(),
            max_new_tokens: config.rollout.max_new_tokens,
            max_seq_len,
        }),
    }
}

/// The prompts of one rollout. Every epoch takes each prompt in an order that depends on seed and epoch.
///
/// The last rollout of an epoch is filled up with prompts from the start of the same epoch.
fn rollout_prompts(prompts: &Prompts, batch_size: usize, step: usize, seed: Seed) -> Vec<&EncodedPrompt> {
    let n = prompts.prompts.len();
    let steps_per_epoch = n.div_ceil(batch_size);
    let (epoch, position) = (step / steps_per_epoch, step % steps_per_epoch);
    let order = shuffled(n, &mut seed.stream_at("prompts", epoch as u64));
    (0..batch_size).map(|i| &prompts.prompts[order[(position * batch_size + i) % n]]).collect()
}
