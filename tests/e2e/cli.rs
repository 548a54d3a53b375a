//! The contract of every command: what it prints and where.

use serde_json::json;

use crate::util::{Said, Temper, keys};

// What the notebook prints for its own example (`seed/instructgpt-notebook.txt`, the output under "测试编码的效果").
#[rustfmt::skip]
const INPUT_IDS: [i64; 128] = [
    1, 77, 114, 119, 120, 118, 121, 103, 120, 62, 91, 108, 101, 120, 36, 109, 119, 36, 113, 101,
    103, 108, 109, 114, 105, 36, 112, 105, 101, 118, 114, 109, 114, 107, 67, 2, 81, 101, 103, 108,
    109, 114, 105, 36, 112, 105, 101, 118, 114, 109, 114, 107, 36, 109, 119, 36, 120, 105, 103, 108,
    114, 115, 112, 115, 107, 125, 36, 120, 108, 101, 120, 36, 105, 114, 101, 102, 112, 105, 119, 36,
    103, 115, 113, 116, 121, 120, 105, 118, 119, 36, 120, 115, 36, 112, 105, 101, 118, 114, 36, 106,
    118, 115, 113, 36, 104, 101, 120, 101, 50, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0,
];
#[rustfmt::skip]
const ATTENTION_MASK: [i64; 128] = [
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0,
];
#[rustfmt::skip]
const LABELS: [i64; 128] = [
    -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100,
    -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100, 101, 103, 108, 109,
    114, 105, 36, 112, 105, 101, 118, 114, 109, 114, 107, 36, 109, 119, 36, 120, 105, 103, 108, 114,
    115, 112, 115, 107, 125, 36, 120, 108, 101, 120, 36, 105, 114, 101, 102, 112, 105, 119, 36, 103,
    115, 113, 116, 121, 120, 105, 118, 119, 36, 120, 115, 36, 112, 105, 101, 118, 114, 36, 106, 118,
    115, 113, 36, 104, 101, 120, 101, 50, 3, 0, -100, -100, -100, -100, -100, -100, -100, -100, -100, -100,
    -100, -100, -100, -100, -100, -100, -100, -100,
];

#[test]
fn tokenize_gives_the_tensors_of_the_notebook() {
    let said = Temper::new().run_of(&[
        "tokenize",
        "--prompt",
        "What is machine learning?",
        "--completion",
        "Machine learning is technology that enables computers to learn from data.",
        "--json",
    ]);
    let rows = said.ok().rows();
    assert_eq!(rows.len(), 1);
    assert_eq!(keys(&rows[0]), ["input_ids", "attention_mask", "labels"]);
    assert_eq!(rows[0]["input_ids"], json!(INPUT_IDS.to_vec()));
    assert_eq!(rows[0]["attention_mask"], json!(ATTENTION_MASK.to_vec()));
    assert_eq!(rows[0]["labels"], json!(LABELS.to_vec()));
}

#[test]
fn tokenize_prints_a_table_and_obeys_max_len_and_model() {
    let temper = Temper::with_sft();
    let table = temper.run("tokenize --prompt Hi --completion Yes. --max-len 20").ok();
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert_eq!(lines.len(), 20, "a heading, 18 tokens, and a line for the padding: {table:?}");
    assert!(lines[19].ends_with("padding, up to 20"), "{table:?}");
    let plain = temper.run("tokenize --prompt Hi --completion Yes. --max-len 20 --json").ok();
    let model =
        temper.run("tokenize --prompt Hi --completion Yes. --max-len 20 --json --model sft/final").ok();
    for key in ["input_ids", "attention_mask"] {
        assert_eq!(plain.rows()[0][key], model.rows()[0][key], "{key}");
    }
    assert_ne!(
        plain.rows()[0]["labels"],
        model.rows()[0]["labels"],
        "the notebook's, and those that are trained"
    );
    assert_eq!(plain.rows()[0]["input_ids"].as_array().expect("ids").len(), 20);
}

#[test]
fn a_printed_config_is_read_back_as_itself() {
    let temper = Temper::new();
    for stage in ["sft", "reward", "ppo"] {
        for preset in ["", " --preset courtesy", " --preset notebook", " --preset notebook-zh"] {
            let printed = temper.run(&format!("config {stage}{preset}")).ok();
            assert_eq!(printed.stderr, "");
            temper.write("printed.toml", &printed.stdout);
            let again = temper.run(&format!("config {stage} --config printed.toml")).ok();
            // A preset may say something about itself first.
            let (first, others) = printed.stdout.split_once("\n\n").expect("a table");
            let settings = if first.contains(" = ") { &printed.stdout } else { others };
            assert_eq!(settings, again.stdout, "{stage}{preset}");
            // A long comment takes more than one line.
            let lines: Vec<&str> = settings.lines().collect();
            for pair in lines.windows(2).filter(|pair| pair[1].contains(" = ")) {
                assert!(pair[0].starts_with("# "), "a comment before each key: {pair:?}");
            }
        }
    }
}

#[test]
fn every_stage_has_the_common_keys() {
    let temper = Temper::new();
    for stage in ["sft", "reward", "ppo"] {
        let printed = temper.run(&format!("config {stage}")).ok().stdout;
        for key in [
            "epochs",
            "learning_rate",
            "batch_size",
            "max_seq_len",
            "checkpoint_every",
            "eval_every",
            "seed",
            "device",
        ] {
            assert!(has(&printed, key), "{stage}: {key}");
        }
    }
}

#[test]
fn later_settings_win() {
    let temper = Temper::new();
    temper
        .write("file.toml", "epochs = 6\nbatch_size = 3\nseed = 5\ndevice = \"ndarray\"\n[kl]\ncoef = 0.5\n");
    let value = |arguments: &str, key: &str| {
        let printed = temper.run(&format!("config ppo {arguments}")).ok().stdout;
        let (section, key) = key.split_once('.').unwrap_or(("", key));
        let settings = printed.split(&format!("[{section}]")).last().expect("a section");
        let line =
            settings.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{key} in {printed}"))
    };
    // The defaults.
    assert_eq!(value("", "keep_last"), "2");
    assert_eq!(value("", "epochs"), "\"auto\"  # as many as max_steps needs");
    assert_eq!(value("", "batch_size"), "\"auto\"  # so that a rollout has 64 answers");
    // A preset over the defaults.
    assert_eq!(value("--preset notebook", "epochs"), "7");
    assert_eq!(value("--preset notebook", "seed"), "0");
    // A file over the preset.
    assert_eq!(value("--preset notebook --config file.toml", "epochs"), "6");
    assert_eq!(value("--preset notebook --config file.toml", "coef"), "0.5");
    assert_eq!(value("--preset notebook --config file.toml", "ppo_epochs"), "2");
    // `--set` over the file, the last one over the others.
    assert_eq!(value("--config file.toml --set epochs=8 --set epochs=9 --set kl.coef=1", "epochs"), "9");
    assert_eq!(value("--config file.toml --set epochs=8 --set epochs=9 --set kl.coef=1", "coef"), "1.0");
    assert_eq!(value("--config file.toml --set critic.kind=value_head", "critic.kind"), "\"value_head\"");
    // Flags over everything.
    assert_eq!(value("--config file.toml --set seed=6 --seed 7", "seed"), "7");
    assert_eq!(value("--config file.toml --set device=auto --device flex", "device"), "\"flex\"");
}

fn has(toml: &str, key: &str) -> bool {
    toml.lines().any(|line| line.starts_with(&format!("{key} = ")))
}

#[test]
fn generate_prints_the_keys_of_the_contract() {
    let temper = Temper::with_sft();
    let said = temper.run("generate --model sft/final --prompt Hi --max-new-tokens 5 --json --seed 3").ok();
    assert_eq!(said.stderr, "");
    let rows = said.rows();
    assert_eq!(keys(&rows[0]), ["prompt", "completion", "tokens", "logprobs", "finish_reason"]);
    assert_eq!(rows[0]["prompt"], "Hi");
    let tokens = rows[0]["tokens"].as_array().expect("tokens");
    let logprobs = rows[0]["logprobs"].as_array().expect("logprobs");
    assert_eq!(tokens.len(), logprobs.len());
    assert!(logprobs.iter().all(|x| x.as_f64().is_some_and(|x| x <= 0.0)), "{said:?}");
    let finish = rows[0]["finish_reason"].as_str();
    let ended = tokens.last() == Some(&json!(3));
    assert_eq!(finish, Some(if ended { "stop" } else { "length" }));
    assert!(ended || tokens.len() == 5);

    let again = temper.run("generate --model sft/final --prompt Hi --max-new-tokens 5 --json --seed 3").ok();
    assert_eq!(said.stdout, again.stdout, "the same seed gives the same answer");
    let other = temper.run("generate --model sft/final --prompt Hi --max-new-tokens 5 --json --seed 4").ok();
    assert_ne!(said.stdout, other.stdout, "another seed gives another answer");
    let greedy = |seed| {
        let arguments = format!(
            "generate --model sft/final --prompt Hi --max-new-tokens 5 --greedy --json --seed {seed}"
        );
        temper.run(&arguments).ok().stdout
    };
    assert_eq!(greedy(1), greedy(2), "greedy needs no luck");
}

#[test]
fn generate_reads_one_prompt_per_line() {
    let temper = Temper::with_sft();
    let said =
        temper.run_with_stdin("generate --model sft/final --greedy --max-new-tokens 3 --json", "a\nb c\nd");
    let rows = said.ok().rows();
    let prompts: Vec<_> = rows.iter().map(|row| row["prompt"].as_str().expect("a prompt")).collect();
    assert_eq!(prompts, ["a", "b c", "d"]);
    let alone = temper.run_of(&[
        "generate",
        "--model",
        "sft/final",
        "--greedy",
        "--max-new-tokens",
        "3",
        "--json",
        "--prompt",
        "b c",
    ]);
    let alone = alone.ok().rows();
    assert_eq!(alone[0]["tokens"], rows[1]["tokens"], "the others in a batch do not matter");
    assert_eq!(temper.run_with_stdin("generate --model sft/final", "").ok().stdout, "");
}

#[test]
fn chat_answers_line_by_line_on_standard_output() {
    let temper = Temper::with_sft();
    let said =
        temper.run_with_stdin("chat --model sft/final --greedy --max-new-tokens 2 -q", "Hi\nHow?\n").ok();
    assert_eq!(said.stderr, "");
    assert!(said.stdout.lines().count() >= 2, "{said:?}");
}

#[test]
fn logprobs_gives_a_row_per_row_and_agrees_with_generate() {
    let temper = Temper::with_sft();
    let said = temper.run("logprobs --model sft/final --data demonstrations.jsonl").ok();
    let rows = said.rows();
    assert_eq!(rows.len(), 5);
    for row in &rows {
        assert_eq!(keys(row), ["prompt_tokens", "completion_tokens", "logprobs"]);
        let len = |key: &str| row[key].as_array().expect("an array").len();
        assert_eq!(len("completion_tokens"), len("logprobs"));
        assert_eq!(row["prompt_tokens"][0], 1, "begins with [BOS]");
        assert_eq!(row["completion_tokens"][len("completion_tokens") - 1], 3, "ends with [EOS]");
    }
    // A greedy answer of plain ASCII has the log-probabilities that it was sampled with.
    let prompts: String = ('a'..='z').map(|c| format!("{c}\n")).collect();
    let sampled =
        temper.run_with_stdin("generate --model sft/final --max-new-tokens 1 --json", prompts).ok().rows();
    let sampled: Vec<_> = sampled
        .iter()
        .filter(|row| row["tokens"][0].as_u64().is_some_and(|id| (4 + 32..4 + 127).contains(&id)))
        .filter(|row| row["completion"] != " ")
        .collect();
    assert!(!sampled.is_empty());
    let data: String = sampled
        .iter()
        .map(|row| format!("{}\n", json!({"prompt": row["prompt"], "completion": row["completion"]})))
        .collect();
    temper.write("sampled.jsonl", data);
    let found = temper.run("logprobs --model sft/final --data sampled.jsonl").ok().rows();
    for (sampled, found) in sampled.iter().zip(&found) {
        assert_eq!(sampled["tokens"][0], found["completion_tokens"][0]);
        let [a, b] = [sampled, found].map(|row| row["logprobs"][0].as_f64().expect("a number"));
        assert!((a - b).abs() < 1e-4, "{a} and {b}");
    }
}

#[test]
fn a_directory_without_a_template_is_plain() {
    let temper = Temper::with_reward_model();
    for kind in ["sft", "reward"] {
        temper.copy(&format!("{kind}/final"), kind);
        std::fs::remove_file(temper.path(kind).join("template.json")).expect("a template");
    }
    temper.write("row.jsonl", "{\"prompt\": \"Hi\", \"completion\": \"Yo\"}\n");
    let row = temper.run("logprobs --model sft --data row.jsonl").ok().rows().remove(0);
    assert_eq!(row["prompt_tokens"], json!([b'H' + 4, b'i' + 4]));
    assert_eq!(row["completion_tokens"], json!([b'Y' + 4, b'o' + 4]));
    temper.run("score --model reward --data row.jsonl").ok();
    temper.run("generate --model sft --prompt Hi --max-new-tokens 2").ok();
    let said = temper
        .run_of(&["generate", "-q", "--model", "sft", "--prompt", ""])
        .refused(&["the prompt is empty"]);
    assert!(said.hint().contains("template"), "{said:?}");
}

#[test]
fn data_may_be_an_array_under_other_names_in_several_files() {
    let temper = Temper::new();
    temper.write("a.json", "[\n{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\"},\n{\"question\": \"a\", \"answer\": \"b\"}]");
    temper.write("b.jsonl", "\u{feff}{\"prompt\": \"a\", \"response\": \"b\"}\r\n\r\n");
    temper
        .run("sft --data a.json b.jsonl --model gpt2-tiny --out sft --set batch_size=1 --set epochs=1")
        .ok();
    assert_eq!(temper.read("sft/metrics.jsonl").lines().count(), 3);
    temper.write("hh.jsonl", "{\"chosen\": \"\\n\\nHuman: a\\n\\nAssistant: b\", \"rejected\": \"\\n\\nHuman: a\\n\\nAssistant: c\"}\n");
    temper.run("reward --data hh.jsonl --model sft/final --out reward").ok();
}

#[test]
fn without_a_run_the_first_interrupt_ends_at_once() {
    let temper = Temper::with_sft();
    let said = temper.interrupt_when("chat --model sft/final", "One prompt per line");
    assert_eq!(said.code, Some(130), "{said:?}");
}

#[test]
fn score_keeps_the_row_and_adds_a_score() {
    let temper = Temper::with_reward_model();
    temper.write("rows.jsonl", "{\"id\": 7, \"prompt\": \"Hi\", \"completion\": \"Yes.\"}\n{\"prompt\": \"Hi\", \"response\": \"No.\"}\n");
    let rows = temper.run("score --model reward/final --data rows.jsonl").ok().rows();
    assert_eq!(keys(&rows[0]), ["id", "prompt", "completion", "score"]);
    assert_eq!(keys(&rows[1]), ["prompt", "response", "score"]);
    assert!(rows.iter().all(|row| row["score"].as_f64().is_some_and(f64::is_finite)));
    assert_eq!(rows[0]["id"], 7);
}

#[test]
fn eval_tells_what_fits_the_model() {
    let temper = Temper::with_reward_model();
    let sft = temper.run("eval --model sft/final --data demonstrations.jsonl").ok().rows();
    let [loss, perplexity] =
        ["eval_loss", "eval_perplexity"].map(|key| sft[0][key].as_f64().expect("a number"));
    assert!((loss.exp() - perplexity).abs() < 1e-6 * perplexity);
    let accuracy = sft[0]["eval_mean_token_accuracy"].as_f64().expect("a number");
    assert!((0.0..=1.0).contains(&accuracy));

    let reward = temper.run("eval --model reward/final --data comparisons.jsonl").ok();
    let row = &reward.rows()[0];
    let names = keys(row);
    for part in ["accuracy", "margin"] {
        assert!(names.iter().any(|name| name.contains(part)), "{reward:?}");
    }

    let duel = temper.run(
        "eval --model sft/final --against sft/final --judge reward/final --data prompts.jsonl --greedy --max-new-tokens 3",
    );
    let row = &duel.ok().rows()[0];
    assert_eq!(row["win_rate"], 0.5, "nobody wins against themselves");
    assert_eq!(row["prompts"], 3);
    let [low, high] = [0, 1].map(|i| row["win_rate_ci95"][i].as_f64().expect("a number"));
    assert!(low < 0.5 && 0.5 < high && low >= 0.0 && high <= 1.0, "{row}");
}

#[test]
fn devices_lists_every_backend() {
    let said = Temper::new().run("devices").ok();
    for name in ["cuda", "rocm", "metal", "vulkan", "wgpu", "flex", "ndarray"] {
        assert!(said.stdout.lines().any(|line| line.starts_with(name)), "{said:?}");
    }
    let works = |line: &str| {
        line.contains("works: ") || line.contains("not compiled in") || line.contains("does not work")
    };
    assert!(said.stdout.lines().all(works), "{said:?}");
}

#[test]
fn a_cpu_computes_what_it_computed_before() {
    let said = Temper::new().run("devices --check").ok();
    let of_flex: Vec<&str> = said.stdout.lines().filter(|line| line.starts_with("flex")).collect();
    assert_eq!(of_flex.len(), 4, "{said:?}");
    assert!(
        of_flex.iter().all(|line| line.contains(" right  ") && line.contains("differs by 0.0e0")),
        "{said:?}"
    );
}

#[test]
fn recipes_write_the_same_data_for_the_same_seed() {
    let temper = Temper::new();
    for recipe in ["notebook", "notebook-zh", "courtesy"] {
        for out in ["a", "b"] {
            let said = temper.run(&format!("recipe {recipe} --out {recipe}-{out} --seed 4")).ok();
            assert_eq!(said.stdout, "");
        }
        let [a, b] = ["a", "b"].map(|out| temper.snapshot(&format!("{recipe}-{out}")));
        assert_eq!(a, b, "{recipe}");
        for name in ["demonstrations.jsonl", "comparisons.jsonl", "prompts.jsonl"] {
            assert!(a.contains_key(std::path::Path::new(name)), "{recipe}: {name}");
        }
    }
    temper.run("recipe courtesy --out other --seed 5").ok();
    assert_ne!(temper.snapshot("other"), temper.snapshot("courtesy-a"), "another seed, other data");
}

#[test]
fn report_names_the_files_that_it_drew() {
    let temper = Temper::with_sft();
    let said = temper.run("report sft").ok();
    assert_eq!(said.stderr, "");
    assert!(said.stdout.lines().any(|line| line.ends_with("report.html")), "{said:?}");
    assert!(said.stdout.lines().any(|line| line.ends_with(".svg")), "{said:?}");
    for path in said.stdout.lines() {
        assert!(!temper.bytes(path).is_empty());
    }
    let html = temper.read("sft/report.html");
    for outside in ["src=\"http", "href=\"http", "url(http", "<link", "@import"] {
        assert!(!html.contains(outside), "the report needs {outside}");
    }
}

#[test]
fn several_runs_become_a_page_and_a_picture() {
    let temper = Temper::new();
    for name in ["a", "b"] {
        let line =
            |step: i32| format!("{{\"step\":{step},\"objective/kl\":{step},\"objective/scores\":{step}}}\n");
        std::fs::create_dir(temper.path(name)).unwrap();
        temper.write(&format!("{name}/metrics.jsonl"), (1..=9).map(line).collect::<String>());
    }
    temper.write("points.json", r#"[{"label":"best of n","kl":0.19,"gold":0.5,"note":"n = 2"}]"#);
    let said = temper.run("report --compare a b --points points.json --out all.html").ok();
    assert_eq!(said.stdout.lines().collect::<Vec<_>>(), ["all.html", "all.svg"]);
    assert!(temper.read("all.svg").contains("n = 2") && temper.read("all.html").contains("best of n"));
    temper.write("points.json", r#"[{"label":"x","kl":1}]"#);
    temper.refuses("report --compare a --points points.json --out all.html", &["points.json", "`gold`"]);
}

#[test]
fn a_run_directory_is_as_the_contract_says() {
    let temper = Temper::new();
    let said = temper.run(
        "sft --data demonstrations.jsonl --model gpt2-tiny --out sft --eval-data demonstrations.jsonl \
         --set epochs=2 --set batch_size=2 --set checkpoint_every=2 --set eval_every=3",
    );
    assert_eq!(said.ok().stdout, "", "standard output is for data");
    for name in ["config.json", "model.safetensors", "tokenizer.json", "template.json"] {
        assert!(temper.path("sft/final").join(name).is_file(), "final/{name}");
        assert!(temper.path("sft/checkpoints/step-000004").join(name).is_file(), "step-000004/{name}");
    }
    assert!(temper.path("sft/checkpoints/step-000004/training").is_dir());
    let rows: Vec<serde_json::Value> = temper
        .read("sft/metrics.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let steps: Vec<_> = rows.iter().filter(|row| row.get("loss").is_some()).collect();
    assert_eq!(steps.len(), 6, "2 epochs of 3 batches");
    for (i, row) in steps.iter().enumerate() {
        assert_eq!(row["step"], i + 1);
        assert!(row["tokens_per_second"].is_f64() && row["time/elapsed_seconds"].is_f64());
    }
    assert_eq!(rows.len() - steps.len(), 2, "evaluated after steps 3 and 6");
    // What is in config.toml is what was asked for, and can be given again.
    let given = temper.run("config sft --config sft/config.toml").ok().stdout;
    let stored = temper.read("sft/config.toml");
    let without_reasons = |line: &str| line.split("  # auto: ").next().unwrap_or(line).to_owned();
    let stored: Vec<String> = stored.trim().lines().map(without_reasons).collect();
    assert_eq!(given.trim().lines().collect::<Vec<_>>(), stored);
    assert!(has(&given, "checkpoint_every") && given.contains("checkpoint_every = 2"));
    temper.assert_nothing_half_written("sft");
}

#[test]
fn bad_rows_are_left_out_and_counted_on_request() {
    let temper = Temper::new();
    temper.write("some.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n{broken\n{\"prompt\": \"a\"}\n");
    let said = temper
        .run("sft --data some.jsonl --model gpt2-tiny --out sft --set max_steps=1 --skip-bad-rows")
        .ok();
    assert!(said.stderr.contains("note: left out 2 of 3 rows of some.jsonl (training data): they cannot be read (first: some.jsonl:2: "), "{said:?}");
}

#[test]
fn quiet_is_silent() {
    let temper = Temper::with_reward_model();
    let silent = |arguments: &str| {
        let said: Said = temper.run(&format!("{arguments} -q")).ok();
        assert_eq!(said.stderr, "", "{said:?}");
    };
    silent("sft --data demonstrations.jsonl --model gpt2-tiny --out a --set max_steps=1");
    silent("reward --data comparisons.jsonl --model sft/final --out b --set max_steps=1");
    silent("dpo --data comparisons.jsonl --model sft/final --out e --set max_steps=1");
    silent(
        "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --out c --set max_steps=1 \
         --set batch_size=3 --set rollout.max_new_tokens=3",
    );
    silent("recipe notebook --out d");
    silent("generate --model sft/final --prompt a --max-new-tokens 2");
    silent("eval --model sft/final --data demonstrations.jsonl");
}

#[test]
fn wrong_usage_ends_with_code_2() {
    let temper = Temper::new();
    for arguments in [
        "",
        "nonsense",
        "sft",
        "sft --data demonstrations.jsonl --model tiny",
        "generate --model x --temperature warm",
        "generate --model x --max-new-tokens -1",
        "config rlhf",
        "recipe cooking --out x",
        "pipeline --recipe cooking",
        "eval --model x --data y --against z",
        "devices --seed minus",
        "tokenize --prompt a --unknown-flag",
    ] {
        temper.run(arguments).misused();
    }
}

#[test]
fn every_command_helps_with_an_example() {
    let temper = Temper::new();
    for command in [
        "sft", "reward", "dpo", "ppo", "pipeline", "generate", "chat", "tokenize", "logprobs", "score",
        "eval", "select", "config", "recipe", "report", "devices",
    ] {
        let said = temper.run(&format!("{command} --help")).ok();
        assert!(said.stdout.contains(&format!("  temper {command}")), "{said:?}");
        for flag in ["--device", "--seed", "--quiet", "--verbose"] {
            assert!(said.stdout.contains(flag), "{command} has no {flag}");
        }
    }
    assert!(temper.run("--version").ok().stdout.starts_with("temper "));
}
