//! Bad input: one clear line, a hint, exit code 1, nothing half-written, never a panic.
//!
//! [`Temper::refuses`] checks all of that: the code, the one line and its hint, no output, and that not a file
//! in the directory has changed.

use std::fs;

use safetensors::tensor::{SafeTensors, TensorView};
use serde_json::json;

use crate::util::Temper;

const SFT: &str = "sft --model gpt2-tiny --out out --data";
const TRAIN: &str = "sft --model gpt2-tiny --out out --data demonstrations.jsonl";
const REWARD: &str = "reward --data comparisons.jsonl --out out --model";
const PPO: &str = "ppo --prompts prompts.jsonl --out out";

#[test]
fn a_missing_data_file_is_named() {
    let temper = Temper::with_reward_model();
    for command in [
        format!("{SFT} nowhere.jsonl"),
        format!("{TRAIN} --eval-data nowhere.jsonl"),
        "reward --model sft/final --out out --data nowhere.jsonl".into(),
        "ppo --policy sft/final --reward reward/final --out out --prompts nowhere.jsonl".into(),
        "logprobs --model sft/final --data nowhere.jsonl".into(),
        "score --model reward/final --data nowhere.jsonl".into(),
        "eval --model sft/final --data nowhere.jsonl".into(),
        format!("{TRAIN} --config nowhere.jsonl"),
    ] {
        let said = temper.refuses(&command, &["nowhere.jsonl", "No such file"]);
        assert!(said.hint().contains("path"), "{said:?}");
    }
}

#[test]
fn an_unreadable_data_file_is_named() {
    let temper = Temper::with_sft();
    fs::create_dir(temper.path("folder.jsonl")).unwrap();
    temper.refuses(&format!("{SFT} folder.jsonl"), &["cannot read folder.jsonl", "hint: "]);
    temper.refuses("eval --model sft/final --data folder.jsonl", &["cannot read folder.jsonl", "hint: "]);
    temper.refuses(&format!("{TRAIN} --config folder.jsonl"), &["cannot read folder.jsonl", "hint: "]);
}

#[test]
fn an_empty_data_file_is_named() {
    let temper = Temper::new();
    temper.write("empty.jsonl", "");
    temper.write("blank.jsonl", "\n\n  \n");
    temper.write("list.json", "[]");
    for name in ["empty.jsonl", "blank.jsonl", "list.json"] {
        temper.refuses(&format!("{SFT} {name}"), &[name, "no rows", "hint: "]);
    }
}

#[test]
fn a_broken_row_is_named_by_path_and_line() {
    let temper = Temper::with_reward_model();
    temper.write("d.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n\n{\"prompt\": \"a\", \"compl\n");
    for command in [
        format!("{SFT} d.jsonl"),
        "logprobs --model sft/final --data d.jsonl".into(),
        "score --model reward/final --data d.jsonl".into(),
        "eval --model sft/final --data d.jsonl".into(),
    ] {
        let said = temper.refuses(&command, &["d.jsonl:3: broken JSON"]);
        assert!(said.hint().contains("--skip-bad-rows"), "{said:?}");
    }
    temper.write("array.json", "[{\"prompt\": \"a\", \"completion\": \"b\"},\n {\"prompt\": }]");
    temper.refuses(&format!("{SFT} array.json"), &["array.json:2: broken JSON"]);
    temper.write("number.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n42\n");
    temper.refuses(&format!("{SFT} number.jsonl"), &["number.jsonl:2: expected an object"]);
}

#[test]
fn a_damaged_gzip_file_is_named() {
    let temper = Temper::new();
    temper.write("d.jsonl.gz", [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3]);
    temper.refuses(&format!("{SFT} d.jsonl.gz"), &["cannot unpack d.jsonl.gz", "hint: "]);
}

#[test]
fn a_wrong_column_is_named() {
    let temper = Temper::with_reward_model();
    temper.write(
        "d.jsonl",
        "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"reply\": \"b\"}\n",
    );
    temper.refuses(&format!("{SFT} d.jsonl"), &["d.jsonl:2: ", "`completion`", "`reply`"]);
    temper.refuses("reward --model sft/final --out out --data d.jsonl", &["d.jsonl:1: ", "`chosen`"]);
    temper.write("p.jsonl", "{\"text\": \"a\"}\n");
    temper.refuses(
        "ppo --policy sft/final --reward reward/final --out out --prompts p.jsonl",
        &["p.jsonl:1: ", "`prompt`", "`text`"],
    );
    temper.write("n.jsonl", "{\"prompt\": 3, \"completion\": \"b\"}\n");
    temper.refuses(&format!("{SFT} n.jsonl"), &["n.jsonl:1: ", "`prompt`", "a number"]);
}

#[test]
fn an_empty_completion_is_named() {
    let temper = Temper::with_reward_model();
    temper.write(
        "d.jsonl",
        "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": \"  \"}\n",
    );
    for command in [
        format!("{SFT} d.jsonl"),
        "score --model reward/final --data d.jsonl".into(),
        "logprobs --model sft/final --data d.jsonl".into(),
    ] {
        temper.refuses(&command, &["d.jsonl:2: ", "`completion` is empty", "hint: "]);
    }
    temper.write("c.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"\"}\n");
    temper.refuses(
        "reward --model sft/final --out out --data c.jsonl",
        &["c.jsonl:1: ", "`rejected` is empty"],
    );
    temper.write("s.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n");
    temper.refuses("reward --model sft/final --out out --data s.jsonl", &["s.jsonl:1: ", "the same"]);
}

#[test]
fn invalid_utf8_is_named_by_line() {
    let temper = Temper::with_sft();
    let row = b"{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    temper
        .write("d.jsonl", [row.as_slice(), b"{\"prompt\": \"\xff\xfe\", \"completion\": \"b\"}\n"].concat());
    temper.refuses(&format!("{SFT} d.jsonl"), &["d.jsonl:2: not valid UTF-8", "hint: "]);
    temper.write("settings.toml", b"epochs = 1\n# \xff\n");
    temper.refuses(&format!("{TRAIN} --config settings.toml"), &["settings.toml:2: not valid UTF-8"]);
    temper.run_with_stdin("generate --model sft/final", b"a\xff\xfe\n").refused(&[
        "standard input",
        "UTF-8",
        "hint: ",
    ]);
}

#[test]
fn a_prompt_that_fills_the_context_is_refused() {
    let temper = Temper::with_reward_model();
    let long = "a".repeat(200);
    let said =
        temper.refuses_of(&["generate", "--model", "sft/final", "--prompt", &long], &["128", "no room"]);
    assert!(said.hint().contains("shorten the prompt"), "{said:?}");
    temper.write("p.jsonl", format!("{{\"prompt\": \"{long}\"}}\n"));
    let said = temper.run("ppo --policy sft/final --reward reward/final --out out --prompts p.jsonl");
    let said = said.refused(&["128"]);
    assert!(said.hint().contains("overflow"), "{said:?}");
    assert!(!temper.path("out").exists());
    temper.write("d.jsonl", format!("{{\"prompt\": \"a\", \"completion\": \"b\"}}\n{{\"prompt\": \"{long}\", \"completion\": \"b\"}}\n"));
    temper.run("logprobs --model sft/final --data d.jsonl").failed(&["d.jsonl:2: ", "128"]);
    temper.refuses("score --model reward/final --data d.jsonl", &["d.jsonl:2: ", "128"]);
    // In training it is left out and counted; alone it leaves nothing to train on.
    let said = temper.run(&format!("{SFT} d.jsonl --set max_steps=1")).ok();
    assert!(said.stderr.contains("note: 1 examples"), "{said:?}");
    temper.write("only.jsonl", format!("{{\"prompt\": \"{long}\", \"completion\": \"b\"}}\n"));
    let said = temper.refuses("sft --model gpt2-tiny --out other --data only.jsonl", &["128"]);
    assert!(said.hint().contains("max_seq_len"), "{said:?}");
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    let temper = Temper::new();
    temper.write("settings.toml", "epochs = 1\nlearning_rat = 0.1\n");
    temper.refuses(
        &format!("{TRAIN} --config settings.toml"),
        &["unknown key `learning_rat` in settings.toml:2", "did you mean `learning_rate`"],
    );
    temper.refuses("config sft --config settings.toml", &["settings.toml:2", "`learning_rate`"]);
    temper.refuses(
        &format!("{TRAIN} --set batchsize=3"),
        &["unknown key `batchsize` in `--set`", "`batch_size`"],
    );
    temper.refuses("config ppo --set kl.coeff=3", &["`kl.coeff`", "`kl.coef`"]);
    temper.write("table.toml", "[rollouts]\ntemperature = 1.0\n");
    temper.refuses("config ppo --config table.toml", &["table.toml:", "`rollout"]);
    temper.refuses("config sft --preset cooking", &["`cooking`", "courtesy, notebook, notebook-zh"]);
    temper.run("pipeline --out out --set epochs=1").refused(&["`--set epochs=1` names no stage", "ppo"]);
}

#[test]
fn a_value_out_of_range_is_named() {
    let temper = Temper::with_reward_model();
    for (stage, set, says) in [
        ("sft", "batch_size=0", "`batch_size` is 0, it must be at least 1"),
        ("sft", "epochs=0", "`epochs` is 0"),
        ("sft", "learning_rate=-1", "`learning_rate` is -1, it must be a number above 0"),
        ("sft", "learning_rate=nan", "`learning_rate` is NaN"),
        ("sft", "learning_rate=inf", "`learning_rate` is inf"),
        ("sft", "max_seq_len=1", "`max_seq_len` is 1"),
        ("sft", "optimizer.beta_1=1", "`optimizer.beta_1` is 1"),
        ("sft", "optimizer.max_grad_norm=-1", "`optimizer.max_grad_norm` is -1"),
        ("reward", "batch_size=0", "`batch_size` is 0"),
        ("reward", "learning_rate=0", "`learning_rate` is 0"),
        ("ppo", "ppo.gamma=1.5", "`ppo.gamma` is 1.5, it must be between 0 and 1"),
        ("ppo", "ppo.gae_lambda=-0.1", "`ppo.gae_lambda` is -0.1"),
        ("ppo", "rollout.temperature=0", "`rollout.temperature` is 0"),
        ("ppo", "rollout.max_new_tokens=0", "`rollout.max_new_tokens` is 0"),
        ("ppo", "kl.coef=-1", "`kl.coef` is -1"),
    ] {
        temper.refuses(&format!("config {stage} --set {set}"), &[says]);
    }
    temper.refuses(&format!("{TRAIN} --set batch_size=0"), &["`batch_size` is 0"]);
    temper.refuses(
        &format!("{TRAIN} --set max_seq_len=129"),
        &["`max_seq_len` is 129", "128 tokens", "hint: "],
    );
    temper.refuses(&format!("{REWARD} sft/final --set max_seq_len=500"), &["`max_seq_len` is 500"]);
    let ppo = format!("{PPO} --policy sft/final --reward reward/final");
    temper.refuses(&format!("{ppo} --set max_seq_len=500"), &["`max_seq_len` is 500"]);
    let generate = "generate --model sft/final --prompt a";
    temper.refuses(&format!("{generate} --temperature 0"), &["`--temperature` is 0", "--greedy"]);
    temper.refuses(&format!("{generate} --temperature NaN"), &["`--temperature` is NaN"]);
    temper.refuses(&format!("{generate} --top-p 2"), &["`--top-p` is 2"]);
    temper.refuses(&format!("{generate} --top-p nan"), &["`--top-p` is NaN"]);
    // The ends of the range work.
    for flags in
        ["--top-p 0", "--top-k 100000", "--max-new-tokens 0", "--temperature 1e-30", "--temperature 1e30"]
    {
        temper
            .run(
                &format!("{generate} --max-new-tokens 2 {flags}")
                    .replace("--max-new-tokens 2 --max", "--max"),
            )
            .ok();
    }
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    let temper = Temper::new();
    temper.write("settings.toml", "seed = 1\nepochs = \"three\"\n");
    temper.refuses(&format!("{TRAIN} --config settings.toml"), &["`epochs`", "settings.toml:2", "three"]);
    temper.refuses("config sft --set epochs=-1", &["`epochs`", "`--set`", "-1"]);
    temper.refuses("config sft --set epochs=1.5", &["`epochs`", "1.5"]);
    temper.refuses("config sft --set learning_rate=high", &["`learning_rate`", "high"]);
    temper.refuses("config sft --set overflow=explode", &["`overflow`", "explode"]);
    temper.refuses("config ppo --set kl=3", &["`kl`"]);
    temper.refuses("config ppo --set kl.coef.x=3", &["`kl.coef.x`"]);
    temper.refuses("config sft --set epochs", &["`--set epochs`", "key=value"]);
    temper.refuses("config sft --set =3", &["`--set =3`"]);
    temper.refuses("config sft --set epochs=", &["epochs"]);
    temper.refuses(&format!("{TRAIN} --set template=fancy"), &["`fancy`", "notebook"]);
}

#[test]
fn a_syntax_error_in_settings_is_named_by_line() {
    let temper = Temper::new();
    temper.write("settings.toml", "epochs = 1\nbatch_size = = 2\n");
    temper.refuses(
        &format!("{TRAIN} --config settings.toml"),
        &["settings.toml:2", "not valid TOML", "hint: "],
    );
    temper.write("twice.toml", "epochs = 1\nepochs = 2\n");
    temper.refuses("config sft --config twice.toml", &["twice.toml:2", "not valid TOML", "hint: "]);
}

#[test]
fn a_checkpoint_of_another_architecture_is_named() {
    let temper = Temper::with_sft();
    temper.copy("sft/final", "llama");
    temper.edit_json("llama/config.json", |config| config["model_type"] = "llama".into());
    for command in ["generate --prompt a --model llama", "logprobs --data demonstrations.jsonl --model llama"]
    {
        let said = temper.refuses(command, &["llama/config.json", "`llama`"]);
        assert!(said.hint().contains("GPT-2"), "{said:?}");
    }
    temper.refuses("sft --out out --data demonstrations.jsonl --model llama", &["`llama`"]);
    temper.refuses(&format!("{REWARD} llama"), &["`llama`"]);
    for (key, value, says) in [
        ("model_type", json!(null), "model_type"),
        ("n_head", json!(3), "n_heads"),
        ("n_head", json!(0), "n_heads"),
        ("n_embd", json!("wide"), "n_embd"),
        ("n_layer", json!(-1), "n_layer"),
        ("n_positions", json!(null), "n_positions"),
        ("activation_function", json!("swish"), "swish"),
        ("layer_norm_epsilon", json!(-1.0), "norm_eps"),
        ("resid_pdrop", json!(1.5), "pdrop"),
        ("n_embd", json!(64), "shape"),
        ("n_layer", json!(3), "weight"),
        ("n_positions", json!(256), "shape"),
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
    let ppo = format!("{PPO} --policy sft/final --reward other");
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
fn a_config_that_is_no_json_is_named() {
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

#[test]
fn a_full_disk_leaves_no_half_checkpoint() {
    let temper = Temper::new();
    // Files of at most 60 kB: the model has 150.
    let limited = |out: &str, sets: &str| {
        let train = format!(
            "sft --model gpt2-tiny --data demonstrations.jsonl --out {out} --set batch_size=2 {sets}"
        );
        temper.shell(&format!("trap '' XFSZ; ulimit -f 60; exec \"$TEMPER\" {train}"))
    };
    let said = limited("a", "--set checkpoint_every=1").failed(&["model.safetensors", "a/checkpoints"]);
    assert!(said.hint().contains("free some space"), "{said:?}");
    let said = limited("b", "").failed(&["model.safetensors"]);
    assert!(said.hint().contains("free some space"), "{said:?}");
    for run in ["a", "b"] {
        assert!(!temper.path(run).join("final").exists());
        temper.assert_nothing_half_written(run);
        assert!(!temper.snapshot(run).keys().any(|path| path.ends_with("model.safetensors")));
    }
    // A device that is always full.
    temper.shell("exec \"$TEMPER\" tokenize --prompt a --json > /dev/full").failed(&[
        "standard output",
        "No space",
        "hint: ",
    ]);
}

#[test]
fn a_full_disk_keeps_the_checkpoints_that_are_there() {
    let temper = Temper::new();
    let run = "sft --model gpt2-tiny --data demonstrations.jsonl --set batch_size=2 --set epochs=400 --set checkpoint_every=2";
    let said = temper.interrupt(run, "run", "run/metrics.jsonl", 3);
    assert_eq!(said.code, Some(130), "{said:?}");
    let before = temper.snapshot("run/checkpoints");
    assert!(!before.is_empty());
    let said =
        temper.shell(&format!("trap '' XFSZ; ulimit -f 60; exec \"$TEMPER\" {run} --out run --resume"));
    said.failed(&["model.safetensors"]);
    assert_eq!(temper.snapshot("run/checkpoints"), before);
}

#[test]
fn an_out_that_cannot_be_written_is_named() {
    let temper = Temper::with_reward_model();
    temper.write("file.txt", "x");
    for out in ["file.txt", "file.txt/run", "/proc/temper"] {
        temper.refuses(
            &format!("sft --model gpt2-tiny --data demonstrations.jsonl --out {out}"),
            &[out, "hint: "],
        );
        temper.refuses(
            &format!("reward --data comparisons.jsonl --model sft/final --out {out}"),
            &[out, "hint: "],
        );
        temper.refuses(
            &format!("ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --out {out}"),
            &[out, "hint: "],
        );
        temper.refuses(&format!("recipe notebook --out {out}"), &[out, "hint: "]);
        temper.refuses(&format!("recipe courtesy --out {out}"), &[out, "hint: "]);
        temper.refuses(&format!("pipeline --recipe notebook --out {out}"), &[out, "hint: "]);
    }
}

#[test]
fn an_out_that_holds_another_run_is_refused() {
    let temper = Temper::with_reward_model();
    let said = temper
        .refuses("sft --model gpt2-tiny --data demonstrations.jsonl --out sft", &["sft holds a run already"]);
    assert!(said.hint().contains("--resume"), "{said:?}");
    temper.refuses(
        "reward --model sft/final --data comparisons.jsonl --out reward",
        &["reward holds a run already"],
    );
    temper.refuses(
        "sft --model gpt2-tiny --data demonstrations.jsonl --out sft --resume --set max_steps=2 --set batch_size=3",
        &["sft/config.toml", "`batch_size`", "hint: "],
    );
    // Another stage's run is not resumed either.
    temper.refuses("reward --model sft/final --data comparisons.jsonl --out sft --resume", &["sft"]);
    temper.write("pipeline/pipeline.json", "{\"recipe\": \"courtesy\", \"seed\": 3}");
    temper.refuses("pipeline --recipe notebook --out pipeline", &["pipeline holds another run", "hint: "]);
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_and_names_the_step() {
    let temper = Temper::with_reward_model();
    let diverges = "--set learning_rate=1e30 --set checkpoint_every=1 --set epochs=5";
    for (stage, command) in [
        ("sft", "sft --model gpt2-tiny --data demonstrations.jsonl --out a --set batch_size=2"),
        ("reward", "reward --model sft/final --data comparisons.jsonl --out a --set batch_size=2"),
        (
            "ppo",
            "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --out a --set batch_size=3 \
             --set rollout.max_new_tokens=3 --set critic.learning_rate=1e30",
        ),
    ] {
        let out = format!("{stage}-diverged");
        let command = command.replace("--out a", &format!("--out {out}"));
        let said = temper.run(&format!("{command} {diverges}")).failed(&["2"]);
        assert!(said.stderr.contains("step 2") || said.stderr.contains("update 2"), "{said:?}");
        assert!(said.hint().contains("learning_rate"), "{said:?}");
        assert!(!temper.path(&out).join("final").exists());
        temper.assert_nothing_half_written(&out);
        let checkpoint = format!("{out}/checkpoints/step-000001");
        assert!(temper.path(&checkpoint).is_dir(), "the last good checkpoint is kept");
        // It is whole: it loads.
        let load = if stage == "reward" {
            format!("score --data demonstrations.jsonl --model {checkpoint}")
        } else {
            format!("logprobs --data demonstrations.jsonl --model {checkpoint}")
        };
        temper.run(&load).ok();
    }
}

#[test]
fn a_judge_that_is_none_is_refused() {
    let temper = Temper::with_reward_model();
    let eval = "eval --model sft/final --against sft/final --data prompts.jsonl --max-new-tokens 2 --judge";
    let said = temper.refuses(&format!("{eval} nonsense"), &["`nonsense` is no judge"]);
    assert!(said.hint().contains("courtesy"), "{said:?}");
    temper.refuses(&format!("{eval} sft/final"), &["sft/final", "reward model is needed"]);
    temper.write("strange.jsonl", "{\"prompt\": \"Sing me the song of the blue whale\"}\n");
    let said = temper.refuses(
        &eval.replace("prompts.jsonl", "strange.jsonl").replace("--judge", "--judge courtesy"),
        &["courtesy judge does not know", "blue whale"],
    );
    assert!(said.hint().contains("temper recipe courtesy"), "{said:?}");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let temper = Temper::with_sft();
    let prompts: String = (0..400).map(|i| format!("{i}\n")).collect();
    temper.write("many.txt", prompts);
    let script = "\"$TEMPER\" generate --model sft/final --max-new-tokens 2 --json < many.txt | head -1";
    let said = temper.shell(script).ok();
    assert_eq!((said.stdout.lines().count(), said.stderr.as_str()), (1, ""));
    let said = temper.shell("\"$TEMPER\" config ppo | true").ok();
    assert_eq!(said.stderr, "");
    let said = temper.shell("(\"$TEMPER\" sft --help; \"$TEMPER\" devices) | true").ok();
    assert_eq!(said.stderr, "");
}

/// A few kinds of rubbish; none may do more than fail.
fn rubbish() -> Vec<Vec<u8>> {
    let noise = |seed: u32, len: usize| {
        let mut state = seed;
        let step = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(step).collect::<Vec<u8>>()
    };
    let deep = "[".repeat(100_000).into_bytes();
    let deep_object = "{\"prompt\":".repeat(100_000).into_bytes();
    vec![
        vec![0],
        vec![0xff; 64],
        b"\x1f\x8b".to_vec(),
        b"\xef\xbb\xbf".to_vec(),
        noise(1, 1000),
        noise(2, 10_000),
        deep,
        deep_object,
        b"{\"prompt\": 1e999, \"completion\": \"\\ud800\"}".to_vec(),
        b"{\"a\": {\"b\": null}, \"model\": 3, \"prompt\": [[]], \"steps\": -1}".to_vec(),
    ]
}

#[test]
fn rubbish_in_any_file_never_panics() {
    let temper = Temper::with_reward_model();
    temper.copy("sft/final", "model");
    temper.copy("reward/final", "scorer");
    for (i, bytes) in rubbish().into_iter().enumerate() {
        temper.write("rubbish", &bytes);
        for command in [
            format!("{SFT} rubbish"),
            "reward --model sft/final --out out --data rubbish".into(),
            "ppo --policy sft/final --reward reward/final --out out --prompts rubbish".into(),
        ] {
            temper.refuses(&command, &["rubbish"]);
        }
        // A byte order mark alone is a file without settings.
        if bytes != b"\xef\xbb\xbf" {
            temper.refuses(&format!("{TRAIN} --config rubbish"), &["rubbish"]);
        }
        for name in ["config.json", "model.safetensors", "tokenizer.json", "template.json"] {
            let file = format!("model/{name}");
            let whole = temper.bytes(&file);
            temper.write(&file, &bytes);
            temper.refuses("generate --prompt a --model model", &["model/"]);
            temper.write(&file, whole);
        }
        let file = "scorer/config.json";
        let whole = temper.bytes(file);
        temper.write(file, &bytes);
        temper.refuses("score --data demonstrations.jsonl --model scorer", &["scorer"]);
        temper.write(file, whole);
        temper.write(&format!("p{i}/pipeline.json"), &bytes);
        temper.refuses(&format!("pipeline --recipe notebook --out p{i}"), &[&format!("p{i}")]);
        // The report leaves out what it cannot read, or refuses it; it does not fall.
        temper.copy("sft", &format!("r{i}"));
        temper.write(&format!("r{i}/metrics.jsonl"), &bytes);
        let said = temper.run(&format!("report r{i}"));
        assert!(matches!(said.code, Some(0 | 1)), "{said:?}");
        temper.run(&format!(
            "sft --model gpt2-tiny --data demonstrations.jsonl --out r{i} --resume --set max_steps=2"
        ));
    }
}

#[test]
fn a_number_of_absurd_size_is_refused_or_cut() {
    let temper = Temper::with_sft();
    let most = u64::MAX;
    let said = temper.refuses(&format!("tokenize --prompt a --max-len {most}"), &["`--max-len`"]);
    assert!(said.hint().contains("at most"), "{said:?}");
    temper.refuses(&format!("{TRAIN} --seed {most}"), &["`--seed`"]);
    temper.refuses(&format!("config sft --set epochs={most}"), &["`epochs`"]);
    temper.run(&format!("generate --model sft/final --prompt a --max-new-tokens {most}")).ok();
    temper
        .run(&format!(
            "generate --model sft/final --prompt a --max-new-tokens 1 --top-k {most} --seed {most}"
        ))
        .ok();
    let sets = [
        "batch_size",
        "microbatch_size",
        "epochs",
        "checkpoint_every",
        "eval_every",
        "schedule.warmup_steps",
    ];
    let sets: String = sets.iter().map(|key| format!(" --set {key}={}", i64::MAX)).collect();
    temper.run(&format!("{TRAIN} --set max_steps=1{sets}")).ok();
}

#[test]
fn a_name_that_is_empty_is_refused() {
    let temper = Temper::with_sft();
    for (flag, command) in [
        ("--data", vec!["sft", "--model", "tiny", "--out", "out", "--data", ""]),
        ("--model", vec!["sft", "--data", "demonstrations.jsonl", "--out", "out", "--model", ""]),
        ("--out", vec!["sft", "--model", "gpt2-tiny", "--data", "demonstrations.jsonl", "--out", ""]),
        ("--model", vec!["generate", "--prompt", "a", "--model", ""]),
        ("--config", vec!["config", "sft", "--config", ""]),
    ] {
        let said = temper.run_of(&command);
        assert!(matches!(said.code, Some(1 | 2)), "{flag}: {said:?}");
        assert!(said.stderr.starts_with("error: "), "{flag}: {said:?}");
    }
    temper.refuses("generate --prompt a --model demonstrations.jsonl", &["demonstrations.jsonl"]);
    temper.refuses(
        "sft --data demonstrations.jsonl --out out --model demonstrations.jsonl",
        &["demonstrations.jsonl"],
    );
}
