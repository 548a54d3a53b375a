use crate::number::{figure, percent};
use crate::run::Run;
use crate::stage::{Stage, StageRun};
use crate::verdicts::verdicts;

/// What came out, in one sentence, claimed no more strongly than the numbers allow; and what has not come to its end.
/// Plain text.
pub fn verdict(run: &Run) -> String {
    let claim = judged(run).or_else(|| of_stage(run)).or_else(|| scored(run));
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

/// What the last stage with a result says, after its name: its result, and what to watch out for. PPO comes before others.
fn of_stage(run: &Run) -> Option<String> {
    let stages = || run.stages.iter().rev().filter(|stage| stage.metrics.steps() > 0);
    let ppo = stages().filter(|stage| stage.stage == Stage::Ppo);
    let (stage, said) = ppo.chain(stages()).find_map(|stage| {
        let said = verdicts(stage);
        (!said.is_empty()).then_some((stage, said))
    })?;
    Some(format!("{}: {}", stage.label(), said.join(" ")))
}

/// By the reward model, where the stage itself has left nothing.
fn scored(run: &Run) -> Option<String> {
    let (first, last) = run.summary.ppo.score_first.zip(run.summary.ppo.score_last)?;
    let moved = if last > first { "rose" } else { "did not rise: it went" };
    Some(format!(
        "Under PPO the reward model’s mean score {moved} from {} to {}; no independent judge was asked.",
        figure(first),
        figure(last)
    ))
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
            "PPO: The score rose from 1.00 to 4.00; the gold score, which is not learned from, did not rise: it went from \
             0.400 to 0.100."
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
            "Reward model: The reward model ranks 74.0 % of held-out pairs correctly. It ranks 90.0 % of its training pairs \
             correctly, so it has memorised some: use `best/`, or train for fewer epochs."
        );
    }

    #[test]
    fn a_run_without_numbers_still_has_a_sentence() {
        assert!(verdict(&with("{\"judge\":null}")).starts_with("The run has not come far enough"));
    }
}
