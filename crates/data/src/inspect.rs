//! What data files hold, before anything is trained on them.

use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use temper_tokenizer::{Error as TokenizerError, Example, Message, Overflow, Tokenizer, encode_text};

use crate::records::{Comparison, Demonstration, PromptRow, Purpose, SftRow, TrainingRecord};
use crate::{BadRows, Encoding, Error, ReadOptions, Rows, read_rows};

/// How many rows are shown as examples.
const N_EXAMPLES: usize = 3;

/// What data files hold, for one purpose. As JSON it has all but `purpose` and `shown`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The format that the rows were recognised as; several are joined by commas, and `other` is one that is not known.
    pub family: String,
    /// Rows that can be used.
    pub rows: usize,
    /// Rows that are left out: they cannot be read, or are of no use for this purpose.
    pub skipped: usize,
    /// How long the rows are, each with its longest answer.
    pub lengths: Lengths,
    /// The first rows, as they are read.
    pub examples: Vec<Value>,
    /// What the rows were read for.
    #[serde(skip)]
    pub purpose: Purpose,
    /// A sentence for each file and each reason why rows are left out.
    pub notes: Vec<String>,
    /// Rows that do not fit into the longest row allowed; `None` without a model.
    #[serde(rename = "too_long")]
    pub n_too_long: Option<usize>,
    /// Pairs of answers with equal scores in rows that can be used.
    #[serde(rename = "tied_pairs")]
    pub n_tied_pairs: usize,
    /// Rows that are the same as an earlier one.
    #[serde(rename = "duplicates")]
    pub n_duplicates: usize,
    /// The examples as a model sees them: each answer of each example.
    #[serde(skip)]
    pub shown: Vec<Vec<Shown>>,
}

/// Quantiles of lengths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lengths {
    /// What is counted: `tokens`, or `bytes` without a model.
    pub unit: &'static str,
    /// The shortest row.
    pub min: usize,
    /// Half of the rows are not longer.
    pub p50: usize,
    /// Nine of ten rows are not longer.
    pub p90: usize,
    /// 99 of 100 rows are not longer.
    pub p99: usize,
    /// The longest row.
    pub max: usize,
}

impl Lengths {
    /// By the nearest rank: the smallest length that so many of the rows do not exceed.
    fn of(mut lengths: Vec<usize>, unit: &'static str) -> Self {
        lengths.sort_unstable();
        let at = |percent: usize| {
            let rank = (lengths.len() * percent).div_ceil(100).max(1);
            lengths.get(rank - 1).copied().unwrap_or(0)
        };
        Self { unit, min: at(0), p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}

/// A prompt with an answer, in parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The score of the answer, in a ranking.
    pub score: Option<f64>,
    /// Each part of the text, and whether it is learned.
    pub parts: Vec<(String, bool)>,
}

/// Reads data files as a stage would and says what is in them; bad rows are left out and counted. Without a purpose it is
/// the first of comparisons, demonstrations and prompts that the rows have the columns for. `encoding` measures and shows them as
/// one model sees them.
///
/// # Errors
/// Those of [`read_rows`].
pub fn inspect(
    paths: &[impl AsRef<Path>],
    purpose: Option<Purpose>,
    options: &ReadOptions,
    encoding: Option<&Encoding<'_>>,
) -> Result<Inspection, Error> {
    let options = ReadOptions { bad_rows: BadRows::Skip, ..options.clone() };
    let inspect_for = |purpose| match purpose {
        Purpose::Comparisons => Ok(inspect_rows(read_rows::<Comparison>(paths, options.clone())?, encoding)),
        Purpose::Prompts => Ok(inspect_rows(read_rows::<PromptRow>(paths, options.clone())?, encoding)),
        _ => Ok(inspect_rows(read_rows::<SftRow>(paths, options.clone())?, encoding)),
    };
    let Some(purpose) = purpose else {
        let mut first = None;
        for purpose in [Purpose::Comparisons, Purpose::Demonstrations, Purpose::Prompts] {
            match inspect_for(purpose) {
                // Rows that have the columns, and not what belongs into them, are not of another kind.
                Err(error @ Error::NoGoodRow { have_columns: true, .. }) => return Err(error),
                // Plain text is of another format to all but the demonstrations.
                Err(error @ (Error::NoGoodRow { .. } | Error::OtherFormat { .. })) => {
                    drop(first.replace(error));
                }
                done => return done,
            }
        }
        return Err(first.expect("three purposes were tried"));
    };
    inspect_for(purpose)
}

fn inspect_rows<R: Inspected>(rows: Rows<R>, encoding: Option<&Encoding<'_>>) -> Inspection {
    let mut families: Vec<&str> = Vec::new();
    for (name, _) in rows.files.iter().flat_map(|file| &file.families) {
        if !families.contains(name) {
            families.push(name);
        }
    }
    let mut inspection = Inspection {
        family: if families.is_empty() { "other".into() } else { families.join(", ") },
        rows: rows.records.len(),
        skipped: rows.n_skipped() + rows.files.iter().map(|file| file.n_unused()).sum::<usize>(),
        lengths: Lengths::default(),
        examples: rows.records.iter().take(N_EXAMPLES).map(Inspected::example).collect(),
        purpose: R::PURPOSE,
        notes: rows.notes_of_skipped(),
        n_too_long: encoding.map(|_| 0),
        n_tied_pairs: rows.records.iter().map(Inspected::n_tied_pairs).sum(),
        n_duplicates: rows.duplicates().len(),
        shown: Vec::new(),
    };
    let mut lengths = Vec::with_capacity(rows.records.len());
    let mut refused = Vec::new();
    for (idx, record) in rows.records.iter().enumerate() {
        let shown = match encoding {
            None => {
                let texts = record.texts();
                let length = |(_, parts): &(Option<f64>, Vec<(String, bool)>)| {
                    parts.iter().map(|(text, _)| text.len()).sum::<usize>()
                };
                lengths.push(texts.iter().map(length).max().unwrap_or(0));
                texts.into_iter().map(|(score, parts)| Shown { score, parts }).collect()
            }
            Some(encoding) => match record.encode(encoding) {
                Ok(examples) => {
                    let longest = examples.iter().map(|(_, example)| example.tokens.len()).max().unwrap_or(0);
                    lengths.push(longest);
                    let is_too_long = longest > encoding.max_len && R::PURPOSE != Purpose::Texts;
                    inspection.n_too_long =
                        inspection.n_too_long.map(|n| n + usize::from(is_too_long && !record.is_text()));
                    let shown = examples.into_iter().take(if idx < N_EXAMPLES { usize::MAX } else { 0 });
                    shown
                        .map(|(score, example)| Shown {
                            score,
                            parts: parts(&encoding.text.tokenizer, &example),
                        })
                        .collect()
                }
                Err(error) => {
                    refused.push((idx, error));
                    continue;
                }
            },
        };
        if idx < N_EXAMPLES {
            inspection.shown.push(shown);
        }
    }
    if let Some((_, error)) = refused.first() {
        let idxs: Vec<usize> = refused.iter().map(|(idx, _)| *idx).collect();
        let error = crate::error::one_line(&error.to_string());
        inspection
            .notes
            .extend(rows.notes(&idxs, |rows| format!("left out {rows}: the template refuses them, {error}")));
    }
    inspection.rows -= refused.len();
    inspection.skipped += refused.len();
    inspection.lengths = Lengths::of(lengths, if encoding.is_some() { "tokens" } else { "bytes" });
    inspection
}

/// The text of an example with its special tokens, cut where the mask changes.
fn parts(tokenizer: &Tokenizer, example: &Example) -> Vec<(String, bool)> {
    let mask = example.completion_mask();
    let mut parts = Vec::new();
    let mut start = 0;
    for end in 1..=mask.len() {
        if end == mask.len() || mask[end] != mask[start] {
            parts.push((tokenizer.decode_with_special(&example.tokens[start..end]), mask[start]));
            start = end;
        }
    }
    parts
}

/// A record that can be measured and shown.
trait Inspected: TrainingRecord {
    /// As JSON: a prompt with its completions and scores, with a completion, or alone, or a text.
    fn example(&self) -> Value;

    /// Each prompt with an answer as ids, whatever its length, with the score of the answer.
    fn encode(&self, encoding: &Encoding<'_>) -> Result<Vec<(Option<f64>, Example)>, TokenizerError>;

    /// The same as parts of text, with whether each is learned.
    fn texts(&self) -> Vec<(Option<f64>, Vec<(String, bool)>)>;

    /// How many pairs of answers are tied.
    fn n_tied_pairs(&self) -> usize {
        0
    }

    /// Whether it is plain text, which is never too long.
    fn is_text(&self) -> bool {
        false
    }
}

impl Inspected for SftRow {
    fn example(&self) -> Value {
        match self {
            Self::Demonstration(row) | Self::Chosen(row) => json!(row),
            Self::PlainText(row) => json!(row),
            Self::Conversation(row) => {
                let last = row.messages.iter().rposition(Message::is_of_assistant);
                let (prompt, rest) = row.messages.split_at(last.unwrap_or(0));
                json!({"prompt": prompt, "completion": rest.first().map_or("", Message::text)})
            }
        }
    }

    fn encode(&self, encoding: &Encoding<'_>) -> Result<Vec<(Option<f64>, Example)>, TokenizerError> {
        let Encoding { text, learned, .. } = *encoding;
        let any_length = usize::MAX;
        let examples = match self {
            Self::Demonstration(row) | Self::Chosen(row) => {
                let Demonstration { prompt, completion } = row;
                text.encode_example(prompt, completion, any_length, Overflow::Drop)?.into_iter().collect()
            }
            Self::Conversation(row) => text
                .encode_conversation(&row.messages, learned, any_length, Overflow::Drop)?
                .into_iter()
                .collect(),
            Self::PlainText(row) => encode_text(&text.tokenizer, &row.text, any_length),
        };
        Ok(examples.into_iter().map(|example| (None, example)).collect())
    }

    fn texts(&self) -> Vec<(Option<f64>, Vec<(String, bool)>)> {
        let parts = match self {
            Self::Demonstration(row) | Self::Chosen(row) => {
                vec![(row.prompt.to_string(), false), (row.completion.clone(), true)]
            }
            Self::Conversation(row) => {
                let part = |message: &Message| (message.text().to_owned(), message.is_of_assistant());
                row.messages.iter().map(part).collect()
            }
            Self::PlainText(row) => vec![(row.text.clone(), true)],
        };
        vec![(None, parts)]
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::PlainText(_))
    }
}

impl Inspected for Comparison {
    fn example(&self) -> Value {
        json!(self)
    }

    fn encode(&self, encoding: &Encoding<'_>) -> Result<Vec<(Option<f64>, Example)>, TokenizerError> {
        let mut examples = Vec::with_capacity(self.completions.len());
        for (completion, score) in self.completions.iter().zip(&self.scores) {
            let example =
                encoding.text.encode_example(&self.prompt, completion, usize::MAX, Overflow::Drop)?;
            examples.extend(example.map(|example| (Some(*score), example)));
        }
        Ok(examples)
    }

    fn texts(&self) -> Vec<(Option<f64>, Vec<(String, bool)>)> {
        let parts = |completion: &String| vec![(self.prompt.to_string(), false), (completion.clone(), true)];
        self.completions.iter().zip(&self.scores).map(|(text, score)| (Some(*score), parts(text))).collect()
    }

    fn n_tied_pairs(&self) -> usize {
        let scores = &self.scores;
        (0..scores.len()).map(|idx| scores[..idx].iter().filter(|score| **score == scores[idx]).count()).sum()
    }
}

impl Inspected for PromptRow {
    fn example(&self) -> Value {
        json!({"prompt": self.prompt})
    }

    fn encode(&self, encoding: &Encoding<'_>) -> Result<Vec<(Option<f64>, Example)>, TokenizerError> {
        let tokens = encoding.text.encode_prompt(&self.prompt)?;
        let n_tokens = tokens.len();
        Ok(vec![(None, Example::new(tokens, n_tokens))])
    }

    fn texts(&self) -> Vec<(Option<f64>, Vec<(String, bool)>)> {
        vec![(None, vec![(self.prompt.to_string(), false)])]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_tokenizer::{Template, TextSide};

    fn try_inspect(
        lines: &str,
        purpose: Option<Purpose>,
        encoding: Option<&Encoding<'_>>,
    ) -> Result<Inspection, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, lines).unwrap();
        inspect(&[path], purpose, &ReadOptions::default(), encoding)
    }

    fn inspect_lines(lines: &str, purpose: Option<Purpose>, encoding: Option<&Encoding<'_>>) -> Inspection {
        try_inspect(lines, purpose, encoding).unwrap()
    }

    #[test]
    fn rows_with_the_right_columns_and_the_wrong_values_are_no_other_kind_of_rows() {
        let fault = |lines: &str| {
            let error = try_inspect(lines, None, None).unwrap_err();
            (error.to_string(), error.hint().unwrap_or_default())
        };
        let (message, _) = fault("{\"prompt\": \"a\", \"completion\": 3}\n");
        assert!(message.contains("column `completion` must be"), "{message}");
        let (message, hint) = fault("{\"x\": \"a\"}\n");
        assert!(message.contains("missing column") && hint.contains("`--columns"), "{message} {hint}");
    }

    #[test]
    fn demonstrations_are_called_so_where_comparisons_are_read() {
        let row = "{\"prompt\": \"a\", \"response\": \"b\"}\n";
        let error = try_inspect(row, Some(Purpose::Comparisons), None).unwrap_err();
        assert!(error.hint().unwrap().starts_with("these are demonstrations"), "{:?}", error.hint());
    }

    #[test]
    fn quantiles_are_by_the_nearest_rank() {
        let lengths = Lengths::of((1..=200).rev().collect(), "bytes");
        assert_eq!(lengths, Lengths { unit: "bytes", min: 1, p50: 100, p90: 180, p99: 198, max: 200 });
        assert_eq!(
            Lengths::of(vec![7], "bytes"),
            Lengths { unit: "bytes", min: 7, p50: 7, p90: 7, p99: 7, max: 7 }
        );
    }

    #[test]
    fn comparisons_are_counted_measured_and_shown_with_what_is_learned() {
        let lines = r#"{"prompt": "ab", "completions": ["c", "def", "g"], "scores": [2, 1, 1]}
            {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 1, "score_rejected": 1}
            {"prompt": "ab", "completions": ["c", "def", "g"], "scores": [2, 1, 1]}
            {"query": 1}"#;
        let bytes = inspect_lines(lines, None, None);
        assert_eq!((bytes.purpose, bytes.rows, bytes.skipped), (Purpose::Comparisons, 2, 2));
        assert_eq!(bytes.family, "rankings, UltraFeedback binarized");
        assert_eq!((bytes.lengths.unit, bytes.lengths.min, bytes.lengths.max), ("bytes", 5, 5));
        assert_eq!((bytes.n_tied_pairs, bytes.n_duplicates, bytes.n_too_long), (2, 1, None));
        assert!(bytes.notes.len() == 2 && bytes.notes[1].contains("equal scores"), "{:?}", bytes.notes);
        let example = json!({"prompt": "ab", "completions": ["c", "def", "g"], "scores": [2.0, 1.0, 1.0]});
        assert_eq!(serde_json::to_value(&bytes).unwrap()["examples"], json!([example, example]));
        // [BOS] a b [SEP], then d e f [EOS].
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let tokens = inspect_lines(lines, None, Some(&Encoding::new(&text, 7)));
        assert_eq!((tokens.lengths.unit, tokens.lengths.max, tokens.n_too_long), ("tokens", 8, Some(2)));
        let shown =
            Shown { score: Some(2.0), parts: vec![("[BOS]ab[SEP]".into(), false), ("c[EOS]".into(), true)] };
        assert_eq!(tokens.shown[0][0], shown);
    }

    #[test]
    fn every_answer_of_a_conversation_is_shown_as_learned() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let turns =
            json!([turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")]);
        let inspection = inspect_lines(&json!({"messages": turns}).to_string(), None, None);
        assert_eq!(
            (inspection.family.as_str(), inspection.purpose),
            ("chat messages", Purpose::Demonstrations)
        );
        let parts = [("a", false), ("b", true), ("c", false), ("d", true)]
            .map(|(text, learned)| (text.to_owned(), learned));
        assert_eq!(inspection.shown, [[Shown { score: None, parts: parts.to_vec() }]]);
        assert_eq!(
            inspection.examples,
            [json!({"prompt": [turns[0], turns[1], turns[2]], "completion": "d"})]
        );
        let prompts = inspect_lines("{\"question\": \"q\", \"answer\": \"4\"}", Some(Purpose::Prompts), None);
        assert_eq!(prompts.examples, [json!({"prompt": "q"})]);
    }
}
