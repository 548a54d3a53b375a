use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;
use crate::escape::{escape, escape_up_to, visible};
use crate::files::read;
use crate::frontier::{Frontier, Track, root, thinned};
use crate::frontier_plot::{Picture, Plot, Series};
use crate::metrics::{LARGEST, Metrics};
use crate::number::figure;
use crate::palette::{Ink, SERIES};

/// Characters of a judge's name above a plot.
const HEADING_CHARACTERS: usize = 60;
/// What the fingerprint of a model's files says in `inputs.json`.
const CHECKSUM: &str = "files with checksum ";

/// A run of PPO, or of what else logs score and KL at every rollout.
#[derive(Debug)]
pub struct Runner {
    label: String,
    frontier: Frontier,
    judges: Judges,
}

/// What scored the answers of a run, as its `inputs.json` has it.
#[derive(Debug, Default)]
struct Judges {
    /// What the policy learns from.
    score: Option<String>,
    /// What it does not learn from.
    gold: Option<String>,
}

impl Judges {
    /// Nothing is known where there is no such file, or it is of another kind.
    fn parse(text: &str) -> Self {
        #[derive(Deserialize)]
        struct Inputs {
            given: BTreeMap<String, String>,
        }
        let Ok(Inputs { given }) = serde_json::from_str(text) else { return Self::default() };
        let scorers: Vec<&str> =
            ["--reward", "--reward-program", "--reward-url", "the weights of the scores"]
                .iter()
                .filter_map(|flag| given.get(*flag).map(String::as_str))
                .collect();
        let score = (!scorers.is_empty()).then(|| scorers.join(", "));
        Self { score, gold: given.get("--gold").cloned() }
    }
}

/// A result for which only the evaluation is known: best-of-n, DPO.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Points of the same label are one series.
    label: String,
    /// KL to the SFT model, in nats per answer.
    kl: f64,
    /// Score of the independent judge.
    gold: Option<f64>,
    /// Score of the reward model.
    score: Option<f64>,
    /// What is written next to the point, such as the n of best-of-n.
    note: Option<String>,
}

/// Everything that goes into the picture.
#[derive(Debug)]
pub struct Comparison {
    runners: Vec<Runner>,
    points: Vec<Point>,
}

impl Comparison {
    /// Reads the metrics of each directory, a pipeline's or a run's, and the file of points.
    pub fn read(runs: &[PathBuf], points: Option<&Path>) -> Result<Self, Error> {
        let labels = labels(runs);
        let mut runners = Vec::new();
        for (dir, label) in runs.iter().zip(labels) {
            if !dir.is_dir() {
                return Err(Error::NotADirectory { dir: dir.clone() });
            }
            let inside = dir.join("ppo");
            let run = if inside.join("metrics.jsonl").is_file() { inside } else { dir.clone() };
            let text = read(&run.join("metrics.jsonl"))?.unwrap_or_default();
            let frontier = Frontier::of(&Metrics::parse(&text));
            let frontier = frontier.ok_or_else(|| Error::NoFrontier { dir: dir.clone() })?;
            let judges = Judges::parse(&read(&run.join("inputs.json"))?.unwrap_or_default());
            runners.push(Runner { label, frontier, judges });
        }
        let points = points.map_or(Ok(Vec::new()), read_points)?;
        let comparison = Self { runners, points };
        let n = comparison.runners.len() + comparison.point_labels().len();
        if n > SERIES.len() {
            return Err(Error::TooManySeries { n, most: SERIES.len() });
        }
        Ok(comparison)
    }

    /// The picture: gold above score, each as far as anything has it. Scores of different judges have a plot each.
    pub fn picture<'a>(&'a self) -> Picture {
        let gold = |runner: &Runner| runner.frontier.gold.is_some().then(|| runner.judges.gold.clone());
        let score = |runner: &Runner| Some(runner.judges.score.clone());
        let mut plots = Vec::new();
        for (heading, judge) in self.headings("Score of the independent judge", &gold, self.gold_differs()) {
            let track = |runner: &'a Runner| {
                let is_shown = judge.as_ref().is_none_or(|judge| runner.judges.gold == *judge);
                runner.frontier.gold.as_ref().filter(|_| is_shown)
            };
            // A point does not say who judged it.
            let value = |point: &Point| point.gold.filter(|_| judge.is_none());
            plots.extend(self.plot(heading, track, value));
        }
        for (heading, judge) in self.headings("Score that is learned from", &score, self.score_differs()) {
            let track = |runner: &'a Runner| {
                let is_shown = judge.as_ref().is_none_or(|judge| runner.judges.score == *judge);
                Some(&runner.frontier.score).filter(|_| is_shown)
            };
            let value = |point: &Point| point.score.filter(|_| judge.is_none());
            plots.extend(self.plot(heading, track, value));
        }
        let labels = self.runners.iter().map(|runner| runner.label.clone());
        let legend = SERIES.into_iter().zip(labels.chain(self.point_labels().into_iter().map(str::to_owned)));
        Picture {
            plots,
            legend: legend.collect::<Vec<(Ink, String)>>(),
            in_words: "Scores against the root of the KL to the SFT model; the table below has the numbers"
                .to_owned(),
        }
    }

    /// One plot: the runs that have such a track, and the points that have such a value. Nothing if there is neither.
    fn plot<'a>(
        &'a self,
        heading: String,
        track: impl Fn(&'a Runner) -> Option<&'a Track>,
        value: impl Fn(&Point) -> Option<f64>,
    ) -> Option<Plot> {
        let lines = self.runners.iter().map(|runner| {
            let line = track(runner).map_or_else(Vec::new, |track| thinned(&track.smooth));
            (line, Vec::new())
        });
        let points = self.point_labels().into_iter().map(|label| {
            let of_label = self.points.iter().filter(|point| point.label == label);
            let placed = of_label.filter_map(|point| {
                let note = point.note.clone().unwrap_or_default();
                Some(((root(point.kl), value(point)?), note))
            });
            (Vec::new(), placed.collect())
        });
        let series: Vec<Series> = (lines.chain(points).zip(SERIES))
            .map(|((line, points), ink)| Series { ink, cloud: Vec::new(), line, points })
            .collect();
        let empty = series.iter().all(|series| series.line.is_empty() && series.points.is_empty());
        (!empty).then_some(Plot { heading, series, mark: None })
    }

    /// The heading of each plot, and the judge whose scores it shows: of all judges together, unless they differ. A judge that
    /// is a model is known by the runs that it judges, because its checksum says nothing to a reader.
    fn headings(
        &self,
        of: &str,
        judge_of: &impl Fn(&Runner) -> Option<Option<String>>,
        differ: bool,
    ) -> Vec<(String, Option<Option<String>>)> {
        if !differ {
            return vec![(of.to_owned(), None)];
        }
        let heading = |judge: Option<String>| {
            let judged = self.runners.iter().filter(|runner| judge_of(runner).as_ref() == Some(&judge));
            let labels = judged.map(|runner| runner.label.as_str()).collect::<Vec<_>>().join(", ");
            let name = match &judge {
                None => format!("unknown, of {labels}"),
                Some(name) if name.contains(CHECKSUM) => format!("the model of {labels}"),
                Some(name) => name.clone(),
            };
            (format!("{of}: {}", visible(&name, HEADING_CHARACTERS)), Some(judge))
        };
        self.judges(judge_of).into_iter().map(heading).collect()
    }

    /// The judges of the runs, each once, in the order of the runs.
    fn judges(&self, judge: impl Fn(&Runner) -> Option<Option<String>>) -> Vec<Option<String>> {
        let mut judges = Vec::new();
        for judge in self.runners.iter().filter_map(judge) {
            if !judges.contains(&judge) {
                judges.push(judge);
            }
        }
        judges
    }

    /// The numbers of the picture.
    pub fn table(&self) -> String {
        let shared = self.shared_root();
        let at_shared = shared.map_or_else(String::new, |root_kl| {
            format!("<th scope=\"col\" class=\"n\">Gold at KL {}</th>", figure(root_kl.powi(2)))
        });
        let mut html = format!(
            "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Run</th><th scope=\"col\" class=\"n\">Rollouts</th>\
             <th scope=\"col\" class=\"n\">KL at the end</th><th scope=\"col\" class=\"n\">Score at the end</th>\
             <th scope=\"col\" class=\"n\">Gold at the end</th><th scope=\"col\" class=\"n\">Highest gold</th>{at_shared}\
             </tr></thead>\n<tbody>\n"
        );
        let cell = |value: Option<f64>| value.map_or("–".to_owned(), figure);
        let mut row = |label: &str, cells: &[String]| {
            let cells: String = cells.iter().map(|cell| format!("<td class=\"n\">{cell}</td>")).collect();
            html.push_str(&format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", escape(label)));
        };
        for Runner { label, frontier, .. } in &self.runners {
            let end = frontier.score.turn().last;
            let turn = frontier.gold.as_ref().map(Track::turn);
            let highest = turn.map_or("–".to_owned(), |turn| {
                let (kl, step) = (figure(turn.peak.root_kl.powi(2)), turn.peak.step);
                format!("{} <small>KL {kl}, step {step}</small>", figure(turn.peak.value))
            });
            let mut cells = vec![
                frontier.score.raw.len().to_string(),
                figure(end.root_kl.powi(2)),
                figure(end.value),
                cell(turn.map(|turn| turn.last.value)),
                highest,
            ];
            let gold_at = |root_kl| frontier.gold.as_ref().and_then(|gold| gold.value_at(root_kl));
            cells.extend(shared.map(|root_kl| cell(gold_at(root_kl))));
            row(label, &cells);
        }
        for point in &self.points {
            let note = point.note.as_deref().map_or(String::new(), |note| format!(" ({note})"));
            let none = || "–".to_owned();
            let mut cells = vec![none(), figure(point.kl), cell(point.score), cell(point.gold), none()];
            cells.extend(shared.map(|_| none()));
            row(&format!("{}{note}", point.label), &cells);
        }
        html.push_str("</tbody></table></div>\n");
        html
    }

    /// Whether the runs name more than one independent judge.
    fn gold_differs(&self) -> bool {
        let judged = self.runners.iter().filter(|runner| runner.frontier.gold.is_some());
        judged.filter_map(|runner| runner.judges.gold.as_ref()).collect::<BTreeSet<_>>().len() > 1
    }

    /// Whether the runs learned from more than one score.
    fn score_differs(&self) -> bool {
        self.runners.iter().filter_map(|runner| runner.judges.score.as_ref()).collect::<BTreeSet<_>>().len()
            > 1
    }

    /// A warning for the page where the runs were not scored by the same models or judges; otherwise nothing.
    pub fn judges_note(&self) -> String {
        let note = |differs: bool, what: &str, named: fn(&Judges) -> Option<&String>| {
            if !differs {
                return String::new();
            }
            let of_run = |runner: &Runner| {
                let judge = named(&runner.judges).map_or("unknown", String::as_str);
                format!("{}: {}", escape_up_to(&runner.label, 80), escape_up_to(judge, 120))
            };
            let runs: Vec<String> = self.runners.iter().map(of_run).collect();
            format!("<p><strong>{what}</strong> ({}).</p>\n", runs.join("; "))
        };
        let gold = note(
            self.gold_differs(),
            "The runs were judged by different independent judges, so each judge has a plot of its own, and heights cannot be compared between them",
            |judges| judges.gold.as_ref(),
        );
        let score = note(
            self.score_differs(),
            "The runs learned from different scores, so each score has a plot of its own, and heights cannot be compared between them",
            |judges| judges.score.as_ref(),
        );
        gold + &score
    }

    /// How many rollouts a point of each line averages.
    pub fn smoothing_note(&self) -> String {
        let windows = self.runners.iter().map(|runner| runner.frontier.score.window);
        let (low, high) = (windows.clone().min().unwrap_or(1), windows.max().unwrap_or(1));
        let over = if low == high { low.to_string() } else { format!("{low} to {high}") };
        format!(
            "Each line: running means of KL and score over {over} rollouts (a tenth of the run), the root taken of the \
             mean; a KL below 0 is noise and counts as 0. Circle: the start, dot: the end. The last column of the table reads \
             gold from the line where it first comes to that KL: the largest one that every run reaches."
        )
    }

    /// The furthest √KL that all runs with a judge come to, where there are several.
    fn shared_root(&self) -> Option<f64> {
        let judged: Vec<&Track> = self.runners.iter().filter_map(|run| run.frontier.gold.as_ref()).collect();
        let nearest = judged.iter().map(|track| track.furthest()).fold(f64::INFINITY, f64::min);
        (judged.len() > 1 && nearest > 0.0).then_some(nearest)
    }

    /// Each once, in the order of the file.
    fn point_labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = Vec::new();
        for point in &self.points {
            if !labels.contains(&point.label.as_str()) {
                labels.push(&point.label);
            }
        }
        labels
    }
}

/// The name of each directory, with as many of its parents as tell it from the others.
fn labels(runs: &[PathBuf]) -> Vec<String> {
    let named = |dir: &PathBuf| dir.canonicalize().unwrap_or_else(|_| dir.clone());
    let paths: Vec<Vec<String>> = (runs.iter().map(named))
        .map(|path| path.iter().map(|part| part.to_string_lossy().into_owned()).collect())
        .collect();
    let ending = |path: &[String], n: usize| path[path.len().saturating_sub(n)..].join("/");
    let told_apart = |path: &Vec<String>| {
        let alone =
            |n: &usize| paths.iter().filter(|other| ending(other, *n) == ending(path, *n)).count() == 1;
        ending(path, (1..path.len()).find(alone).unwrap_or(path.len()))
    };
    paths.iter().map(told_apart).collect()
}

fn read_points(path: &Path) -> Result<Vec<Point>, Error> {
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    let bad = |problem: String| Error::BadPoints { path: path.to_path_buf(), problem };
    let points: Vec<Point> = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    for (i, point) in points.iter().enumerate() {
        if point.gold.is_none() && point.score.is_none() {
            return Err(bad(format!("point {} (`{}`) has neither `gold` nor `score`", i + 1, point.label)));
        }
        let numbers = [Some(point.kl), point.gold, point.score];
        if let Some(number) = numbers.into_iter().flatten().find(|number| number.abs() >= LARGEST) {
            return Err(bad(format!("point {} (`{}`): {number:e} is not a result", i + 1, point.label)));
        }
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_same_name_are_distinguished_by_their_parents() {
        let of = |names: &[&str]| labels(&names.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["runs/a", "runs/b"]), ["a", "b"]);
        assert_eq!(of(&["x/ppo", "y/ppo", "y/rloo"]), ["x/ppo", "y/ppo", "rloo"]);
        // Nothing tells a directory from itself.
        assert_eq!(of(&["x/ppo", "x/ppo"]), ["x/ppo", "x/ppo"]);
    }
}
