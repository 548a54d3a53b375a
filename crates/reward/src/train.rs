//! The loop of the reward model.

use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::Serialize;
use temper_data::{Ranking, Rankings, ScorePairs, accuracy};
use temper_model::{Dropout, ScalarModel, SharedPrompt, TokenBatch};
use temper_stage::{resume, save, stop_before_update};
use temper_tensor::{Gradients, Sum, Unread, World, accumulate};
use temper_tokenizer::{Example, TextSide};
use temper_train::{Candidate, Progress, Run, StepPlan, require_finite};

use crate::evaluation::{RewardDetails, examine};
use crate::{Error, Normalize, RewardConfig, ScoreStats, normalized, ranking_loss, score};

/// One line of `metrics.jsonl`, under TRL's names.
#[derive(Clone, Debug, Serialize)]
pub struct RewardMetrics {
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean over the batch's comparisons of the mean over their pairs, in nats.
    pub loss: f64,
    /// Share of the batch's pairs with the chosen side above: a tie counts one half.
    pub accuracy: f64,
    /// Mean over the pairs of chosen minus rejected score.
    pub margin: f64,
    /// Mean score of the completions.
    pub mean_reward: f64,
    /// Lowest score.
    pub min_reward: f64,
    /// Highest score.
    pub max_reward: f64,
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Real tokens of all completions over wall-clock time.
    pub tokens_per_second: f64,
}

/// How well a reward model orders held-out comparisons.
#[derive(Clone, Debug, Serialize)]
pub struct RewardEvaluation {
    /// Mean over comparisons of the mean over their pairs of −log σ of the margin, in nats: what is learned, without
    /// the settings `margin` and `center`.
    pub eval_loss: f64,
    /// Share of all pairs in the right order: a tie counts one half.
    pub eval_accuracy: f64,
    /// Mean over all pairs of chosen minus rejected score.
    pub eval_margin: f64,
    /// Pairs judged.
    pub eval_pairs: usize,
    /// Margin of each pair, by the row of the given comparisons.
    #[serde(skip)]
    pub margins: Vec<(usize, f64)>,
    /// Score of each completion, in the order of the data.
    #[serde(skip)]
    pub scores: Vec<f32>,
}

impl RewardEvaluation {
    /// The best model is that of the highest accuracy.
    fn candidate(&self, step: usize) -> Candidate<'static> {
        Candidate { step, metric: "eval_accuracy", value: self.eval_accuracy, lower_is_better: false }
    }
}

/// The content of `evaluation.json`: what `temper eval` prints, of the last evaluation of the run.
#[derive(Serialize)]
struct ExaminedEvaluation<'a> {
    #[serde(flatten)]
    evaluation: &'a RewardEvaluation,
    #[serde(flatten)]
    details: &'a RewardDetails,
}

/// Trains a reward model, without dropout.
///
/// Returns it off the tape, normalised if the data bring demonstrations for it; so are `best/` and `final/`, while step
/// checkpoints hold the model as it is trained. The run directory gets metrics, checkpoints, `final/`, and the details of the
/// last evaluation in `evaluation.json`. An interrupted run has
/// written a checkpoint; ask [`Run::interrupted`].
///
/// # Errors
/// Files, settings, a loss that is not finite, or a trained model that computes numbers that are not.
pub fn train(
    config: &RewardConfig,
    model: ScalarModel,
    text: &TextSide,
    data: &Rankings,
    eval_data: Option<&Rankings>,
    run: &mut Run,
) -> Result<ScalarModel, Error> {
    config.validate()?;
    let mut plan = StepPlan::new(&config.training, &config.batching, data.lengths());

    let mut progress = Progress::new(&config.training);
    let mut model = model.with_gradient_checkpointing(config.training.gradient_checkpointing).train();
    if let Some(dir) = run.finished() {
        return Ok(ScalarModel::load(&dir, &model.device().inner())?);
    }
    if let Some((_, dir)) = run.resume_from() {
        model = resume(dir, &mut progress, &model)?;
    }
    progress.guard.keep(run);
    run.started(plan.total_steps());

    if run.resume_from().is_none() && progress.guard.rewinds.needs_a_start() {
        run.save_checkpoint(0, |dir| save(dir, &model, text, Some(&progress)))?;
    }

    while !plan.is_done(progress.step) {
        let started = Instant::now();
        let batch: Vec<&Ranking> = plan.batch(progress.step).iter().map(|&i| &data.rankings[i]).collect();

        let (mut gradients, scores) = learn(&model, &batch, config);
        let (next, norm) = (progress.step + 1, gradients.norm());
        if let Some(dir) = progress.guard.before_update(next, scores.loss, norm, run)? {
            model = resume(&dir, &mut progress, &model)?;
            continue;
        }
        if progress.guard.rewinds.stops() {
            stop_before_update(run, &model, text, &progress)?;
        }
        let learning_rate = plan.learning_rate(progress.step) * progress.guard.rewinds.rate_factor();
        progress.optimizer.add(gradients);
        let (updated, grad_norm) = progress.optimizer.step(model, learning_rate)?;
        model = updated;
        progress.step += 1;
        let step = progress.step;

        let n_tokens: usize = batch.iter().flat_map(|r| &r.completions).map(|c| c.tokens.len()).sum();
        let metrics = RewardMetrics {
            epoch: plan.epochs(step),
            learning_rate,
            grad_norm,
            tokens_per_second: n_tokens as f64 / started.elapsed().as_secs_f64(),
            ..scores.into_metrics()
        };
        run.log(step, plan.total_steps(), &metrics)?;
        if let Some(dir) = progress.guard.after_update(step, metrics.loss, grad_norm, run)? {
            model = resume(&dir, &mut progress, &model)?;
            continue;
        }

        if let Some(eval_data) = eval_data
            && plan.is_evaluation_due(step)
        {
            let evaluation = evaluate(&model, eval_data, comparisons_at_once(config));
            require_finite("evaluation loss", step, evaluation.eval_loss)?;
            run.log_evaluation(step, &evaluation)?;
            let details = examine(eval_data, &evaluation);
            run.save_evaluation(&ExaminedEvaluation { evaluation: &evaluation, details: &details })?;
            if config.training.keep_best {
                run.save_best(&evaluation.candidate(step), |dir| {
                    save(dir, &finished_model(&model, data, config).0, text, None)
                })?;
            }
        }
        let stop = run.interrupted() && !plan.is_done(step) || progress.guard.rewinds.stops();
        if stop || plan.is_checkpoint_due(step) {
            run.save_checkpoint(step, |dir| save(dir, &model, text, Some(&progress)))?;
        }
        if stop {
            progress.guard.rewinds.check()?;
            return Ok(model.valid());
        }
    }
    run.save_last_checkpoint(progress.step, |dir| save(dir, &model, text, Some(&progress)))?;
    let (final_model, stats) = finished_model(&model, data, config);
    let completions = data.rankings.iter().flat_map(|ranking| &ranking.completions);
    let rows: Vec<&[u32]> = completions.map(|example| example.tokens.as_slice()).collect();
    final_model.check_finite(&rows)?;
    if let Some(stats) = &stats {
        run.log_evaluation(progress.step, stats)?;
        if config.normalize == Normalize::MeanStd && !stats.has_scale() {
            run.warn("all demonstrations score alike, so only the mean of the scores was normalised");
        }
    }
    if let Err(error) = run.save_final(|dir| save(dir, &final_model, text, None)) {
        // The user can remove the obstacle, and a resume then trains nothing again. With demonstrations a resume from
        // here would log their scores a second time.
        if stats.is_none() {
            let _ = run.save_checkpoint(progress.step, |dir| save(dir, &model, text, Some(&progress)));
        }
        return Err(error);
    }
    Ok(final_model)
}

/// The model as it is saved for use: off the tape, normalised if there are demonstrations to normalise on, and with its
/// bias where transformers has a place for it.
fn finished_model(
    model: &ScalarModel,
    data: &Rankings,
    config: &RewardConfig,
) -> (ScalarModel, Option<ScoreStats>) {
    let model = model.valid();
    if data.demonstrations.is_empty() || config.normalize == Normalize::None {
        return (model.with_bias_in_norm(), None);
    }
    let size = COMPLETIONS * comparisons_at_once(config);
    let (model, stats) = normalized(model, &data.demonstrations, config.normalize, size);
    (model.with_bias_in_norm(), Some(stats))
}

/// Every comparison has this many completions or more.
const COMPLETIONS: usize = 2;

/// Comparisons of one forward pass outside of an update: no more than in one.
fn comparisons_at_once(config: &RewardConfig) -> usize {
    config.batching.microbatch(config.training.batch_size)
}

/// Order of held-out comparisons by the model's scores, `batch_size` comparisons of two completions at a time. Longer
/// comparisons take as many completions at once.
pub fn evaluate(model: &ScalarModel, data: &Rankings, batch_size: usize) -> RewardEvaluation {
    let examples: Vec<&Example> = data.rankings.iter().flat_map(|ranking| &ranking.completions).collect();
    let scores = score(model, &examples, COMPLETIONS * batch_size);
    let mut rest = scores.as_slice();
    let mut margins = Vec::new();
    // softplus(−margin), written so that neither end overflows.
    let cost = |margin: f64| (-margin).max(0.0) + (-margin.abs()).exp().ln_1p();
    let mut loss = 0.0;
    for ranking in &data.rankings {
        let (scores, others) = rest.split_at(ranking.completions.len());
        loss += ranking.margins(scores).map(cost).sum::<f64>() / ranking.pairs.len() as f64;
        margins.extend(ranking.margins(scores).map(|margin| (ranking.row, margin)));
        rest = others;
    }
    let of_pairs = || margins.iter().map(|(_, margin)| *margin);
    RewardEvaluation {
        eval_loss: loss / data.len() as f64,
        eval_accuracy: accuracy(of_pairs()),
        eval_margin: of_pairs().sum::<f64>() / margins.len() as f64,
        eval_pairs: margins.len(),
        margins,
        scores,
    }
}

/// Loss, scores and score differences of one batch.
#[derive(Default)]
struct BatchScores {
    loss: f64,
    /// One per completion.
    scores: Vec<f64>,
    /// Chosen minus rejected, one per pair.
    margins: Vec<f64>,
}

impl BatchScores {
    fn into_metrics(self) -> RewardMetrics {
        let n_pairs = self.margins.len() as f64;
        let scores = || self.scores.iter().copied();
        RewardMetrics {
            epoch: 0.0,
            loss: self.loss,
            accuracy: accuracy(self.margins.iter().copied()),
            margin: self.margins.iter().sum::<f64>() / n_pairs,
            mean_reward: scores().sum::<f64>() / self.scores.len() as f64,
            min_reward: scores().fold(f64::INFINITY, f64::min),
            max_reward: scores().fold(f64::NEG_INFINITY, f64::max),
            learning_rate: 0.0,
            grad_norm: 0.0,
            tokens_per_second: 0.0,
        }
    }
}

impl Sum for BatchScores {
    fn add(&mut self, other: Self) {
        self.loss.add(other.loss);
        self.scores.add(other.scores);
        self.margins.add(other.margins);
    }

    fn sum_over_ranks(&mut self, world: &World, device: &Device) {
        self.loss.sum_over_ranks(world, device);
        self.scores.sum_over_ranks(world, device);
        self.margins.sum_over_ranks(world, device);
    }
}

/// Gradients and scores of one batch, each microbatch weighted by its number of comparisons.
fn learn(model: &ScalarModel, batch: &[&Ranking], config: &RewardConfig) -> (Gradients, BatchScores) {
    let size = config.batching.microbatch(batch.len());
    let (gradients, scores) = accumulate(&World::alone(), model, batch, size, |model, rankings, sums| {
        forward_backward(model, rankings, config, rankings.len() as f64 / batch.len() as f64, sums);
    });
    (gradients, scores.read())
}

/// Gradients, and what the loss was computed from.
type BatchSums<'a> = (Gradients, Unread<'a, BatchScores>);

/// Adds the gradients of `share` times the loss of some comparisons, and what the loss was computed from.
///
/// All completions go through one forward, each once, and their prompt once too where that is cheaper.
fn forward_backward<'a>(
    model: &ScalarModel,
    rankings: &[&'a Ranking],
    config: &RewardConfig,
    share: f64,
    (gradients, sum): &mut BatchSums<'a>,
) {
    let device = model.device().inner();
    let d_model = model.config().d_model;
    let rows: Vec<SharedPrompt<'_>> =
        rankings.iter().flat_map(|ranking| SharedPrompt::rows_of(&ranking.parts(), d_model)).collect();
    let (batch, spans) = TokenBatch::shared_prompts(&rows, &device);
    let scores = model.span_scores(&batch, &spans, &mut Dropout::off());
    let pairs = ScorePairs::of(rankings, &device);
    let loss = ranking_loss(scores.clone(), &pairs, config.margin, config.center) * share;
    let numbers = Tensor::cat(vec![loss.clone().inner(), scores.inner()], 0);
    gradients.add(Gradients::of(model, loss));
    let rankings = rankings.to_vec();
    sum.push(numbers, move |sum, numbers| {
        let (loss, scores) = numbers.split_first().expect("the loss comes before the scores");
        let mut rest = scores;
        let mut margins = Vec::new();
        for ranking in rankings {
            let (of_ranking, others) = rest.split_at(ranking.completions.len());
            margins.extend(ranking.margins(of_ranking));
            rest = others;
        }
        let scores = scores.iter().map(|&score| f64::from(score)).collect();
        sum.add(BatchScores { loss: f64::from(*loss), scores, margins });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use temper_data::Comparison;
    use temper_data::Encoding;
    use temper_model::{Decoder, ModelConfig, Pooling};
    use temper_tokenizer::{Template, Tokenizer};
    use temper_train::Seed;

    #[test]
    fn an_evaluation_takes_as_many_comparisons_at_once_as_an_update() {
        let mut config = RewardConfig::default();
        config.training.batch_size = 64;
        assert_eq!(comparisons_at_once(&config), 64);
        config.batching.microbatch_size = 4;
        assert_eq!(comparisons_at_once(&config), 4);
    }

    /// A ranking of three weighs as much as a pair in the loss, as in training; in the accuracy its three pairs do.
    #[test]
    fn the_evaluation_loss_is_that_of_training_and_the_accuracy_is_over_pairs() {
        let row = |completions: &[&str], scores: &[f64]| Comparison {
            prompt: "Say".into(),
            completions: completions.iter().map(|&completion| completion.into()).collect(),
            scores: scores.into(),
        };
        let rows = [row(&["yes", "no", "well"], &[2.0, 1.0, 0.0]), row(&["a", "bcd"], &[1.0, 0.0])];
        let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
        let text = TextSide::new(tokenizer.clone(), template.clone());
        let data = Rankings::new(&rows, &Encoding::new(&text, 64)).unwrap();
        let preset = ModelConfig::preset("tiny").unwrap();
        let backbone = Decoder::new(&preset, &mut Seed(0).stream("init"), &Device::flex());
        let model = ScalarModel::new(backbone, Pooling::Last, &mut Seed(1).stream("head"));
        let evaluation = evaluate(&model, &data, 8);
        let cost = |a: usize, b: usize| f64::from(evaluation.scores[b] - evaluation.scores[a]).exp().ln_1p();
        let expected = f64::midpoint((cost(0, 1) + cost(0, 2) + cost(1, 2)) / 3.0, cost(3, 4));
        assert!((evaluation.eval_loss - expected).abs() < 1e-9, "{} {expected}", evaluation.eval_loss);
        let right = evaluation.margins.iter().filter(|(_, margin)| *margin > 0.0).count();
        assert_eq!((evaluation.eval_accuracy, evaluation.eval_pairs), (right as f64 / 4.0, 4));

        let rankings: Vec<&Ranking> = data.rankings.iter().collect();
        let (_, trained) = learn(&model.train(), &rankings, &RewardConfig::default());
        assert!(
            (trained.loss - evaluation.eval_loss).abs() < 1e-6,
            "{} {}",
            trained.loss,
            evaluation.eval_loss
        );
    }

    #[test]
    fn a_tie_counts_one_half_in_the_accuracy_of_a_step() {
        let scores = BatchScores { loss: 0.0, scores: vec![0.0; 4], margins: vec![0.0, 1.0] };
        assert_eq!(scores.into_metrics().accuracy, 0.75);
    }
}
