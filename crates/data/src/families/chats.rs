//! Conversations: lists of messages, alone or as the sides of other formats.

use serde_json::{Value, json};
use temper_tokenizer::Message;

use super::messages::{answer, messages, optional_text, prompt_value};
use super::{answers_read, pairs, with};
use crate::records::{Fault, Purpose, Row, has_content};

/// TRL's and OpenAI's `messages`.
pub(super) fn chat(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    if row.get("tools").is_some_and(has_content) {
        return Err(Fault::new("column `tools` is not read, and the conversation may need it"));
    }
    if purpose == Purpose::Prompts && row.get("prompt").is_some_and(has_content) {
        return Ok(rows.to_vec());
    }
    conversation(row, "messages", messages(row, "messages")?, purpose)
}

/// ShareGPT's `conversations`, with LLaMA-Factory's `system`, `chosen` and `rejected`.
pub(super) fn sharegpt(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    if row.get("tools").is_some_and(has_content) {
        return Err(Fault::new("column `tools` is not read, and the conversation may need it"));
    }
    let mut turns = messages(row, "conversations")?;
    let system = optional_text(row, "system")?;
    if !system.is_empty() {
        turns.insert(0, Message::new("system", system));
    }
    let row = &with(row, &["system"], []);
    if row.get("chosen").is_some_and(has_content) && row.get("rejected").is_some_and(has_content) {
        return pairs::preference(&[with(row, &["conversations"], [("prompt", json!(turns))])], purpose);
    }
    conversation(row, "conversations", turns, purpose)
}

/// What the conversation in `column` of a row is for a purpose.
fn conversation(
    row: &Row,
    column: &str,
    mut turns: Vec<Message>,
    purpose: Purpose,
) -> Result<Vec<Row>, Fault> {
    let n_answers = turns.iter().filter(|turn| turn.is_of_assistant()).count();
    if purpose == Purpose::Prompts {
        let Some(last) = turns.iter().rposition(|turn| !turn.is_of_assistant()) else {
            return Err(Fault::new(format_args!("column `{column}` has only turns of the assistant")));
        };
        let has_answer = last + 1 < turns.len();
        turns.truncate(last + 1);
        let read = if has_answer { &[][..] } else { &[column] };
        return Ok(vec![with(row, read, [("prompt", prompt_value(turns))])]);
    }
    if purpose == Purpose::Comparisons {
        return Err(Fault::new(format_args!(
            "column `{column}` holds one conversation, and a comparison needs two answers: `chosen` and `rejected`"
        )));
    }
    if n_answers == 0 {
        return Err(Fault::new(format_args!("column `{column}` has no turn of the assistant")));
    }
    let is_one_exchange = turns.len() == 2 && turns[0].role == "user" && turns[0].other.is_empty();
    if purpose == Purpose::Demonstrations && !is_one_exchange {
        return Ok(vec![with(row, &[column], [("messages", json!(turns))])]);
    }
    let last = turns.split_off(turns.len() - 1);
    let completion = answer(&last, column)?;
    Ok(vec![with(row, &[column], [("prompt", prompt_value(turns)), ("completion", completion.into())])])
}

/// TRL's `prompt` and `completion`, texts or lists of messages.
pub(super) fn prompt_completion(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    let mut row = with(row, answers_read(purpose, &["messages"]), []);
    if !row["prompt"].is_string() {
        row.insert("prompt".into(), prompt_value(messages(&row, "prompt")?));
    }
    if row["completion"].is_string() || purpose == Purpose::Prompts {
        return Ok(vec![row]);
    }
    let completion = answer(&messages(&row, "completion")?, "completion")?;
    row.insert("completion".into(), completion.into());
    Ok(vec![row])
}

/// TRL's single answers with a `label`, as KTO learns from.
pub(super) fn unpaired(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    if purpose == Purpose::Comparisons {
        return Err(Fault::new(
            "single answers with a `label` are not comparisons: a row needs two answers, `chosen` and `rejected`",
        ));
    }
    if purpose == Purpose::Demonstrations && rows[0]["label"] == Value::Bool(false) {
        return Err(Fault::unused("their `label` is false, which marks a bad answer"));
    }
    prompt_completion(rows, purpose)
}

/// TRL's `prompt` alone, a text or a list of messages.
pub(super) fn prompt_only(rows: &[Row], _: Purpose) -> Result<Vec<Row>, Fault> {
    let row = &rows[0];
    if row["prompt"].is_string() {
        return Ok(rows.to_vec());
    }
    let prompt = prompt_value(messages(row, "prompt")?);
    Ok(vec![with(row, &[], [("prompt", prompt)])])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_error};
    use super::*;
    use Purpose::{Answers, Comparisons, Demonstrations, Prompts};

    fn turns(texts: &[(&str, &str)]) -> Value {
        texts.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
    }

    #[test]
    fn a_conversation_is_learned_as_a_whole_and_its_last_question_is_a_prompt() {
        let asked = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")];
        let whole = turns(&[&asked[..], &[("assistant", "d")]].concat());
        let row = json!({"messages": whole, "prompt_id": 7});
        check("chat messages", &[row.clone()], Demonstrations, &[row.clone()]);
        let with_answer = json!({"messages": whole, "prompt_id": 7, "prompt": turns(&asked)});
        check("chat messages", &[row.clone()], Prompts, &[with_answer]);
        let only_asked = json!({"messages": turns(&asked), "prompt_id": 7});
        let expected = json!({"prompt_id": 7, "prompt": turns(&asked)});
        check("chat messages", &[only_asked], Prompts, &[expected]);
        let last = json!({"prompt": turns(&asked), "completion": "d", "prompt_id": 7});
        check("chat messages", &[row.clone()], Answers, &[last]);
        check_error(&[row], Comparisons, "a comparison needs two answers");
        // One question and its answer are texts, which need no chat template.
        let row = json!({"messages": turns(&[("user", "a"), ("assistant", "b")])});
        check("chat messages", &[row], Demonstrations, &[json!({"prompt": "a", "completion": "b"})]);
        check_error(
            &[json!({"messages": turns(&[("user", "a")])})],
            Demonstrations,
            "no turn of the assistant",
        );
        check_error(&[json!({"messages": []})], Demonstrations, "column `messages` has no message");
        check_error(
            &[json!({"messages": [{"content": "a"}]})],
            Prompts,
            "message 1 of column `messages` has no `role`",
        );
        let tools =
            json!({"messages": turns(&[("user", "a"), ("assistant", "b")]), "tools": [{"name": "f"}]});
        check_error(&[tools], Demonstrations, "column `tools` is not read");
    }

    #[test]
    fn speakers_of_sharegpt_are_roles() {
        let row = json!({"id": "x", "system": "s", "conversations": [
            {"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": null},
            {"from": "observation", "value": "c"}, {"from": "chatgpt", "value": "d"}]});
        let expected =
            turns(&[("system", "s"), ("user", "a"), ("assistant", "b"), ("tool", "c"), ("assistant", "d")]);
        check("ShareGPT", &[row], Demonstrations, &[json!({"id": "x", "messages": expected})]);
        let unknown = json!({"conversations": [{"from": "narrator", "value": "a"}]});
        check_error(&[unknown], Demonstrations, "message 1 of column `conversations` is from `narrator`");
        let pair = json!({"conversations": [{"from": "human", "value": "a"}],
            "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"}});
        check("ShareGPT", &[pair], Comparisons, &[json!({"prompt": "a", "chosen": "b", "rejected": "c"})]);
    }

    #[test]
    fn prompts_and_completions_are_texts_or_messages() {
        let text = json!({"prompt": "a", "completion": "b"});
        check("TRL prompt-completion", &[text.clone()], Demonstrations, &[text.clone()]);
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}]}]);
        let row = json!({"prompt": parts, "completion": turns(&[("assistant", "b")])});
        check("TRL prompt-completion", &[row], Demonstrations, &[text]);
        let two = json!({"prompt": "a", "completion": turns(&[("assistant", "b"), ("user", "c")])});
        check_error(&[two], Demonstrations, "column `completion` must hold one answer of the assistant");
        let asked = turns(&[("system", "s"), ("user", "a")]);
        check(
            "TRL prompt-only",
            &[json!({"prompt": asked, "answer": 4})],
            Prompts,
            &[json!({"prompt": asked, "answer": 4})],
        );
    }

    #[test]
    fn only_answers_labelled_good_are_imitated() {
        let row = |label: bool| json!({"prompt": "a", "completion": "b", "label": label});
        check("TRL unpaired preference", &[row(true)], Demonstrations, &[row(true)]);
        check_error(&[row(false)], Demonstrations, "`label` is false");
        check("TRL unpaired preference", &[row(false)], Answers, &[row(false)]);
        check_error(&[row(true)], Comparisons, "`label` are not comparisons");
    }
}
