//! The loop of the reward model.

use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use temper_model::{Dropout, ScalarModel, TokenBatch, in_parallel, shards};
use temper_tokenizer::{Example, Template, Tokenizer};
use temper_train::{
    Candidate, Gradients, Optimizer, Run, Seed, TRAINING_DIR, length_buckets, load_json, save_json,
};

use crate::dataset::Pair;
use crate::{Error, RewardConfig, RewardDataset, pairwise_loss, score};

/// One line of `metrics.jsonl`, under TRL's names.
#[derive(Clone, Debug, Serialize)]
pub struct RewardMetrics {
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean over the batch's pairs, in nats.
    pub loss: f64,
    /// Share of pairs with the chosen side strictly above: ties are wrong.
    pub accuracy: f64,
    /// Mean of chosen minus rejected score.
    pub margin: f64,
    /// Mean score of both sides.
    pub mean_reward: f64,
    /// Lowest score.
    pub min_reward: f64,
    /// Highest score.
    pub max_reward: f64,
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Real tokens of both sides over wall-clock time.
    pub tokens_per_second: f64,
}

/// How well a reward model orders held-out comparisons.
#[derive(Clone, Debug, Serialize)]
pub struct RewardEvaluation {
    /// Mean pairwise loss, in nats.
    pub eval_loss: f64,
    /// Share of pairs in the right order: ties are wrong.
    pub eval_accuracy: f64,
    /// Mean of chosen minus rejected score.
    pub eval_margin: f64,
    /// Pairs judged.
    pub eval_pairs: usize,
    /// Margin of each pair, by the row of the given comparisons.
    #[serde(skip)]
    pub margins: Vec<(usize, f64)>,
}

impl RewardEvaluation {
    /// The best model is that of the highest accuracy.
    fn candidate(&self, step: usize) -> Candidate<'static> {
        Candidate { step, metric: "eval_accuracy", value: self.eval_accuracy, lower_is_better: false }
    }
}

/// What the stage works on besides the model: its text side, stored with every checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Prompt and completion to text.
    pub template: &'a Template,
}

/// Trains a reward model, without dropout.
///
/// Returns it off the tape. The run directory gets metrics, checkpoints and `final/`. An interrupted run has
/// written a checkpoint; ask [`Run::interrupted`].
///
/// # Errors
/// Files, settings, or a loss that is not finite.
pub fn train(
    config: &RewardConfig,
    model: ScalarModel,
    text: Text<'_>,
    data: &RewardDataset,
    eval_data: Option<&RewardDataset>,
    run: &mut Run,
) -> Result<ScalarModel, Error> {
    config.validate()?;
    let seed = Seed(config.seed);
    let steps_per_epoch = data.len().div_ceil(config.batch_size);
    let all_steps = config.epochs.saturating_mul(steps_per_epoch);
    let total_steps = if config.max_steps > 0 { all_steps.min(config.max_steps) } else { all_steps };

    let mut optimizer = Optimizer::new(&config.optimizer);
    let mut model = model.train();
    let mut step = 0;
    if let Some(dir) = run.finished() {
        return Ok(ScalarModel::load(&dir, &model.device().inner())?);
    }
    if let Some((_, dir)) = run.resume_from() {
        (model, step) = resume(dir, &mut optimizer, model)?;
    }
    run.started(total_steps);

    let lengths = data.lengths();
    let mut batches = Vec::new();
    while step < total_steps {
        let (epoch, position) = (step / steps_per_epoch, step % steps_per_epoch);
        if position == 0 || batches.is_empty() {
            batches =
                length_buckets(&lengths, config.batch_size, &mut seed.stream_at("shuffle", epoch as u64));
        }
        let started = Instant::now();
        let batch: Vec<&Pair> = batches[position].iter().map(|&i| &data.pairs[i]).collect();

        let found = accumulate(&model, &batch, config, &mut optimizer);
        if !found.loss.is_finite() {
            return Err(Error::NonFiniteLoss { step: step + 1, loss: found.loss });
        }
        let learning_rate = config.schedule.learning_rate(config.learning_rate, step, total_steps);
        let (updated, grad_norm) = optimizer.step(model, learning_rate)?;
        model = updated;
        step += 1;

        let n_tokens: usize = batch.iter().map(|p| p.chosen.tokens.len() + p.rejected.tokens.len()).sum();
        let metrics = RewardMetrics {
            epoch: step as f64 / steps_per_epoch as f64,
            learning_rate,
            grad_norm,
            tokens_per_second: n_tokens as f64 / started.elapsed().as_secs_f64(),
            ..found.into_metrics()
        };
        run.log(step, total_steps, &metrics)?;

        let last = step == total_steps;
        if let Some(eval_data) = eval_data
            && (last || due(step, config.eval_every))
        {
            let found = evaluate(&model, eval_data, config.batch_size);
            run.log_evaluation(step, &found)?;
            if config.keep_best {
                run.save_best(&found.candidate(step), |dir| save(dir, &model, text, None))?;
            }
        }
        let stop = run.interrupted();
        if !last && (stop || due(step, config.checkpoint_every)) {
            run.save_checkpoint(step, |dir| save(dir, &model, text, Some((&optimizer, step))))?;
        }
        if stop && !last {
            return Ok(model.valid());
        }
    }
    let model = model.valid();
    run.save_final(|dir| save(dir, &model, text, None))?;
    Ok(model)
}

/// Order of held-out comparisons by the model's scores.
pub fn evaluate(model: &ScalarModel, data: &RewardDataset, batch_size: usize) -> RewardEvaluation {
    let examples: Vec<&Example> = data.pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]).collect();
    let scores = score(model, &examples, 2 * batch_size);
    let margins: Vec<(usize, f64)> = data
        .pairs
        .iter()
        .zip(scores.as_chunks::<2>().0)
        .map(|(pair, [chosen, rejected])| (pair.row, f64::from(chosen - rejected)))
        .collect();
    let n = margins.len() as f64;
    let mean = |f: fn(f64) -> f64| margins.iter().map(|(_, margin)| f(*margin)).sum::<f64>() / n;
    RewardEvaluation {
        // softplus(−margin), written so that neither end overflows.
        eval_loss: mean(|margin| (-margin).max(0.0) + (-margin.abs()).exp().ln_1p()),
        eval_accuracy: mean(|margin| f64::from(u8::from(margin > 0.0))),
        eval_margin: mean(|margin| margin),
        eval_pairs: margins.len(),
        margins,
    }
}

/// Loss and scores of one batch: `(chosen, rejected)` per pair.
struct BatchScores {
    loss: f64,
    scores: Vec<(f32, f32)>,
}

impl BatchScores {
    fn into_metrics(self) -> RewardMetrics {
        let n = self.scores.len() as f64;
        let all =
            || self.scores.iter().flat_map(|&(chosen, rejected)| [f64::from(chosen), f64::from(rejected)]);
        RewardMetrics {
            epoch: 0.0,
            loss: self.loss,
            accuracy: self.scores.iter().filter(|(chosen, rejected)| chosen > rejected).count() as f64 / n,
            margin: self.scores.iter().map(|(c, r)| f64::from(c - r)).sum::<f64>() / n,
            mean_reward: all().sum::<f64>() / (2.0 * n),
            min_reward: all().fold(f64::INFINITY, f64::min),
            max_reward: all().fold(f64::NEG_INFINITY, f64::max),
            learning_rate: 0.0,
            grad_norm: 0.0,
            tokens_per_second: 0.0,
        }
    }
}

/// Forward and backward over one batch, in shards and microbatches that weigh as many pairs as they have.
///
/// Both sides of every pair go through one forward, so padding and numerics are the same for both.
fn accumulate(
    model: &ScalarModel,
    batch: &[&Pair],
    config: &RewardConfig,
    optimizer: &mut Optimizer,
) -> BatchScores {
    let size = if config.microbatch_size == 0 { batch.len() } else { config.microbatch_size };
    let device = model.device();
    let parts = shards(batch, &device).into_iter().map(|(_, pairs)| (model.clone().fork(&device), pairs));
    let shards = in_parallel(parts.collect(), |(model, pairs)| {
        let mut found = BatchScores { loss: 0.0, scores: Vec::with_capacity(pairs.len()) };
        let mut gradients = Gradients::default();
        for micro in pairs.chunks(size) {
            let (loss, scores) = forward_pairs(&model, micro);
            let loss = loss.mul_scalar(micro.len() as f64 / batch.len() as f64);
            found.loss += loss.clone().into_scalar::<f64>();
            found.scores.extend(read_pairs(scores));
            gradients.add(Gradients::of(&model, loss));
        }
        (found, gradients)
    });
    let mut found = BatchScores { loss: 0.0, scores: Vec::with_capacity(batch.len()) };
    for (shard, gradients) in shards {
        found.loss += shard.loss;
        found.scores.extend(shard.scores);
        optimizer.add(gradients);
    }
    found
}

/// Mean loss `[1]` of some pairs, and the scores `[2 · pairs]` of all chosen and then all rejected sides.
fn forward_pairs(model: &ScalarModel, pairs: &[&Pair]) -> (Tensor<1>, Tensor<1>) {
    let n = pairs.len();
    let sides = || pairs.iter().map(|pair| &pair.chosen).chain(pairs.iter().map(|pair| &pair.rejected));
    let rows: Vec<&[u32]> = sides().map(|example| example.tokens.as_slice()).collect();
    let prompt_lens: Vec<usize> = sides().map(|example| example.prompt_len).collect();
    let tokens = TokenBatch::right_padded(&rows, &model.device().inner());
    let scores = model.scores(&tokens, &prompt_lens, &mut Dropout::off());
    let (chosen, rejected) = (scores.clone().narrow(0, 0, n), scores.clone().narrow(0, n, n));
    (pairwise_loss(chosen, rejected), scores)
}

fn read_pairs(scores: Tensor<1>) -> Vec<(f32, f32)> {
    let data = scores.inner().into_data();
    let values = data.as_slice::<f32>().expect("the model computes in f32");
    let (chosen, rejected) = values.split_at(values.len() / 2);
    chosen.iter().copied().zip(rejected.iter().copied()).collect()
}

fn due(step: usize, every: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}

#[derive(Serialize, Deserialize)]
struct State {
    step: usize,
}

fn save(
    dir: &Path,
    model: &ScalarModel,
    text: Text<'_>,
    state: Option<(&Optimizer, usize)>,
) -> Result<(), Error> {
    model.save(dir, text.tokenizer.special().eos)?;
    text.tokenizer.save(dir)?;
    text.template.save(dir)?;
    if let Some((optimizer, step)) = state {
        let dir = dir.join(TRAINING_DIR);
        optimizer.save(&dir.join("optimizer.safetensors"))?;
        save_json(&dir.join("state.json"), &State { step })?;
    }
    Ok(())
}

fn resume(dir: &Path, optimizer: &mut Optimizer, model: ScalarModel) -> Result<(ScalarModel, usize), Error> {
    let model = ScalarModel::load(dir, &model.device().inner())?.train();
    let dir = dir.join(TRAINING_DIR);
    optimizer.load(&dir.join("optimizer.safetensors"), &model)?;
    let state: State = load_json(&dir.join("state.json"))?;
    Ok((model, state.step))
}
