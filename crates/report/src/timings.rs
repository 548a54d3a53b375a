use crate::escape::escape;
use crate::number::{bytes, duration, figure};
use crate::run::Run;
use crate::stage::{Stage, StageRun};
use crate::summary::Summary;

/// The table of seconds and tokens per second; the metrics speak where the summary is silent.
pub fn timings(run: &Run) -> String {
    let mut rows = String::new();
    // The summary may know a stage that left nothing else; runs under other names are not in it.
    let usual = Stage::ALL
        .map(|stage| (Some(stage), run.stages.iter().find(|run| run.stage == stage && run.name.is_none())));
    let named = run.stages.iter().filter(|run| run.name.is_some()).map(|run| (None, Some(run)));
    for (stage, of_stage) in usual.into_iter().chain(named) {
        let label = of_stage.map(StageRun::label).or(stage.map(|stage| stage.label().to_owned()));
        let metrics = of_stage.map(|run: &StageRun| &run.metrics);
        let (seconds, speed) = stage.map_or((None, None), |stage| of_summary(&run.summary, stage));
        let seconds = seconds.or_else(|| metrics?.last("time/elapsed_seconds"));
        let speed = speed.or_else(|| metrics?.median("tokens_per_second"));
        if seconds.is_none() && speed.is_none() {
            continue;
        }
        let steps = metrics.filter(|metrics| metrics.steps() > 0).map(|metrics| metrics.steps() as f64);
        rows.push_str(&format!(
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
            escape(&label.unwrap_or_default()),
            steps.map_or("–".to_owned(), whole),
            seconds.map_or("–".to_owned(), duration),
            speed.map_or("–".to_owned(), whole),
        ));
    }
    let mut totals = String::new();
    if let Some(seconds) = run.summary.seconds {
        totals.push_str(&format!("<p>Whole pipeline, with evaluation: {}.</p>\n", duration(seconds)));
    }
    if let Some(peak) = run.summary.peak_rss_bytes.filter(|peak| *peak > 0) {
        totals.push_str(&format!("<p>Peak memory: {}.</p>\n", bytes(peak as f64)));
    }
    if rows.is_empty() && totals.is_empty() {
        return String::new();
    }
    let table = if rows.is_empty() {
        String::new()
    } else {
        format!(
            "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Stage</th><th scope=\"col\" class=\"n\">Steps</th>\
             <th scope=\"col\" class=\"n\">Time</th><th scope=\"col\" class=\"n\">Tokens/s</th></tr></thead>\n\
             <tbody>\n{rows}</tbody></table></div>\n"
        )
    };
    format!("<section id=\"timings\"><h2>Timings</h2>\n{table}{totals}</section>\n")
}

/// Seconds and tokens per second of a stage, as far as the summary has them.
fn of_summary(summary: &Summary, stage: Stage) -> (Option<f64>, Option<f64>) {
    match stage {
        Stage::Sft => (summary.sft.seconds, summary.sft.tokens_per_second),
        Stage::Reward => (summary.reward.seconds, None),
        Stage::Ppo => (summary.ppo.seconds, summary.ppo.rollout_tokens_per_second),
        Stage::Dpo => (None, None),
    }
}

/// Counts and rates without decimals, once they are large enough not to need them.
fn whole(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract() == 0.0 && value.abs() < 1000.0 {
        figure(value).trim_end_matches(".00").trim_end_matches(".0").to_owned()
    } else {
        figure(value)
    }
}
