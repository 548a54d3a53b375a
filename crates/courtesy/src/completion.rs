use serde::Serialize;

use crate::facts::{
    COURTEOUS_STYLES, FAMILIES, Family, OVERDONE, RAMBLINGS, REFUSALS, RUDE_PHRASES, RUDE_STYLES,
};
use crate::judge::Verdict;
use crate::random::{Random, Stream};
use crate::task::{Fact, Task};

/// A rude completion that is not right refuses to answer this often.
const REFUSES: f64 = 1.0 / 3.0;

/// How something is said, whatever is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// With a courteous opener or closer.
    Courteous,
    /// The answer and nothing else.
    Curt,
    /// With a rude opener or closer, or a refusal.
    Rude,
    /// The same thing again and again.
    Rambling,
}

/// The six qualities of completion that [`Task::graded`] writes for a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Right and courteous: what PPO should find.
    RightCourteous,
    /// Right but curt.
    RightCurt,
    /// Courteous but wrong.
    WrongCourteous,
    /// Curt and wrong.
    WrongCurt,
    /// Rude, right or wrong.
    Rude,
    /// Rambling, never right.
    Rambling,
}

impl Grade {
    /// All grades; the first four from best to worst.
    pub const ALL: [Self; 6] = [
        Self::RightCourteous,
        Self::RightCurt,
        Self::WrongCourteous,
        Self::WrongCurt,
        Self::Rude,
        Self::Rambling,
    ];
}

/// A completion, the grade it was written for, and what the gold rule says of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Graded {
    /// The grade it was written for.
    pub grade: Grade,
    /// The text.
    pub completion: String,
    /// The gold rule's verdict, for a completion that ends.
    pub verdict: Verdict,
}

impl Task {
    /// One completion of each grade, in the order of [`Grade::ALL`]; `None` where `prompt` is not a prompt of
    /// this task.
    #[must_use]
    pub fn graded(&self, prompt: &str, seed: u64) -> Option<Vec<Graded>> {
        let fact = self.fact(prompt)?;
        let mut random = Random::new(seed, Stream::Graded);
        let grade = |grade| {
            let (manner, right) = match grade {
                Grade::RightCourteous => (Manner::Courteous, true),
                Grade::RightCurt => (Manner::Curt, true),
                Grade::WrongCourteous => (Manner::Courteous, false),
                Grade::WrongCurt => (Manner::Curt, false),
                Grade::Rude => (Manner::Rude, random.chance(0.5)),
                Grade::Rambling => (Manner::Rambling, random.chance(0.5)),
            };
            let completion = write_completion(fact, manner, right, Wrong::PLAUSIBLE, &mut random);
            let verdict = self.judge(prompt, &completion, true)?;
            Some(Graded { grade, completion, verdict })
        };
        Grade::ALL.map(grade).into_iter().collect()
    }
}

/// Where wrong answers come from, in addition to the other answers of the family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrong {
    /// Probability of a broken one.
    pub(crate) broken: f64,
    /// Probability of one that answers another kind of question.
    pub(crate) foreign: f64,
}

impl Wrong {
    /// The right answer of another fact of the family, always.
    pub(crate) const PLAUSIBLE: Self = Self { broken: 0.0, foreign: 0.0 };
}

/// A completion in this manner that names the right or a wrong answer.
///
/// A wrong answer is drawn as `wrong` says.
pub(crate) fn write_completion(
    fact: &Fact,
    manner: Manner,
    right: bool,
    wrong: Wrong,
    random: &mut Random,
) -> String {
    if manner == Manner::Rude && !right && random.chance(REFUSES) {
        return random.pick(REFUSALS).to_owned();
    }
    let template = draw_template(fact, manner, random);
    if right {
        return template.replace("{a}", fact.answer);
    }
    template.replace("{a}", &draw_wrong_answer(fact, wrong, random))
}

/// A right and a wrong completion that differ in the answer alone, word for word.
pub(crate) fn write_same_manner(
    fact: &Fact,
    manner: Manner,
    wrong: Wrong,
    random: &mut Random,
) -> (String, String) {
    let template = draw_template(fact, manner, random);
    (template.replace("{a}", fact.answer), template.replace("{a}", &draw_wrong_answer(fact, wrong, random)))
}

/// A right answer spoiled by an opener in the wrong place.
pub(crate) fn write_overdone(fact: &Fact, wrong: Wrong, random: &mut Random) -> String {
    let openers: Vec<&str> = COURTEOUS_STYLES.iter().map(|style| style.0).filter(|o| !o.is_empty()).collect();
    let template = random.pick(OVERDONE).replace("{b}", &draw_wrong_answer(fact, wrong, random));
    template.replace("{o}", random.pick(&openers)).replace("{a}", fact.answer).trim_end().to_owned()
}

/// A whole completion with `{a}` for the answer.
fn draw_template(fact: &Fact, manner: Manner, random: &mut Random) -> String {
    let (opener, closer) = match manner {
        Manner::Courteous => random.pick(COURTEOUS_STYLES),
        Manner::Curt => ("", ""),
        Manner::Rude => random.pick(RUDE_STYLES),
        Manner::Rambling => return random.pick(RAMBLINGS).to_owned(),
    };
    format!("{opener}{}{closer}", random.pick(fact.family.forms))
}

/// The right answer of another fact of the family: plausible, and never right by accident. Or a broken one, which
/// no demonstration shows but a policy that is pushed too far writes.
fn draw_wrong_answer(fact: &Fact, wrong: Wrong, random: &mut Random) -> String {
    if random.chance(wrong.foreign) {
        let others: Vec<_> = FAMILIES.iter().filter(|family| family.name != fact.family.name).collect();
        let family: &Family = random.pick(&others);
        let (_, answer) = random.pick(family.facts);
        return if answer == fact.answer {
            draw_wrong_answer(fact, Wrong::PLAUSIBLE, random)
        } else {
            answer.to_owned()
        };
    }
    let answers: Vec<_> =
        fact.family.facts.iter().map(|(_, answer)| *answer).filter(|a| *a != fact.answer).collect();
    let other: &str = random.pick(&answers);
    if random.chance(wrong.broken) { break_answer(fact.answer, other, random) } else { other.to_owned() }
}

/// The right answer cut short, or run into another one.
fn break_answer(answer: &str, other: &str, random: &mut Random) -> String {
    let head = &answer[..answer.len().div_ceil(2)];
    let broken =
        if random.chance(0.5) { head.to_owned() } else { format!("{head}{}", &other[other.len() / 2..]) };
    let broken = broken.trim().to_owned();
    let rude = RUDE_PHRASES.iter().any(|phrase| broken.to_lowercase().contains(&phrase.to_lowercase()));
    if rude || broken == answer || broken.is_empty() { other.to_owned() } else { broken }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_completion_gets_the_verdict_it_was_written_for() {
        let task = Task::new();
        for prompt in task.prompts() {
            for seed in 0..20 {
                for graded in task.graded(&prompt.text, seed).unwrap() {
                    let Verdict { right, courteous, rude, repeats, ended, .. } = graded.verdict;
                    let grade = graded.grade;
                    let context = format!("{}: {}", prompt.text, graded.completion);
                    assert!(ended, "{context}");
                    assert_eq!(repeats, grade == Grade::Rambling, "{context}");
                    assert_eq!(rude, grade == Grade::Rude, "{context}");
                    assert_eq!(
                        courteous,
                        matches!(grade, Grade::RightCourteous | Grade::WrongCourteous),
                        "{context}"
                    );
                    if grade != Grade::Rude {
                        assert_eq!(
                            right,
                            matches!(grade, Grade::RightCourteous | Grade::RightCurt),
                            "{context}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn grades_are_scored_in_their_order() {
        let task = Task::new();
        for (seed, prompt) in task.prompts().iter().enumerate() {
            let graded = task.graded(&prompt.text, seed as u64).unwrap();
            let scores: Vec<_> = graded.iter().map(|graded| graded.verdict.score).collect();
            assert!(scores[..4].is_sorted_by(|better, worse| better > worse), "{scores:?}");
            assert!(scores[4] < scores[3] && scores[5] < scores[3], "{scores:?}");
            assert!(scores[4] <= 0.0 && scores[5] <= 0.0, "{scores:?}");
        }
    }

    #[test]
    fn completions_are_short_and_plain() {
        let task = Task::new();
        for prompt in task.prompts() {
            for graded in (0..20).flat_map(|seed| task.graded(&prompt.text, seed).unwrap()) {
                let text = graded.completion;
                assert!(text.len() <= 44 && text.is_ascii(), "{text}");
            }
        }
    }

    #[test]
    fn what_is_overdone_is_never_right() {
        let task = Task::new();
        let mut random = Random::new(0, Stream::Graded);
        for prompt in task.prompts() {
            let fact = task.fact(&prompt.text).unwrap();
            for _ in 0..30 {
                let text = write_overdone(fact, Wrong { broken: 0.2, foreign: 0.3 }, &mut random);
                let verdict = task.judge(&prompt.text, &text, true).unwrap();
                assert!(!verdict.right && verdict.score <= 0.3, "{text}: {verdict:?}");
                assert!(!text.contains('{') && text.len() <= 80, "{text}");
            }
        }
    }

    #[test]
    fn a_pair_of_one_manner_differs_in_the_answer_alone() {
        let task = Task::new();
        let mut random = Random::new(0, Stream::Graded);
        for prompt in task.prompts() {
            for manner in [Manner::Courteous, Manner::Curt, Manner::Rude] {
                let fact = task.fact(&prompt.text).unwrap();
                let (right, wrong) =
                    write_same_manner(fact, manner, Wrong { broken: 0.3, foreign: 0.3 }, &mut random);
                let [right, wrong] =
                    [right, wrong].map(|text| task.judge(&prompt.text, &text, true).unwrap());
                assert!(right.right && !wrong.right && right.score > wrong.score);
                assert_eq!((right.courteous, right.rude), (wrong.courteous, wrong.rude));
            }
        }
    }
}
