//! The loop of DPO.

use std::time::Instant;

use burn::module::Module;
use burn::tensor::Tensor;
use temper_data::{Ranking, Rankings, ScorePairs};
use temper_model::CausalLm;
use temper_stage::{Samples, resume, save, stop_before_update};
use temper_tensor::{Gradients, Unread, World, accumulate, floats};
use temper_tokenizer::TextSide;
use temper_train::{Progress, Run, StepPlan, require_finite};

use crate::logprobs::{completion_logprobs, read_logprobs, split};
use crate::loss::{dpo_loss, implicit_rewards};
use crate::metrics::{DpoEvaluation, DpoMetrics, PairSums, RankingWithReference};
use crate::{DpoConfig, Error};

/// Trains a policy on comparisons, without dropout. The reference is `policy` as it is given.
///
/// Returns the policy off the tape. The run directory gets metrics, samples, checkpoints and `final/`. An interrupted run has
/// written a checkpoint; ask [`Run::interrupted`]. A resumed run is given the model of the start again.
///
/// # Errors
/// Files, settings, a loss that is not finite, or a trained policy that computes numbers that are not.
pub fn train(
    config: &DpoConfig,
    policy: CausalLm,
    text: &TextSide,
    data: &Rankings,
    eval_data: Option<&Rankings>,
    run: &mut Run,
) -> Result<CausalLm, Error> {
    config.validate()?;
    let mut plan = StepPlan::new(&config.training, &config.batching, data.lengths());

    let mut progress = Progress::new(&config.training);
    // The policy that the run starts from: with adapters, its base, which shares its memory.
    let ref_policy = policy.valid().without_adapters();
    let mut policy = policy.with_gradient_checkpointing(config.training.gradient_checkpointing).train();
    if let Some(dir) = run.finished() {
        return Ok(CausalLm::load(&dir, &ref_policy.device())?);
    }
    if let Some((_, dir)) = run.resume_from() {
        policy = resume(dir, &mut progress, &policy)?;
    }
    progress.guard.keep(run);
    run.started(plan.total_steps());
    let asked = eval_data.map_or(&[][..], |data| data.asked.as_slice());
    let samples = Samples::new(&config.shown, asked, text, &policy);
    let begins = run.resume_from().is_none();
    if begins {
        samples.take(&policy, run, 0)?;
    }

    // Once, and only of what the run will meet: the same rows in the same batches if it is resumed.
    let ref_logprobs = reference(config, &ref_policy, data, &plan.rows());
    let held_out = eval_data.map(|data| {
        let rows: Vec<usize> = (0..data.len()).collect();
        (data, reference(config, &ref_policy, data, &rows))
    });
    drop(ref_policy); // Its memory is wanted for gradients and moments.

    if begins && progress.guard.rewinds.needs_a_start() {
        run.save_checkpoint(0, |dir| save(dir, &policy, text, Some(&progress)))?;
    }

    while !plan.is_done(progress.step) {
        let started = Instant::now();
        let with_reference = |&i: &usize| RankingWithReference {
            ranking: &data.rankings[i],
            ref_logprobs: ref_logprobs[i].as_slice(),
        };
        let batch: Vec<RankingWithReference<'_>> =
            plan.batch(progress.step).iter().map(with_reference).collect();

        let (mut gradients, loss, sums) = learn(&policy, &batch, config);
        let (next, norm) = (progress.step + 1, gradients.norm());
        if let Some(dir) = progress.guard.before_update(next, loss, norm, run)? {
            policy = resume(&dir, &mut progress, &policy)?;
            continue;
        }
        if progress.guard.rewinds.stops() {
            stop_before_update(run, &policy, text, &progress)?;
        }
        let learning_rate = plan.learning_rate(progress.step) * progress.guard.rewinds.rate_factor();
        progress.optimizer.add(gradients);
        let (updated, grad_norm) = progress.optimizer.step(policy, learning_rate)?;
        policy = updated;
        progress.step += 1;
        let step = progress.step;

        let n_tokens: usize = batch.iter().flat_map(|r| &r.ranking.completions).map(|c| c.tokens.len()).sum();
        let metrics = DpoMetrics {
            epoch: plan.epochs(step),
            learning_rate,
            grad_norm,
            tokens_per_second: n_tokens as f64 / started.elapsed().as_secs_f64(),
            ..sums.metrics(loss)
        };
        run.log(step, plan.total_steps(), &metrics)?;
        if let Some(dir) = progress.guard.after_update(step, metrics.loss, grad_norm, run)? {
            policy = resume(&dir, &mut progress, &policy)?;
            continue;
        }

        if let Some((eval_data, ref_logprobs)) = &held_out
            && plan.is_evaluation_due(step)
        {
            let evaluation = judge(config, &policy, eval_data, ref_logprobs);
            require_finite("evaluation loss", step, evaluation.eval_loss)?;
            run.log_evaluation(step, &evaluation)?;
            samples.take(&policy, run, step)?;
            if config.training.keep_best {
                run.save_best(&evaluation.candidate(step), |dir| save(dir, &policy, text, None))?;
            }
        }
        let stop = run.interrupted() && !plan.is_done(step) || progress.guard.rewinds.stops();
        if stop || plan.is_checkpoint_due(step) {
            run.save_checkpoint(step, |dir| save(dir, &policy, text, Some(&progress)))?;
        }
        if stop {
            progress.guard.rewinds.check()?;
            return Ok(policy.valid());
        }
    }
    run.save_last_checkpoint(progress.step, |dir| save(dir, &policy, text, Some(&progress)))?;
    let policy = policy.valid();
    let completions = data.rankings.iter().flat_map(|ranking| &ranking.completions);
    let rows: Vec<&[u32]> = completions.map(|example| example.tokens.as_slice()).collect();
    policy.check_finite(&rows)?;
    run.save_final_or_checkpoint(
        progress.step,
        |dir| save(dir, &policy, text, None),
        |dir| save(dir, &policy, text, Some(&progress)),
    )?;
    Ok(policy)
}

/// Loss and order of held-out comparisons by the implicit rewards of `policy`.
pub fn evaluate(
    config: &DpoConfig,
    policy: &CausalLm,
    ref_policy: &CausalLm,
    data: &Rankings,
) -> DpoEvaluation {
    let rows: Vec<usize> = (0..data.len()).collect();
    judge(config, policy, data, &reference(config, ref_policy, data, &rows))
}

/// Log-probabilities under the reference of the completions of some rankings; none of the others.
fn reference(config: &DpoConfig, ref_policy: &CausalLm, data: &Rankings, rows: &[usize]) -> Vec<Vec<f32>> {
    let rankings: Vec<&Ranking> = rows.iter().map(|&i| &data.rankings[i]).collect();
    let batch_size = config.batching.microbatch(config.training.batch_size);
    let mut ref_logprobs = vec![Vec::new(); data.len()];
    for (&i, logprobs) in rows.iter().zip(read_logprobs(ref_policy, &rankings, batch_size)) {
        ref_logprobs[i] = logprobs;
    }
    ref_logprobs
}

fn judge(config: &DpoConfig, policy: &CausalLm, data: &Rankings, ref_logprobs: &[Vec<f32>]) -> DpoEvaluation {
    let rankings: Vec<&Ranking> = data.rankings.iter().collect();
    let batch_size = config.batching.microbatch(config.training.batch_size);
    let logprobs = read_logprobs(policy, &rankings, batch_size);
    let mut sums = PairSums::default();
    let mut cost = 0.0;
    for ((ranking, logprobs), ref_logprobs) in rankings.into_iter().zip(&logprobs).zip(ref_logprobs) {
        cost += sums.add_row(&RankingWithReference { ranking, ref_logprobs }, logprobs, config);
    }
    sums.evaluation(cost / data.len() as f64)
}

/// Gradients, loss and sums over the pairs of one batch, each microbatch weighted by its number of comparisons.
fn learn(
    policy: &CausalLm,
    batch: &[RankingWithReference<'_>],
    config: &DpoConfig,
) -> (Gradients, f64, PairSums) {
    let size = config.batching.microbatch(batch.len());
    let (gradients, sums) = accumulate(&World::alone(), policy, batch, size, |policy, rows, sums| {
        let share = rows.len() as f64 / batch.len() as f64;
        forward_backward(policy, rows, config, share, sums);
    });
    let (loss, pairs) = sums.read();
    (gradients, loss, pairs)
}

/// Gradients, and the loss with sums over pairs.
type BatchSums<'a> = (Gradients, Unread<'a, (f64, PairSums)>);

/// Adds the gradients of `share` times the loss of some comparisons, that loss, and their pairs.
fn forward_backward<'a>(
    policy: &CausalLm,
    rows: &[RankingWithReference<'a>],
    config: &'a DpoConfig,
    share: f64,
    (gradients, sums): &mut BatchSums<'a>,
) {
    let device = policy.device().inner();
    let rankings: Vec<&Ranking> = rows.iter().map(|row| row.ranking).collect();
    let logprobs = completion_logprobs(policy, &rankings);
    let ref_logprobs: Vec<f32> = rows.iter().flat_map(|row| row.ref_logprobs).copied().collect();
    let n = ref_logprobs.len();
    let rewards = implicit_rewards(logprobs.clone(), floats(ref_logprobs, [n], &device), config.beta);
    let loss = dpo_loss(rewards, &ScorePairs::of(&rankings, &device), config.label_smoothing) * share;
    let numbers = Tensor::cat(vec![loss.clone().inner(), logprobs.inner()], 0);
    gradients.add(Gradients::of(policy, loss));
    let rows = rows.to_vec();
    sums.push(numbers, move |(loss_sum, pairs), numbers| {
        let (loss, logprobs) = numbers.split_first().expect("the loss comes before the log-probabilities");
        *loss_sum += f64::from(*loss);
        for (row, logprobs) in rows.iter().zip(split(logprobs, &rankings)) {
            pairs.add_row(row, &logprobs, config);
        }
    });
}
