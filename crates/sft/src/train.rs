//! The loop of SFT.

use std::borrow::Cow;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Tensor;
use rand::RngExt;
use serde::Serialize;
use temper_data::Demonstrations;
use temper_model::{CausalLm, Dropout};
use temper_stage::{Samples, resume, save, stop_before_update};
use temper_tensor::{Gradients, Sum, Unread, World, accumulate_with, in_parallel, shards, values_of};
use temper_tokenizer::{Example, TextSide};
use temper_train::{Candidate, Progress, Run, Seed, StepPlan, require_finite};

use crate::loss::{completion_logits, sft_loss};
use crate::{Error, SftConfig};

/// One line of `metrics.jsonl`, under TRL's names.
#[derive(Clone, Debug, Serialize)]
pub struct SftMetrics {
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean over the batch's completion tokens, in nats.
    pub loss: f64,
    /// Share of completion tokens that were the most probable one.
    pub mean_token_accuracy: f64,
    /// Learning rate of this update.
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Completion tokens of this batch.
    pub n_targets: usize,
    /// Real tokens, prompts included, over wall-clock time.
    pub tokens_per_second: f64,
}

/// Loss, perplexity and accuracy on held-out demonstrations.
#[derive(Clone, Debug, Serialize)]
pub struct SftEvaluation {
    /// Mean over completion tokens, in nats.
    pub eval_loss: f64,
    /// exp of the loss.
    pub eval_perplexity: f64,
    /// Share of completion tokens that were the most probable one.
    pub eval_mean_token_accuracy: f64,
    /// Completion tokens judged.
    pub eval_n_targets: usize,
}

impl SftEvaluation {
    /// The best model is that of the lowest loss.
    fn candidate(&self, step: usize) -> Candidate<'static> {
        Candidate { step, metric: "eval_loss", value: self.eval_loss, lower_is_better: true }
    }
}

/// Fine-tunes `model` on demonstrations.
///
/// Returns the trained model, off the tape. The run directory gets metrics, samples, checkpoints and `final/`. An
/// interrupted run has written a checkpoint; ask [`Run::interrupted`].
///
/// # Errors
/// Files, settings, a loss that is not finite, or a trained model that computes numbers that are not.
pub fn train(
    config: &SftConfig,
    model: CausalLm,
    text: &TextSide,
    data: &Demonstrations,
    eval_data: Option<&Demonstrations>,
    run: &mut Run,
) -> Result<CausalLm, Error> {
    config.validate()?;
    let seed = Seed(config.training.seed);
    let mut plan = StepPlan::new(&config.training, &config.batching, data.lengths());

    let mut progress = Progress::new(&config.training);
    let mut model = model.with_gradient_checkpointing(config.training.gradient_checkpointing).train();
    if let Some(dir) = run.finished() {
        return Ok(CausalLm::load(&dir, &model.device().inner())?);
    }
    if let Some((_, dir)) = run.resume_from() {
        model = resume(dir, &mut progress, &model)?;
    }
    progress.guard.keep(run);
    run.started(plan.total_steps());
    let asked = eval_data.map_or(&[][..], |data| data.asked.as_slice());
    let samples = Samples::new(&config.shown, asked, text, &model);
    let begins = run.resume_from().is_none();
    if begins {
        samples.take(&model, run, 0)?;
    }

    if begins && progress.guard.rewinds.needs_a_start() {
        run.save_checkpoint(0, |dir| save(dir, &model, text, Some(&progress)))?;
    }

    while !plan.is_done(progress.step) {
        let started = Instant::now();
        let batch: Vec<Cow<'_, Example>> =
            plan.batch(progress.step).iter().map(|&i| config.lesson(&data.examples[i])).collect();
        let batch: Vec<&Example> = batch.iter().map(Cow::as_ref).collect();
        let dropout_seed = seed.stream_at("dropout", progress.step as u64).random();

        let (mut gradients, loss, accuracy) = learn(&model, &batch, config, dropout_seed);
        let (next, norm) = (progress.step + 1, gradients.norm());
        if let Some(dir) = progress.guard.before_update(next, loss, norm, run)? {
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

        let n_tokens: usize = batch.iter().map(|example| example.tokens.len()).sum();
        let metrics = SftMetrics {
            epoch: plan.epochs(step),
            loss,
            mean_token_accuracy: accuracy,
            learning_rate,
            grad_norm,
            n_targets: batch.iter().map(|example| example.n_targets()).sum(),
            tokens_per_second: n_tokens as f64 / started.elapsed().as_secs_f64(),
        };
        run.log(step, plan.total_steps(), &metrics)?;
        if let Some(dir) = progress.guard.after_update(step, metrics.loss, grad_norm, run)? {
            model = resume(&dir, &mut progress, &model)?;
            continue;
        }

        if let Some(eval_data) = eval_data
            && plan.is_evaluation_due(step)
        {
            let rows_at_once = config.batching.microbatch(config.training.batch_size);
            let evaluation = evaluate(&model, eval_data, rows_at_once);
            require_finite("evaluation loss", step, evaluation.eval_loss)?;
            run.log_evaluation(step, &evaluation)?;
            samples.take(&model, run, step)?;
            if config.training.keep_best {
                run.save_best(&evaluation.candidate(step), |dir| save(dir, &model, text, None))?;
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
    let model = model.valid();
    let rows: Vec<&[u32]> = data.examples.iter().map(|example| example.tokens.as_slice()).collect();
    model.check_finite(&rows)?;
    run.save_final_or_checkpoint(
        progress.step,
        |dir| save(dir, &model, text, None),
        |dir| save(dir, &model, text, Some(&progress)),
    )?;
    Ok(model)
}

/// Loss and token accuracy over held-out examples, `batch_size` of them in one forward pass.
pub fn evaluate(model: &CausalLm, data: &Demonstrations, batch_size: usize) -> SftEvaluation {
    let model = model.valid();
    let device = model.device();
    let (mut loss, mut correct, mut n) = (0.0, 0, 0);
    let parts = shards(&data.examples, &device).into_iter().map(|(_, examples)| (model.clone(), examples));
    let sums = in_parallel(parts.collect(), |(model, examples)| {
        let part = |examples: &[Example]| {
            let examples: Vec<&Example> = examples.iter().collect();
            let completions = completion_logits(&model, &examples, &device, &mut Dropout::off());
            let (targets, correct) = (completions.n_targets(), completions.correct());
            let numbers =
                values_of(Tensor::cat(vec![sft_loss(completions.logits, completions.targets), correct], 0));
            (f64::from(numbers[0]) * targets as f64, numbers[1] as usize, targets)
        };
        examples.chunks(batch_size).map(part).collect::<Vec<_>>()
    });
    for (part_loss, part_correct, targets) in sums.into_iter().flatten() {
        loss += part_loss;
        correct += part_correct;
        n += targets;
    }
    let eval_loss = loss / n as f64;
    SftEvaluation {
        eval_loss,
        eval_perplexity: eval_loss.exp(),
        eval_mean_token_accuracy: correct as f64 / n as f64,
        eval_n_targets: n,
    }
}

/// Gradients, loss and token accuracy of one batch, each microbatch weighted by its number of tokens.
///
/// Each shard draws its dropout masks from a stream of its own, which starts at the shard's first row.
fn learn(
    model: &CausalLm,
    batch: &[&Example],
    config: &SftConfig,
    dropout_seed: u64,
) -> (Gradients, f64, f64) {
    let n: usize = batch.iter().map(|example| example.n_targets()).sum();
    let device = model.device().inner();
    let start = |first: usize| match config.dropout {
        true => Dropout::seeded(dropout_seed.wrapping_add(first as u64)),
        false => Dropout::off(),
    };
    let step = |model: &CausalLm, dropout: &mut Dropout, rows: &[&Example], sum: &mut BatchSums| {
        let output = completion_logits(model, rows, &device, dropout);
        let n_correct = output.correct();
        let weight = output.n_targets() as f64 / n as f64;
        let loss = sft_loss(output.logits, output.targets).mul_scalar(weight);
        let numbers = Tensor::cat(vec![loss.clone().inner(), n_correct], 0);
        let (gradients, losses) = sum;
        gradients.add(Gradients::of(model, loss));
        losses.push(numbers, |sum, numbers| sum.add((f64::from(numbers[0]), numbers[1] as usize)));
    };
    let size = config.batching.microbatch(batch.len());
    let (gradients, losses) = accumulate_with(&World::alone(), model, batch, size, start, step);
    let (loss, n_correct) = losses.read();
    (gradients, loss, n_correct as f64 / n as f64)
}

/// Gradients, and the loss with the number of right tokens.
type BatchSums = (Gradients, Unread<'static, (f64, usize)>);

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use temper_data::Demonstration;
    use temper_data::Demonstrations;
    use temper_data::Encoding;
    use temper_model::ModelConfig;
    use temper_tokenizer::{Template, Tokenizer};
    use temper_train::{BatchingConfig, Event, TrainingConfig};

    /// The loss over a pass is a mean in f32, so the last bits of the whole tell how many rows went through at once.
    #[test]
    fn an_evaluation_takes_as_many_rows_at_once_as_an_update() {
        let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
        let row = |i: usize| Demonstration {
            prompt: format!("say {i}").into(),
            completion: "a word or two ".repeat(i % 7 + 1),
        };
        // Every thread has 20 rows.
        let rows: Vec<Demonstration> = (0..20 * temper_tensor::n_threads()).map(row).collect();
        let text = TextSide::new(tokenizer.clone(), template.clone());
        let data = Demonstrations::new(&rows, &Encoding::new(&text, 128)).unwrap();
        let preset = ModelConfig::preset("tiny").unwrap();
        let model = || CausalLm::new(&preset, &mut Seed(0).stream("init"), &Device::flex());
        let text = TextSide::new(tokenizer.clone(), template.clone());
        let evaluated = |microbatch_size| {
            let training = TrainingConfig {
                max_steps: 1,
                learning_rate: 1e-9,
                batch_size: 20,
                ..SftConfig::default().training
            };
            let batching = BatchingConfig { microbatch_size, ..BatchingConfig::default() };
            let config = SftConfig { training, batching, dropout: false, ..SftConfig::default() };
            let (tell, told) = std::sync::mpsc::channel();
            let mut run = Run::ephemeral().unwrap().with_observer(move |event| {
                if let Event::Evaluated { metrics, .. } = event {
                    tell.send(metrics["eval_loss"].as_f64().unwrap()).unwrap();
                }
            });
            let trained = train(&config, model(), &text, &data, Some(&data), &mut run).unwrap();
            let logged = told.recv().unwrap();
            (logged, [1, 20].map(|size| evaluate(&trained, &data, size).eval_loss))
        };
        let (logged, [one_at_a_time, whole]) = evaluated(1);
        assert_ne!(one_at_a_time, whole, "the last bits tell");
        assert_eq!(logged, one_at_a_time);
        let (logged, [_, whole]) = evaluated(0);
        assert_eq!(logged, whole);
    }
}
