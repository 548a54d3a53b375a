//! Comparisons as pairs of token rows.

use temper_tokenizer::{Example, Overflow, Template, Tokenizer};
use temper_train::{Comparison, fingerprint_rows};

use crate::Error;

/// A prompt with its better and its worse completion, encoded.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The preferred one.
    pub chosen: Example,
    /// The other one.
    pub rejected: Example,
    /// Which row of the given comparisons this was.
    pub row: usize,
}

/// Encoded comparisons, with what became of those that were too long.
#[derive(Clone, Debug)]
pub struct RewardDataset {
    /// The pairs of which both sides fit.
    pub pairs: Vec<Pair>,
    /// How many were dropped because a side did not fit.
    pub n_dropped: usize,
}

impl RewardDataset {
    /// Encodes comparisons as `template` puts them together: the same text that PPO will score.
    ///
    /// # Errors
    /// [`Error::NothingFits`]; the template's special tokens may be unknown to the tokenizer.
    pub fn new(
        comparisons: &[Comparison],
        tokenizer: &Tokenizer,
        template: &Template,
        max_seq_len: usize,
        overflow: Overflow,
    ) -> Result<Self, Error> {
        template.check(tokenizer)?;
        let encode = |prompt: &str, completion: &str| {
            template.encode_example(tokenizer, prompt, completion, max_seq_len, overflow)
        };
        let pair = |(row, c): (usize, &Comparison)| {
            let chosen = encode(&c.prompt, &c.chosen)?;
            Some(Pair { chosen, rejected: encode(&c.prompt, &c.rejected)?, row })
        };
        let pairs: Vec<Pair> = comparisons.iter().enumerate().filter_map(pair).collect();
        if pairs.is_empty() {
            return Err(Error::NothingFits { rows: comparisons.len(), max_seq_len });
        }
        let n_dropped = comparisons.len() - pairs.len();
        Ok(Self { pairs, n_dropped })
    }

    /// What a resumed run compares: that these are the same pairs.
    pub fn fingerprint(&self) -> String {
        let sides = self.pairs.iter().flat_map(|pair| [&pair.chosen, &pair.rejected]);
        fingerprint_rows(self.len(), sides.flat_map(|e| [e.prompt(), e.completion()]))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there is none; never true for a dataset that [`RewardDataset::new`] made.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Tokens of each pair's longer side, for length-bucketed batches.
    pub fn lengths(&self) -> Vec<usize> {
        self.pairs.iter().map(|pair| pair.chosen.tokens.len().max(pair.rejected.tokens.len())).collect()
    }
}
