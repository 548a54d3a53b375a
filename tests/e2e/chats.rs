//! Conversations: data with messages, and models with a chat template.

use serde_json::{Value, json};

use crate::util::{Temper, without_times};

const TEMPLATE: &str = "{% for m in messages %}[BOS]{{ m.role }}:{{ m.content }}{% if m.role == 'assistant' %}[EOS]{% endif %}\
                        {% endfor %}{% if add_generation_prompt %}[BOS]assistant:{% endif %}";

/// Bytes of a text as ids.
fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(|byte| u32::from(byte) + 4).collect()
}

/// The directory `chatty`: a model that has a chat template, and a tokenizer other than the byte tokenizer.
fn with_chat_model() -> Temper {
    let temper = Temper::with_sft();
    temper.copy("sft/final", "chatty");
    temper.edit_json("chatty/tokenizer.json", |tokenizer| {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
        // No text of these tests has them.
        vocab["~"] = 129.into();
        vocab["}"] = 130.into();
    });
    std::fs::remove_file(temper.path("chatty/template.json")).expect("a file");
    temper.write("chatty/chat_template.jinja", TEMPLATE);
    temper
}

fn messages(row: &Value) -> String {
    row["messages"].to_string()
}

#[test]
fn a_conversation_is_shown_as_text_and_ids_with_labels() {
    let temper = with_chat_model();
    let chat = json!({"messages": [
        {"role": "user", "content": "a[EOS]"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
    ]});
    let tokenize = |more: &[&str]| {
        let messages = messages(&chat);
        let arguments =
            [&["tokenize", "--model", "chatty", "--json", "--messages", &messages], more].concat();
        temper.run_of(&arguments).ok().rows().remove(0)
    };
    let row = tokenize(&[]);
    let question = [vec![1], bytes("user:a[EOS]")].concat();
    let (name, answer) = ([vec![1], bytes("assistant:")].concat(), [bytes("b"), vec![3]].concat());
    let ids = [&question[..], &name, &answer, &[1], &bytes("user:c")].concat();
    assert_eq!(row["text"], "[BOS]user:a[EOS][BOS]assistant:b[EOS][BOS]user:c");
    assert_eq!(row["input_ids"], json!(ids), "what a message spells stays text");
    let learned = question.len() + name.len()..question.len() + name.len() + answer.len();
    let labels: Vec<i64> = ids
        .iter()
        .enumerate()
        .map(|(i, id)| if learned.contains(&i) { i64::from(*id) } else { -100 })
        .collect();
    assert_eq!(row["labels"], json!(labels));
    let prompt = tokenize(&["--add-generation-prompt"]);
    assert_eq!(prompt["input_ids"], json!([&ids[..], &name].concat()));
    assert!(prompt["labels"].as_array().unwrap().iter().all(|label| *label == -100));
    temper
        .run_of(&["tokenize", "--model", "chatty", "--messages", "Hi"])
        .refused(&["is not a list of messages"]);
}

#[test]
fn a_chat_remembers_what_was_said_and_data_continue_it() {
    let temper = with_chat_model();
    let sampling = "--greedy --max-new-tokens 6";
    let said = temper.run_with_stdin(&format!("chat --model chatty {sampling} -q"), "Hi\nHow?\n").ok();
    let answers: Vec<&str> = said.stdout.split_terminator('\n').collect();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let so_far = json!([turn("user", "Hi"), turn("assistant", answers[0]), turn("user", "How?")]);
    let rows =
        [json!({"messages": so_far}), json!({"prompt": "How?"}), json!({"prompt": [turn("user", "How?")]})];
    temper.write("chats.jsonl", rows.map(|row| row.to_string()).join("\n"));
    let rows =
        temper.run(&format!("generate --model chatty --data chats.jsonl --json {sampling}")).ok().rows();
    assert_eq!((rows[0]["completion"].as_str(), &rows[0]["prompt"]), (answers.get(1).copied(), &so_far));
    assert_eq!(rows[1]["completion"], rows[2]["completion"], "a text is one message of the user");
    temper.write(
        "bad.jsonl",
        "{\"prompt\": \"Hi\"}\n{\"prompt\": [{\"role\": \"assistant\", \"content\": \"Hi\"}]}\n",
    );
    temper.run("generate --model chatty --data bad.jsonl --json").refused(&["bad.jsonl:2"]);
}

#[test]
fn every_stage_takes_conversations() {
    let temper = with_chat_model();
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let (ask, say) = (turn("user", "Hi"), turn("assistant", "Yo"));
    let chats = [
        json!({"messages": [ask, say, turn("user", "How?"), turn("assistant", "So")]}),
        json!({"messages": [ask, say]}),
    ];
    temper.write("chats.jsonl", chats.map(|row| row.to_string()).join("\n"));
    let pair = json!({"chosen": [ask, say], "rejected": [ask, turn("assistant", "No")]});
    temper.write("pairs.jsonl", pair.to_string());
    temper.write("asked.jsonl", json!({"prompt": [ask]}).to_string());
    temper.run("sft --data chats.jsonl --model chatty --out a --set max_steps=1").ok();
    let tokens = |run: &str| {
        without_times(&temper.read(&format!("{run}/metrics.jsonl")))[0]["n_targets"]
            .as_u64()
            .expect("a number")
    };
    temper
        .run("sft --data chats.jsonl --model chatty --out last --set max_steps=1 --set learned_turns=last")
        .ok();
    assert_eq!((tokens("a"), tokens("last")), (9, 6), "two letters and an end for each answer");
    temper.run("reward --data pairs.jsonl --model a/final --out b --set max_steps=1").ok();
    temper.run("dpo --data pairs.jsonl --model a/final --out d --set max_steps=1").ok();
    let ppo = "ppo --policy a/final --reward b/final --prompts asked.jsonl --out c --set batch_size=2";
    let said = temper.run(&format!("{ppo} --set rollout.max_new_tokens=3 --set max_steps=1")).ok();
    assert!(!said.stderr.contains("scores text"), "{said:?}");
    let rows = temper.run("logprobs --model a/final --data chats.jsonl").ok().rows();
    assert_eq!(rows[0]["completion_tokens"], json!([bytes("So"), vec![3]].concat()), "the last answer");
    assert_eq!(temper.run("score --model b/final --data chats.jsonl").ok().rows().len(), 2);
    temper.write("none.jsonl", json!({"messages": [ask]}).to_string());
    temper
        .run("sft --data none.jsonl --model chatty --out e --set max_steps=1")
        .refused(&["none.jsonl:1", "assistant"]);
}
