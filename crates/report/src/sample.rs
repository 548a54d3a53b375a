use serde::{Deserialize, Serialize};

use crate::escape::escape_up_to;
use crate::number;

/// Rows shown before the rest is folded away.
const OPEN_ROWS: usize = 12;
/// Rows shown at all.
const MOST_ROWS: usize = 100;
/// Characters of one text that are shown.
const MOST_CHARACTERS: usize = 400;

/// One row of `samples.jsonl`: a prompt with its completions before and after PPO. `temper pipeline` writes them, the
/// report reads them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// What was asked.
    pub prompt: String,
    /// The answer of the SFT model.
    pub sft: Option<String>,
    /// The answer of the PPO model.
    pub ppo: Option<String>,
    /// The reward model's score of the SFT model's answer.
    pub score_sft: Option<f64>,
    /// The reward model's score of the PPO model's answer.
    pub score_ppo: Option<f64>,
    /// The independent rule's score of the SFT model's answer.
    pub gold_sft: Option<f64>,
    /// The independent rule's score of the PPO model's answer.
    pub gold_ppo: Option<f64>,
}

impl Sample {
    /// Reads every line that is a sample; also counts those that are not, a torn last one left aside.
    pub(crate) fn parse_all(text: &str) -> (Vec<Self>, usize) {
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let (mut samples, mut bad_lines) = (Vec::new(), 0);
        for (idx, line) in lines.iter().enumerate() {
            match serde_json::from_str(line) {
                Ok(sample) => samples.push(sample),
                Err(_) if idx + 1 == lines.len() && !text.ends_with('\n') => {}
                Err(_) => bad_lines += 1,
            }
        }
        (samples, bad_lines)
    }

    /// What PPO changed, by the gold rule where there is one and by the reward model otherwise.
    fn change(&self) -> Option<Change> {
        let (before, after) =
            self.gold_sft.zip(self.gold_ppo).or_else(|| self.score_sft.zip(self.score_ppo))?;
        Some(match after.total_cmp(&before) {
            _ if (after - before).abs() < 1e-9 => Change::Same,
            std::cmp::Ordering::Greater => Change::Better,
            _ => Change::Worse,
        })
    }
}

#[derive(Clone, Copy)]
enum Change {
    Better,
    Same,
    Worse,
}

impl Change {
    /// A sign and a word: the colour only repeats what they say.
    fn html(self) -> &'static str {
        match self {
            Self::Better => "<span class=\"better\">▲&nbsp;better</span>",
            Self::Same => "<span class=\"same\">=&nbsp;same</span>",
            Self::Worse => "<span class=\"worse\">▼&nbsp;worse</span>",
        }
    }
}

/// The table of the same prompts answered before and after PPO.
pub fn table(samples: &[Sample]) -> String {
    let gold = samples.iter().any(|sample| sample.gold_sft.is_some() || sample.gold_ppo.is_some());
    let (open, folded) = samples[..samples.len().min(MOST_ROWS)].split_at(samples.len().min(OPEN_ROWS));
    let mut html = String::from("<section id=\"answers\"><h2>The same prompts, before and after PPO</h2>\n");
    html.push_str(if gold {
        "<p>Score is the reward model’s, which PPO was trained on. Gold is the judgement of an independent rule that \
         took no part in training; the last column compares gold.</p>\n"
    } else {
        "<p>Score is the reward model’s, which PPO was trained on: a higher one is what PPO aimed at, not a proof of a \
         better answer. The last column compares scores.</p>\n"
    });
    html.push_str(&rows(open, gold));
    if !folded.is_empty() {
        let more = folded.len();
        html.push_str(&format!(
            "<details><summary>{more} more prompts</summary>\n{}</details>\n",
            rows(folded, gold)
        ));
    }
    if samples.len() > MOST_ROWS {
        let left_out = samples.len() - MOST_ROWS;
        html.push_str(&format!(
            "<p class=\"note\">{left_out} further rows are in <code>samples.jsonl</code>.</p>\n"
        ));
    }
    html.push_str("</section>\n");
    html
}

fn rows(samples: &[Sample], gold: bool) -> String {
    let mut html = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Answers before and after PPO\">\
         <table class=\"answers\"><thead><tr><th scope=\"col\">Prompt</th><th scope=\"col\">SFT answer</th>\
         <th scope=\"col\">PPO answer</th><th scope=\"col\" class=\"n\">Score<br><small>SFT → PPO</small></th>",
    );
    if gold {
        html.push_str("<th scope=\"col\" class=\"n\">Gold<br><small>SFT → PPO</small></th>");
    }
    html.push_str("<th scope=\"col\">PPO is</th></tr></thead>\n<tbody>\n");
    for sample in samples {
        html.push_str(&format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td class=\"n\">{}</td>",
            escape_up_to(&sample.prompt, MOST_CHARACTERS),
            completion(sample.sft.as_deref()),
            completion(sample.ppo.as_deref()),
            arrow(sample.score_sft, sample.score_ppo),
        ));
        if gold {
            html.push_str(&format!("<td class=\"n\">{}</td>", arrow(sample.gold_sft, sample.gold_ppo)));
        }
        html.push_str(&format!("<td>{}</td></tr>\n", sample.change().map_or("–", Change::html)));
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn completion(text: Option<&str>) -> String {
    match text {
        None => "–".to_owned(),
        Some("") => "<em class=\"note\">(empty)</em>".to_owned(),
        Some(text) => escape_up_to(text, MOST_CHARACTERS),
    }
}

fn arrow(before: Option<f64>, after: Option<f64>) -> String {
    let shown = |value: Option<f64>| value.map_or("–".to_owned(), |value| number::signed_fixed(value, 2));
    format!("{} → {}", shown(before), shown(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_and_completions_are_escaped() {
        let (samples, _) = Sample::parse_all(
            r#"{"prompt":"<script>alert(1)</script>","sft":"a & b","ppo":"</td><td>\u0000"}"#,
        );
        let html = table(&samples);
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && html.contains("a &amp; b"));
        assert!(html.contains("&lt;/td&gt;&lt;td&gt;␀") && !html.contains("<script"));
    }

    #[test]
    fn gold_decides_where_there_is_gold() {
        let sample = |line: &str| Sample::parse_all(line).0.remove(0).change().map(Change::html);
        let better = sample(r#"{"score_sft":2,"score_ppo":1,"gold_sft":0,"gold_ppo":1}"#);
        assert!(better.is_some_and(|html| html.contains("better")));
        let worse = sample(r#"{"score_sft":2,"score_ppo":1}"#);
        assert!(worse.is_some_and(|html| html.contains("worse")));
        assert!(sample(r#"{"prompt":"x","score_sft":null}"#).is_none());
    }

    #[test]
    fn a_torn_sample_is_left_out() {
        let (samples, bad_lines) = Sample::parse_all("{\"prompt\":\"a\"}\n7\n{\"prompt\":\"b\"}\n{\"pro");
        assert_eq!((samples.len(), bad_lines), (2, 1));
    }
}
