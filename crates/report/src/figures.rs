use crate::number::{duration, figure, percent};
use crate::run::Run;
use crate::stage::Stage;

/// The row of key figures: those that the summary has.
pub fn figures(run: &Run) -> String {
    let summary = &run.summary;
    let change = |first, second, show: fn(f64) -> String| {
        summary.pair(first, second).map(|(before, after)| format!("{} → {}", show(before), show(after)))
    };
    let one = |pointer, show: fn(f64) -> String| summary.number(pointer).map(show);
    let accuracy = || run.stage(Stage::Reward)?.metrics.last("eval_accuracy").map(percent);
    let shown = [
        (one("/judge/win_rate", percent), "PPO wins over SFT", "gold rule, ties count half"),
        (change("/judge/gold_sft", "/judge/gold_ppo", figure), "Gold score", "mean, SFT → PPO"),
        (change("/judge/right_sft", "/judge/right_ppo", percent), "Right answers", "SFT → PPO"),
        (one("/judge/eos_rate", percent), "Answers that end", "after PPO"),
        (change("/ppo/score_first", "/ppo/score_last", figure), "Reward model’s score", "start → end of PPO"),
        (one("/ppo/kl_last", figure), "KL to the SFT model", "nats per answer, at the end"),
        (
            one("/reward/accuracy_heldout", percent).or_else(accuracy),
            "Reward model’s accuracy",
            "held-out pairs",
        ),
        (one("/seconds", duration), "Whole pipeline", "wall-clock time"),
    ];
    let cells: String = shown
        .into_iter()
        .filter_map(|(value, label, note)| {
            Some(format!("<div><dt>{label}</dt><dd>{}<small>{note}</small></dd></div>\n", value?))
        })
        .collect();
    if cells.is_empty() { cells } else { format!("<dl class=\"figures\">\n{cells}</dl>\n") }
}
