//! Models by their name on the hub, from a server on loopback, and fields of `config.json` that are allowed.

use std::process::Command;

use crate::loopback::{COMMIT, Fault, Loopback};
use crate::util::{Said, Temper};

/// A server that has the model in `sft/final`, or in another directory, as `org/name`.
fn server(temper: &Temper, dir: &str) -> Loopback {
    let files: Vec<(String, Vec<u8>)> = temper
        .snapshot(dir)
        .into_iter()
        .filter_map(|(path, content)| Some((path.to_str()?.to_owned(), content?)))
        .filter(|(name, _)| !name.contains('/'))
        .collect();
    Loopback::new(&files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect::<Vec<_>>())
}

/// The command with the variables that lead to a server, and to a cache in `hf`.
fn asking(temper: &Temper, server: &Loopback, arguments: &str) -> Command {
    let mut command = temper.command(arguments);
    command.env("HF_ENDPOINT", &server.url).env("HF_HOME", temper.path("hf"));
    for name in ["HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
        command.env_remove(name);
    }
    command
}

fn run(temper: &Temper, server: &Loopback, arguments: &str) -> Said {
    Said::of(arguments, asking(temper, server, arguments).output())
}

#[test]
fn a_model_of_the_hub_answers_like_its_directory() {
    let temper = Temper::with_sft();
    let server = server(&temper, "sft/final");
    let by_directory = temper.run("generate --prompt a --greedy --json --model sft/final").ok();
    server.fail("/store/", Fault::Cut(1000), 1);
    let generate = "generate --prompt a --greedy --json --model org/name";
    let said = run(&temper, &server, generate).ok();
    assert_eq!(said.stdout, by_directory.stdout);
    assert_eq!(temper.read("hf/hub/models--org--name/refs/main"), COMMIT);
    // Everything is in the cache by now.
    server.asked();
    let said =
        Said::of(generate, asking(&temper, &server, generate).env("HF_HUB_OFFLINE", "1").output()).ok();
    assert_eq!(said.stdout, by_directory.stdout);
    assert!(server.asked().is_empty());
    // A directory comes first, and a name with a revision is not one.
    temper.copy("sft/final", "org/name");
    run(&temper, &server, generate).ok();
    assert!(server.asked().is_empty());
    run(&temper, &server, &format!("{generate}@v1")).ok();
    assert_eq!(server.asked(), ["/api/models/org/name/revision/v1"]);
}

#[test]
fn stages_start_from_a_model_of_the_hub() {
    let temper = Temper::with_reward_model();
    let sft = server(&temper, "sft/final");
    let train = "sft --data demonstrations.jsonl --model org/name --out more --set max_steps=1";
    run(&temper, &sft, train).ok();
    let by_directory = "sft --data demonstrations.jsonl --model sft/final --out same --set max_steps=1";
    temper.run(by_directory).ok();
    assert_eq!(temper.bytes("more/final/model.safetensors"), temper.bytes("same/final/model.safetensors"));
    let reward = server(&temper, "reward/final");
    let ppo = "ppo --policy sft/final --reward org/name@v1 --gold org/name --prompts prompts.jsonl --out ppo \
               --set max_steps=1 --set rollout.max_new_tokens=4";
    std::fs::remove_dir_all(temper.path("hf")).expect("the cache");
    run(&temper, &reward, ppo).ok();
    let eval = "eval --model sft/final --judge org/name --data prompts.jsonl --max-new-tokens 4";
    run(&temper, &reward, eval).ok();
}

#[test]
fn tokens_are_shown_without_the_weights_of_a_model() {
    let temper = Temper::with_sft();
    let server = server(&temper, "sft/final");
    let tokenize = "tokenize --prompt a --completion b --json --max-len 32 --model";
    let said = run(&temper, &server, &format!("{tokenize} org/name")).ok();
    assert_eq!(said.stdout, temper.run(&format!("{tokenize} sft/final")).ok().stdout);
    assert!(server.asked().iter().all(|path| !path.contains("safetensors")));
}

#[test]
fn a_hub_that_does_not_give_the_model_is_one_line_and_a_hint() {
    let temper = Temper::with_sft();
    let server = server(&temper, "sft/final");
    let generate = "generate --prompt a --model";
    let refused = |model: &str, says: &[&str]| {
        let said = run(&temper, &server, &format!("{generate} {model}")).refused(says);
        assert!(!said.hint().is_empty(), "{said:?}");
        said
    };
    refused(
        "org/other",
        &[
            "`org/other`, which is not a directory but can be a model of the hub: ",
            "has no model `org/other`",
        ],
    );
    refused("org/name@v9", &["the model `org/name` has no revision `v9`"]);
    server.state().token = Some("hf_secret".into());
    let said = refused("org/name", &["someone without a token (status 401)"]);
    assert!(said.hint().contains("HF_TOKEN"), "{said:?}");
    server.state().token = None;
    server.fail("/api/", Fault::Page, 1);
    let said = refused("org/name", &["it is a web page (text/html)"]);
    assert!(said.hint().contains("proxy"), "{said:?}");
    server.fail("/store/", Fault::Garbled, 1);
    refused("org/name", &["the download of model.safetensors", "is damaged"]);
    let arguments = format!("{generate} org/name@v1");
    let mut offline = asking(&temper, &server, &arguments);
    Said::of(&arguments, offline.env("HF_HUB_OFFLINE", "1").output()).refused(&["HF_HUB_OFFLINE", "hint: "]);
    let weights = server.state().files.remove("model.safetensors").expect("weights");
    server.state().files.insert("pytorch_model.bin".into(), weights);
    let said = refused("org/name", &["`org/name` has no model.safetensors, only pytorch_model.bin"]);
    assert!(said.hint().contains("safetensors"), "{said:?}");
    refused("a/b/c", &["a/b/c is neither a model directory nor ORG/NAME"]);
}

#[test]
fn a_field_that_is_allowed_is_ignored_and_named() {
    let temper = Temper::with_reward_model();
    for kind in ["sft", "reward"] {
        temper.copy(&format!("{kind}/final"), &format!("new-{kind}"));
        let config = format!("new-{kind}/config.json");
        temper.edit_json(&config, |config| config["logit_softcap"] = 15.0.into());
    }
    let allow = "--allow-config logit_softcap";
    let generate = "generate --prompt a --greedy --model new-sft";
    let said = temper.refuses(generate, &["unknown fields `logit_softcap`"]);
    assert!(said.hint().contains(allow), "{said:?}");
    temper.refuses(&format!("{generate} --allow-config other"), &["`logit_softcap`"]);
    let commands = [
        generate.to_owned(),
        "logprobs --data demonstrations.jsonl --model new-sft".into(),
        "score --data demonstrations.jsonl --model new-reward".into(),
        "eval --data demonstrations.jsonl --model new-sft".into(),
        "eval --data prompts.jsonl --model new-sft --against new-sft --judge new-reward --max-new-tokens 4".into(),
        "sft --data demonstrations.jsonl --model new-sft --out a --set max_steps=1".into(),
        "reward --data comparisons.jsonl --model new-sft --out b --set max_steps=1".into(),
        "dpo --data comparisons.jsonl --model new-sft --out c --set max_steps=1".into(),
        "ppo --policy new-sft --reward new-reward --gold new-reward --prompts prompts.jsonl --out d --set max_steps=1 \
         --set rollout.max_new_tokens=4"
            .into(),
        "select --run sft --reward new-reward --prompts prompts.jsonl --max-new-tokens 4".into(),
    ];
    for command in commands {
        let said = temper.run(&format!("{command} {allow}")).ok();
        assert!(said.stderr.contains("/config.json: ignoring `logit_softcap`, as asked for"), "{said:?}");
    }
    // What was ignored is not written again, so the new model needs no flag.
    temper.run("generate --prompt a --model a/final").ok();
}
