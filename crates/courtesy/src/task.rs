use std::collections::HashMap;

use crate::facts::{FAMILIES, Family};

/// One combination in this many is held out: 12.5 %.
const HELD_OUT_PERIOD: usize = 8;

/// One thing that can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// The family it belongs to.
    pub family: &'static Family,
    /// What is asked about, such as `France`.
    pub subject: &'static str,
    /// The right answer, such as `Paris`.
    pub answer: &'static str,
}

/// One fact asked in one phrasing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// What the model reads.
    pub text: String,
    /// Index into [`Task::facts`].
    pub fact_idx: usize,
    /// Index into the phrasings of the fact's family: as written, without the final mark, without the
    /// capital letter.
    pub phrasing_idx: usize,
    /// Whether it is kept for evaluation and occurs in no training file.
    pub held_out: bool,
}

/// All facts and prompts, and the fixed split between training and evaluation.
///
/// The split depends on no seed. It runs along the diagonals of each family's table of facts and phrasings,
/// so that every fact and every phrasing of a held-out prompt is met in training, but never the two together.
#[derive(Debug, Clone)]
pub struct Task {
    facts: Vec<Fact>,
    prompts: Vec<Prompt>,
    prompt_idx: HashMap<String, usize>,
}

impl Task {
    /// Builds the tables.
    #[must_use]
    pub fn new() -> Self {
        let mut facts = Vec::new();
        let mut prompts = Vec::new();
        for (family_idx, family) in FAMILIES.iter().enumerate() {
            for (row, &(subject, answer)) in family.facts.iter().enumerate() {
                for (phrasing_idx, phrasing) in phrasings(family).into_iter().enumerate() {
                    prompts.push(Prompt {
                        text: phrasing.replace("{x}", subject),
                        fact_idx: facts.len(),
                        phrasing_idx,
                        held_out: (family_idx + row + phrasing_idx).is_multiple_of(HELD_OUT_PERIOD),
                    });
                }
                facts.push(Fact { family, subject, answer });
            }
        }
        let prompt_idx = prompts.iter().enumerate().map(|(idx, prompt)| (prompt.text.clone(), idx)).collect();
        Self { facts, prompts, prompt_idx }
    }

    /// Everything that can be asked.
    #[must_use]
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// Every fact in every phrasing, for training and for evaluation.
    #[must_use]
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    /// The fact that a prompt asks for; `None` for a text that is not a prompt of this task.
    #[must_use]
    pub fn fact(&self, prompt: &str) -> Option<&Fact> {
        self.prompt_idx.get(prompt).map(|&idx| &self.facts[self.prompts[idx].fact_idx])
    }
}

/// The phrasings of a family as written, then without their full stop or question mark, then without their capital
/// letter; each text once.
fn phrasings(family: &Family) -> Vec<String> {
    let bare = |phrasing: &&str| phrasing.trim_end_matches(['.', '?']).to_owned();
    let lower = |phrasing: &&str| phrasing[..1].to_lowercase() + &phrasing[1..];
    let written = family.phrasings.iter().map(|phrasing| (*phrasing).to_owned());
    let mut variants: Vec<String> = Vec::new();
    for phrasing in written.chain(family.phrasings.iter().map(bare)).chain(family.phrasings.iter().map(lower))
    {
        if !variants.contains(&phrasing) {
            variants.push(phrasing);
        }
    }
    variants
}

impl Default for Task {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_facts_share_a_prompt() {
        let task = Task::new();
        assert_eq!(task.prompt_idx.len(), task.prompts.len());
        for prompt in &task.prompts {
            assert_eq!(task.fact(&prompt.text), Some(&task.facts[prompt.fact_idx]));
        }
    }

    #[test]
    fn prompts_are_short_and_plain() {
        for prompt in Task::new().prompts() {
            assert!(prompt.text.len() <= 40 && prompt.text.is_ascii(), "{}", prompt.text);
        }
    }

    #[test]
    fn an_eighth_of_the_prompts_is_held_out() {
        let task = Task::new();
        let held_out = task.prompts.iter().filter(|prompt| prompt.held_out).count();
        let share = held_out as f64 / task.prompts.len() as f64;
        assert!(held_out >= 220 && (0.11..0.14).contains(&share), "{held_out}, {share}");
    }

    #[test]
    fn every_fact_and_every_phrasing_is_met_in_training() {
        let task = Task::new();
        let name = |prompt: &Prompt| task.facts[prompt.fact_idx].family.name;
        let training: Vec<_> = task.prompts.iter().filter(|prompt| !prompt.held_out).collect();
        for prompt in task.prompts.iter().filter(|prompt| prompt.held_out) {
            let of_fact = training.iter().filter(|seen| seen.fact_idx == prompt.fact_idx).count();
            let of_phrasing = training
                .iter()
                .filter(|seen| name(seen) == name(prompt) && seen.phrasing_idx == prompt.phrasing_idx)
                .count();
            assert!(of_fact >= 20 && of_phrasing >= 3, "{}: {of_fact}, {of_phrasing}", prompt.text);
        }
    }
}
