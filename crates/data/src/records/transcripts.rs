//! Transcripts of hh-rlhf: a whole dialogue in each of `chosen` and `rejected`.

use super::columns::{PROMPT, is_blank};
use super::comparison::same_completions;
use super::{Comparison, Fault};

/// What a transcript has before every answer; a prompt that is cut from one ends with it.
const ASSISTANT: &str = "\n\nAssistant:";

/// Splits two hh-rlhf transcripts into prompt and completions, after the last `"\n\nAssistant:"` of their common
/// beginning.
pub(super) fn split_transcripts(chosen: &str, rejected: &str) -> Result<Comparison, Fault> {
    if chosen == rejected {
        return Err(same_completions());
    }
    let pairs = chosen.char_indices().zip(rejected.chars());
    let shared = pairs.take_while(|((_, a), b)| a == b).last().map_or(0, |((at, a), _)| at + a.len_utf8());
    let end = chosen[..shared].rfind(ASSISTANT).ok_or_else(no_shared_prompt)? + ASSISTANT.len();
    for (column, transcript) in [("chosen", chosen), ("rejected", rejected)] {
        if is_blank(&transcript[end..]) {
            let place = "after the last shared \"\\n\\nAssistant:\"";
            return Err(Fault::new(format_args!("column `{column}` has no text {place}")));
        }
    }
    Ok(Comparison::pair(&chosen[..end], &chosen[end..], &rejected[end..]))
}

fn no_shared_prompt() -> Fault {
    let also =
        ", and `chosen` and `rejected` are not transcripts that share a beginning up to \"\\n\\nAssistant:\"";
    Fault::missing(&PROMPT, also)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_error};
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn transcripts_split_at_the_last_shared_answer() {
        let pair = |chosen: &str, rejected: &str| json!({"chosen": chosen, "rejected": rejected});
        let prompt = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:";
        check::<Comparison>(
            pair(&format!("{prompt} Yes, é"), &format!("{prompt} Yes, è")),
            json!({"prompt": prompt, "completions": [" Yes, é", " Yes, è"], "scores": [1.0, 0.0]}),
        );
        check_error::<Comparison>(pair("a b", "a c"), "share a beginning");
        check_error::<Comparison>(pair("\n\nAssistant: x", "\n\nHuman: x"), "share a beginning");
        check_error::<Comparison>(pair(prompt, &format!("{prompt} x")), "`chosen` has no text after");
        check_error::<Comparison>(pair(prompt, prompt), "are the same");
    }

    proptest! {
        #[test]
        fn splitting_loses_nothing(prompt in "[aé\n]{0,9}", a in "[ab é]{1,9}", b in "[ab è]{1,9}") {
            let [chosen, rejected] = [a, b].map(|turn| format!("{prompt}{ASSISTANT}{turn}"));
            if let Ok(split) = split_transcripts(&chosen, &rejected) {
                prop_assert_eq!(split.prompt.to_string(), format!("{prompt}{ASSISTANT}"));
                prop_assert_eq!(format!("{}{}", split.prompt, split.completions[0]), chosen);
                prop_assert_eq!(format!("{}{}", split.prompt, split.completions[1]), rejected);
            }
        }
    }
}
