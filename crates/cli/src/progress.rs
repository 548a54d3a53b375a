//! Progress of a run on standard error: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value};
use temper_train::Event;

use crate::units::{in_bytes, in_time};
use crate::{machine, terminal};

/// Seconds between plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Steps after which the rest is estimated. The first ones also set up what later ones reuse.
const ESTIMATED_AFTER: usize = 3;
/// A rest that is shorter than this needs no estimate, in seconds.
const WORTH_ESTIMATING: f64 = 20.0;

/// An observer for [`temper_train::Run`].
pub fn observer(quiet: bool) -> impl FnMut(Event<'_>) + Send + 'static {
    let mut view = View {
        quiet,
        bar: None,
        stage: String::new(),
        last_line: None,
        began: Instant::now(),
        first: 0,
        first_ended: None,
        unit: "steps",
    };
    move |event| view.show(event)
}

struct View {
    quiet: bool,
    bar: Option<ProgressBar>,
    stage: String,
    last_line: Option<Instant>,
    began: Instant,
    first: usize,
    first_ended: Option<Instant>,
    unit: &'static str,
}

impl Drop for View {
    /// A run that ends early leaves its bar as it is.
    fn drop(&mut self) {
        if self.bar.take().is_some() {
            terminal::show_bar(None);
        }
    }
}

impl View {
    fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Warning { message } => terminal::say(&format!("warning: {message}")),
            _ if self.quiet => {}
            Event::Note { message } => terminal::say(&format!("note: {message}")),
            Event::Opened { .. } => {}
            Event::Started { stage, first_step, total_steps } => {
                self.stage = stage.to_owned();
                self.began = Instant::now();
                (self.first, self.first_ended) = (first_step, None);
                self.unit = if stage == "ppo" { "rollouts" } else { "steps" };
                if std::io::stderr().is_terminal() {
                    let style = "{prefix:>6} {bar:30} {pos}/{len}  {msg}  {eta} left";
                    let style = ProgressStyle::with_template(style).expect("the template is constant");
                    let bar =
                        ProgressBar::new(total_steps as u64).with_style(style).with_prefix(stage.to_owned());
                    bar.set_position(first_step as u64);
                    bar.reset_eta();
                    terminal::show_bar(Some(bar.clone()));
                    self.bar = Some(bar);
                }
                if first_step == 0 {
                    let unit = if total_steps == 1 { self.unit.trim_end_matches('s') } else { self.unit };
                    terminal::say(&format!("{stage}: {total_steps} {unit}"));
                } else {
                    terminal::say(&format!("{stage}: resuming from step {first_step} of {total_steps}"));
                }
            }
            Event::Step { step, total_steps, metrics } => self.step(step, total_steps, metrics),
            Event::Evaluated { step, metrics } => {
                let values: Vec<String> = metrics
                    .iter()
                    .filter(|(key, _)| key.starts_with("eval"))
                    .map(|(k, v)| format!("{k} {}", short(v)))
                    .collect();
                terminal::say(&format!("{} step {step}: {}", self.stage, values.join("  ")));
            }
            Event::Checkpoint { step, path } => {
                tracing::debug!(step, path = %path.display(), "checkpoint");
            }
        }
    }

    /// Seconds that the rest will take, as far as the steps so far tell. What comes before the end of the first step, such as
    /// the reference's part of DPO, is not repeated.
    fn seconds_left(&self, step: usize, total_steps: usize) -> f64 {
        let n_steps = step.saturating_sub(self.first); // A run may go back to before its start.
        let seconds_per_step = match self.first_ended {
            Some(first_ended) if n_steps > 1 => first_ended.elapsed().as_secs_f64() / (n_steps - 1) as f64,
            _ => self.began.elapsed().as_secs_f64() / n_steps.max(1) as f64,
        };
        seconds_per_step * (total_steps - step) as f64
    }

    fn step(&mut self, step: usize, total_steps: usize, metrics: &Map<String, Value>) {
        let summary = summary(metrics);
        let left = self.seconds_left(step, total_steps);
        self.first_ended.get_or_insert_with(Instant::now);
        if step == self.first + ESTIMATED_AFTER && left > WORTH_ESTIMATING {
            let memory = machine::peak_rss_bytes();
            let memory =
                if memory == 0 { String::new() } else { format!("; {} of memory so far", in_bytes(memory)) };
            let (rest, unit) = (total_steps - step, self.unit);
            terminal::say(&format!(
                "{}: about {} for the other {rest} {unit}{memory}",
                self.stage,
                in_time(left)
            ));
        }
        if let Some(bar) = &self.bar {
            bar.set_message(summary);
            bar.set_position(step as u64);
            if step == total_steps {
                bar.finish();
                self.bar = None;
                terminal::show_bar(None);
            }
            return;
        }
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if due || step == total_steps {
            terminal::say(&format!("{} step {step}/{total_steps}  {summary}  {left:.0} s left", self.stage));
            self.last_line = Some(Instant::now());
        }
    }
}

/// The few numbers that tell whether it goes well.
fn summary(metrics: &Map<String, Value>) -> String {
    let shown = [
        ("loss", "loss"),
        ("accuracy", "accuracy"),
        ("rewards/accuracies", "accuracy"),
        ("objective/scores", "score"),
        ("objective/kl", "kl"),
        ("response/eos_rate", "eos"),
        ("tokens_per_second", "tokens/s"),
    ];
    let known =
        shown.iter().filter_map(|(key, label)| Some(format!("{label} {}", short(metrics.get(*key)?))));
    known.collect::<Vec<_>>().join("  ")
}

/// A number with the digits that matter.
pub fn short(value: &Value) -> String {
    match value.as_f64() {
        Some(x) if x.abs() >= 100.0 => format!("{x:.0}"),
        Some(x) if value.is_f64() => format!("{x:.3}"),
        _ => value.to_string(),
    }
}
