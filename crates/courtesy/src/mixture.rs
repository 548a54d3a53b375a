use serde::{Deserialize, Serialize};

use crate::completion::Manner;
use crate::random::Random;

/// How often which quality of completion is drawn; manner and rightness are independent.
///
/// The four manners are weights: only their ratios matter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mixture {
    /// Probability of the right answer.
    pub right: f64,
    /// Weight of [`Manner::Courteous`].
    pub courteous: f64,
    /// Weight of [`Manner::Curt`].
    pub curt: f64,
    /// Weight of [`Manner::Rude`].
    pub rude: f64,
    /// Weight of [`Manner::Rambling`].
    pub rambling: f64,
}

/// The mixture of the demonstrations: good enough to learn the facts from, bad enough to leave PPO something
/// to do.
impl Default for Mixture {
    fn default() -> Self {
        Self { right: 0.8, courteous: 0.3, curt: 0.54, rude: 0.11, rambling: 0.05 }
    }
}

impl Mixture {
    /// The mixture of the comparisons: as many wrong answers as right ones, and more of the bad manners.
    pub const COMPARISONS: Self = Self { right: 0.5, courteous: 0.4, curt: 0.4, rude: 0.1, rambling: 0.1 };

    /// A manner, and whether the answer is right.
    pub(crate) fn draw(&self, random: &mut Random) -> (Manner, bool) {
        let manner = draw_manner(
            &[
                (Manner::Courteous, self.courteous),
                (Manner::Curt, self.curt),
                (Manner::Rude, self.rude),
                (Manner::Rambling, self.rambling),
            ],
            random,
        );
        (manner, random.chance(self.right))
    }

    /// A manner in which an answer can be right.
    pub(crate) fn draw_answering_manner(&self, random: &mut Random) -> Manner {
        let weights =
            [(Manner::Courteous, self.courteous), (Manner::Rude, self.rude), (Manner::Curt, self.curt)];
        draw_manner(&weights, random)
    }
}

/// The last manner takes what rounding, or weights of zero, leave over.
fn draw_manner(weights: &[(Manner, f64)], random: &mut Random) -> Manner {
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut rest = random.unit() * total;
    for &(manner, weight) in weights {
        if rest < weight {
            return manner;
        }
        rest -= weight;
    }
    weights[weights.len() - 1].0
}
