//! What the numbers of a stage mean, in words. Each rule is a pure function of what the stage has written, and
//! `docs/verdicts.md` has its threshold, its sentence and what to do.

use crate::number::{count, counted, figure, share};
use crate::stage::{Stage, StageRun};

/// What a coin toss costs per pair, in nats: where a reward model and DPO begin.
const LN_2: f64 = std::f64::consts::LN_2;
/// A held-out loss this much above its lowest value, relative to it, has risen.
const RISEN: f64 = 0.02;
/// A training loss whose last tenth is this much above its first tenth, relative to it, has not been learned from.
const DIVERGED: f64 = 0.05;
/// An accuracy that is less than this above "the longer one wins" may be length.
const ABOVE_LENGTH: f64 = 0.05;
/// Training accuracy that exceeds the held-out one by this much is memory.
const MEMORISED: f64 = 0.15;
/// A DPO loss that is within this of ln 2 has hardly moved, in nats.
const UNMOVED_LOSS: f64 = 0.005;
/// A KL above this is far, in nats per answer.
const FAR: f64 = 15.0;
/// A KL below this after [`ENOUGH_ROLLOUTS`] means that the policy has hardly moved, in nats per answer.
const UNMOVED_KL: f64 = 0.05;
/// Rollouts after which a policy should have moved.
const ENOUGH_ROLLOUTS: usize = 20;
/// Share of the peak's rise above the start by which a gold score may fall without a word.
const FALLEN: f64 = 0.1;
/// Share of answers that may lack an end.
const ENDLESS: f64 = 0.2;
/// Entropy below this share of its start means that a policy says one thing only.
const COLLAPSED: f64 = 0.1;

/// The result of a stage in one sentence, then what to watch out for. Nothing where nothing was measured.
pub fn verdicts(stage: &StageRun) -> Vec<String> {
    let rules: &[fn(&StageRun) -> Option<String>] = match stage.stage {
        Stage::Sft => &[language_loss, diverged, memorised_loss, endless_samples],
        Stage::Reward => &[ranking, coin_toss, memorised_pairs],
        Stage::Ppo => &[score, far, unmoved_policy, endless, collapsed],
        Stage::Dpo => &[preference, worse_than_reference, unmoved_loss, chosen_falls, endless_samples],
    };
    rules.iter().filter_map(|rule| rule(stage)).collect()
}

/// SFT: how the loss has gone, on held-out data where there is any.
fn language_loss(stage: &StageRun) -> Option<String> {
    let held_out = stage.metrics.series("eval_loss");
    if let (Some((_, first)), Some((step, last))) = (held_out.first(), held_out.last()) {
        let from = if held_out.len() > 1 { format!(" from {}", figure(*first)) } else { String::new() };
        let moved = match (held_out.len(), last < first) {
            (1, _) => "is",
            (_, true) => "fell",
            (_, false) => "did not fall: it went",
        };
        let to = if held_out.len() > 1 { " to " } else { " " };
        return Some(format!(
            "The loss on held-out data {moved}{from}{to}{} nats per token after {}.",
            figure(*last),
            counted(*step, "steps")
        ));
    }
    let (first_tenth, last_tenth) = tenths(stage, "loss")?;
    let (first, last, n_steps) = (figure(first_tenth), figure(last_tenth), stage.metrics.steps());
    let steps = counted(n_steps as f64, "steps");
    let course = match n_steps {
        1 => format!("is {last} nats per token after {steps}"),
        _ => {
            let moved = if last_tenth < first_tenth { "fell" } else { "did not fall: it went" };
            let means = if n_steps < 20 { "" } else { " (means of the first and the last tenth)" };
            format!("{moved} from {first} to {last} nats per token over {steps}{means}")
        }
    };
    Some(format!("The training loss {course}; there was no held-out data."))
}

/// SFT: a training loss that ends above its start.
fn diverged(stage: &StageRun) -> Option<String> {
    let (first, last) = tenths(stage, "loss")?;
    (last > first * (1.0 + DIVERGED)).then(|| {
        format!(
            "The training loss rose from {} to {}: lower `learning_rate`, or give it a warm-up by `schedule.warmup_steps`.",
            figure(first),
            figure(last)
        )
    })
}

/// SFT: a held-out loss that has risen from its lowest value.
fn memorised_loss(stage: &StageRun) -> Option<String> {
    let held_out = stage.metrics.series("eval_loss");
    let &(step, lowest) = held_out.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let &(_, last) = held_out.last()?;
    (last > lowest * (1.0 + RISEN)).then(|| {
        format!(
            "The held-out loss has risen from {} at step {} to {}: use `best/`, or train for fewer epochs.",
            figure(lowest),
            count(step),
            figure(last)
        )
    })
}

/// SFT and DPO: answers of `samples.jsonl` that do not end.
fn endless_samples(stage: &StageRun) -> Option<String> {
    let last = stage.answers.iter().map(|answer| answer.step).max().filter(|step| *step > 0)?;
    let answers: Vec<_> = stage.answers.iter().filter(|answer| answer.step == last).collect();
    let endless = answers.iter().filter(|answer| !answer.ended).count();
    // Runs of earlier versions do not say it.
    let limit = answers.iter().find_map(|answer| answer.max_new_tokens).unwrap_or(64);
    (endless as f64 > ENDLESS * answers.len() as f64).then(|| {
        format!(
            "{endless} of {} sample answers do not end within {limit} tokens: train longer, if the completions of the data \
             are shorter than that.",
            answers.len()
        )
    })
}

/// Reward model: its accuracy on held-out pairs, next to that of length alone.
fn ranking(stage: &StageRun) -> Option<String> {
    let Some(accuracy) = stage.metrics.last("eval_accuracy") else {
        let (_, accuracy) = tenths(stage, "accuracy")?;
        return Some(format!(
            "The reward model ranks {} of its training pairs correctly; there was no held-out data.",
            share(accuracy)
        ));
    };
    let pairs = stage.metrics.last("eval_pairs").map_or(String::new(), |n| format!("{} ", count(n)));
    let claim = format!("The reward model ranks {} of {pairs}held-out pairs correctly", share(accuracy));
    let longer = stage.evaluation.as_ref().and_then(|evaluation| evaluation.longer_wins());
    Some(match longer {
        None => format!("{claim}."),
        Some(longer) => {
            let may = longer > 0.5 && accuracy < longer + ABOVE_LENGTH;
            let so = if may { ", so it may mostly measure length" } else { "" };
            format!("{claim}; the longer answer wins {} of them{so}.", share(longer))
        }
    })
}

/// Reward model: an accuracy whose 95 % interval reaches one half, or lies below it.
fn coin_toss(stage: &StageRun) -> Option<String> {
    let (accuracy, pairs) = (stage.metrics.last("eval_accuracy")?, stage.metrics.last("eval_pairs")?);
    let half_width = 1.96 * (0.25 / pairs).sqrt();
    if accuracy + half_width < 0.5 {
        return Some(
            "It prefers the worse answer of most pairs: look whether `chosen` and `rejected` have changed places in one \
             of the files."
                .into(),
        );
    }
    (accuracy - half_width <= 0.5).then(|| {
        format!(
            "With {} pairs that cannot be told from a coin toss: use more comparisons, or a better `--model` to start from.",
            count(pairs)
        )
    })
}

/// Reward model: an accuracy on training pairs far above that on held-out ones.
fn memorised_pairs(stage: &StageRun) -> Option<String> {
    let held_out = stage.metrics.last("eval_accuracy")?;
    let (_, training) = tenths(stage, "accuracy")?;
    (training > held_out + MEMORISED).then(|| {
        format!(
            "It ranks {} of its training pairs correctly, so it has memorised some: use `best/`, or train for fewer epochs.",
            share(training)
        )
    })
}

/// PPO: how the score has gone, on held-out prompts where there are several evaluations, and what it cost.
fn score(stage: &StageRun) -> Option<String> {
    let held_out = stage.metrics.series("eval/scores");
    let (of, ends, at_the_end) = match held_out.as_slice() {
        [(_, first), .., (_, last)] => ("The score on held-out prompts", (*first, *last), None),
        rest => ("The score", quarters(stage, "objective/scores")?, rest.first().map(|(_, score)| *score)),
    };
    let at_the_end =
        at_the_end.map_or(String::new(), |score| format!(" and is {} on held-out prompts", figure(score)));
    // Of a single rollout there is nothing to compare.
    let has_moved = stage.metrics.series("objective/scores").len() > 1;
    let gold = quarters(stage, "objective/gold").map_or("; no independent judge was asked".into(), |ends| {
        format!("; the gold score, which is not learned from, {}", course(ends, has_moved))
    });
    let course_of_score = course(ends, has_moved);
    let kl = stage.metrics.last("objective/kl");
    let kl = kl.map_or(String::new(), |kl| format!(" at a KL of {} nats per answer", figure(kl)));
    Some(format!("{of} {course_of_score}{at_the_end}{kl}{gold}."))
}

/// What a score has done: "rose from 1 to 2".
fn course((first, last): (f64, f64), has_moved: bool) -> String {
    let (from, to) = (figure(first), figure(last));
    match last > first {
        _ if !has_moved => format!("is {to}"),
        true => format!("rose from {from} to {to}"),
        false => format!("did not rise: it went from {from} to {to}"),
    }
}

/// PPO: a policy far from its start, and whether the gold score has paid for it.
fn far(stage: &StageRun) -> Option<String> {
    let kl = stage.metrics.last("objective/kl")?;
    if let Some(step) = fallen_since(stage) {
        return Some(format!(
            "KL is {} nats and the gold score has fallen since step {}: use `best/`.",
            figure(kl),
            count(step)
        ));
    }
    (kl > FAR).then(|| {
        format!("KL is {} nats: read the answers before you trust the score, or raise `kl.coef`.", figure(kl))
    })
}

/// The step at which the gold score was highest, where it has fallen since: the running mean over a tenth of the
/// rollouts has lost more than a tenth of its rise.
fn fallen_since(stage: &StageRun) -> Option<f64> {
    let gold = stage.metrics.series("objective/gold");
    let window = (gold.len() / 10).max(1);
    let smooth: Vec<(f64, f64)> = gold
        .windows(window)
        .filter_map(|part| {
            Some((part.last()?.0, part.iter().map(|point| point.1).sum::<f64>() / window as f64))
        })
        .collect();
    let (&(_, first), &(_, last)) = (smooth.first()?, smooth.last()?);
    let &(step, peak) = smooth.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (smooth.len() >= 5 && peak - last > FALLEN * (peak - first) && peak > last).then_some(step)
}

/// PPO: a policy that is still its start.
fn unmoved_policy(stage: &StageRun) -> Option<String> {
    let kl = stage.metrics.last("objective/kl")?;
    let rollouts = stage.metrics.steps();
    (rollouts >= ENOUGH_ROLLOUTS && kl.abs() < UNMOVED_KL).then(|| {
        format!(
            "KL is {} nats after {} rollouts, so the policy has hardly moved: raise `learning_rate`, \
             `update.ppo_epochs` or the number of updates by a smaller `update.minibatch_size`.",
            figure(kl),
            count(rollouts as f64)
        )
    })
}

/// PPO: answers without an end.
fn endless(stage: &StageRun) -> Option<String> {
    let held_out = stage.metrics.last("eval/eos_rate");
    let ended = held_out.or_else(|| stage.metrics.last("response/eos_rate"))?;
    let config = stage.config.as_deref().unwrap_or_default();
    let rule = config.lines().find_map(|line| line.strip_prefix("missing_eos = \"")?.split('"').next());
    let advice = match rule {
        Some("replace") => {
            "raise `rollout.max_new_tokens`, or lower their score, `rollout.missing_eos_value`"
        }
        Some("subtract") => "raise `rollout.max_new_tokens` or the penalty, `rollout.missing_eos_value`",
        _ => "raise `rollout.max_new_tokens`, or let it count by `rollout.missing_eos`",
    };
    (1.0 - ended > ENDLESS).then(|| format!("{} of answers do not end: {advice}.", share(1.0 - ended)))
}

/// PPO: a policy that says one thing only.
fn collapsed(stage: &StageRun) -> Option<String> {
    let entropy = stage.metrics.series("policy/entropy_avg");
    let ((_, first), (_, last)) = (entropy.first()?, entropy.last()?);
    (*last < COLLAPSED * first).then(|| {
        format!(
            "The entropy has fallen from {} to {} nats per token, so the answers are nearly always the same: raise `kl.coef`, \
             or lower `learning_rate`.",
            figure(*first),
            figure(*last)
        )
    })
}

/// DPO: how often the policy prefers the chosen side, on held-out pairs where there are any.
fn preference(stage: &StageRun) -> Option<String> {
    let last = |key: &str| stage.metrics.last(key);
    if let (Some(accuracy), Some(loss)) = (last("eval_rewards/accuracies"), last("eval_loss")) {
        return Some(format!(
            "The policy prefers the chosen answer in {} of the held-out pairs, at a loss of {} nats per pair (0.693 before \
             training).",
            share(accuracy),
            figure(loss)
        ));
    }
    let (_, accuracy) = tenths(stage, "rewards/accuracies")?;
    Some(format!(
        "The policy prefers the chosen answer in {} of its training pairs; there was no held-out data.",
        share(accuracy)
    ))
}

/// DPO: a held-out loss above that of the reference.
fn worse_than_reference(stage: &StageRun) -> Option<String> {
    let loss = stage.metrics.last("eval_loss")?;
    (loss > LN_2 + UNMOVED_LOSS).then(|| {
        format!(
            "The held-out loss of {} is above 0.693, where it started: lower `learning_rate`, or use `best/`.",
            figure(loss)
        )
    })
}

/// DPO: a loss that is still where it started.
fn unmoved_loss(stage: &StageRun) -> Option<String> {
    let loss = stage.metrics.last("eval_loss").or_else(|| Some(tenths(stage, "loss")?.1))?;
    ((loss - LN_2).abs() <= UNMOVED_LOSS).then(|| {
        format!(
            "The loss of {} is where it started, so the policy has hardly moved: raise `learning_rate`, or train longer.",
            figure(loss)
        )
    })
}

/// DPO: chosen answers that have become less probable.
fn chosen_falls(stage: &StageRun) -> Option<String> {
    let chosen = ["eval_rewards/chosen", "rewards/chosen"].iter().find_map(|key| stage.metrics.last(key))?;
    (chosen < -1.0).then(|| {
        format!(
            "The chosen answers have become less probable, too (implied reward {}): read the samples, and raise `beta` or \
             lower `learning_rate` if they are worse.",
            figure(chosen)
        )
    })
}

/// The means of a metric over the first and the last tenth of its steps.
fn tenths(stage: &StageRun, key: &str) -> Option<(f64, f64)> {
    ends(stage, key, 10)
}

/// The means of a metric over the first and the last quarter of its steps.
fn quarters(stage: &StageRun, key: &str) -> Option<(f64, f64)> {
    ends(stage, key, 4)
}

fn ends(stage: &StageRun, key: &str, parts: usize) -> Option<(f64, f64)> {
    let values: Vec<f64> = stage.metrics.series(key).into_iter().map(|point| point.1).collect();
    let part = values.len().div_ceil(parts);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    (part > 0).then(|| (mean(&values[..part]), mean(&values[values.len() - part..])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::StageAnswer;
    use crate::evaluation::Evaluation;
    use crate::metrics::Metrics;

    /// A stage whose rows have these values, a list for each metric.
    fn stage(stage: Stage, metrics: &[(&str, &[f64])]) -> StageRun {
        let n = metrics.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
        let row = |i: usize| {
            let values =
                metrics.iter().filter_map(|(key, values)| Some(format!("\"{key}\":{}", values.get(i)?)));
            format!("{{\"step\":{},{}}}\n", i + 1, values.collect::<Vec<_>>().join(","))
        };
        StageRun::of(stage, Metrics::parse(&(0..n).map(row).collect::<String>()))
    }

    fn said(stage: &StageRun) -> Vec<String> {
        verdicts(stage).into_iter().map(|sentence| sentence.replace('\u{a0}', " ")).collect()
    }

    #[test]
    fn an_accuracy_that_length_explains_is_called_so() {
        let run = |longer: f64| {
            let eval =
                format!("{{\"eval_accuracy\":0.776,\"eval_pairs\":1227,\"eval_longer_wins\":{longer}}}");
            let run = stage(Stage::Reward, &[("eval_accuracy", &[0.776]), ("eval_pairs", &[1227.0])]);
            said(&StageRun { evaluation: Evaluation::parse(&eval), ..run })
        };
        assert_eq!(
            run(0.741),
            [
                "The reward model ranks 77.6 % of 1,227 held-out pairs correctly; the longer answer wins 74.1 % of them, so it \
              may mostly measure length."
            ]
        );
        assert_eq!(
            run(0.5),
            [
                "The reward model ranks 77.6 % of 1,227 held-out pairs correctly; the longer answer wins 50.0 % of them."
            ]
        );
    }

    #[test]
    fn few_pairs_are_a_coin_toss_and_a_gap_to_training_is_memory() {
        // 1.96 · √(0.25 / 100) = 0.098.
        let run = |held_out| {
            said(&stage(
                Stage::Reward,
                &[("accuracy", &[0.5, 0.9]), ("eval_accuracy", &[held_out]), ("eval_pairs", &[100.0])],
            ))
        };
        assert!(run(0.59)[1].starts_with("With 100 pairs that cannot be told from a coin toss"));
        assert!(run(0.59)[2].starts_with("It ranks 90.0 % of its training pairs"));
        assert_eq!(run(0.76).len(), 1);
        assert!(run(0.2)[1].starts_with("It prefers the worse answer of most pairs"));
        assert!(run(0.41)[1].starts_with("With 100 pairs"));
    }

    #[test]
    fn a_gold_score_that_falls_while_the_kl_grows_points_to_best() {
        let gold: Vec<f64> = (0..10).map(|i| f64::from(5 - (i - 5i32).abs())).collect();
        let run = |gold: &[f64], kl: f64| {
            said(&stage(
                Stage::Ppo,
                &[("objective/scores", &[0.0, 1.0]), ("objective/gold", gold), ("objective/kl", &[kl])],
            ))
        };
        assert_eq!(
            run(&gold, 22.0)[1],
            "KL is 22.0 nats and the gold score has fallen since step 6: use `best/`."
        );
        let rising: Vec<f64> = (0..10).map(f64::from).collect();
        assert_eq!(run(&rising, 8.0).len(), 1);
        assert!(run(&rising, 22.0)[1].starts_with("KL is 22.0 nats: read the answers"));
        let alone = said(&stage(Stage::Ppo, &[("objective/scores", &[0.0, 1.0]), ("objective/kl", &[16.0])]));
        assert_eq!(
            alone[0],
            "The score rose from 0 to 1.00 at a KL of 16.0 nats per answer; no independent judge was asked."
        );
        assert_eq!(alone.len(), 2);
        let metrics: [(&str, &[f64]); 3] =
            [("objective/scores", &[0.0, 1.0]), ("objective/kl", &[3.0]), ("eval/scores", &[0.75])];
        assert_eq!(
            said(&stage(Stage::Ppo, &metrics))[0],
            "The score rose from 0 to 1.00 and is 0.750 on held-out prompts at a KL of 3.00 nats per answer; no \
             independent judge was asked."
        );
    }

    #[test]
    fn answers_that_do_not_end_and_policies_that_do_not_move_are_named() {
        let run = stage(Stage::Ppo, &[("objective/scores", &[0.5]), ("response/eos_rate", &[0.71])]);
        assert_eq!(said(&run)[0], "The score is 0.500; no independent judge was asked.");
        let with = |rule: &str| {
            let config = format!("[rollout]\nmissing_eos = \"{rule}\"  # auto: because\n");
            let config = Some(config);
            said(&StageRun { config, ..stage(Stage::Ppo, &[("response/eos_rate", &[0.71])]) }).pop().unwrap()
        };
        assert_eq!(
            with("subtract"),
            "29.0 % of answers do not end: raise `rollout.max_new_tokens` or the penalty, `rollout.missing_eos_value`."
        );
        assert!(with("replace").contains("or lower their score, `rollout.missing_eos_value`"));
        assert!(with("keep").ends_with("or let it count by `rollout.missing_eos`."));
        let still = |rollouts: usize| said(&stage(Stage::Ppo, &[("objective/kl", &vec![0.01; rollouts])]));
        assert!(
            still(20)[0].starts_with("KL is 0.0100 nats after 20 rollouts, so the policy has hardly moved")
        );
        assert_eq!(still(19).len(), 0);
        let one_thing = said(&stage(Stage::Ppo, &[("policy/entropy_avg", &[2.0, 0.1])]));
        assert!(one_thing[0].starts_with("The entropy has fallen from 2.00 to 0.100 nats"), "{one_thing:?}");
    }

    #[test]
    fn a_language_model_is_told_by_its_held_out_loss() {
        let run =
            |held_out: &[f64]| said(&stage(Stage::Sft, &[("loss", &[3.0, 1.0]), ("eval_loss", held_out)]));
        assert_eq!(
            run(&[2.5, 2.0]),
            ["The loss on held-out data fell from 2.50 to 2.00 nats per token after 2 steps."]
        );
        assert_eq!(run(&[2.0])[0], "The loss on held-out data is 2.00 nats per token after 1 step.");
        assert_eq!(
            run(&[2.0, 2.1])[1],
            "The held-out loss has risen from 2.00 at step 1 to 2.10: use `best/`, or train for fewer epochs."
        );
        let alone = said(&stage(Stage::Sft, &[("loss", &[3.4, 9.9])]));
        assert!(
            alone[0].starts_with("The training loss did not fall: it went from 3.40 to 9.90"),
            "{alone:?}"
        );
        assert!(alone[1].contains("lower `learning_rate`"), "{alone:?}");
        let losses: Vec<f64> = (0..20).map(|step| f64::from(40 - step)).collect();
        assert_eq!(
            said(&stage(Stage::Sft, &[("loss", &losses)])),
            [
                "The training loss fell from 39.5 to 21.5 nats per token over 20 steps (means of the first and the last \
              tenth); there was no held-out data."
            ]
        );
    }

    #[test]
    fn sample_answers_without_an_end_are_counted_at_the_last_step() {
        let row = |step, ended| {
            format!("{{\"step\":{step},\"prompt\":\"p\",\"answer\":\"a\",\"ended\":{ended}}}\n")
        };
        let rows = [row(0, false), row(5, false), row(5, true)].concat();
        let run = stage(Stage::Sft, &[("eval_loss", &[2.0])]);
        let run = StageRun { answers: StageAnswer::parse_all(&rows).0, ..run };
        assert!(said(&run)[1].starts_with("1 of 2 sample answers do not end"), "{:?}", said(&run));
        let before = StageRun { answers: StageAnswer::parse_all(&row(0, false)).0, ..run };
        assert_eq!(said(&before).len(), 1);
    }

    #[test]
    fn dpo_is_measured_against_ln_2() {
        let run = |loss: f64, chosen: f64| {
            said(&stage(
                Stage::Dpo,
                &[
                    ("eval_loss", &[loss]),
                    ("eval_rewards/accuracies", &[0.85]),
                    ("eval_rewards/chosen", &[chosen]),
                ],
            ))
        };
        assert_eq!(
            run(0.5, 0.1),
            [
                "The policy prefers the chosen answer in 85.0 % of the held-out pairs, at a loss of 0.500 nats per pair (0.693 \
              before training)."
            ]
        );
        assert!(run(0.9, 0.1)[1].contains("above 0.693"));
        assert!(run(0.692, 0.1)[1].contains("hardly moved"));
        assert!(run(0.5, -1.5)[1].contains("less probable"));
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        for kind in Stage::ALL {
            assert_eq!(said(&stage(kind, &[])), [""; 0]);
        }
    }
}
