//! One prompt with its completions, and which of them is better than which.

use temper_model::SharedPrompt;
use temper_tokenizer::Example;

/// A prompt with its completions, encoded, and which of them is better than which.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Two or more; each is scored once, whatever the number of pairs.
    pub completions: Vec<Example>,
    /// Every pair that is not tied: one or more.
    pub pairs: Vec<Pair>,
    /// Which row of the given comparisons this was.
    pub row: usize,
}

impl Ranking {
    /// The rows to score, whose completions are [`Ranking::completions`] in order: one with the prompt shared by all,
    /// or one for each where that is cheaper, or where the prompt was cut for the longer ones.
    pub fn rows(&self, d_model: usize) -> Vec<SharedPrompt<'_>> {
        let prompt = parts(&self.completions[0]).0;
        let together =
            SharedPrompt { prompt, completions: self.completions.iter().map(|c| parts(c).1).collect() };
        if self.completions.iter().all(|c| parts(c).0 == prompt) && together.is_cheaper(d_model) {
            return vec![together];
        }
        let apart = |example| {
            let (prompt, completion) = parts(example);
            SharedPrompt { prompt, completions: vec![completion] }
        };
        self.completions.iter().map(apart).collect()
    }

    /// Chosen minus rejected score of each pair, from the score of each completion.
    pub fn margins(&self, scores: &[f32]) -> impl Iterator<Item = f64> {
        self.pairs.iter().map(|pair| f64::from(scores[pair.chosen] - scores[pair.rejected]))
    }
}

/// Prompt and completion.
fn parts(example: &Example) -> (&[u32], &[u32]) {
    example.tokens.split_at(example.prompt_len)
}

/// Two completions of a [`Ranking`], of which the first is preferred.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Index of the preferred completion.
    pub chosen: usize,
    /// Index of the other one.
    pub rejected: usize,
    /// By how much the data prefer it: positive.
    pub gap: f64,
}

/// Every pair of different scores, the better one first.
pub(crate) fn pairs(scores: &[f64]) -> Vec<Pair> {
    let all = (0..scores.len()).flat_map(|a| (a + 1..scores.len()).map(move |b| (a, b)));
    all.filter_map(|(a, b)| {
        let gap = scores[a] - scores[b];
        let (chosen, rejected) = if gap > 0.0 { (a, b) } else { (b, a) };
        (gap != 0.0).then_some(Pair { chosen, rejected, gap: gap.abs() })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_completions_make_six_pairs_less_those_that_tie() {
        let pair = |chosen, rejected, gap| Pair { chosen, rejected, gap };
        assert_eq!(
            pairs(&[1.0, 4.0, 0.0, 2.0]),
            [
                pair(1, 0, 3.0),
                pair(0, 2, 1.0),
                pair(3, 0, 1.0),
                pair(1, 2, 4.0),
                pair(1, 3, 2.0),
                pair(3, 2, 2.0)
            ]
        );
        assert_eq!(pairs(&[1.0, 0.0, 0.0]), [pair(0, 1, 1.0), pair(0, 2, 1.0)]);
    }
}
