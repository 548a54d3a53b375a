//! Trees of messages, as OpenAssistant collected them: whole trees, or one message in each row.

use std::collections::HashMap;

use serde_json::Value;
use temper_tokenizer::Message;

use super::has;
use super::messages::prompt_value;
use super::ratings::ranked;
use crate::records::{Fault, Purpose, Row, is_blank};

/// The longest conversation that is read, in messages; those of OpenAssistant have a dozen. A file may have any.
const LONGEST: usize = 200;

/// A message of a tree.
#[derive(Default)]
struct Node {
    text: String,
    is_of_assistant: bool,
    /// 0 is the best among the answers to the same message.
    rank: Option<f64>,
    replies: Vec<usize>,
}

/// Whether a row is one message of a tree.
pub(super) fn is_message(row: &Row) -> bool {
    has(row, &["message_tree_id", "message_id", "text", "role"])
}

/// Whether a row is a whole tree.
pub(super) fn is_tree(row: &Row) -> bool {
    row.get("prompt").is_some_and(|prompt| prompt.get("text").is_some() && prompt.get("role").is_some())
}

/// The rows of one tree, joined by `parent_id`.
pub(super) fn read_messages(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let mut nodes: Vec<Node> = Vec::with_capacity(rows.len());
    let mut idx_of: HashMap<&str, usize> = HashMap::new();
    let mut is_deleted = Vec::with_capacity(rows.len());
    for (idx, row) in rows.iter().enumerate() {
        let id = row["message_id"]
            .as_str()
            .ok_or_else(|| Fault::wrong_type("message_id", "a string", &row["message_id"]))?;
        if idx_of.insert(id, idx).is_some() {
            return Err(Fault::new(format_args!("message `{}` is there twice", id.escape_debug())));
        }
        nodes.push(node(row)?);
        is_deleted.push(row.get("deleted") == Some(&Value::Bool(true)));
    }
    let mut roots = Vec::new();
    for (idx, row) in rows.iter().enumerate().filter(|(idx, _)| !is_deleted[*idx]) {
        match row.get("parent_id").and_then(Value::as_str) {
            None => roots.push(idx),
            // What answers a message that is not in the file has lost what was asked.
            Some(parent) => drop(idx_of.get(parent).map(|&parent| nodes[parent].replies.push(idx))),
        }
    }
    conversations(&nodes, &roots, purpose)
}

/// A whole tree.
pub(super) fn read_tree(rows: &[Row], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let mut nodes = Vec::new();
    let mut unread: Vec<(Option<usize>, &Value)> = vec![(None, &rows[0]["prompt"])];
    while let Some((parent, value)) = unread.pop() {
        let fields =
            value.as_object().ok_or_else(|| Fault::wrong_type("replies", "a list of messages", value))?;
        if fields.get("deleted") == Some(&Value::Bool(true)) {
            continue;
        }
        let idx = nodes.len();
        nodes.push(node(fields)?);
        if let Some(parent) = parent {
            nodes[parent].replies.push(idx);
        }
        let replies = fields.get("replies").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        unread.extend(replies.iter().rev().map(|reply| (Some(idx), reply)));
    }
    let roots: Vec<usize> = (0..nodes.len().min(1)).collect();
    conversations(&nodes, &roots, purpose)
}

fn node(fields: &Row) -> Result<Node, Fault> {
    let field = |name: &str| fields.get(name).and_then(Value::as_str);
    let text = field("text").ok_or_else(|| Fault::new("a message has no `text`"))?.to_owned();
    let is_of_assistant = match field("role") {
        Some("prompter" | "user") => false,
        Some("assistant") => true,
        _ => return Err(Fault::new("the `role` of a message must be `prompter` or `assistant`")),
    };
    Ok(Node { text, is_of_assistant, rank: fields.get("rank").and_then(Value::as_f64), replies: Vec::new() })
}

/// What a tree is for a purpose: for each message of a user the ranking of its answers, or its best answer, or the
/// conversation up to it. Demonstrations follow the best answers only.
fn conversations(nodes: &[Node], roots: &[usize], purpose: Purpose) -> Result<Vec<Row>, Fault> {
    let mut rows = Vec::new();
    let mut open: Vec<(usize, Vec<Message>)> = roots.iter().rev().map(|&root| (root, Vec::new())).collect();
    while let Some((idx, mut turns)) = open.pop() {
        let Node { text, is_of_assistant, replies, .. } = &nodes[idx];
        if turns.len() == LONGEST {
            return Err(Fault::new(format_args!("a conversation has more than {LONGEST} messages")));
        }
        turns.push(if *is_of_assistant { Message::assistant(text) } else { Message::user(text) });
        let takes_turns = |reply: &&usize| {
            nodes[**reply].is_of_assistant != *is_of_assistant && !is_blank(&nodes[**reply].text)
        };
        let mut replies: Vec<usize> = replies.iter().filter(takes_turns).copied().collect();
        if !is_of_assistant {
            let rank = |idx: &usize| nodes[*idx].rank.unwrap_or(f64::INFINITY);
            if purpose == Purpose::Comparisons {
                let answers = replies
                    .iter()
                    .filter_map(|&reply| Some((nodes[reply].text.clone(), -nodes[reply].rank?)));
                // An answer without others is nothing to compare.
                rows.extend(
                    ranked(&Row::new(), prompt_value(turns.clone()), answers, purpose).unwrap_or_default(),
                );
            } else if purpose == Purpose::Prompts {
                rows.extend(ranked(&Row::new(), prompt_value(turns.clone()), [], purpose)?);
            } else {
                replies =
                    replies.into_iter().min_by(|a, b| rank(a).total_cmp(&rank(b))).into_iter().collect();
                let best = replies.iter().map(|&reply| (nodes[reply].text.clone(), 0.0));
                rows.extend(
                    ranked(&Row::new(), prompt_value(turns.clone()), best, purpose).unwrap_or_default(),
                );
            }
        }
        open.extend(replies.into_iter().rev().map(|reply| (reply, turns.clone())));
    }
    match rows.is_empty() {
        true if purpose == Purpose::Comparisons => {
            Err(Fault::unused("no message in them has two ranked answers"))
        }
        true => Err(Fault::unused("no message in them has an answer")),
        false => Ok(rows),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, check_error};
    use super::*;
    use Purpose::{Answers, Comparisons, Demonstrations, Prompts};
    use serde_json::json;

    /// A question with three answers: the second is the best, one has a further question, and one is deleted.
    fn messages() -> [Value; 6] {
        let row = |id: &str, parent: Option<&str>, text: &str, rank: Option<f64>| {
            let role = if rank.is_some() { "assistant" } else { "prompter" };
            json!({"message_tree_id": "t", "message_id": id, "parent_id": parent, "text": text, "role": role, "rank": rank})
        };
        let mut deleted = row("4", Some("1"), "spam", Some(2.0));
        deleted["deleted"] = json!(true);
        [
            row("1", None, "q", None),
            row("2", Some("1"), "worse", Some(1.0)),
            row("3", Some("1"), "better", Some(0.0)),
            deleted,
            row("5", Some("2"), "why", None),
            row("6", Some("5"), "because", Some(0.0)),
        ]
    }

    /// The same as a tree.
    fn tree() -> Value {
        let messages = messages();
        let node = |idx: usize, replies: Value| {
            let mut node = messages[idx].clone();
            node["replies"] = replies;
            node
        };
        let why = node(4, json!([node(5, json!([]))]));
        let replies = json!([node(1, json!([why])), node(2, json!([])), node(3, json!([]))]);
        json!({"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": node(0, replies)})
    }

    #[test]
    fn messages_and_trees_make_the_same_rankings_answers_and_prompts() {
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let asked_again = json!([turn("user", "q"), turn("assistant", "worse"), turn("user", "why")]);
        let ranking = json!({"prompt": "q", "completions": ["worse", "better"], "scores": [-1.0, 0.0]});
        let best = json!({"prompt": "q", "completion": "better"});
        for (name, rows) in [("OASST messages", messages().to_vec()), ("OASST trees", vec![tree()])] {
            check(name, &rows, Comparisons, std::slice::from_ref(&ranking));
            check(name, &rows, Demonstrations, std::slice::from_ref(&best));
            check(name, &rows, Answers, std::slice::from_ref(&best));
            check(name, &rows, Prompts, &[json!({"prompt": "q"}), json!({"prompt": asked_again})]);
        }
    }

    #[test]
    fn messages_of_a_tree_may_be_anywhere_in_the_file() {
        let mut rows = messages().to_vec();
        rows.reverse();
        let mut other = messages()[0].clone();
        (other["message_tree_id"], other["text"]) = (json!("u"), json!("r"));
        rows.insert(2, other);
        let mut prompts = Vec::new();
        let mut joiner = super::super::Joiner::default();
        for row in &rows {
            assert!(joiner.push(1, row.as_object().unwrap().clone()).is_empty());
        }
        for group in joiner.finish() {
            prompts.extend(group.read(Prompts).unwrap().into_iter().map(|row| row["prompt"].clone()));
        }
        assert_eq!(prompts.len(), 3);
        assert_eq!([&prompts[0], &prompts[2]], [&json!("q"), &json!("r")]);
    }

    #[test]
    fn trees_without_two_answers_or_without_an_end_are_no_comparisons() {
        check_error(&messages()[..2], Comparisons, "no message in them has two ranked answers");
        check_error(&messages()[..1], Demonstrations, "no message in them has an answer");
        let again = messages()[0].clone();
        check_error(&[again.clone(), again], Demonstrations, "message `1` is there twice");
        // Each answers the other.
        let mut circle = [messages()[0].clone(), messages()[1].clone()];
        circle[0]["parent_id"] = json!("2");
        check_error(&circle, Demonstrations, "no message in them has an answer");
    }
}
