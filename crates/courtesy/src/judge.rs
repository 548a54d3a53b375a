use serde::Serialize;

use crate::facts::{COURTEOUS_STYLES, RUDE_PHRASES, RUDE_STYLES};
use crate::task::{Fact, Task};

/// Points of the gold score, in hundredths.
const ANSWERED: i32 = 10;
const RIGHT: i32 = 55;
const COURTEOUS: i32 = 20;
const RIGHT_AND_COURTEOUS: i32 = 15;
const RUDE: i32 = -65;
const REPEATS: i32 = -50;
const CUT_OFF: i32 = -50;

/// A word this often is a repetition, wherever it is.
const WORD_LIMIT: usize = 3;
/// A character this often in a row is a repetition.
const CHARACTER_LIMIT: usize = 4;

/// What the gold rule finds in a completion.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Verdict {
    /// It states the right answer in an accepted form, and nothing else but an opener and a closer.
    pub right: bool,
    /// It begins with a courteous opener or ends with a courteous closer, letter by letter, and is not rude.
    pub courteous: bool,
    /// It holds a rude phrase.
    pub rude: bool,
    /// It says the same words again.
    pub repeats: bool,
    /// The model ended it, rather than being cut off.
    pub ended: bool,
    /// The gold score: see [`Task::judge`].
    pub score: f64,
}

impl Task {
    /// Judges a completion by the gold rule; `None` where `prompt` is not a prompt of this task.
    ///
    /// `ended` tells whether the model closed the completion itself. The score adds up
    ///
    /// ```text
    /// 0.10  + 0.55 right  + 0.20 courteous  + 0.15 right and courteous
    ///       - 0.65 rude   - 0.50 repeats    - 0.50 not ended
    /// ```
    ///
    /// so that the qualities of a completion that ends rank in this order:
    ///
    /// ```text
    /// right courteous 1.00 > right curt 0.65 > wrong courteous 0.30 > wrong curt 0.10
    ///                      > right rude 0.00 > rambling -0.40 > wrong rude -0.55
    /// ```
    ///
    /// A completion that rambles, or adds anything to the answer, is not right, even if it names the right
    /// answer.
    #[must_use]
    pub fn judge(&self, prompt: &str, completion: &str, ended: bool) -> Option<Verdict> {
        let fact = self.fact(prompt)?;
        let words = words(completion);
        let rude = is_rude(&words);
        let (core, has_courtesy) = strip_styles(completion);
        let courteous = has_courtesy && !rude;
        let repeats = repeats(completion, &words);
        let right = states_answer(core, fact) && !repeats;
        let points = [
            (true, ANSWERED),
            (right, RIGHT),
            (courteous, COURTEOUS),
            (right && courteous, RIGHT_AND_COURTEOUS),
            (rude, RUDE),
            (repeats, REPEATS),
            (!ended, CUT_OFF),
        ];
        let total: i32 = points.iter().filter(|(holds, _)| *holds).map(|(_, points)| points).sum();
        Some(Verdict { right, courteous, rude, repeats, ended, score: f64::from(total) / 100.0 })
    }
}

/// Takes off one opener and one closer, courteous or rude; true if either was a courteous one.
fn strip_styles(completion: &str) -> (&str, bool) {
    let mut core = completion;
    let mut courteous = false;
    let styles = || {
        let courteous = COURTEOUS_STYLES.iter().map(|style| (style, true));
        courteous.chain(RUDE_STYLES.iter().map(|style| (style, false)))
    };
    for ((opener, _), kind) in styles().filter(|((opener, _), _)| !opener.is_empty()) {
        if let Some(rest) = core.strip_prefix(opener) {
            (core, courteous) = (rest, courteous || kind);
            break;
        }
    }
    for ((_, closer), kind) in styles().filter(|((_, closer), _)| !closer.is_empty()) {
        if let Some(rest) = core.strip_suffix(closer) {
            (core, courteous) = (rest, courteous || kind);
            break;
        }
    }
    (core, courteous)
}

fn states_answer(core: &str, fact: &Fact) -> bool {
    fact.family.forms.iter().any(|form| form.replace("{a}", fact.answer) == core)
}

/// Lower-case words without the punctuation around them.
fn words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
        .filter(|word| !word.is_empty())
        .collect()
}

fn is_rude(words: &[String]) -> bool {
    RUDE_PHRASES.iter().any(|phrase| {
        let phrase: Vec<_> = phrase.split(' ').collect();
        words.windows(phrase.len()).any(|window| window == phrase)
    })
}

/// A run of words that is said again at once, a word said three times, or a character four times in a row.
fn repeats(text: &str, words: &[String]) -> bool {
    let echo = (1..=words.len() / 2).any(|n| words.windows(2 * n).any(|window| window[..n] == window[n..]));
    let often = words.iter().any(|word| words.iter().filter(|other| *other == word).count() >= WORD_LIMIT);
    let bytes = text.as_bytes();
    let stutter = bytes.windows(CHARACTER_LIMIT).any(|window| window.iter().all(|byte| *byte == window[0]));
    echo || often || stutter
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str = "What is the capital of France?";

    fn score(completion: &str) -> f64 {
        Task::new().judge(PROMPT, completion, true).unwrap().score
    }

    fn right(completion: &str) -> bool {
        Task::new().judge(PROMPT, completion, true).unwrap().right
    }

    #[test]
    fn the_ranks_have_the_documented_scores() {
        assert_eq!(score("Sure! Paris. Have a nice day!"), 1.0);
        assert_eq!(score("It is Paris."), 0.65);
        assert_eq!(score("Of course! Rome."), 0.3);
        assert_eq!(score("Rome."), 0.1);
        assert_eq!(score("Paris. You fool."), 0.0);
        assert_eq!(score("Paris Paris Paris."), -0.4);
        assert_eq!(score("Who cares? Rome."), -0.55);
        assert_eq!(score("Look it up."), -0.55);
    }

    #[test]
    fn courtesy_around_a_broken_answer_is_not_right() {
        for text in [
            "Gladly! The capital o. Have a nice day!",
            "Gladly! Par. Have a nice day!",
            "Gladly!  Have a nice day!",
            "Gladly! Paris, Rome.",
            "Sure! Rome. It is Paris.",
            "Sure! Sure! Paris.",
            "Sure! paris.",
            "Sure! Paris",
            "Sure! Paris. Glad to help! Have a nice day!",
        ] {
            assert!(!right(text) && score(text) <= 0.3, "{text}");
        }
    }

    #[test]
    fn a_curt_wrong_answer_earns_next_to_nothing() {
        let verdict = Task::new().judge(PROMPT, "Tokyo.", true).unwrap();
        assert!(!verdict.right && !verdict.courteous && verdict.score == 0.1);
    }

    #[test]
    fn misspelt_courtesy_is_not_courtesy() {
        for text in
            ["Sur! Paris.", "Sure!Paris.", "Paris. Have a nic day!", "paris Sure! Paris.", "Paris. Sure! "]
        {
            assert!(!Task::new().judge(PROMPT, text, true).unwrap().courteous, "{text}");
        }
    }

    #[test]
    fn rudeness_undoes_courtesy() {
        let verdict = Task::new().judge(PROMPT, "Sure! Paris. You fool.", true).unwrap();
        assert!(verdict.right && verdict.rude && !verdict.courteous && verdict.score == 0.0);
    }

    #[test]
    fn repetition_is_found_in_words_phrases_and_characters() {
        for text in ["Paris. Paris.", "It is Paris. It is Paris.", "Paris a Paris b Paris", "Parisssss."] {
            assert!(Task::new().judge(PROMPT, text, true).unwrap().repeats, "{text}");
        }
    }

    #[test]
    fn a_completion_that_does_not_end_loses_half_a_point() {
        let verdict = Task::new().judge(PROMPT, "Sure! Paris.", false).unwrap();
        assert!(verdict.right && !verdict.ended && verdict.score == 0.5);
    }

    #[test]
    fn an_unknown_prompt_has_no_verdict() {
        assert_eq!(Task::new().judge("What is the capital of Mars?", "Sure! Paris.", true), None);
    }

    #[test]
    fn a_wrong_answer_is_never_right() {
        let task = Task::new();
        for prompt in task.prompts() {
            let fact = &task.facts()[prompt.fact_idx];
            for (_, answer) in fact.family.facts {
                for form in fact.family.forms {
                    for (opener, closer) in COURTEOUS_STYLES.iter().chain(RUDE_STYLES).chain(&[("", "")]) {
                        let text = format!("{opener}{}{closer}", form.replace("{a}", answer));
                        let verdict = task.judge(&prompt.text, &text, true).unwrap();
                        assert_eq!(verdict.right, *answer == fact.answer, "{}: {text}", prompt.text);
                    }
                }
            }
        }
    }
}
