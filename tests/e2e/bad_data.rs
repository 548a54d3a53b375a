//! Bad input: data files and settings. One clear line, a hint, exit code 1, nothing half-written, never a panic.
//!
//! [`Temper::refuses`] checks all of that: the code, the one line and its hint, no output, and that not a file
//! in the directory has changed.

use std::fs;

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
    temper.refuses(&format!("{SFT} folder.jsonl"), &["folder.jsonl has no data files", "hint: "]);
    temper
        .refuses("eval --model sft/final --data folder.jsonl", &["folder.jsonl has no data files", "hint: "]);
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
    let ranked = |rest: &str| format!("{{\"prompt\": \"a\", \"completions\": [\"b\", \"c\"], {rest}}}\n");
    for (row, expected) in [
        (
            ranked("\"ranking\": [0]"),
            "`ranking` must name each of the 2 completions once, from 0 to 1: 1 is missing",
        ),
        (ranked("\"ranking\": [0, 2]"), "found 2"),
        (ranked("\"scores\": [1]"), "a number for each of the 2 completions, found 1"),
        (ranked("\"scores\": [1, \"good\"]"), "score 1 must be a number"),
        (ranked("\"scores\": [3, 3]"), "all completions are tied"),
        (ranked("\"labels\": [1, 2]"), "missing column `scores` or `ranking`"),
        (ranked("\"scores\": [1, 2]").replace(", \"c\"", ""), "two completions or more, found 1"),
    ] {
        temper.write("k.jsonl", &row);
        temper.refuses("reward --model sft/final --out out --data k.jsonl", &["k.jsonl:1: ", expected]);
    }
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
    let said =
        temper.refuses(&format!("{TRAIN} --config settings.toml"), &["settings.toml:2: not valid UTF-8"]);
    assert_eq!(said.hint(), "save the file as UTF-8");
    let said = temper.run_with_stdin("generate --model sft/final", b"a\xff\xfe\n");
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:?}");
    for says in ["standard input:1: the line is not UTF-8", "error: 1 of the 1 lines", "hint: "] {
        assert!(said.stderr.contains(says), "`{says}` in {said:?}");
    }
}

#[test]
fn a_prompt_that_fills_the_context_is_refused() {
    let temper = Temper::with_reward_model();
    let long = "a".repeat(200);
    let said =
        temper.refuses_of(&["generate", "--model", "sft/final", "--prompt", &long], &["128", "no room"]);
    assert!(said.hint().contains("shorten the prompt"), "{said:?}");
    temper.write("p.jsonl", format!("{{\"prompt\": \"{long}\"}}\n"));
    let ppo = "ppo --policy sft/final --reward reward/final --out out --prompts p.jsonl";
    let said = temper.run(&format!("{ppo} --set rollout.max_new_tokens=48 --set overflow=drop"));
    let said = said.refused(&["none of the 1 prompts fits into 80 tokens"]);
    assert!(said.hint().contains("overflow"), "{said:?}");
    assert!(!temper.path("out").exists());
    temper.write("d.jsonl", format!("{{\"prompt\": \"a\", \"completion\": \"b\"}}\n{{\"prompt\": \"{long}\", \"completion\": \"b\"}}\n"));
    temper.run("logprobs --model sft/final --data d.jsonl").failed(&["d.jsonl:2: ", "128"]);
    temper.refuses("score --model reward/final --data d.jsonl", &["d.jsonl:2: ", "128"]);
    // In training it is left out and counted; alone it leaves nothing to train on.
    let said = temper.run(&format!("{SFT} d.jsonl --set max_steps=1 --set overflow=drop")).ok();
    assert!(said.stderr.contains("note: left out 1 of 2 rows of d.jsonl (training data): they do not fit into 128 tokens (first: line 2)"), "{said:?}");
    temper.write("only.jsonl", format!("{{\"prompt\": \"{long}\", \"completion\": \"b\"}}\n"));
    let said =
        temper.refuses("sft --model gpt2-tiny --out other --data only.jsonl --set overflow=drop", &["128"]);
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
    temper.refuses("config dpo --preset notebook", &["`notebook` has nothing for DPO"]);
    temper.refuses("config dpo --set betta=3", &["`betta`", "`beta`"]);
    temper.run("pipeline --out out --set epochs=1").refused(&["`--set epochs=1` names no stage", "ppo"]);
}

#[test]
fn a_value_out_of_range_is_named() {
    let temper = Temper::with_reward_model();
    for (stage, set, says) in [
        ("sft", "batch_size=0", "`batch_size` must be 1 to 65536, got 0"),
        ("sft", "epochs=0", "`epochs` must be at least 1, got 0"),
        ("sft", "learning_rate=-1", "`learning_rate` must be a number between 1e-30 and 1e6, got -1"),
        ("sft", "learning_rate=nan", "`learning_rate` must be a number between 1e-30 and 1e6, got NaN"),
        ("sft", "learning_rate=inf", "`learning_rate` must be a number between 1e-30 and 1e6, got inf"),
        ("sft", "learning_rate=1e25", "between 1e-30 and 1e6"),
        ("sft", "optimizer.epsilon=1e-320", "between 1e-20 and 1000"),
        ("sft", "optimizer.epsilon=1e308", "`optimizer.epsilon` must be between 1e-20 and 1000, got 1000"),
        (
            "sft",
            "optimizer.weight_decay=1e10",
            "`optimizer.weight_decay` must be 0, or a number between 1e-30 and 1e6, got 10000000000",
        ),
        ("reward", "margin=1e308", "0, or a number between 1e-30 and 1e6"),
        ("reward", "center=1e308", "`center` must be 0, or a number between 1e-30 and 1e6, got 1000"),
        ("dpo", "beta=1e308", "`beta` must be a number between 1e-30 and 1e6, got 1000"),
        ("sft", "max_seq_len=1", "`max_seq_len` must be 0, or at least 2, got 1"),
        ("sft", "optimizer.beta_1=1", "`optimizer.beta_1` must be at least 0 and below 1, got 1"),
        (
            "sft",
            "optimizer.max_grad_norm=-1",
            "`optimizer.max_grad_norm` must be 0, or a number between 1e-30 and 1e6, got -1",
        ),
        ("reward", "batch_size=0", "`batch_size` must be 1 to 65536, got 0"),
        ("reward", "learning_rate=0", "`learning_rate` must be a number between 1e-30 and 1e6, got 0"),
        ("dpo", "beta=0", "`beta` must be a number between 1e-30 and 1e6, got 0"),
        ("dpo", "beta=nan", "`beta` must be a number between 1e-30 and 1e6, got NaN"),
        ("dpo", "label_smoothing=0.5", "`label_smoothing` must be at least 0 and below 0.5, got 0.5"),
        ("dpo", "label_smoothing=-0.1", "`label_smoothing` must be at least 0 and below 0.5, got -0.1"),
        ("dpo", "keep_last=0", "`keep_last` must be at least 1, got 0"),
        ("ppo", "update.gamma=1.5", "`update.gamma` must be between 0 and 1, got 1.5"),
        ("ppo", "update.gae_lambda=-0.1", "`update.gae_lambda` must be between 0 and 1, got -0.1"),
        ("ppo", "rollout.temperature=0", "`rollout.temperature` must be between 0.01 and 100, got 0"),
        ("ppo", "rollout.max_new_tokens=0", "`rollout.max_new_tokens` must be at least 1, got 0"),
        ("ppo", "kl.coef=-1", "`kl.coef` must be between 0 and 1e9, got -1"),
    ] {
        temper.refuses(&format!("config {stage} --set {set}"), &[says]);
    }
    temper.refuses(&format!("{TRAIN} --set batch_size=0"), &["`batch_size` must be 1 to 65536, got 0"]);
    temper.refuses(
        &format!("{TRAIN} --set max_seq_len=129"),
        &["`max_seq_len` is 129", "128 tokens", "hint: "],
    );
    temper.refuses(&format!("{REWARD} sft/final --set max_seq_len=500"), &["`max_seq_len` is 500"]);
    let dpo = REWARD.replace("reward", "dpo");
    temper.refuses(&format!("{dpo} sft/final --set max_seq_len=500"), &["`max_seq_len` is 500"]);
    let ppo = format!("{PPO} --policy sft/final --reward reward/final");
    temper.refuses(&format!("{ppo} --set max_seq_len=500"), &["`max_seq_len` is 500"]);
    let generate = "generate --model sft/final --prompt a";
    temper.refuses(
        &format!("{generate} --temperature 0"),
        &["`--temperature` must be a number from 0.0001 to 10000, got 0", "hint: `--greedy`"],
    );
    temper.refuses(
        &format!("{generate} --temperature NaN"),
        &["`--temperature` must be a number from 0.0001 to 10000, got NaN"],
    );
    temper.refuses(&format!("{generate} --top-p 2"), &["`--top-p` must be between 0 and 1, got 2"]);
    temper.refuses(&format!("{generate} --top-p nan"), &["`--top-p` must be between 0 and 1, got NaN"]);
    // The ends of the range work.
    for flags in
        ["--top-p 0", "--top-k 100000", "--max-new-tokens 0", "--temperature 1e-4", "--temperature 1e4"]
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
    temper.refuses("config sft --device bogus", &["unknown device `bogus`", "devices: auto, "]);
    temper.run("config sft --device cuda:1").ok();
    let said = temper.run_of(&["config", "sft", "--set", "schedule={kind=\"linear\"}"]).ok();
    assert!(said.stdout.contains("kind = \"linear\""), "{said:?}");
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
