//! Bad input: models and devices. One clear line, a hint, exit code 1, nothing half-written, never a panic.
//!
//! [`Temper::refuses`] checks all of that: the code, the one line and its hint, no output, and that not a file
//! in the directory has changed.

use std::fs;

use safetensors::tensor::{SafeTensors, TensorView};
use serde_json::json;

use crate::util::Temper;

const TRAIN: &str = "sft --model gpt2-tiny --out out --data demonstrations.jsonl";
const REWARD: &str = "reward --data comparisons.jsonl --out out --model";
const PPO: &str = "ppo --prompts prompts.jsonl --out out";

#[test]
fn a_checkpoint_of_another_architecture_is_named() {
    let temper = Temper::with_sft();
    temper.copy("sft/final", "mamba");
    temper.edit_json("mamba/config.json", |config| config["model_type"] = "mamba".into());
    for command in ["generate --prompt a --model mamba", "logprobs --data demonstrations.jsonl --model mamba"]
    {
        let said = temper.refuses(command, &["mamba/config.json", "`mamba`"]);
        assert!(said.hint().contains("docs/models.md"), "{said:?}");
    }
    temper.refuses("sft --out out --data demonstrations.jsonl --model mamba", &["`mamba`"]);
    temper.refuses(&format!("{REWARD} mamba"), &["`mamba`"]);
    // A reward model of it is one that cannot be read, whatever is asked of it.
    temper.edit_json("mamba/config.json", |config| {
        config["architectures"] = json!(["MambaForSequenceClassification"]);
    });
    for command in ["generate --prompt a --model mamba", "eval --data comparisons.jsonl --model mamba"] {
        temper.refuses(command, &["`mamba`", "unsupported"]);
    }
    for (key, value, says) in [
        ("model_type", json!(null), "model_type"),
        ("n_head", json!(3), "n_heads"),
        ("n_head", json!(0), "n_heads"),
        ("n_embd", json!("wide"), "n_embd"),
        ("n_layer", json!(-1), "n_layer"),
        ("n_positions", json!(null), "n_positions"),
        ("activation_function", json!("swish"), "swish"),
        ("layer_norm_epsilon", json!(-1.0), "norm_eps"),
        ("layer_norm_epsilon", json!("x"), "`layer_norm_epsilon` must be a number, not \"x\""),
        ("tie_word_embeddings", json!("x"), "`tie_word_embeddings` must be true or false"),
        ("resid_pdrop", json!(1.5), "pdrop"),
        ("n_embd", json!(64), "shape"),
        ("n_layer", json!(3), "weight"),
        ("n_positions", json!(256), "shape"),
        ("logit_softcap", json!(15.0), "unknown fields `logit_softcap`"),
    ] {
        temper.copy("sft/final", "other");
        temper.edit_json("other/config.json", |config| config[key] = value);
        temper.refuses("generate --prompt a --model other", &["other/", says, "hint: "]);
    }
}

#[test]
fn a_vocabulary_that_the_model_does_not_have_is_refused() {
    let temper = Temper::with_reward_model();
    for kind in ["sft", "reward"] {
        temper.copy(&format!("{kind}/final"), "grown");
        temper.edit_json("grown/tokenizer.json", |tokenizer| {
            let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
            for id in 260..300 {
                vocab.insert(format!("extra{id}"), id.into());
            }
        });
        let command = if kind == "sft" {
            "generate --prompt a --model grown"
        } else {
            "score --data demonstrations.jsonl --model grown"
        };
        temper.refuses(command, &["grown", "300 tokens", "260", "hint: "]);
    }
}

#[test]
fn the_other_kind_of_model_is_refused() {
    let temper = Temper::with_reward_model();
    let ppo = |policy: &str, reward: &str| format!("{PPO} --policy {policy} --reward {reward}");
    for command in
        [ppo("sft/final", "sft/final"), "score --data demonstrations.jsonl --model sft/final".into()]
    {
        let said = temper.refuses(&command, &["sft/final", "language model", "a reward model is needed"]);
        assert!(said.hint().contains("temper reward"), "{said:?}");
    }
    for command in [
        ppo("reward/final", "reward/final"),
        "generate --prompt a --model reward/final".into(),
        "logprobs --data demonstrations.jsonl --model reward/final".into(),
        format!("{REWARD} reward/final"),
        "sft --data demonstrations.jsonl --out out --model reward/final".into(),
    ] {
        temper.refuses(
            &command,
            &["reward/final", "this is a reward model", "language model is needed", "hint: "],
        );
    }
}

#[test]
fn a_reward_model_of_other_texts_is_refused() {
    let temper = Temper::with_reward_model();
    let ppo = format!("{PPO} --policy sft/final --reward other --set critic.kind=reward_model");
    temper.copy("reward/final", "other");
    temper.edit_json("other/template.json", |template| template["prompt"][1]["text"] = "Ask:".into());
    let said = temper.refuses(&ppo, &["sft/final and other have different templates"]);
    assert!(said.hint().contains("same SFT model"), "{said:?}");
    temper.copy("reward/final", "other");
    temper.edit_json("other/tokenizer.json", |tokenizer| {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
        vocab["a"] = 102.into();
        vocab["b"] = 101.into();
    });
    temper.refuses(&ppo, &["sft/final and other have different tokenizers"]);
}

#[test]
fn a_broken_template_is_named() {
    let temper = Temper::with_sft();
    for text in ["{", "[]", "{\"name\": \"x\", \"prompt\": [], \"completion\": []}", "\u{0}\u{1}"] {
        temper.copy("sft/final", "other");
        temper.write("other/template.json", text);
        temper.refuses("generate --prompt a --model other", &["template"]);
    }
}

#[test]
fn damaged_weights_are_refused() {
    let temper = Temper::with_reward_model();
    let bytes = temper.bytes("sft/final/model.safetensors");
    temper.copy("sft/final", "cut");
    for len in [0, 1, 7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1] {
        temper.write("cut/model.safetensors", &bytes[..len]);
        let said = temper.refuses("generate --prompt a --model cut", &["cut/model.safetensors"]);
        assert!(!said.hint().is_empty(), "{said:?}");
        temper.refuses(&format!("{REWARD} cut"), &["cut/model.safetensors"]);
    }
    temper.write("cut/model.safetensors", [u64::MAX.to_le_bytes().as_slice(), &bytes[8..]].concat());
    temper.refuses("generate --prompt a --model cut", &["cut/model.safetensors"]);
    // One weight is infinite.
    let mut infinite = bytes.clone();
    let at = infinite.len() - 4;
    infinite[at..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    temper.write("cut/model.safetensors", infinite);
    temper.refuses("generate --prompt a --model cut", &["cut/model.safetensors", "inf"]);
}

/// `sharded`: the model of `sft/final` with its weights in two files.
fn write_shards(temper: &Temper) {
    temper.copy("sft/final", "sharded");
    let bytes = temper.bytes("sft/final/model.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("our own file");
    let mut map = serde_json::Map::new();
    let mut parts: [Vec<(String, TensorView)>; 2] = Default::default();
    for (name, tensor) in file.tensors() {
        let part = usize::from(name.contains(".h.1."));
        map.insert(name.clone(), json!(format!("model-{}-of-2.safetensors", part + 1)));
        parts[part].push((name, tensor));
    }
    for (i, part) in parts.into_iter().enumerate() {
        let bytes = safetensors::serialize(part, None).expect("tensors");
        temper.write(&format!("sharded/model-{}-of-2.safetensors", i + 1), bytes);
    }
    temper.write("sharded/model.safetensors.index.json", json!({"weight_map": map}).to_string());
    fs::remove_file(temper.path("sharded/model.safetensors")).expect("a file");
}

#[test]
fn weights_in_several_files_are_read_or_named() {
    let temper = Temper::with_sft();
    let generate = "generate --prompt a --greedy --model";
    write_shards(&temper);
    let whole = temper.run(&format!("{generate} sft/final")).ok();
    assert_eq!(temper.run(&format!("{generate} sharded")).ok().stdout, whole.stdout);
    let refuses = |says: &[&str], hint: &str| {
        let said = temper.refuses(&format!("{generate} sharded"), says);
        assert!(said.hint().contains(hint), "{said:?}");
    };
    let (index, second) = ("sharded/model.safetensors.index.json", "sharded/model-2-of-2.safetensors");
    // A shard that is cut, and one that is missing.
    let bytes = temper.bytes(second);
    temper.write(second, &bytes[..bytes.len() / 2]);
    refuses(&[second, "not a whole safetensors file"], "copy or save it again");
    fs::remove_file(temper.path(second)).expect("a file");
    refuses(&[second], "model.safetensors.index.json names this file");
    write_shards(&temper);
    // An index that names another file, a file elsewhere, no file, or is cut.
    let moved = "transformer.h.1.mlp.c_fc.bias";
    temper.edit_json(index, |index| index["weight_map"][moved] = json!("model-1-of-2.safetensors"));
    refuses(&[index, &format!("`{moved}` in model-1-of-2.safetensors, which does not have it")], "");
    temper.edit_json(index, |index| index["weight_map"][moved] = json!("../sft/final/model.safetensors"));
    refuses(&[index, "is not the name of a file next to it"], "damaged");
    temper.edit_json(index, |index| index["weight_map"] = json!([]));
    refuses(&[index, "no `weight_map`"], "damaged");
    temper.write(index, "{\"weight_map\": {");
    refuses(&[index, "EOF"], "damaged");
}

#[test]
fn a_missing_weight_or_file_is_named() {
    let temper = Temper::with_sft();
    temper.copy("sft/final", "part");
    let bytes = temper.bytes("sft/final/model.safetensors");
    let file = SafeTensors::deserialize(&bytes).expect("our own file");
    let missing = "transformer.h.1.mlp.c_fc.weight";
    let kept = file.tensors().into_iter().filter(|(name, _)| name != missing);
    let kept: Vec<(String, TensorView)> = kept.collect();
    assert!(kept.len() < file.len(), "{:?}", file.names());
    temper.write("part/model.safetensors", safetensors::serialize(kept, None).expect("tensors"));
    temper.refuses(
        "generate --prompt a --model part",
        &["part/model.safetensors", missing, "missing", "hint: "],
    );
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        temper.copy("sft/final", "part");
        fs::remove_file(temper.path("part").join(name)).unwrap();
        temper.refuses("generate --prompt a --model part", &[&format!("part/{name}"), "hint: "]);
    }
}

#[test]
fn a_config_that_is_not_json_is_named() {
    let temper = Temper::with_sft();
    temper.copy("sft/final", "other");
    for text in ["{", "", "not json", "[1, 2]", "\"gpt2\"", "null"] {
        temper.write("other/config.json", text);
        temper.refuses("generate --prompt a --model other", &["other/config.json", "hint: "]);
    }
    temper.write("other/config.json", b"\xff\xfe");
    temper.refuses("generate --prompt a --model other", &["other/config.json", "hint: "]);
    temper.copy("sft/final", "tokens");
    for text in ["{", "", "[]", "{\"version\": \"1.0\"}"] {
        temper.write("tokens/tokenizer.json", text);
        temper.refuses("tokenize --prompt a --model tokens", &["tokens/tokenizer.json"]);
    }
}

#[test]
fn a_model_that_is_nowhere_is_named() {
    let temper = Temper::with_sft();
    let said = temper
        .refuses("sft --data demonstrations.jsonl --out out --model nonsense", &["`nonsense`", "neither"]);
    assert!(said.hint().contains("notebook, tiny"), "{said:?}");
    temper.refuses(
        "sft --data demonstrations.jsonl --out out --model gpt2-small",
        &["`gpt2-small`", "tokenizer", "hint: "],
    );
    temper.refuses("generate --prompt a --model nonsense", &["nonsense", "hint: "]);
    temper.refuses("tokenize --prompt a --model nonsense", &["nonsense", "hint: "]);
    // A run directory is not its model.
    let said = temper.refuses("generate --prompt a --model sft", &["sft/config.json"]);
    assert!(said.hint().contains("sft/final"), "{said:?}");
    temper.refuses("report nonsense", &["nonsense"]);
    temper.refuses("report demonstrations.jsonl", &["demonstrations.jsonl"]);
    temper.refuses("report --compare sft nonsense --out all.html", &["sft", "`objective/kl`"]);
    temper.refuses("report --compare nonsense --out all.html", &["nonsense"]);
    assert!(!temper.path("all.html").exists() && !temper.path("all.svg").exists());
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let temper = Temper::with_sft();
    let generate = "generate --model sft/final --prompt a --device";
    let said = temper.refuses(&format!("{generate} abacus"), &["unknown device `abacus`"]);
    assert!(said.hint().contains("flex, ndarray"), "{said:?}");
    temper.refuses(&format!("{TRAIN} --device abacus"), &["unknown device `abacus`"]);
    temper.refuses(&format!("{TRAIN} --set device=abacus"), &["unknown device `abacus`"]);
    let devices = temper.run("devices").ok().stdout;
    let missing: Vec<&str> = devices
        .lines()
        .filter(|line| line.contains("not compiled in"))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for name in missing {
        let said =
            temper.refuses(&format!("{generate} {name}"), &[&format!("device `{name}` is not compiled")]);
        assert!(said.hint().contains(&format!("--features {name}")), "{said:?}");
        temper.refuses(&format!("{TRAIN} --device {name}:0"), &["not compiled", name]);
    }
    // Compiled in, but without a card or its driver.
    let broken = devices.lines().filter(|line| line.contains("does not work here"));
    for name in broken.filter_map(|line| line.split_whitespace().next()) {
        let said =
            temper.refuses(&format!("{generate} {name}"), &[&format!("device `{name}` does not work here")]);
        assert!(said.hint().contains("driver"), "{said:?}");
    }
    if devices.lines().any(|line| line.starts_with("flex") && line.contains("works: ")) {
        temper.refuses(&format!("{generate} flex:0"), &["device `flex` has no card number", "use `flex`"]);
        temper.refuses(&format!("{generate} flex:x"), &["flex:x"]);
        temper.refuses(&format!("{generate} flex:"), &["flex:"]);
    }
    temper.refuses("generate --model sft/final --prompt a --device=", &["unknown device"]);
}
