//! Which pairs of tokens become tokens.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
};

/// Two neighbouring tokens of a word.
type Pair = (u32, u32);

/// A word as tokens, and how often the text has it.
struct Word {
    tokens: Vec<u32>,
    count: u64,
}

/// The pairs of all words.
#[derive(Default)]
struct Pairs {
    counts: HashMap<Pair, u64>,
    /// Words that have a pair, or had it before one of its tokens was merged.
    places: HashMap<Pair, HashSet<usize>>,
    /// Pairs by their counts; of equal counts the one with the smaller ids is first. A count may be outdated.
    queue: BinaryHeap<(u64, Reverse<Pair>)>,
}

/// A pair must occur so often to become a token.
const LEAST_COUNT: u64 = 2;

/// Appends merged tokens to `tokens` until there are `vocab_size`, or no pair occurs twice. The bytes have ids from
/// `first_byte` on. Returns the merges as a `tokenizer.json` has them, and the number of tokens that all words then have.
pub(super) fn merges(
    words: &BTreeMap<&str, u64>,
    tokens: &mut Vec<String>,
    first_byte: u32,
    vocab_size: usize,
) -> (Vec<String>, u64) {
    let mut ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).skip(first_byte as usize).collect();
    let mut words: Vec<Word> = words
        .iter()
        .map(|(word, &count)| Word {
            tokens: word.chars().map(|byte| ids[&byte.to_string()]).collect(),
            count,
        })
        .collect();
    let mut pairs = Pairs::default();
    for (idx, word) in words.iter().enumerate() {
        pairs.add(word, idx);
    }
    pairs.queue = pairs.counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();
    let mut merges = Vec::new();
    while tokens.len() < vocab_size
        && let Some(pair) = pairs.pop()
    {
        let [left, right] = [pair.0, pair.1].map(|id| tokens[id as usize].as_str());
        let merged = format!("{left}{right}");
        merges.push(format!("{left} {right}"));
        // Two merges may make the same token: `a bc` and `ab c`.
        let id = *ids.entry(merged.clone()).or_insert_with(|| {
            tokens.push(merged);
            tokens.len() as u32 - 1
        });
        let mut new_pairs = HashSet::new();
        for idx in pairs.places.remove(&pair).unwrap_or_default() {
            let word = &mut words[idx];
            pairs.remove(word);
            word.tokens = merge(&word.tokens, pair, id);
            pairs.add(word, idx);
            new_pairs.extend(word.pairs().filter(|&(a, b)| a == id || b == id));
        }
        let queued = new_pairs.into_iter().map(|pair| (pairs.counts[&pair], Reverse(pair)));
        pairs.queue.extend(queued);
    }
    (merges, words.iter().map(|word| word.count * word.tokens.len() as u64).sum())
}

impl Word {
    fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.tokens.windows(2).map(|pair| (pair[0], pair[1]))
    }
}

impl Pairs {
    fn add(&mut self, word: &Word, idx: usize) {
        for pair in word.pairs() {
            *self.counts.entry(pair).or_default() += word.count;
            self.places.entry(pair).or_default().insert(idx);
        }
    }

    fn remove(&mut self, word: &Word) {
        for pair in word.pairs() {
            *self.counts.get_mut(&pair).expect("it was added") -= word.count;
        }
    }

    /// The most frequent pair.
    fn pop(&mut self) -> Option<Pair> {
        loop {
            let (count, Reverse(pair)) = self.queue.pop()?;
            let now = self.counts[&pair];
            if now < LEAST_COUNT {
                continue;
            }
            if now == count {
                return Some(pair);
            }
            // Counts only fall, but for those of pairs with a new token, which are queued again.
            if now < count {
                self.queue.push((now, Reverse(pair)));
            }
        }
    }
}

/// The tokens of a word with `id` in place of each `pair`, from the left.
fn merge(tokens: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut merged = Vec::with_capacity(tokens.len());
    let mut rest = tokens;
    while let [first, after @ ..] = rest {
        if after.first().is_some_and(|&second| (*first, second) == pair) {
            merged.push(id);
            rest = &after[1..];
        } else {
            merged.push(*first);
            rest = after;
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_merged_from_the_left() {
        assert_eq!(merge(&[1, 1, 1, 2, 1, 1], (1, 1), 9), [9, 1, 2, 9]);
        assert_eq!(merge(&[1], (1, 1), 9), [1]);
    }

    /// Every pair counted anew before each merge: what the queue and the places only make faster.
    fn slow(words: &[(&str, u64)], n_merges: usize) -> Vec<String> {
        let mut words: Vec<(Vec<String>, u64)> =
            words.iter().map(|(word, n)| (word.chars().map(String::from).collect(), *n)).collect();
        let mut tokens: Vec<String> = (b'a'..=b'z').map(|byte| char::from(byte).to_string()).collect();
        let mut merges = Vec::new();
        while tokens.len() < 26 + n_merges {
            let mut counts: BTreeMap<(usize, usize), u64> = BTreeMap::new();
            let id = |tokens: &[String], token: &str| tokens.iter().position(|t| t == token).unwrap();
            for (word, n) in &words {
                for pair in word.windows(2) {
                    *counts.entry((id(&tokens, &pair[0]), id(&tokens, &pair[1]))).or_default() += n;
                }
            }
            let best = counts.into_iter().min_by_key(|(pair, n)| (Reverse(*n), *pair));
            let Some(((left, right), _)) = best.filter(|(_, n)| *n >= 2) else { break };
            let (left, right) = (tokens[left].clone(), tokens[right].clone());
            let merged = format!("{left}{right}");
            if !tokens.contains(&merged) {
                tokens.push(merged.clone());
            }
            for (word, _) in &mut words {
                let mut at = 0;
                while at + 1 < word.len() {
                    if word[at] == left && word[at + 1] == right {
                        word.splice(at..at + 2, [merged.clone()]);
                    }
                    at += 1;
                }
            }
            merges.push(format!("{left} {right}"));
        }
        merges
    }

    proptest::proptest! {
        #[test]
        fn the_queue_finds_what_counting_anew_finds(
            words in proptest::collection::btree_map("[abc]{1,9}", 1u64..6, 1..9),
            n_merges in 0usize..30,
        ) {
            let counted: BTreeMap<&str, u64> = words.iter().map(|(word, n)| (word.as_str(), *n)).collect();
            let mut tokens: Vec<String> = (b'a'..=b'z').map(|byte| char::from(byte).to_string()).collect();
            let (merges, n_tokens) = merges(&counted, &mut tokens, 0, 26 + n_merges);
            let listed: Vec<(&str, u64)> = counted.into_iter().collect();
            proptest::prop_assert_eq!(&merges, &slow(&listed, n_merges));
            let n_letters: u64 = listed.iter().map(|(word, n)| word.len() as u64 * n).sum();
            proptest::prop_assert!(n_tokens <= n_letters);
        }
    }
}
