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
    let accuracy = || run.stage(Stage::Reward)?.metrics.last("eval_accuracy");
    let shown = [
        (judge.win_rate.map(percent), "PPO wins over SFT", "gold rule, ties count half"),
        (change(judge.gold_sft, judge.gold_ppo, figure), "Gold score", "mean, SFT → PPO"),
        (change(judge.right_sft, judge.right_ppo, percent), "Right answers", "SFT → PPO"),
        (judge.eos_rate.map(percent), "Answers that end", "after PPO"),
        (change(ppo.score_first, ppo.score_last, figure), "Reward model’s score", "start → end of PPO"),
        (ppo.kl_last.map(figure), "KL to the SFT model", "nats per answer, at the end"),
        (reward.accuracy_heldout.or_else(accuracy).map(percent), "Reward model’s accuracy", "held-out pairs"),
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
