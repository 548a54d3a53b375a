use crate::number::{duration, figure, percent};
use crate::run::Run;
use crate::stage::Stage;
use crate::summary::Summary;

/// The row of key figures: those that the summary has.
pub fn figures(run: &Run) -> String {
    let Summary { judge, ppo, reward, seconds, .. } = &run.summary;
    let change = |before: Option<f64>, after: Option<f64>, show: fn(f64) -> String| {
        before.zip(after).map(|(before, after)| format!("{} → {}", show(before), show(after)))
    };
    let last = |stage, key: &str| run.stage(stage)?.metrics.last(key);
    let ends = |stage, key: &str| {
        let values = run.stage(stage)?.metrics.series(key);
        let ((_, first), (_, last)) = (values.first()?, values.last()?);
        (values.len() > 1).then(|| format!("{} → {}", figure(*first), figure(*last)))
    };
    let longer = || run.stage(Stage::Reward)?.evaluation.as_ref()?.longer_wins();
    let score = change(ppo.score_first, ppo.score_last, figure);
    let shown = [
        (judge.win_rate.map(percent), "PPO wins over SFT", "gold rule, ties count half"),
        (change(judge.gold_sft, judge.gold_ppo, figure), "Gold score", "mean, SFT → PPO"),
        (change(judge.right_sft, judge.right_ppo, percent), "Right answers", "SFT → PPO"),
        (judge.eos_rate.map(percent), "Answers that end", "after PPO"),
        (score, "Reward model’s score", "start → end of PPO"),
        (ppo.kl_last.map(figure), "KL to the SFT model", "nats per answer, at the end"),
        (last(Stage::Sft, "eval_loss").map(figure), "Held-out loss of SFT", "nats per token, at the end"),
        (
            reward.accuracy_heldout.or_else(|| last(Stage::Reward, "eval_accuracy")).map(percent),
            "Reward model’s accuracy",
            "held-out pairs",
        ),
        (longer().map(percent), "The longer answer wins", "of the same pairs"),
        (last(Stage::Reward, "eval_loss").map(figure), "Held-out loss of the reward model", "nats per pair"),
        (ends(Stage::Ppo, "eval/scores"), "Score on held-out prompts", "first → last evaluation of PPO"),
        (ends(Stage::Ppo, "eval/gold"), "Gold score on held-out prompts", "first → last evaluation of PPO"),
        (last(Stage::Ppo, "eval/eos_rate").map(percent), "Held-out answers that end", "at the end of PPO"),
        (last(Stage::Dpo, "eval_rewards/accuracies").map(percent), "Accuracy of DPO", "held-out pairs"),
        (
            last(Stage::Dpo, "eval_loss").map(figure),
            "Held-out loss of DPO",
            "nats per pair; 0.693 before training",
        ),
        (seconds.map(duration), "Whole pipeline", "wall-clock time"),
    ];
    let cells: String = shown
        .into_iter()
        .filter_map(|(value, label, note)| {
            Some(format!("<div><dt>{label}</dt><dd>{}<small>{note}</small></dd></div>\n", value?))
        })
        .collect();
    if cells.is_empty() { cells } else { format!("<dl class=\"figures\">\n{cells}</dl>\n") }
}
