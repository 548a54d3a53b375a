//! `temper select`: the checkpoint of an SFT run that a reward model likes best.

use std::fs;

use serde_json::{Value, json};

use crate::util::{Temper, keys};

const SFT: &str = "sft --data demonstrations.jsonl --eval-data demonstrations.jsonl --model tiny --out sft \
                   --set batch_size=5 --set learning_rate=5e-3 --set epochs=60 --set checkpoint_every=20 \
                   --set eval_every=20 --set keep_last=9 --set learn_prompts=false";
const SELECT: &str = "select --run sft --reward reward/final --prompts prompts.jsonl --max-new-tokens 30";

/// A run with checkpoints at steps 20, 40 and 60, the last one final, and a reward model of its own template.
fn with_run() -> Temper {
    let temper = Temper::new();
    temper.run(SFT).ok();
    temper
        .run("reward --data comparisons.jsonl --model sft/final --out reward --set epochs=10 --set learning_rate=1e-3")
        .ok();
    temper.write("prompts.jsonl", crate::util::DEMONSTRATIONS);
    temper
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"))
}

#[test]
fn every_checkpoint_answers_and_the_best_one_is_kept_whole() {
    let temper = with_run();
    let said = temper.run(&format!("{SELECT} --greedy --json")).ok();
    assert_eq!(said.stderr, "");
    let found = &said.rows()[0];
    let candidates = found["candidates"].as_array().expect("candidates");
    let names: Vec<_> =
        candidates.iter().map(|c| (c["checkpoint"].as_str().unwrap(), c["step"].as_u64())).collect();
    assert_eq!(
        names,
        [("checkpoints/step-000020", Some(20)), ("checkpoints/step-000040", Some(40)), ("final", Some(60))]
    );
    let metrics: Vec<Value> = temper
        .read("sft/metrics.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|row: &Value| row.get("eval_loss").is_some())
        .collect();
    let prompts: String = crate::util::DEMONSTRATIONS
        .lines()
        .map(|line| {
            format!("{}\n", serde_json::from_str::<Value>(line).expect("JSON")["prompt"].as_str().unwrap())
        })
        .collect();
    let mut checked = 0;
    for (candidate, evaluated) in candidates.iter().zip(&metrics) {
        assert_eq!(keys(candidate), ["checkpoint", "step", "eval_loss", "score", "eos_rate"]);
        assert_eq!(candidate["step"], evaluated["step"]);
        assert_eq!(candidate["eval_loss"], evaluated["eval_loss"]);
        // The same by way of two other commands, where text gives the same ids.
        let model = candidate["checkpoint"].as_str().unwrap();
        let generate = format!("generate --model sft/{model} --greedy --json --max-new-tokens 30");
        let answers = temper.run_with_stdin(&generate, &prompts).ok().rows();
        let ended = answers.iter().filter(|row| row["finish_reason"] == "stop").count();
        assert_eq!(number(candidate, "eos_rate"), ended as f64 / 5.0);
        if ended < 5 || !answers.iter().all(|row| row["completion"].as_str().unwrap().is_ascii()) {
            continue;
        }
        let rows = answers
            .iter()
            .map(|r| format!("{}\n", json!({"prompt": r["prompt"], "completion": r["completion"]})));
        temper.write("said.jsonl", rows.collect::<String>());
        let scores = temper.run("score --model reward/final --data said.jsonl").ok().rows();
        let mean = scores.iter().map(|row| number(row, "score")).sum::<f64>() / 5.0;
        assert!((number(candidate, "score") - mean).abs() < 1e-4, "{candidate}, expected {mean}");
        checked += 1;
    }
    assert!(checked > 0, "not one candidate could be checked: {found}");

    // Of equals the earlier one.
    let better = |a, b| if number(b, "score") > number(a, "score") { b } else { a };
    let best = candidates.iter().reduce(better).expect("candidates");
    assert_eq!(found["selected"], best["checkpoint"]);
    let chosen = best["checkpoint"].as_str().unwrap();
    for name in
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "template.json"]
    {
        assert!(
            temper.bytes(&format!("sft/selected/{name}")) == temper.bytes(&format!("sft/{chosen}/{name}")),
            "{name}"
        );
    }
    assert!(!temper.path("sft/selected/training/optimizer.safetensors").exists());
    assert_eq!(&temper.json("sft/selected/selection.json"), found);
    temper.run("generate --model sft/selected --prompt Hi --max-new-tokens 2").ok();
    temper.assert_nothing_half_written("sft");
    // The run is as it was: finished, and with a report.
    let again = temper.run(&format!("{SFT} --resume")).ok();
    assert!(again.stderr.contains("is finished"), "{again:?}");
    temper.run("report sft").ok();
}

#[test]
fn the_table_says_the_same_and_the_selection_can_be_made_again() {
    let temper = with_run();
    let found = temper.run(&format!("{SELECT} --json --seed 3 --temperature 0.5")).ok().rows().remove(0);
    let again = temper.run(&format!("{SELECT} --json --seed 3 --temperature 0.5")).ok().rows().remove(0);
    assert_eq!(found, again, "the same seed");
    assert_eq!(
        (&found["seed"], &found["temperature"], &found["prompts"]),
        (&json!(3), &json!(0.5), &json!(5))
    );
    let table = temper.run(&format!("{SELECT} --seed 3 --temperature 0.5")).ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    for (line, candidate) in lines[1..].iter().zip(found["candidates"].as_array().unwrap()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], candidate["checkpoint"].as_str().unwrap());
        assert_eq!(words[1], candidate["step"].to_string());
        assert_eq!(words[3], format!("{:.4}", number(candidate, "score")));
        assert_eq!(
            words.get(5) == Some(&"selected"),
            candidate["checkpoint"] == found["selected"],
            "{table}"
        );
    }
}

#[test]
fn a_reward_model_of_other_texts_reads_the_text() {
    let temper = with_run();
    temper.copy("reward/final", "other");
    temper.edit_json("other/tokenizer.json", |tokenizer| {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
        vocab["a"] = 102.into();
        vocab["b"] = 101.into();
    });
    let select = format!("{SELECT} --greedy --json").replace("reward/final", "other");
    let found = temper.run(&select).ok().rows().remove(0);
    let last = found["candidates"].as_array().unwrap().last().unwrap();
    assert_eq!((last["checkpoint"].as_str(), number(last, "eos_rate")), (Some("final"), 1.0));
    let scores = temper.run("score --model other --data demonstrations.jsonl").ok().rows();
    let mean = scores.iter().map(|row| number(row, "score")).sum::<f64>() / 5.0;
    // The final model says its demonstrations.
    assert!((number(last, "score") - mean).abs() < 1e-4, "{last}, expected {mean}");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_with_a_note() {
    let temper = with_run();
    let name = "sft/checkpoints/step-000040/model.safetensors";
    let bytes = temper.bytes(name);
    temper.write(name, &bytes[..bytes.len() - 1]);
    fs::remove_dir_all(temper.path("sft/final")).unwrap();
    let said = temper.run(&format!("{SELECT} --json")).ok();
    assert!(said.stderr.contains("note: passing over") && said.stderr.contains("step-000040"), "{said:?}");
    assert_eq!(said.rows()[0]["candidates"].as_array().unwrap().len(), 1);
    fs::remove_dir_all(temper.path("sft/checkpoints/step-000020")).unwrap();
    temper.run(&format!("{SELECT} -q")).refused(&["sft has no whole checkpoint", "hint: "]);
}

#[test]
fn what_is_not_an_sft_run_or_a_reward_model_is_refused() {
    let temper = with_run();
    let refuses = |from: &str, to: &str, says: &[&str]| temper.refuses(&SELECT.replace(from, to), says);
    let said = refuses("--run sft", "--run nowhere", &["nowhere is not a run directory"]);
    assert!(said.hint().contains("temper sft"), "{said:?}");
    refuses("--run sft", "--run sft/final", &["sft/final is not a run directory"]);
    refuses("--run sft", "--run reward", &["reward is not the run of an SFT stage", "hint: "]);
    refuses("reward/final", "sft/final", &["sft/final", "a reward model is needed"]);
    refuses("reward/final", "nowhere", &["nowhere is neither a model directory nor", "hint: "]);
    refuses("prompts.jsonl", "nothing.jsonl", &["nothing.jsonl"]);
    refuses(
        "--max-new-tokens 30",
        "--temperature 0",
        &["`--temperature` must be a number from 0.0001 to 10000, got 0"],
    );
    temper.write("broken.jsonl", "{\"prompt\": \"a\"}\n{\n");
    refuses("prompts.jsonl", "broken.jsonl", &["broken.jsonl:2"]);
    temper.write("fresh/config.toml", temper.read("sft/config.toml"));
    let said = refuses("--run sft", "--run fresh", &["fresh has no whole checkpoint"]);
    assert!(said.hint().contains("checkpoint_every"), "{said:?}");
    // Somebody else's directory of that name stays.
    temper.write("sft/selected/notes.txt", "mine");
    temper.refuses(SELECT, &["sft/selected"]);
    assert_eq!(temper.read("sft/selected/notes.txt"), "mine");
    for misuse in ["select --run sft --reward reward/final", "select --run sft --prompts prompts.jsonl"] {
        temper.run(misuse).misused();
    }
}
