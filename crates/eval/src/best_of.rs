//! Best-of-n: what a reward model gets out of a policy without training it.

use temper_assistant::{Answer, Assistant, PromptOfRow, RewardModel, Sampling};

use crate::Error;

/// Distance between the seeds of two draws, so that they never share a stream of random numbers.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// How many answers are drawn for each prompt, and which reward model picks one of them.
#[derive(Clone, Copy, Debug)]
pub struct BestOf<'a> {
    /// Answers to each prompt.
    pub n: u16,
    /// The model that picks.
    pub reward_model: &'a RewardModel,
}

/// The best of n answers to each prompt, by the score of a reward model. Ties keep the earlier answer.
///
/// # Errors
/// Prompts that cannot be answered, and models whose output is not finite.
pub fn best_answers(
    policy: &Assistant,
    prompts: &[PromptOfRow],
    sampling: &Sampling,
    seed: u64,
    best_of: BestOf<'_>,
) -> Result<Vec<Answer>, Error> {
    let mut best = Vec::new();
    // From 1 on, so that none of them is the answer that another policy draws from the seed itself: a draw that both sides have
    // in common would never lose.
    for i in 1..=u64::from(best_of.n) {
        let answers = policy.answer(prompts, sampling, seed.wrapping_add(i.wrapping_mul(SEED_STEP)))?;
        let scores = best_of.reward_model.score(&policy.text, &answers)?;
        keep_higher(&mut best, answers.into_iter().zip(scores));
    }
    Ok(best.into_iter().map(|(answer, _)| answer).collect())
}

/// Replaces the items of `best` whose scores are lower than those of the next draw. Ties keep the earlier item.
fn keep_higher<T>(best: &mut Vec<(T, f64)>, draw: impl Iterator<Item = (T, f64)>) {
    for (place, item) in draw.enumerate() {
        match best.get_mut(place) {
            None => best.push(item),
            Some(best) if item.1 > best.1 => *best = item,
            Some(_) => {}
        }
    }
}

/// An upper bound of the KL between the best of n answers and the policy that they are drawn from: log n − (n − 1) / n, in
/// nats per answer (Stiennon et al. 2020, appendix G.3).
///
/// The bound is exact where no two answers are the same (Beirami et al., arXiv 2401.01879).
pub fn kl_bound(n: u16) -> f64 {
    let n = f64::from(n);
    n.ln() - (n - 1.0) / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_score_of_each_prompt_wins_and_ties_keep_the_first() {
        let draws = vec![
            vec![("a1", 0.5), ("b1", 2.0), ("c1", 1.0)],
            vec![("a2", 0.75), ("b2", -1.0), ("c2", 1.0)],
            vec![("a3", 0.25), ("b3", 1.5), ("c3", 0.0)],
        ];
        let mut best = Vec::new();
        draws.into_iter().for_each(|draw| keep_higher(&mut best, draw.into_iter()));
        assert_eq!(best, [("a2", 0.75), ("b1", 2.0), ("c1", 1.0)]);
    }

    #[test]
    fn the_bound_is_0_for_one_answer_and_grows_with_the_logarithm() {
        // ln 16 = 2.772589, 15 / 16 = 0.9375; ln 2 − 1 / 2 = 0.193147.
        for (n, expected) in [(1, 0.0), (2, 0.193_147), (16, 1.835_089)] {
            assert!((kl_bound(n) - expected).abs() < 1e-6, "{n}: {}", kl_bound(n));
        }
    }
}
