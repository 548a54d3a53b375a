//! Plain text: what a language model of this small world reads in addition to questions.

use serde::Serialize;

use crate::completion::{Wrong, write_completion};
use crate::facts::NAMES;
use crate::mixture::Mixture;
use crate::random::Random;
use crate::task::{Prompt, Task};

/// One pair of statements in this many is held out: 12.5 %, as with prompts.
const HELD_OUT_PERIOD: usize = 8;

/// A row of plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Text {
    /// Two statements, or a told dialogue.
    pub text: String,
}

impl Task {
    /// Plain text, half statements of two facts, half told dialogues in any manner: what PPO on answers alone forgets
    /// how to continue.
    ///
    /// Held-out texts pair other statements and ask other prompts than those for training do.
    pub(crate) fn draw_text(
        &self,
        prompts: &[&Prompt],
        mixture: &Mixture,
        held_out: bool,
        random: &mut Random,
    ) -> Text {
        let text = if random.chance(0.5) {
            let (one, other) = self.draw_statements(held_out, random);
            format!("{one} {other}")
        } else {
            let prompt = random.pick(prompts);
            let (manner, right) = mixture.draw(random);
            let fact = &self.facts()[prompt.fact_idx];
            let answer = write_completion(fact, manner, right, Wrong::PLAUSIBLE, random);
            let asks = random.below(NAMES.len());
            let says = (asks + 1 + random.below(NAMES.len() - 1)) % NAMES.len();
            format!("{} asks: \"{}\" {} says: \"{answer}\"", NAMES[asks], prompt.text, NAMES[says])
        };
        Text { text }
    }

    /// Statements of two different facts, in a pair of this side of the split.
    fn draw_statements(&self, held_out: bool, random: &mut Random) -> (String, String) {
        let n = 2 * self.facts().len();
        let one = random.below(n);
        let other = loop {
            let other = random.below(n);
            if other / 2 != one / 2 && (one + other).is_multiple_of(HELD_OUT_PERIOD) == held_out {
                break other;
            }
        };
        (self.statement(one), self.statement(other))
    }

    fn statement(&self, index: usize) -> String {
        let fact = &self.facts()[index / 2];
        let text = fact.family.statements[index % 2].replace("{x}", fact.subject).replace("{a}", fact.answer);
        text[..1].to_uppercase() + &text[1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sizes;
    use std::collections::BTreeSet;

    #[test]
    fn no_held_out_text_is_in_the_training_file() {
        let data = Task::new().generate(0, &Sizes::default());
        let training: BTreeSet<&str> = data.texts.iter().map(|row| row.text.as_str()).collect();
        assert!(data.texts_heldout.iter().all(|row| !training.contains(row.text.as_str())));
        assert_eq!((data.texts.len(), data.texts_heldout.len()), (4_800, 504));
    }

    #[test]
    fn texts_state_facts_and_tell_dialogues() {
        let data = Task::new().generate(1, &Sizes::default());
        let told = data.texts.iter().filter(|row| row.text.contains(" asks: \"")).count();
        assert!((2_200..2_600).contains(&told), "{told}");
        assert!(data.texts.iter().any(|row| row.text.contains("The capital of Spain is Madrid.")));
        assert!(data.texts.iter().all(|row| !row.text.contains(['{', '}'])));
        assert!(data.texts.iter().all(|row| !row.text.starts_with(char::is_lowercase)));
    }
}
