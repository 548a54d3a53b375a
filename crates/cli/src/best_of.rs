//! Best of n: what a reward model gets out of a policy without training it.

use anyhow::Result;
use temper_model::{CausalLm, ScalarModel};

use crate::answers::{Answer, answer, score_answers};
use crate::args::SamplingArgs;
use crate::text::TextSide;

/// Two draws from the same policy never share a stream.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// One answer per prompt; with a number and a reward model, the one of so many that it scores highest.
pub fn best_answer(
    model: &CausalLm,
    text: &TextSide,
    prompts: &[String],
    sampling: &SamplingArgs,
    seed: u64,
    best_of: Option<(u16, &(ScalarModel, TextSide))>,
) -> Result<Vec<Answer>> {
    let Some((n, (reward_model, reward_text))) = best_of else {
        return answer(model, text, prompts, sampling, seed);
    };
    let draws = (0..u64::from(n)).map(|i| {
        let answers = answer(model, text, prompts, sampling, seed.wrapping_add(i.wrapping_mul(SEED_STEP)))?;
        let scores = score_answers(reward_model, reward_text, text, prompts, &answers)?;
        Ok(answers.into_iter().zip(scores).collect())
    });
    Ok(highest(draws.collect::<Result<Vec<_>>>()?))
}

/// Of each place, the item of the highest score; of equal ones the first.
fn highest<T>(draws: Vec<Vec<(T, f64)>>) -> Vec<T> {
    let mut draws = draws.into_iter();
    let mut best = draws.next().unwrap_or_default();
    for draw in draws {
        for (best, other) in best.iter_mut().zip(draw) {
            if other.1 > best.1 {
                *best = other;
            }
        }
    }
    best.into_iter().map(|(item, _)| item).collect()
}

/// How far the best of n answers is from the policy that they are drawn from, at most: log n − (n − 1) / n, in nats per
/// answer (Stiennon et al. 2020, appendix G.3; equality where no two answers are the same, Beirami et al.,
/// arXiv 2401.01879).
pub fn kl_bound(n: u16) -> f64 {
    let n = f64::from(n);
    n.ln() - (n - 1.0) / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_score_of_each_prompt_wins_and_of_equal_ones_the_first() {
        let draws = vec![
            vec![("a1", 0.5), ("b1", 2.0), ("c1", 1.0)],
            vec![("a2", 0.75), ("b2", -1.0), ("c2", 1.0)],
            vec![("a3", 0.25), ("b3", 1.5), ("c3", 0.0)],
        ];
        assert_eq!(highest(draws), ["a2", "b1", "c1"]);
    }

    #[test]
    fn the_bound_is_0_for_one_answer_and_grows_with_the_logarithm() {
        // ln 16 = 2.772589, 15 / 16 = 0.9375; ln 2 − 1 / 2 = 0.193147.
        for (n, expected) in [(1, 0.0), (2, 0.193_147), (16, 1.835_089)] {
            assert!((kl_bound(n) - expected).abs() < 1e-6, "{n}: {}", kl_bound(n));
        }
    }
}
