//! The text side of a model from stage to stage: templates, end tokens, files, and what does not fit.

use std::fs;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

use crate::util::{DEMONSTRATIONS, Temper, keys};

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"))
}

fn scores(temper: &Temper, out: &str) -> Vec<f64> {
    let rows = temper.read(&format!("{out}/metrics.jsonl"));
    rows.lines()
        .map(|row| number(&serde_json::from_str(row).expect("a row of metrics"), "objective/scores"))
        .collect()
}

fn mean_score(temper: &Temper, model: &str) -> f64 {
    let rows = temper.run(&format!("score --model {model} --data demonstrations.jsonl")).ok().rows();
    rows.iter().map(|row| number(row, "score")).sum::<f64>() / rows.len() as f64
}

/// Two bytes change places, so that it is not the byte tokenizer but anybody's.
fn swap_two_bytes(temper: &Temper, dir: &str) {
    temper.edit_json(&format!("{dir}/tokenizer.json"), |tokenizer| {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
        vocab["a"] = 102.into();
        vocab["b"] = 101.into();
    });
}

fn remove(temper: &Temper, file: &str) {
    fs::remove_file(temper.path(file)).expect("a file");
}

/// Changes one weight of a model.
fn edit_weight(
    temper: &Temper,
    dir: &str,
    name: &str,
    edit: impl Fn(&[usize], Vec<f32>) -> (Vec<usize>, Vec<f32>),
) {
    let file = format!("{dir}/model.safetensors");
    let bytes = temper.bytes(&file);
    let tensors = SafeTensors::deserialize(&bytes).expect("our own file");
    let found = tensors.tensor(name).expect("a weight");
    let values = found.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let (shape, values) = edit(found.shape(), values);
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let changed = TensorView::new(Dtype::F32, shape, &data).expect("bytes of the shape");
    let all = tensors.tensors().into_iter().map(|(other, view)| {
        let view = if other == name { changed.clone() } else { view };
        (other, view)
    });
    temper.write(&file, safetensors::serialize(all, None).expect("tensors"));
}

/// Weights that are numbers, of a model whose output is not.
fn diverge(temper: &Temper, from: &str, to: &str) {
    temper.copy(from, to);
    edit_weight(temper, to, "transformer.ln_f.weight", |shape, values| {
        (shape.to_vec(), vec![3e38; values.len()])
    });
}

/// A directory as somebody else would have it: without our template, and without the chat template that says the same.
fn forget_template(temper: &Temper, dir: &str) {
    remove(temper, &format!("{dir}/template.json"));
    temper.edit_json(&format!("{dir}/tokenizer_config.json"), |config| {
        config.as_object_mut().expect("an object").remove("chat_template");
    });
}

/// A model of the first positions alone.
fn shorten(temper: &Temper, from: &str, to: &str, context: usize) {
    temper.copy(from, to);
    temper.edit_json(&format!("{to}/config.json"), |config| {
        config["n_positions"] = context.into();
        config["n_ctx"] = context.into();
    });
    edit_weight(temper, to, "transformer.wpe.weight", |shape, values| {
        (vec![context, shape[1]], values[..context * shape[1]].to_vec())
    });
}

/// The last token of a text is what a reward model reads, so that every stage must agree on which one it is.
#[test]
fn a_directory_without_a_template_is_alike_in_every_stage() {
    let temper = Temper::new();
    temper.run("sft --data demonstrations.jsonl --model tiny --out base --set max_steps=1").ok();
    temper.copy("base/final", "raw");
    swap_two_bytes(&temper, "raw");
    forget_template(&temper, "raw");
    // It says its demonstrations, and is again a directory as somebody else would have it.
    temper
        .run("sft --data demonstrations.jsonl --model raw --out sft --set epochs=80 --set batch_size=5 --set learning_rate=5e-3")
        .ok();
    assert_eq!(temper.json("sft/final/template.json")["name"], "plain_eos");
    temper.copy("sft/final", "raw");
    forget_template(&temper, "raw");
    temper.write("prompts.jsonl", DEMONSTRATIONS);

    let reward = "reward --data comparisons.jsonl --model raw --set max_steps=2";
    temper.run(&format!("{reward} --out reward")).ok();
    temper.run(&format!("{reward} --set template=plain --out plain")).ok();
    temper.run(&format!("{reward} --set template=bare --out bare")).ok();
    temper.run("dpo --data comparisons.jsonl --model raw --out dpo --set max_steps=1").ok();
    for (dir, template) in
        [("reward", "plain_eos"), ("plain", "plain"), ("bare", "bare"), ("dpo", "plain_eos")]
    {
        assert_eq!(temper.json(&format!("{dir}/final/template.json"))["name"], template, "{dir}");
    }
    temper.copy("reward/final", "bought");
    forget_template(&temper, "bought");

    let ppo = "ppo --policy raw --prompts prompts.jsonl --set rollout.max_new_tokens=30 --set batch_size=5 \
               --set rollout.temperature=0.01 --set max_steps=1 --set rollout.score_scale=none";
    for (dir, says) in [("reward/final", ""), ("plain/final", "`plain`"), ("bought", "")] {
        let out = dir.replace('/', "-");
        let said = temper.run(&format!("{ppo} --reward {dir} --out {out}")).ok();
        assert!(!said.stderr.contains("scores text"), "{said:?}");
        assert!(said.stderr.contains(says), "{said:?}");
        let (found, expected) = (scores(&temper, &out)[0], mean_score(&temper, dir));
        assert!((found - expected).abs() < 1e-4, "{dir}: {found}, expected {expected}");
    }
    assert!((mean_score(&temper, "bought") - mean_score(&temper, "reward/final")).abs() < 1e-6);
    let said = temper.run(&format!("{ppo} --reward bare/final --out bare-ppo")).ok();
    assert!(said.stderr.contains("raw has no template.json") && said.stderr.contains("`bare`"), "{said:?}");
    assert_eq!(temper.json("bare-ppo/final/template.json")["name"], "bare");

    for stage in ["reward", "dpo"] {
        let train = format!("{stage} --data comparisons.jsonl --model raw --out out");
        temper.refuses(&format!("{train} --set template=plian"), &["`template`", "plian", "plain_eos"]);
    }
    // What a directory brings is what counts, as in SFT.
    temper.run("reward --data comparisons.jsonl --model sft/final --set template=bare --set max_steps=1 --out own").ok();
    assert_eq!(temper.json("own/final/template.json")["name"], "plain_eos");
}

#[test]
fn a_row_may_say_that_its_answer_did_not_end() {
    let temper = Temper::with_reward_model();
    let row = |ended: &str| format!("{{\"prompt\": \"Hi\", \"completion\": \"Yes\"{ended}}}\n");
    let rows = [row(""), row(", \"ended\": true"), row(", \"ended\": false")].concat();
    temper.write("rows.jsonl", rows);
    let said = temper.run("score --model reward/final --data rows.jsonl").ok().rows();
    let [plain, ended, cut] = [0, 1, 2].map(|i| number(&said[i], "score"));
    assert_eq!(plain, ended);
    assert_ne!(plain, cut);
    // The same text by a template without an end.
    temper.copy("reward/final", "endless");
    temper.edit_json("endless/template.json", |template| template["completion"] = json!(["<completion>"]));
    temper.write("row.jsonl", row(""));
    let endless = temper.run("score --model endless --data row.jsonl").ok().rows();
    assert!((number(&endless[0], "score") - cut).abs() < 1e-6);
    temper.write("row.jsonl", row(", \"ended\": \"no\""));
    temper.refuses(
        "score --model reward/final --data row.jsonl",
        &["row.jsonl:1", "`ended` must be true or false"],
    );
}

#[test]
fn other_files_of_a_model_directory_go_through_the_stages() {
    let temper = Temper::with_sft();
    temper.copy("sft/final", "hub");
    swap_two_bytes(&temper, "hub");
    remove(&temper, "hub/template.json");
    temper.edit_json("hub/config.json", |config| {
        config["pad_token_id"] = 0.into();
        config["bos_token_id"] = 1.into();
        config["initializer_range"] = 0.15.into();
    });
    let files = [
        (
            "generation_config.json",
            "{\n  \"eos_token_id\": 3,\n  \"temperature\": 0.7,\n  \"max_new_tokens\": 32\n}\n",
        ),
        ("special_tokens_map.json", "{\"eos_token\":   \"[EOS]\"}"),
        ("chat_template.jinja", "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"),
        (
            "tokenizer_config.json",
            "{\"chat_template\": \"{{ messages }}\",   \"eos_token\": \"[EOS]\", \"bos_token\": \"[BOS]\", \"sep_token\": \"[SEP]\", \"pad_token\": \"[PAD]\"}",
        ),
    ];
    for (name, text) in files {
        temper.write(&format!("hub/{name}"), text);
    }
    temper.run("sft --data demonstrations.jsonl --model hub --out a --set max_steps=1").ok();
    // The chat template of the directory is its template, and the checkpoint stores the date of the run with it.
    let template = temper.json("a/final/template.json");
    assert_eq!((&template["name"], template["date"].as_str().map(str::len)), (&json!("chat"), Some(10)));
    let row = temper.run("tokenize --model a/final --prompt Hi --max-len 3 --json").ok().rows().remove(0);
    assert_eq!(row["input_ids"], json!([76, 109, 3]), "Hi and the end token");
    temper.run("reward --data comparisons.jsonl --model a/final --out b --set max_steps=1").ok();
    let ppo = "ppo --policy a/final --reward b/final --prompts prompts.jsonl --out c --set rollout.max_new_tokens=3";
    let said = temper.run(&format!("{ppo} --set batch_size=3 --set max_steps=1")).ok();
    assert!(!said.stderr.contains("scores text"), "{said:?}");
    for dir in ["a/final", "b/final", "c/final"] {
        let config = temper.json(&format!("{dir}/config.json"));
        for (key, value) in
            [("pad_token_id", json!(0)), ("bos_token_id", json!(1)), ("initializer_range", json!(0.15))]
        {
            assert_eq!(config[key], value, "{dir}: {key}");
        }
        for (name, text) in files {
            // PPO has trained answers of another length.
            let of_ppo = text.replace("\"max_new_tokens\": 32", "\"max_new_tokens\": 3");
            let expected = if dir == "c/final" { of_ppo } else { text.to_owned() };
            assert_eq!(temper.read(&format!("{dir}/{name}")), expected, "{dir}: {name}");
        }
    }
}

/// That it says the same as the template is a unit test of the tokenizer's.
#[test]
fn a_byte_model_brings_a_chat_template() {
    let temper = Temper::with_reward_model();
    temper
        .run("ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --out ppo --set batch_size=3 \
              --set rollout.max_new_tokens=3 --set max_steps=1")
        .ok();
    for dir in ["sft/final", "reward/final", "ppo/final"] {
        let config = temper.json(&format!("{dir}/tokenizer_config.json"));
        let template = config["chat_template"].as_str().expect("a chat template");
        assert!(template.contains("'[BOS]' + 'Instruct:' + messages[0]['content'] + '[SEP]'"), "{template}");
        assert_eq!(config["split_special_tokens"], false);
    }
}

/// An answer of broken bytes is three times as long as text, so that it fits as ids alone.
#[test]
fn answers_that_fit_as_ids_are_scored_as_ids() {
    let temper = Temper::with_reward_model();
    let answers = "--data prompts.jsonl --max-new-tokens 100";
    temper
        .run(&format!(
            "eval --model sft/final --against sft/final --best-of 2 --reward reward/final --judge reward/final {answers}"
        ))
        .ok();
    let ppo = "ppo --policy sft/final --reward reward/final --gold reward/final --prompts prompts.jsonl --out ppo \
               --set batch_size=3 --set rollout.max_new_tokens=100 --set max_steps=2";
    let said = temper.run(ppo).ok();
    assert!(!said.stderr.contains("cut"), "{said:?}");
    for row in temper.read("ppo/metrics.jsonl").lines() {
        let row: Value = serde_json::from_str(row).expect("JSON");
        let gold =
            row.as_object().unwrap().iter().find(|(key, _)| key.contains("gold")).expect("a gold score");
        let score = number(&row, "objective/scores");
        // The penalty for a missing end is not the judge's.
        assert!(gold.1.is_number() && score.is_finite(), "{row}");
    }
}

#[test]
fn answers_that_do_not_fit_as_text_are_cut_with_one_warning() {
    let temper = Temper::with_reward_model();
    temper.copy("reward/final", "asked");
    temper.edit_json("asked/template.json", |template| template["prompt"][1]["text"] = "Ask:".into());
    let ppo = "ppo --policy sft/final --reward asked --gold asked --prompts prompts.jsonl --out ppo --set batch_size=3 \
               --set critic.kind=value_head --set rollout.max_new_tokens=100 --set epochs=3";
    let said = temper.run(ppo).ok();
    assert_eq!(
        said.stderr.matches("too long, with their prompts, for the 128 tokens of asked").count(),
        1,
        "{said:?}"
    );
    assert_eq!(temper.read("ppo/metrics.jsonl").lines().count(), 3);
    let eval = "eval --model sft/final --judge asked --data prompts.jsonl --max-new-tokens 100";
    let said = temper.run(eval).ok();
    assert!(said.stderr.contains("for the 128 tokens of asked"), "{said:?}");
}

#[test]
fn a_judge_whose_context_is_too_short_is_noticed_at_the_start() {
    let temper = Temper::with_reward_model();
    shorten(&temper, "reward/final", "short", 64);
    temper.run("score --model short --data demonstrations.jsonl").ok();
    let ppo = "ppo --policy sft/final --reward reward/final --gold short --prompts prompts.jsonl --out ppo \
               --set batch_size=3 --set max_steps=3 --set epochs=3";
    // The longest prompt has 23 tokens.
    let says = ["may have 83 tokens, the context of short has 64"];
    temper.refuses(&format!("{ppo} --set rollout.max_new_tokens=60"), &says);
    temper.run(&format!("{ppo} --set rollout.max_new_tokens=41")).ok();
    let eval = "eval --model sft/final --data prompts.jsonl --max-new-tokens 60";
    temper.refuses(&format!("{eval} --judge short"), &says);
    let best = "--against sft/final --judge reward/final --best-of 2 --reward short";
    temper.refuses(&format!("{eval} {best}"), &says);
    temper.refuses("select --run sft --reward short --prompts prompts.jsonl --max-new-tokens 60", &says);
    // Text can be cut, so that this is a warning.
    temper.edit_json("short/template.json", |template| template["prompt"][1]["text"] = "Ask:".into());
    let said = temper.run(&format!("{eval} --judge short")).ok();
    assert_eq!(said.stderr.matches(says[0]).count(), 1, "{said:?}");
}

#[test]
fn models_and_judges_that_answer_nan_are_named() {
    let temper = Temper::with_reward_model();
    diverge(&temper, "reward/final", "judge");
    diverge(&temper, "sft/final", "policy");
    let failed = |arguments: &str, says: &[&str]| {
        let said = temper.run(arguments).failed(says);
        assert!(said.hint().contains("diverged"), "{said:?}");
    };
    failed("eval --model judge --data comparisons.jsonl", &["judge has a loss of"]);
    failed("eval --model policy --data demonstrations.jsonl", &["policy has a loss of"]);
    failed("score --model judge --data demonstrations.jsonl", &["judge scores demonstrations.jsonl:1 as"]);
    failed(
        "logprobs --model policy --data demonstrations.jsonl",
        &["policy gives a token of demonstrations.jsonl:1"],
    );
    failed("generate --model policy --prompt hi", &["policy gives logits that are not finite"]);
    failed("generate --model policy --prompt hi --greedy", &["policy gives logits that are not finite"]);
    let eval = "eval --model sft/final --data prompts.jsonl --max-new-tokens 4";
    let scored = "judge scores the answer to prompt 1 as";
    failed(&format!("{eval} --against sft/final --judge judge"), &[scored]);
    failed(&format!("{eval} --judge judge"), &[scored]);
    failed(&format!("{eval} --judge reward/final --best-of 2 --reward judge"), &[scored]);
    failed(&format!("{eval} --against policy --judge reward/final"), &["policy gives logits"]);
    failed("select --run sft --reward judge --prompts prompts.jsonl --max-new-tokens 4", &[scored]);
    assert!(!temper.path("sft/selected").exists());
    for bad in ["1e-40", "1e300", "0"] {
        let generate = format!("generate --model sft/final --prompt hi --temperature {bad}");
        temper.refuses(&generate, &["`--temperature` must be", "from 0.0001 to 10000"]);
    }
}

#[test]
fn eval_repeats_the_evaluation_of_the_run() {
    let temper = Temper::new();
    let long = |text: &str| format!("{} {text}", "What is it? ".repeat(11));
    let demonstrations = [("Hi", "Yes."), (long("So?").as_str(), "No."), (long("Or?").as_str(), "Maybe.")]
        .map(|(prompt, completion)| format!("{}\n", json!({"prompt": prompt, "completion": completion})));
    temper.write("long.jsonl", demonstrations.concat());
    temper
        .run(
            "sft --data demonstrations.jsonl --eval-data long.jsonl --model tiny --out sft --set max_steps=2 \
              --set eval_every=2 --set overflow=truncate_prompt --set max_seq_len=60",
        )
        .ok();
    let metrics = temper.read("sft/metrics.jsonl");
    let trained: Value = serde_json::from_str(metrics.lines().last().unwrap()).expect("JSON");
    let eval = "eval --model sft/final --data long.jsonl";
    let said = temper.run(eval).ok();
    assert!(said.stderr.contains("max_seq_len = 60, overflow = \"truncate_prompt\""), "{said:?}");
    let row = &said.rows()[0];
    assert!((number(row, "eval_loss") - number(&trained, "eval_loss")).abs() < 1e-6, "{row} {trained}");
    assert_eq!(number(row, "eval_rows_dropped"), 0.0);
    let said = temper.run(&format!("{eval} --set overflow=drop")).ok();
    let dropped = &said.rows()[0];
    assert_eq!(number(dropped, "eval_rows_dropped"), 2.0, "the other setting stays as in the run: {said:?}");
    assert_ne!(number(dropped, "eval_loss"), number(row, "eval_loss"));
    // Away from its run it is evaluated as anybody's model.
    temper.copy("sft/final", "alone");
    let alone = temper.run("eval --model alone --data long.jsonl").ok();
    assert_eq!(number(&alone.rows()[0], "eval_rows_dropped"), 2.0, "{alone:?}");
    temper.refuses(&format!("{eval} --set overfow=drop"), &["overfow", "overflow"]);
    temper.refuses(&format!("{eval} --set max_seq_len=1000"), &["`max_seq_len` is 1000"]);

    let comparisons =
        [("Hi", "a", "b"), (long("So?").as_str(), "a", "b")].map(|(prompt, chosen, rejected)| {
            format!("{}\n", json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}))
        });
    temper.write("pairs.jsonl", comparisons.concat());
    temper
        .run(
            "reward --data comparisons.jsonl --eval-data pairs.jsonl --model sft/final --out reward \
              --set max_steps=2 --set eval_every=2 --set checkpoint_every=1 --set overflow=truncate_prompt",
        )
        .ok();
    let last = temper.read("reward/metrics.jsonl");
    let trained: Value = serde_json::from_str(last.lines().last().unwrap()).expect("JSON");
    for model in ["reward/final", "reward/checkpoints/step-000002"] {
        let Some(model) = temper.path(model).exists().then_some(model) else { continue };
        let row = temper.run(&format!("eval --model {model} --data pairs.jsonl")).ok().rows().remove(0);
        assert!((number(&row, "eval_loss") - number(&trained, "eval_loss")).abs() < 1e-6, "{model}: {row}");
        assert_eq!(number(&row, "eval_pairs"), 2.0, "{model}");
    }
}

#[test]
fn one_policy_alone_gets_its_mean_score() {
    let temper = Temper::with_reward_model();
    let eval = "eval --model sft/final --data prompts.jsonl --max-new-tokens 6";
    let alone = temper.run(&format!("{eval} --judge reward/final")).ok().rows().remove(0);
    assert_eq!(
        keys(&alone),
        [
            "score",
            "score_standard_error",
            "prompts",
            "eos_rate",
            "length",
            "tokens",
            "best_of",
            "best_of_kl_bound"
        ]
    );
    let duel = temper.run(&format!("{eval} --judge reward/final --against sft/final")).ok().rows().remove(0);
    for key in ["score", "prompts", "eos_rate", "length", "tokens", "best_of"] {
        assert_eq!(alone[key], duel[key], "{key}");
    }
    let best = temper
        .run(&format!("{eval} --judge reward/final --best-of 4 --reward reward/final"))
        .ok()
        .rows()
        .remove(0);
    assert!(number(&best, "score") > number(&alone, "score"), "{best} {alone}");
    // It counts to three, so that the mean is 2 and its standard error 1 / √3.
    temper.write("judge.sh", "n=0; while read -r line; do n=$((n+1)); echo $n; done");
    let mut arguments: Vec<&str> = eval.split_whitespace().collect();
    arguments.extend(["--judge-program", "sh judge.sh"]);
    let row = temper.run_of(&arguments).ok().rows().remove(0);
    assert_eq!(number(&row, "score"), 2.0);
    assert!((number(&row, "score_standard_error") - 1.0 / 3f64.sqrt()).abs() < 1e-12, "{row}");
}

#[test]
fn rows_that_do_not_fit_are_named_before_anything_is_printed_or_skipped_and_counted() {
    let temper = Temper::with_reward_model();
    let long = json!({"prompt": "x".repeat(200), "completion": "y"});
    temper.write("rows.jsonl", format!("{DEMONSTRATIONS}{long}\n"));
    for (command, says) in
        [("score --model reward/final", "200 tokens"), ("logprobs --model sft/final", "tokens")]
    {
        let command = format!("{command} --data rows.jsonl");
        let said = temper.refuses(&command, &["rows.jsonl:6", says.trim_start_matches("200 ")]);
        assert!(said.hint().contains("longer context"), "{said:?}");
        let said = temper.run(&format!("{command} --skip-bad-rows")).ok();
        assert_eq!(said.rows().len(), 5);
        assert!(said.stderr.contains("note: left out 1 of "), "{said:?}");
    }
}

#[test]
fn a_prompt_that_is_too_long_is_named_by_its_line_before_anything_is_answered() {
    let temper = Temper::with_reward_model();
    let rows: String = (0..70).map(|i| format!("{{\"prompt\": \"Is it {i}?\"}}\n")).collect();
    temper.write("many.jsonl", format!("{rows}\n{{\"prompt\": \"{}\"}}\n", "x".repeat(3000)));
    let sampled = "--max-new-tokens 2";
    for command in [
        format!("eval --model sft/final --judge reward/final --data many.jsonl {sampled}"),
        format!(
            "eval --model sft/final --against sft/final --judge reward/final --data many.jsonl {sampled}"
        ),
        format!("select --run sft --reward reward/final --prompts many.jsonl {sampled}"),
    ] {
        let said =
            temper.refuses(&command, &["many.jsonl:72", "the prompt has 3011 tokens", "a context of 128"]);
        assert!(said.hint().contains("longer context"), "{said:?}");
    }
    let said = temper
        .run(&format!(
            "eval --model sft/final --judge reward/final --data many.jsonl {sampled} --skip-bad-rows"
        ))
        .ok();
    assert_eq!(said.rows()[0]["prompts"], 70);
    assert!(said.stderr.contains("note: left out 1 of "), "{said:?}");
    let long = "x".repeat(3000);
    temper.refuses_of(
        &["generate", "--model", "sft/final", "--prompt", &long],
        &["the prompt has 3011 tokens", "a context of 128"],
    );
}

#[test]
fn generate_answers_the_other_lines_and_names_those_that_it_cannot() {
    let temper = Temper::with_sft();
    temper.copy("sft/final", "raw");
    forget_template(&temper, "raw");
    let mut input: Vec<u8> = b"one\n\ntwo\r\n\xff\xfe\n".to_vec();
    input.extend("x".repeat(3000).bytes());
    input.extend(b"\nlast");
    let said = temper.run_with_stdin("generate --model raw --json --max-new-tokens 2", &input);
    assert_eq!(said.code, Some(1), "{said:?}");
    let prompts: Vec<Value> = said.rows().iter().map(|row| row["prompt"].clone()).collect();
    assert_eq!(prompts, ["one", "two", "last"]);
    for says in [
        "standard input:2: the prompt is empty",
        "standard input:4: the line is not UTF-8",
        "standard input:5: the prompt has 3000 tokens",
        "error: 3 of the 6 lines of standard input could not be answered",
    ] {
        assert!(said.stderr.contains(says), "`{says}` in {said:?}");
    }
}

/// A reader that goes away ends an input without end.
#[cfg(unix)]
#[test]
fn generate_answers_an_input_without_an_end() {
    let temper = Temper::with_sft();
    let script =
        "yes hi | timeout 30 \"$TEMPER\" generate --model sft/final --max-new-tokens 1 | head -n 100 | wc -l";
    assert_eq!(temper.shell(script).ok().stdout.trim(), "100");
}

#[test]
fn chat_continues_after_a_line_that_it_cannot_answer() {
    let temper = Temper::with_sft();
    let mut input: Vec<u8> = b"Hi\n\xff\xfe\n".to_vec();
    input.extend("x".repeat(3000).bytes());
    input.extend(b"\nHow?\n\n");
    let said = temper.run_with_stdin("chat --model sft/final --greedy --max-new-tokens 1", &input);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains("the line is not UTF-8"), "{said:?}");
    assert!(said.stderr.contains("the prompt has 3011 tokens"), "{said:?}");
    let good =
        temper.run_with_stdin("chat --model sft/final --greedy --max-new-tokens 1", "Hi\nHow?\n\n").ok();
    assert_eq!(said.stdout, good.stdout);
}

#[test]
fn tokenize_with_a_model_shows_what_is_trained() {
    let temper = Temper::with_sft();
    let tokenize = |more: &str| temper.run(&format!("tokenize --prompt Hi --json --model sft/final {more}"));
    let row = tokenize("--completion Yo --max-len 20").ok().rows().remove(0);
    let labels: Vec<i64> =
        row["labels"].as_array().unwrap().iter().map(|label| label.as_i64().unwrap()).collect();
    let [y, o] = [b'Y', b'o'].map(|byte| i64::from(byte) + 4);
    // [BOS]Instruct:Hi are 12 tokens, and [SEP] predicts the first one of the answer.
    assert_eq!(labels, [[-100; 12].as_slice(), &[y, o, 3], &[-100; 5]].concat());
    let attention = row["attention_mask"].as_array().unwrap().iter().filter(|mask| **mask == 1).count();
    assert_eq!(attention, 16);
    // Nothing is learned from a prompt alone.
    let row = tokenize("--max-len 14").ok().rows().remove(0);
    assert!(row["labels"].as_array().unwrap().iter().all(|label| *label == -100), "{row}");
    assert_eq!(row["input_ids"][12], 2);
    assert_eq!(row["attention_mask"].as_array().unwrap().iter().filter(|mask| **mask == 1).count(), 13);
    tokenize("--completion Yo --max-len 15").refused(&["16 tokens are more than `--max-len 15`"]);
    // A directory without a template is trained with an end.
    temper.copy("sft/final", "raw");
    swap_two_bytes(&temper, "raw");
    forget_template(&temper, "raw");
    let row = temper
        .run("tokenize --prompt Hi --completion Yo --max-len 5 --json --model raw")
        .ok()
        .rows()
        .remove(0);
    assert_eq!(row["labels"], json!([-100, y, o, 3, -100]));
}
