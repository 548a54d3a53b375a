//! The formats that data are published in, recognised by their columns.
//!
//! A row of a known family becomes one or more rows under Temper's own names of columns (see [`crate::records`]); a row
//! of no family stays as it is. The first family of [`FAMILIES`] that recognises a row reads it. Some families spread
//! one example over several rows, which are joined first. A new family is one entry of the table, and one function if
//! its rows need more than other names.

// The tests read better with a row in brackets than with a slice from a reference.
#![cfg_attr(test, allow(clippy::cloned_ref_to_slice_refs))]

mod chats;
mod instructions;
mod messages;
mod oasst;
mod pairs;
mod ratings;
#[cfg(test)]
mod testing;

use serde_json::Value;

pub(crate) use messages::messages;

use crate::records::{Fault, Purpose, Row, present};

/// A format that data are published in.
pub(crate) struct Family {
    /// Its name, in messages.
    pub name: &'static str,
    /// The columns that it is known by.
    pub columns: &'static [&'static str],
    /// Whether a row is of this family.
    recognises: fn(&Row) -> bool,
    /// Which rows make one example.
    joined: Joined,
    /// What the rows of an example become for a purpose.
    read: fn(&[Row], Purpose) -> Result<Vec<Row>, Fault>,
}

/// Which rows of a file are read together.
#[derive(Clone, Copy)]
enum Joined {
    /// Each row is read alone.
    Alone,
    /// Neighbours with the same value in this column.
    Neighbours(&'static str),
    /// All rows of the file with the same value in this column.
    File(&'static str),
}

/// All families. Where several recognise a row, the first one reads it.
#[rustfmt::skip]
pub(crate) const FAMILIES: &[Family] = &[
    Family { name: "OASST messages", columns: &["message_tree_id", "message_id", "text", "role"], recognises: oasst::is_message, joined: Joined::File("message_tree_id"), read: oasst::read_messages },
    Family { name: "OASST trees", columns: &["message_tree_id", "prompt"], recognises: oasst::is_tree, joined: Joined::Alone, read: oasst::read_tree },
    Family { name: "summarize_from_feedback", columns: &["info", "summaries", "choice"], recognises: |row| has(row, &["summaries", "choice"]), joined: Joined::Alone, read: pairs::summaries },
    Family { name: "UltraFeedback", columns: &["instruction", "completions"], recognises: ratings::is_ultrafeedback, joined: Joined::Alone, read: ratings::ultrafeedback },
    Family { name: "Nectar", columns: &["prompt", "answers"], recognises: ratings::is_nectar, joined: Joined::Alone, read: ratings::nectar },
    Family { name: "HelpSteer3", columns: &["context", "response1", "response2", "overall_preference"], recognises: |row| has(row, &["overall_preference"]), joined: Joined::Alone, read: pairs::helpsteer3 },
    Family { name: "HelpSteer2-Preference", columns: &["prompt", "response_1", "response_2", "preference_strength"], recognises: |row| has(row, &["preference_strength"]), joined: Joined::Alone, read: pairs::helpsteer2 },
    Family { name: "HelpSteer", columns: &["prompt", "response", "helpfulness"], recognises: |row| has(row, &["prompt", "response", "helpfulness"]), joined: Joined::Neighbours("prompt"), read: ratings::helpsteer },
    Family { name: "LMSYS arena", columns: &["conversation_a", "conversation_b", "winner"], recognises: |row| has(row, &["conversation_a", "conversation_b", "winner"]), joined: Joined::Alone, read: pairs::arena },
    Family { name: "ShareGPT", columns: &["conversations"], recognises: |row| has(row, &["conversations"]), joined: Joined::Alone, read: chats::sharegpt },
    Family { name: "UltraFeedback binarized", columns: &["prompt", "chosen", "rejected", "score_chosen", "score_rejected"], recognises: |row| has(row, &["chosen", "rejected", "score_chosen"]), joined: Joined::Alone, read: pairs::preference },
    Family { name: "TL;DR", columns: &["subreddit", "title", "post", "summary"], recognises: |row| has(row, &["post", "summary"]), joined: Joined::Alone, read: instructions::tldr },
    Family { name: "hh-rlhf", columns: &["chosen", "rejected"], recognises: pairs::is_hh_rlhf, joined: Joined::Alone, read: unchanged },
    Family { name: "TRL preference", columns: &["prompt", "chosen", "rejected"], recognises: |row| has(row, &["prompt", "chosen", "rejected"]), joined: Joined::Alone, read: pairs::preference },
    Family { name: "preference without a prompt", columns: &["chosen", "rejected"], recognises: |row| has(row, &["chosen", "rejected"]), joined: Joined::Alone, read: pairs::preference },
    Family { name: "rankings", columns: &["prompt", "completions", "scores"], recognises: ratings::is_ranking, joined: Joined::Alone, read: ratings::ranking },
    Family { name: "TRL unpaired preference", columns: &["prompt", "completion", "label"], recognises: |row| has(row, &["prompt", "completion"]) && row.get("label").is_some_and(Value::is_boolean), joined: Joined::Alone, read: chats::unpaired },
    Family { name: "TRL prompt-completion", columns: &["prompt", "completion"], recognises: |row| has(row, &["prompt", "completion"]), joined: Joined::Alone, read: chats::prompt_completion },
    Family { name: "chat messages", columns: &["messages"], recognises: |row| has(row, &["messages"]), joined: Joined::Alone, read: chats::chat },
    Family { name: "Dolly", columns: &["instruction", "context", "response"], recognises: |row| has(row, &["instruction", "response"]), joined: Joined::Alone, read: instructions::instruction },
    Family { name: "Alpaca", columns: &["instruction", "input", "output"], recognises: |row| has(row, &["instruction"]), joined: Joined::Alone, read: instructions::instruction },
    Family { name: "GSM8K", columns: &["question", "answer"], recognises: |row| has(row, &["question"]), joined: Joined::Alone, read: instructions::instruction },
    Family { name: "TRL prompt-only", columns: &["prompt"], recognises: |row| has(row, &["prompt"]), joined: Joined::Alone, read: chats::prompt_only },
    Family { name: "plain text", columns: &["text"], recognises: |row| has(row, &["text"]), joined: Joined::Alone, read: unchanged },
];

/// Whether a row has all of these columns, and none of them is null.
fn has(row: &Row, columns: &[&'static str]) -> bool {
    columns.iter().all(|&column| present(row, &[column]).is_some())
}

/// Rows that the records read as they are.
fn unchanged(rows: &[Row], _: Purpose) -> Result<Vec<Row>, Fault> {
    Ok(rows.to_vec())
}

/// The columns of answers that a purpose reads. Whoever reads prompts keeps them as other columns: a scoring program may
/// compare with them.
fn answers_read(purpose: Purpose, columns: &'static [&'static str]) -> &'static [&'static str] {
    if purpose == Purpose::Prompts { &[] } else { columns }
}

/// The row without the columns `read`, and with those of `columns`.
fn with<const N: usize>(row: &Row, read: &[&str], columns: [(&str, Value); N]) -> Row {
    let kept = row.iter().filter(|(name, _)| !read.contains(&name.as_str()));
    let mut row: Row = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    for (name, value) in columns {
        row.insert(name.into(), value);
    }
    row
}

/// A row of a file that makes an example, alone or together with others.
pub(crate) struct Group {
    family: Option<&'static Family>,
    /// The line of its first row.
    pub line: usize,
    /// One row or more.
    pub rows: Vec<Row>,
}

impl Group {
    fn new(line: usize, row: Row) -> Self {
        let family = FAMILIES.iter().find(|family| (family.recognises)(&row));
        Self { family, line, rows: vec![row] }
    }

    /// The name of its family.
    pub fn name(&self) -> Option<&'static str> {
        self.family.map(|family| family.name)
    }

    /// The rows under Temper's own names of columns.
    ///
    /// # Errors
    /// A column does not hold what the family has in it, or the example is of no use for this purpose.
    pub fn read(&self, purpose: Purpose) -> Result<Vec<Row>, Fault> {
        match self.family {
            Some(family) => (family.read)(&self.rows, purpose),
            None => unchanged(&self.rows, purpose),
        }
    }

    fn joined(&self) -> Joined {
        self.family.map_or(Joined::Alone, |family| family.joined)
    }

    /// Whether a row of the same file is a further part of the same example.
    fn is_continued_by(&self, other: &Self) -> bool {
        let (Joined::Neighbours(column) | Joined::File(column)) = self.joined() else { return false };
        self.name() == other.name() && self.rows[0].get(column) == other.rows[0].get(column)
    }
}

/// Joins the rows of one file that make one example.
#[derive(Default)]
pub(crate) struct Joiner {
    /// Neighbours that may not be complete yet.
    neighbours: Option<Group>,
    /// Examples that are complete only at the end of the file, in the order of their first rows.
    open: Vec<Group>,
    /// The index of each of these by the value that its rows share.
    by_key: std::collections::HashMap<String, usize>,
}

impl Joiner {
    /// Adds a row, and returns the examples that are complete now.
    pub fn push(&mut self, line: usize, row: Row) -> Vec<Group> {
        let mut group = Group::new(line, row);
        if self.neighbours.as_ref().is_some_and(|previous| previous.is_continued_by(&group)) {
            let rows = self.neighbours.as_mut().map(|previous| &mut previous.rows);
            rows.into_iter().for_each(|rows| rows.append(&mut group.rows));
            return Vec::new();
        }
        let mut complete: Vec<Group> = self.neighbours.take().into_iter().collect();
        match group.joined() {
            Joined::Alone => complete.push(group),
            Joined::Neighbours(_) => self.neighbours = Some(group),
            Joined::File(column) => {
                let key = group.rows[0][column].to_string();
                match self.by_key.get(&key) {
                    Some(&idx) => self.open[idx].rows.append(&mut group.rows),
                    None => {
                        self.by_key.insert(key, self.open.len());
                        self.open.push(group);
                    }
                }
            }
        }
        complete
    }

    /// The examples that are complete at the end of the file.
    pub fn finish(self) -> Vec<Group> {
        self.neighbours.into_iter().chain(self.open).collect()
    }
}

/// The two families whose columns are most like `columns`. Where nothing is alike, the plainest ones for the purpose.
pub(crate) fn nearest(columns: &[String], purpose: Purpose) -> [&'static Family; 2] {
    let plainest = match purpose {
        Purpose::Demonstrations | Purpose::Answers => ["TRL prompt-completion", "chat messages"],
        Purpose::Comparisons => ["TRL preference", "rankings"],
        Purpose::Prompts => ["TRL prompt-only", "GSM8K"],
        Purpose::Texts => ["plain text", "TRL prompt-only"],
    };
    let likeness = |family: &Family| {
        let best = |name: &&str| columns.iter().map(|column| alike(name, column)).fold(0.0, f64::max);
        family.columns.iter().map(best).sum::<f64>() / family.columns.len() as f64
    };
    let place = |family: &Family| plainest.iter().position(|name| *name == family.name).unwrap_or(2);
    let mut by_likeness: Vec<&Family> = FAMILIES.iter().collect();
    by_likeness.sort_by_key(|family| place(family));
    by_likeness.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    [by_likeness[0], by_likeness[1]]
}

/// How alike two names are, from 0 to 1; names that only share some letters are not alike.
fn alike(a: &str, b: &str) -> f64 {
    const ALIKE: f64 = 0.8;
    let likeness = strsim::jaro_winkler(a, &b.to_lowercase());
    if likeness >= ALIKE { likeness } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../../../docs/data.md");

    #[test]
    fn the_document_has_a_row_of_each_family_in_the_order_of_the_table() {
        let rows = DOCUMENT.lines().filter(|line| line.starts_with('{'));
        let rows: Vec<Row> = rows.map(|line| serde_json::from_str(line).unwrap()).collect();
        let families = rows.iter().map(|row| Group::new(1, row.clone()).name().unwrap());
        assert_eq!(
            families.collect::<Vec<_>>(),
            FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>()
        );
        // The table of the document, too.
        let table = DOCUMENT.lines().filter(|line| line.starts_with("| ")).skip(2);
        let names =
            table.filter_map(|line| line.split(" | ").next()).map(|name| name.trim_start_matches("| "));
        assert_eq!(names.collect::<Vec<_>>(), FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>());
    }

    #[test]
    fn a_null_is_an_absent_column() {
        let row = |json: Value| Group::new(1, json.as_object().unwrap().clone()).name();
        let nulls = serde_json::json!({"prompt": "p", "completion": "c", "messages": null, "chosen": null, "label": null});
        assert_eq!(row(nulls), Some("TRL prompt-completion"));
    }

    #[test]
    fn the_nearest_families_share_the_most_columns() {
        let names = |columns: &[&str]| {
            let columns: Vec<String> = columns.iter().map(|&column| column.into()).collect();
            nearest(&columns, Purpose::Demonstrations).map(|family| family.name)
        };
        assert_eq!(names(&["Prompt", "completions"])[0], "TRL prompt-only");
        assert_eq!(names(&["query", "reply"]), ["TRL prompt-completion", "chat messages"]);
        assert_eq!(names(&["instructions", "inputs", "outputs"])[0], "Alpaca");
    }
}
