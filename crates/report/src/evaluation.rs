use serde::Deserialize;

use crate::number::{figure, percent};

/// `evaluation.json` of a reward model's run directory: its last evaluation on held-out comparisons, or what `temper eval`
/// printed about one. Other keys are ignored.
#[derive(Debug, Deserialize)]
pub struct Evaluation {
    eval_accuracy: f64,
    eval_pairs: f64,
    eval_longer_wins: Option<f64>,
    #[serde(default)]
    eval_by_length_order: Vec<Order>,
    #[serde(default)]
    eval_by_confidence: Vec<Confidence>,
}

#[derive(Debug, Deserialize)]
struct Order {
    chosen: String,
    pairs: f64,
    accuracy: f64,
}

#[derive(Debug, Deserialize)]
struct Confidence {
    from: f64,
    to: f64,
    pairs: f64,
    accuracy: f64,
    expected: f64,
}

impl Evaluation {
    /// Share of the pairs in which the longer answer is the chosen one; equal lengths count half.
    pub fn longer_wins(&self) -> Option<f64> {
        self.eval_longer_wins
    }

    /// Reads it; `None` when it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The accuracy in one sentence, and the tables of where it comes from.
    pub fn html(&self) -> String {
        let mut html = format!(
            "<h3>On held-out comparisons</h3>\n<p>The model orders {} of {} held-out pairs as the data do.",
            percent(self.eval_accuracy),
            self.eval_pairs
        );
        if let Some(share) = self.eval_longer_wins {
            html.push_str(&format!(
                " “The longer answer wins” would be right in {}: what the model adds to that is what it has learned \
                 in addition to length.",
                percent(share)
            ));
        }
        html.push_str("</p>\n");
        let row = |name: &str, cells: &[String]| {
            let cells: String = cells.iter().map(|cell| format!("<td class=\"n\">{cell}</td>")).collect();
            format!("<tr><th scope=\"row\">{name}</th>{cells}</tr>\n")
        };
        let by_order: Vec<String> = (self.eval_by_length_order.iter())
            .map(|order| row(order.name(), &[order.pairs.to_string(), percent(order.accuracy)]))
            .collect();
        html.push_str(&table(&["Chosen answer", "Pairs", "Right"], &by_order));
        let by_confidence: Vec<String> = (self.eval_by_confidence.iter())
            .map(|part| {
                let range = format!("{} to {}", figure(part.from), figure(part.to));
                row(&range, &[part.pairs.to_string(), percent(part.accuracy), percent(part.expected)])
            })
            .collect();
        html.push_str(&table(
            &["Distance of the scores", "Pairs", "Right", "Right by its own scores"],
            &by_confidence,
        ));
        html
    }
}

impl Order {
    fn name(&self) -> &'static str {
        match self.chosen.as_str() {
            "shorter" => "shorter than the rejected one",
            "longer" => "longer than the rejected one",
            _ => "about as long",
        }
    }
}

fn table(heads: &[&str], rows: &[String]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heads: String = (heads.iter().enumerate())
        .map(|(i, head)| format!("<th scope=\"col\"{}>{head}</th>", if i == 0 { "" } else { " class=\"n\"" }))
        .collect();
    format!(
        "<div class=\"scroll\"><table><thead><tr>{heads}</tr></thead>\n<tbody>\n{}</tbody></table></div>\n",
        rows.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_eval_prints_becomes_a_sentence_and_two_tables() {
        let text = r#"{"eval_loss":0.5,"eval_accuracy":0.75,"eval_pairs":8,"eval_longer_wins":0.625,
            "eval_by_length_order":[{"chosen":"shorter","pairs":3,"accuracy":0.5},
                                    {"chosen":"longer","pairs":5,"accuracy":0.9}],
            "eval_by_confidence":[{"from":0.0,"to":0.5,"pairs":8,"accuracy":0.75,"expected":0.6}]}"#;
        let html = Evaluation::parse(text).unwrap().html().replace('\u{a0}', " ");
        assert!(html.contains("orders 75 % of 8 held-out pairs"), "{html}");
        assert!(html.contains("would be right in 62 %"), "{html}");
        let shorter = "shorter than the rejected one</th><td class=\"n\">3</td><td class=\"n\">50 %</td>";
        assert!(html.contains(shorter) && html.contains("<td class=\"n\">60 %</td>"), "{html}");
        assert_eq!(html.matches("<table>").count(), 2);
    }

    #[test]
    fn other_json_is_not_an_evaluation() {
        for text in ["", "[]", "{}", "{\"win_rate\":0.5}", "{\"eval_accuracy\":\"high\",\"eval_pairs\":3}"] {
            assert!(Evaluation::parse(text).is_none(), "{text}");
        }
    }
}
