//! One prompt with its completions, and which of them are better than others.

use temper_tokenizer::Example;

/// A prompt with its completions, encoded, and which of them are better than others.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Two or more; each is scored once, whatever the number of pairs.
    pub completions: Vec<Example>,
    /// Every pair that is not tied: one or more.
    pub pairs: Vec<Pair>,
    /// The index of its row among the given comparisons.
    pub row: usize,
}

impl Ranking {
    /// Prompt and completion of each of [`Ranking::completions`].
    pub fn parts(&self) -> Vec<(&[u32], &[u32])> {
        self.completions.iter().map(|example| (example.prompt(), example.completion())).collect()
    }

    /// Tokens of the row that a model reads: the prompt once, and all completions.
    pub fn n_tokens(&self) -> usize {
        let prompt_len = self.completions.first().map_or(0, |example| example.prompt_len);
        prompt_len + self.completions.iter().map(|example| example.completion().len()).sum::<usize>()
    }

    /// Chosen minus rejected score of each pair, from the score of each completion.
    pub fn margins(&self, scores: &[f32]) -> impl Iterator<Item = f64> {
        self.pairs.iter().map(|pair| f64::from(scores[pair.chosen] - scores[pair.rejected]))
    }
}

/// Two completions of a [`Ranking`]: one that is preferred, and the other.
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
    fn four_completions_make_six_pairs_without_those_that_tie() {
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
