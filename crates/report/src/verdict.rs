use crate::number::{figure, percent};
use crate::run::Run;
use crate::stage::{Stage, StageRun};

/// What came out, in one sentence, claimed no more strongly than the numbers allow; and what has not come to its end.
/// Plain text.
pub fn verdict(run: &Run) -> String {
    let claim = judged(run).or_else(|| scored(run)).or_else(|| ordered(run)).or_else(|| trained(run));
    let claim = claim.unwrap_or_else(|| {
        "The run has not come far enough for a verdict; this is what it has left so far.".to_owned()
    });
    let rest = unfinished(run).into_iter().map(|sentence| format!(" {sentence}"));
    [claim].into_iter().chain(rest).collect()
}

/// One sentence about a pipeline without a summary, or one for each stage by itself that has not finished.
fn unfinished(run: &Run) -> Vec<String> {
    if run.unfinished_pipeline {
        return vec!["The pipeline has not reached its end.".to_owned()];
    }
    // A pipeline that has written its summary was finished then.
    if run.summary.seconds.is_some() {
        return Vec::new();
    }
    run.stages.iter().filter_map(StageRun::unfinished).collect()
}

/// By the independent judge.
fn judged(run: &Run) -> Option<String> {
    let judge = &run.summary.judge;
    let win_rate = judge.win_rate?;
    let of_prompts = match judge.prompts {
        Some(prompts) => format!("{prompts} held-out prompts"),
        None => "the held-out prompts".to_owned(),
    };
    let (claim, within) = match judge.win_rate_ci95 {
        Some([low, high]) => {
            let claim = if low > 0.5 {
                "PPO beats SFT on"
            } else if high < 0.5 {
                "PPO is worse than SFT: it wins only"
            } else {
                "PPO and SFT cannot be told apart: PPO wins"
            };
            let low = percent(low);
            (claim, format!(" (95\u{a0}% interval {}–{})", low.trim_end_matches("\u{a0}%"), percent(high)))
        }
        None => ("PPO wins over SFT on", String::new()),
    };
    Some(format!(
        "{claim} {} of {of_prompts}{within}, by a rule that is not the reward model.",
        percent(win_rate)
    ))
}

/// By the reward model, which cannot judge itself.
fn scored(run: &Run) -> Option<String> {
    let ends = run.summary.ppo.score_first.zip(run.summary.ppo.score_last);
    let (first, last) = ends.or_else(|| quarters(run.stage(Stage::Ppo)?, "objective/scores"))?;
    let moved = |first, last| if last > first { "rose" } else { "did not rise: it went" };
    let gold = run.stage(Stage::Ppo).and_then(|stage| quarters(stage, "objective/gold"));
    let judge = match gold {
        Some((before, after)) => format!(
            "that of the independent judge, which it does not learn from, {} from {} to {}",
            moved(before, after),
            figure(before),
            figure(after)
        ),
        None => "no independent judge was asked".to_owned(),
    };
    let label = run.stage(Stage::Ppo).map_or(Stage::Ppo.label().to_owned(), StageRun::label);
    Some(format!(
        "Under {label} the reward model’s mean score {} from {} to {}; {judge}.",
        moved(first, last),
        figure(first),
        figure(last)
    ))
}

/// By the comparisons that a reward model was not trained on, if that is the last stage that ran.
fn ordered(run: &Run) -> Option<String> {
    let stage = run.stages.iter().rev().find(|stage| stage.metrics.steps() > 0)?;
    if stage.stage != Stage::Reward {
        return None;
    }
    let accuracy = stage.metrics.last("eval_accuracy")?;
    let loss = stage.metrics.last("eval_loss");
    let loss =
        loss.map_or(String::new(), |loss| format!(", at a held-out loss of {} nats per pair", figure(loss)));
    Some(format!(
        "{}: it orders {} of the held-out pairs as the data do{loss}.",
        stage.label(),
        percent(accuracy)
    ))
}

/// By the loss of the last stage that ran.
fn trained(run: &Run) -> Option<String> {
    let stage = run.stages.iter().rev().find(|stage| stage.metrics.last("loss").is_some())?;
    let (first, last) = quarters(stage, "loss")?;
    let moved = if last < first { "fell" } else { "did not fall: it went" };
    let (label, steps) = (stage.label(), stage.metrics.steps());
    Some(format!(
        "{label}: over {steps} {} the loss {moved} from {} (mean of the first quarter) to {} (last quarter).",
        if steps == 1 { "step" } else { "steps" },
        figure(first),
        figure(last)
    ))
}

/// The means of a metric over the first and the last quarter of its steps.
fn quarters(stage: &StageRun, key: &str) -> Option<(f64, f64)> {
    let values: Vec<_> = stage.metrics.series(key).into_iter().map(|point| point.1).collect();
    let quarter = values.len().div_ceil(4);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    (quarter > 0).then(|| (mean(&values[..quarter]), mean(&values[values.len() - quarter..])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Summary;

    fn with(summary: &str) -> Run {
        Run {
            name: "x".to_owned(),
            single: false,
            unfinished_pipeline: false,
            summary: Summary::parse(summary).expect("the test writes JSON"),
            stages: Vec::new(),
            samples: Vec::new(),
            machine: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_claim_follows_the_interval() {
        let judge = |ci: &str| {
            verdict(&with(&format!(r#"{{"judge":{{"win_rate":0.6,"win_rate_ci95":{ci},"prompts":240}}}}"#)))
        };
        assert_eq!(
            judge("[0.54,0.66]").replace('\u{a0}', " "),
            "PPO beats SFT on 60 % of 240 held-out prompts (95 % interval 54–66 %), by a rule that is not the reward model."
        );
        assert!(judge("[0.45,0.75]").starts_with("PPO and SFT cannot be told apart"));
        assert!(judge("[0.3,0.4]").starts_with("PPO is worse than SFT"));
    }

    #[test]
    fn a_score_alone_is_not_sold_as_a_judgement() {
        let text = verdict(&with(r#"{"ppo":{"score_first":-0.5,"score_last":1.25}}"#));
        assert_eq!(
            text,
            "Under PPO the reward model’s mean score rose from −0.500 to 1.25; no independent judge was asked."
        );
    }

    #[test]
    fn a_judge_of_every_rollout_is_quoted_next_to_the_score() {
        let rows = (1..=4).map(|step| {
            let (score, gold) = (f64::from(step), 0.5 - f64::from(step) / 10.0);
            format!("{{\"step\":{step},\"objective/scores\":{score},\"objective/gold\":{gold}}}\n")
        });
        let metrics = crate::metrics::Metrics::parse(&rows.collect::<String>());
        let mut run = with("{}");
        run.stages.push(StageRun { has_final: true, ..StageRun::of(Stage::Ppo, metrics) });
        assert_eq!(
            verdict(&run),
            "Under PPO the reward model’s mean score rose from 1.00 to 4.00; that of the independent judge, which it \
             does not learn from, did not rise: it went from 0.400 to 0.100."
        );
    }

    #[test]
    fn a_reward_model_is_headed_by_its_held_out_accuracy() {
        let rows = "{\"step\":1,\"loss\":0.7,\"accuracy\":0.5}\n{\"step\":2,\"loss\":0.3,\"accuracy\":0.9}\n\
                    {\"step\":2,\"eval_loss\":0.52,\"eval_accuracy\":0.74}\n";
        let mut run = with("{}");
        let metrics = crate::metrics::Metrics::parse(rows);
        run.stages.push(StageRun { has_final: true, ..StageRun::of(Stage::Reward, metrics) });
        assert_eq!(
            verdict(&run).replace('\u{a0}', " "),
            "Reward model: it orders 74 % of the held-out pairs as the data do, at a held-out loss of 0.520 nats per \
             pair."
        );
    }

    #[test]
    fn a_run_without_numbers_still_has_a_sentence() {
        assert!(verdict(&with("{\"judge\":null}")).starts_with("The run has not come far enough"));
    }
}
