//! Comparisons as token rows, each completion once: what the reward model and DPO train on.

use temper_tokenizer::Example;

use super::asked::ask;
use super::fingerprint::fingerprint_rows;
use super::ranking::{Pair, Ranking, pairs};
use super::{Dataset, EncodedPrompt, Encoding};
use crate::{Comparison, Demonstration, Error, RowReport, Rows};

/// Encoded comparisons.
#[derive(Clone, Debug)]
pub struct Rankings {
    /// The comparisons with a pair that fits and is not tied, in the order given.
    pub rankings: Vec<Ranking>,
    /// The first distinct prompts, at most [`MOST_ASKED`](crate::MOST_ASKED): what a run lets its model answer, to show
    /// what it says.
    pub asked: Vec<EncodedPrompt>,
    /// Demonstrations on which the scores are normalised at the end; may be empty.
    pub demonstrations: Vec<Example>,
    /// Which of the given comparisons were left out, because too few of their completions fit or have a token to
    /// score, and which lost a part of their prompt.
    pub report: RowReport,
    /// Completions that do not fit and were left out of a comparison that was kept: the row of each.
    pub completions_too_long: Vec<usize>,
    /// The same of completions that have no token with their prompt.
    pub completions_without_tokens: Vec<usize>,
    /// Which of the demonstrations were left out or lost a part of their prompt.
    pub demonstrations_report: RowReport,
}

impl Rankings {
    /// Encodes comparisons as `template` puts them together: the same text that a policy writes.
    ///
    /// # Errors
    /// [`Error::NothingFits`] or [`Error::NothingToLearn`]; the tokenizer may lack a special token of the template.
    pub fn new(comparisons: &[Comparison], encoding: &Encoding<'_>) -> Result<Self, Error> {
        let Encoding { text, max_len, overflow, .. } = *encoding;
        text.template.check(&text.tokenizer)?;
        let mut data = Self::of(Vec::new());
        data.report = RowReport::default();
        for (row, comparison) in comparisons.iter().enumerate() {
            let (mut completions, mut scores) = (Vec::new(), Vec::new());
            let (mut n_too_long, mut n_without_tokens) = (0, 0);
            for (completion, &score) in comparison.completions.iter().zip(&comparison.scores) {
                let prompt = &comparison.prompt;
                let encoded = text.encode_example(prompt, completion, max_len, overflow);
                let Some(encoded) = data.report.accepted(row, encoded) else { break };
                match encoded {
                    None => n_too_long += 1,
                    // A tokenizer may have no id for a text.
                    Some(example) if example.tokens.is_empty() => n_without_tokens += 1,
                    Some(example) => {
                        completions.push(example);
                        scores.push(score);
                    }
                }
            }
            if data.report.refused.last() == Some(&row) {
                continue;
            }
            let pairs = pairs(&scores);
            if pairs.is_empty() && n_too_long > 0 {
                data.report.too_long.push(row);
            } else if pairs.is_empty() {
                data.report.without_tokens.push(row);
            } else {
                if completions.iter().any(|example: &Example| example.n_cut > 0) {
                    data.report.truncated.push(row);
                }
                data.completions_too_long.extend(std::iter::repeat_n(row, n_too_long));
                data.completions_without_tokens.extend(std::iter::repeat_n(row, n_without_tokens));
                ask(&mut data.asked, completions[0].prompt(), || comparison.prompt.clone());
                data.rankings.push(Ranking { completions, pairs, row });
            }
        }
        if data.rankings.is_empty() {
            data.report.refuses_all()?;
        }
        if data.rankings.is_empty() && data.report.too_long.is_empty() {
            return Err(Error::NothingToLearn { what: "comparisons", rows: comparisons.len() });
        }
        if data.rankings.is_empty() {
            return Err(Error::NothingFits {
                what: "comparisons",
                rows: comparisons.len(),
                max_seq_len: max_len,
            });
        }
        Ok(data)
    }

    /// Makes a dataset of comparisons that are already encoded. It leaves none out.
    pub fn of(rankings: Vec<Ranking>) -> Self {
        Self {
            report: RowReport::default(),
            rankings,
            asked: Vec::new(),
            demonstrations: Vec::new(),
            completions_too_long: Vec::new(),
            completions_without_tokens: Vec::new(),
            demonstrations_report: RowReport::default(),
        }
    }

    /// The same comparisons, with demonstrations to normalise the scores on. Those that do not fit are left out.
    ///
    /// # Errors
    /// [`Error::NothingFits`] if none of them fits, [`Error::NothingToLearn`] if none has a token.
    pub fn with_demonstrations(
        self,
        demonstrations: &[Demonstration],
        encoding: &Encoding<'_>,
    ) -> Result<Self, Error> {
        let Encoding { text, max_len, overflow, .. } = *encoding;
        let mut report = RowReport::default();
        let mut encoded = Vec::with_capacity(demonstrations.len());
        for (row, Demonstration { prompt, completion }) in demonstrations.iter().enumerate() {
            let example = text.encode_example(prompt, completion, max_len, overflow);
            let Some(example) = report.accepted(row, example) else { continue };
            match example {
                None => report.too_long.push(row),
                Some(example) if example.tokens.is_empty() => report.without_tokens.push(row),
                Some(example) => {
                    if example.n_cut > 0 {
                        report.truncated.push(row);
                    }
                    encoded.push(example);
                }
            }
        }
        let rows = demonstrations.len();
        if encoded.is_empty() {
            report.refuses_all()?;
        }
        if encoded.is_empty() && report.too_long.is_empty() {
            return Err(Error::NothingToLearn { what: "demonstrations", rows });
        }
        if encoded.is_empty() {
            return Err(Error::NothingFits { what: "demonstrations", rows, max_seq_len: max_len });
        }
        Ok(Self { demonstrations: encoded, demonstrations_report: report, ..self })
    }

    /// A sentence for each file from which demonstrations were left out or cut.
    pub fn notes_of_demonstrations(&self, rows: &Rows<Demonstration>, max_len: usize) -> Vec<String> {
        self.demonstrations_report.notes(rows, &format!("{max_len} tokens"), "what would be learned")
    }

    /// What a resumed run compares: that these are the same comparisons, by the same margins, and the same
    /// demonstrations.
    pub fn fingerprint(&self) -> String {
        let pair = |p: &Pair| [p.chosen as u32, p.rejected as u32, (p.gap as f32).to_bits()];
        let pairs = |r: &Ranking| -> Vec<u32> { r.pairs.iter().flat_map(pair).collect() };
        let pairs: Vec<Vec<u32>> = self.rankings.iter().map(pairs).collect();
        let mut parts: Vec<&[u32]> = pairs.iter().map(Vec::as_slice).collect();
        for completion in self.rankings.iter().flat_map(|r| &r.completions) {
            parts.extend([completion.prompt(), completion.completion()]);
        }
        parts.extend(self.demonstrations.iter().flat_map(|d| [d.prompt(), d.completion()]));
        fingerprint_rows(self.len(), parts)
    }

    /// Number of comparisons.
    pub fn len(&self) -> usize {
        self.rankings.len()
    }

    /// Whether there is none; never true for a dataset that [`Rankings::new`] made.
    pub fn is_empty(&self) -> bool {
        self.rankings.is_empty()
    }

    /// Tokens of each comparison's longest completion with its prompt, for length-bucketed batches.
    pub fn lengths(&self) -> Vec<usize> {
        let longest = |ranking: &Ranking| ranking.completions.iter().map(|c| c.tokens.len()).max();
        self.rankings.iter().map(|ranking| longest(ranking).unwrap_or(0)).collect()
    }
}

impl Dataset for Rankings {
    type Record = Comparison;

    fn encode(records: &[Comparison], encoding: &Encoding<'_>) -> Result<Self, Error> {
        Self::new(records, encoding)
    }

    fn report(&self) -> &RowReport {
        &self.report
    }

    fn n_rows(&self) -> usize {
        self.rankings.len()
    }

    fn n_tokens(&self) -> usize {
        self.rankings.iter().flat_map(|ranking| &ranking.completions).map(|c| c.tokens.len()).sum()
    }

    fn notes(&self, rows: &Rows<Comparison>, max_len: usize) -> Vec<String> {
        let mut notes = self.report.notes(rows, &format!("{max_len} tokens"), "what would be learned");
        for (completions, why) in [
            (&self.completions_too_long, format!("they do not fit into {max_len} tokens")),
            (&self.completions_without_tokens, "the tokenizer has no token for them".into()),
        ] {
            let n_completions = |row: &Comparison| row.completions.len();
            notes.extend(rows.notes_of_parts(completions, "completions", n_completions, |completions| {
                format!("left out {completions}, and kept the others of their rows: {why}")
            }));
        }
        notes
    }

    fn fingerprint(&self) -> String {
        self.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temper_tokenizer::{Overflow, Template, TextSide, Tokenizer};

    fn comparison(completions: &[&str], scores: &[f64]) -> Comparison {
        let completions = completions.iter().map(|&completion| completion.into()).collect();
        Comparison { prompt: "p".into(), completions, scores: scores.into() }
    }

    fn dataset(comparisons: &[Comparison], max_seq_len: usize) -> Result<Rankings, Error> {
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        Rankings::new(comparisons, &Encoding::new(&text, max_seq_len))
    }

    #[test]
    fn comparisons_with_other_margins_have_another_fingerprint() {
        let rows = |scores: &[f64]| [comparison(&["a", "b"], scores)];
        let [one, same, other] =
            [[1.0, 0.0], [3.0, 2.0], [2.0, 0.0]].map(|s| dataset(&rows(&s), 32).unwrap().fingerprint());
        assert!(one == same && one != other, "{one}, {same}, {other}");
    }

    /// D9: the rows whose prompts were cut are known, as they are in SFT.
    #[test]
    fn comparisons_whose_prompts_were_cut_are_counted() {
        let rows = [
            Comparison::pair("p", "a", "b"),
            Comparison::pair("p".repeat(40), "a", "b"),
            Comparison::pair("p", &"c".repeat(40), "b"),
        ];
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let drop = Encoding::new(&text, 32);
        let data = Rankings::new(&rows, &Encoding { overflow: Overflow::TruncatePrompt, ..drop }).unwrap();
        let expected = RowReport { too_long: vec![2], truncated: vec![1], ..RowReport::default() };
        assert_eq!((data.report.clone(), data.len()), (expected, 2));

        let demonstration = |prompt: &str| Demonstration { prompt: prompt.into(), completion: "c".into() };
        let rows = [demonstration("p"), demonstration(&"p".repeat(40))];
        let data = data.with_demonstrations(&rows, &drop).unwrap();
        let expected = RowReport { too_long: vec![1], ..RowReport::default() };
        assert_eq!(data.demonstrations_report, expected);
    }

    #[test]
    fn a_completion_that_does_not_fit_is_left_out_of_its_comparison() {
        let long = "x".repeat(50);
        let rows = [
            comparison(&["a", &long, "b"], &[2.0, 1.0, 0.0]),
            comparison(&["a", &long], &[1.0, 0.0]),
            comparison(&["a", "b", &long], &[1.0, 1.0, 0.0]),
        ];
        let data = dataset(&rows, 32).unwrap();
        assert_eq!(data.len(), 1);
        assert_eq!(data.report, RowReport { too_long: vec![1, 2], ..RowReport::default() });
        assert_eq!(
            (data.completions_too_long.as_slice(), data.completions_without_tokens.len()),
            (&[0][..], 0)
        );
        assert_eq!(data.rankings[0].pairs, [Pair { chosen: 0, rejected: 1, gap: 2.0 }]);
        assert!(matches!(dataset(&rows[1..2], 32), Err(Error::NothingFits { rows: 1, .. })));
    }
}
