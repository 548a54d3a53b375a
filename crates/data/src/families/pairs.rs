//! Two answers, one of them preferred.

use serde_json::Value;
use temper_tokenizer::Message;

use super::messages::{answer, messages, prompt_value};
use super::{answers_read, with};
use crate::records::{Fault, Purpose, Row, is_blank, text};

/// The two sides of a pair are equally good.
const TIE: &str = "their two answers are tied";

/// Whether `chosen` is a transcript of hh-rlhf.
pub(super) fn is_hh_rlhf(row: &Row) -> bool {
    let is_transcript =
        |column| row.get(column).and_then(Value::as_str).is_some_and(|text| text.starts_with("\n\nHuman:"));
    is_transcript("chosen") && row.get("prompt").is_none_or(Value::is_null)
}

/// TRL's `chosen` and `rejected`, with or without a `prompt`, as texts or lists of messages. Lists may begin with what was
/// asked, as those of UltraFeedback do.
pub(super) fn preference(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    let prompt = match row.get("prompt") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => vec![Message::user(text)],
        Some(_) => messages(row, "prompt")?,
    };
    if row["chosen"].is_string() && row["rejected"].is_string() {
        let row = with(row, answers_read(purpose, &["messages"]), []);
        let is_list = row.get("prompt").is_some_and(Value::is_array);
        return Ok(vec![if is_list { with(&row, &[], [("prompt", prompt_value(prompt))]) } else { row }]);
    }
    let (chosen, rejected) = (messages(row, "chosen")?, messages(row, "rejected")?);
    if chosen == rejected {
        return Err(Fault::new("columns `chosen` and `rejected` are the same"));
    }
    let (shared, chosen, rejected) = split(chosen, rejected);
    let prompt = if shared.ends_with(&prompt) { shared } else { [prompt, shared].concat() };
    if prompt.is_empty() {
        return Err(Fault::missing(
            &["prompt"],
            ", and `chosen` and `rejected` do not begin with the same messages",
        ));
    }
    let mut row = with(row, answers_read(purpose, &["messages"]), [("prompt", prompt_value(prompt))]);
    if purpose == Purpose::Prompts {
        return Ok(vec![row]);
    }
    for (column, turns) in [("chosen", chosen), ("rejected", rejected)] {
        row.insert(column.into(), answer(&turns, column)?.into());
    }
    Ok(vec![row])
}

/// The messages with which both conversations begin, and the rest of each.
fn split(mut a: Vec<Message>, mut b: Vec<Message>) -> (Vec<Message>, Vec<Message>, Vec<Message>) {
    let n_shared = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let shared = a.drain(..n_shared).collect();
    b.drain(..n_shared);
    (shared, a, b)
}

/// What a prompt with two answers is for a purpose. `preference` is above 0 where the first answer is better, by as much
/// as it is better, and 0 for a tie. `row` has the other columns.
fn pair(
    row: &Row,
    prompt: Value,
    answers: [&str; 2],
    preference: f64,
    purpose: Purpose,
) -> Result<Vec<Row>, Fault> {
    if purpose == Purpose::Prompts {
        return Ok(vec![with(row, &[], [("prompt", prompt)])]);
    }
    if preference == 0.0 {
        return Err(Fault::unused(TIE));
    }
    let [chosen, rejected] = if preference > 0.0 { answers } else { [answers[1], answers[0]] };
    if purpose == Purpose::Answers {
        return Ok(vec![with(row, &[], [("prompt", prompt), ("completion", chosen.into())])]);
    }
    let columns = [
        ("prompt", prompt),
        ("chosen", chosen.into()),
        ("rejected", rejected.into()),
        ("margin", preference.abs().into()),
    ];
    Ok(vec![with(row, &[], columns)])
}

/// OpenAI's summarize_from_feedback. The prompts are those of TRL: a post of Reddit, or an article of CNN.
pub(super) fn summaries(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    let info =
        |field: &str| row.get("info").and_then(|info| info[field].as_str()).filter(|text| !is_blank(text));
    let prompt = match (info("post"), info("article")) {
        (Some(post), _) => tldr_prompt(info("subreddit"), info("title"), post),
        (None, Some(article)) => format!("Article:\n{article}\n\nTL;DR:"),
        (None, None) => return Err(Fault::new("column `info` has no `post` and no `article`")),
    };
    let summary = |idx: usize| row["summaries"][idx]["text"].as_str().filter(|text| !is_blank(text));
    let (Some(first), Some(second)) = (summary(0), summary(1)) else {
        return Err(Fault::new("column `summaries` must hold two objects with a `text`"));
    };
    let preference = match row["choice"].as_u64() {
        Some(0) => 1.0,
        Some(1) => -1.0,
        _ => return Err(Fault::new(format_args!("column `choice` must be 0 or 1, found {}", row["choice"]))),
    };
    let [first, second] = [first, second].map(|text| format!(" {}", text.trim()));
    let row = with(row, answers_read(purpose, &["summaries", "choice"]), []);
    pair(&with(&row, &["info"], []), prompt.into(), [&first, &second], preference, purpose)
}

/// The prompt for a summary of a post, as OpenAI and TRL put it.
pub(super) fn tldr_prompt(subreddit: Option<&str>, title: Option<&str>, post: &str) -> String {
    let (subreddit, title) = (subreddit.unwrap_or_default(), title.unwrap_or_default());
    format!("SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {post}\n\nTL;DR:")
}

/// NVIDIA's HelpSteer2-Preference: `preference_strength` from -3 (the first response is much better) to 3.
pub(super) fn helpsteer2(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    let prompt = helpsteer_prompt(text(row, &["prompt"])?);
    let answers = [text(row, &["response_1"])?, text(row, &["response_2"])?];
    let preference = -strength(row, "preference_strength")?;
    let row = with(row, answers_read(purpose, &["response_1", "response_2"]), []);
    pair(&row, prompt, answers, preference, purpose)
}

/// NVIDIA's HelpSteer3: the same with the conversation so far in `context`.
pub(super) fn helpsteer3(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    if !super::has(row, &["context"]) {
        return Err(Fault::missing(&["context"], ""));
    }
    let prompt = prompt_value(messages(row, "context")?);
    let answers = [text(row, &["response1"])?, text(row, &["response2"])?];
    let preference = -strength(row, "overall_preference")?;
    let row = with(row, answers_read(purpose, &["response1", "response2"]), []);
    pair(&with(&row, &["context"], []), prompt, answers, preference, purpose)
}

fn strength(row: &Row, column: &str) -> Result<f64, Fault> {
    let strength = row[column].as_f64().filter(|strength| strength.abs() <= 3.0);
    strength.ok_or_else(|| {
        Fault::new(format_args!("column `{column}` must be a number from -3 to 3, found {}", row[column]))
    })
}

/// A prompt of HelpSteer. `<extra_id_1>User` and `<extra_id_1>Assistant` begin further turns of a conversation.
pub(super) fn helpsteer_prompt(prompt: &str) -> Value {
    const MARK: &str = "<extra_id_1>";
    let mut turns = prompt.split(MARK);
    let first = turns.next().unwrap_or_default();
    let mut messages = vec![Message::user(first.trim_end_matches('\n'))];
    for turn in turns {
        let (role, content) = match turn.split_once('\n') {
            Some(("User", content)) => ("user", content),
            Some(("Assistant", content)) => ("assistant", content),
            _ => return prompt.into(),
        };
        messages.push(Message::new(role, content.trim_matches('\n')));
    }
    // A text without marks stays as it is.
    if messages.len() == 1 { prompt.into() } else { prompt_value(messages) }
}

/// LMSYS's arena: two conversations, and who won.
pub(super) fn arena(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    let preference = match row["winner"].as_str() {
        Some("model_a") => 1.0,
        Some("model_b") => -1.0,
        Some("tie" | "tie (bothbad)" | "both_bad") => 0.0,
        _ => {
            return Err(Fault::new(format_args!(
                "column `winner` must be `model_a`, `model_b`, `tie` or `tie (bothbad)`, found {}",
                row["winner"]
            )));
        }
    };
    let (prompt, a, b) = split(messages(row, "conversation_a")?, messages(row, "conversation_b")?);
    if prompt.is_empty() {
        return Err(Fault::new(
            "columns `conversation_a` and `conversation_b` do not begin with the same message",
        ));
    }
    let row = with(row, answers_read(purpose, &["conversation_a", "conversation_b", "winner"]), []);
    let prompt = prompt_value(prompt);
    if purpose == Purpose::Prompts {
        return pair(&row, prompt, ["", ""], preference, purpose);
    }
    if a.is_empty() && b.is_empty() {
        return Err(Fault::unused("their two answers are the same"));
    }
    let (Ok(a), Ok(b)) = (answer(&a, "conversation_a"), answer(&b, "conversation_b")) else {
        return Err(Fault::unused("their two conversations differ before the last answer"));
    };
    pair(&row, prompt, [&a, &b], preference, purpose)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_error};
    use super::*;
    use Purpose::{Answers, Comparisons, Prompts};
    use serde_json::json;

    fn turns(texts: &[(&str, &str)]) -> Value {
        texts.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
    }

    #[test]
    fn sides_that_share_messages_are_answers_to_these() {
        let (u, a, b) = (("user", "u"), ("assistant", "a"), ("assistant", "b"));
        let pair = json!({"prompt": "u", "chosen": "a", "rejected": "b"});
        let sides = |prompt: Value, before: &[(&str, &str)]| {
            let side = |last| turns(&[before, &[last]].concat());
            json!({"prompt": prompt, "chosen": side(a), "rejected": side(b)})
        };
        // The prompt may be in both, in one place only, as text or as messages.
        for row in [sides(json!("u"), &[u]), sides(turns(&[u]), &[]), sides(turns(&[u]), &[u])] {
            check("TRL preference", &[row], Comparisons, &[pair.clone()]);
        }
        check("preference without a prompt", &[sides(Value::Null, &[u])], Comparisons, &[pair.clone()]);
        let long = [("system", "s"), u, ("assistant", "x"), ("user", "v")];
        let expected = json!({"prompt": turns(&long), "chosen": "a", "rejected": "b"});
        check("preference without a prompt", &[sides(Value::Null, &long)], Comparisons, &[expected.clone()]);
        check("TRL preference", &[sides(turns(&long[..2]), &long[2..])], Comparisons, &[expected]);
        check_error(&[sides(Value::Null, &[])], Comparisons, "do not begin with the same messages");
        let same = json!({"chosen": turns(&[u, a]), "rejected": turns(&[u, a])});
        check_error(&[same], Comparisons, "are the same");
        let early = json!({"chosen": turns(&[u, a, u, a]), "rejected": turns(&[u, b, u, b])});
        check_error(&[early], Comparisons, "`chosen` must hold one answer of the assistant");
        let texts =
            json!({"chosen": "\n\nHuman: u\n\nAssistant: a", "rejected": "\n\nHuman: u\n\nAssistant: b"});
        check("hh-rlhf", &[texts.clone()], Comparisons, &[texts]);
    }

    #[test]
    fn ultrafeedback_binarized_repeats_the_prompt_in_its_sides() {
        let row = json!({"prompt": "u", "prompt_id": "1", "score_chosen": 8.0, "score_rejected": 7.5,
            "chosen": turns(&[("user", "u"), ("assistant", "a")]), "rejected": turns(&[("user", "u"), ("assistant", "b")]),
            "messages": turns(&[("user", "u"), ("assistant", "a")])});
        let expected = json!({"prompt": "u", "prompt_id": "1", "score_chosen": 8.0, "score_rejected": 7.5, "chosen": "a", "rejected": "b"});
        check("UltraFeedback binarized", &[row], Comparisons, &[expected]);
    }

    #[test]
    fn the_choice_of_two_summaries_is_a_pair() {
        let row = |info: Value, choice: u8| {
            json!({"info": info, "choice": choice, "worker": "w",
            "summaries": [{"text": " One.", "policy": "p"}, {"text": "Two. ", "policy": "q"}]})
        };
        let post = json!({"id": "1", "post": "P", "title": "T", "subreddit": "S", "article": null});
        let prompt = "SUBREDDIT: r/S\n\nTITLE: T\n\nPOST: P\n\nTL;DR:";
        let expected =
            json!({"prompt": prompt, "chosen": " Two.", "rejected": " One.", "margin": 1.0, "worker": "w"});
        check("summarize_from_feedback", &[row(post.clone(), 1)], Comparisons, &[expected]);
        let answer = json!({"prompt": "Article:\nA\n\nTL;DR:", "completion": " One.", "worker": "w"});
        check("summarize_from_feedback", &[row(json!({"article": "A"}), 0)], Answers, &[answer]);
        check_error(&[row(post, 2)], Comparisons, "column `choice` must be 0 or 1, found 2");
    }

    #[test]
    fn helpsteer_prefers_the_first_response_where_the_strength_is_negative() {
        let row = |strength: i32| json!({"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": strength});
        let expected = |chosen, rejected, strength: i32| json!({"prompt": "p", "chosen": chosen, "rejected": rejected, "margin": 2.0, "preference_strength": strength});
        check("HelpSteer2-Preference", &[row(-2)], Comparisons, &[expected("a", "b", -2)]);
        check("HelpSteer2-Preference", &[row(2)], Comparisons, &[expected("b", "a", 2)]);
        check_error(&[row(0)], Comparisons, "tied");
        check("HelpSteer2-Preference", &[row(0)], Prompts, &[row(0)]);
        check_error(&[row(4)], Comparisons, "from -3 to 3, found 4");
        let context = turns(&[("user", "u"), ("assistant", "x"), ("user", "v")]);
        let third = json!({"context": context, "response1": "a", "response2": "b", "overall_preference": 1, "domain": "code"});
        let expected = json!({"prompt": context, "chosen": "b", "rejected": "a", "margin": 1.0, "overall_preference": 1, "domain": "code"});
        check("HelpSteer3", &[third], Comparisons, &[expected]);
    }

    #[test]
    fn marks_of_helpsteer_begin_turns() {
        let prompt = "u\n\n<extra_id_1>Assistant\na\n\n<extra_id_1>User\nv";
        assert_eq!(helpsteer_prompt(prompt), turns(&[("user", "u"), ("assistant", "a"), ("user", "v")]));
        for text in ["u\n", "u <extra_id_1> is a mark"] {
            assert_eq!(helpsteer_prompt(text), json!(text));
        }
    }

    #[test]
    fn the_winner_of_the_arena_is_chosen() {
        let side = |answer: &str| turns(&[("user", "u"), ("assistant", answer)]);
        let row = |winner: &str| json!({"model_a": "m", "conversation_a": side("a"), "conversation_b": side("b"), "winner": winner});
        let expected = json!({"prompt": "u", "chosen": "b", "rejected": "a", "margin": 1.0, "model_a": "m"});
        check("LMSYS arena", &[row("model_b")], Comparisons, &[expected]);
        for tie in ["tie", "tie (bothbad)"] {
            check_error(&[row(tie)], Comparisons, "tied");
        }
        check_error(&[row("nobody")], Comparisons, "column `winner` must be");
        let long = |answer: &str| {
            turns(&[("user", "u"), ("assistant", answer), ("user", "v"), ("assistant", answer)])
        };
        let early = json!({"conversation_a": long("a"), "conversation_b": long("b"), "winner": "model_a"});
        check_error(&[early], Comparisons, "differ before the last answer");
    }
}
