//! `temper eval`: what it says of a reward model and of two policies, and what it refuses.

use serde_json::{Value, json};

use crate::util::{Temper, keys};

const DUEL: &str = "eval --model sft/final --against other/final --data prompts.jsonl --max-new-tokens 30";

/// A policy in `sft/final` that says its demonstrations, mostly, and a lesser one in `other/final`.
fn two_policies() -> Temper {
    let temper = Temper::new();
    let sft = "sft --data demonstrations.jsonl --model tiny --set batch_size=5 --set learning_rate=5e-3";
    temper.run(&format!("{sft} --out sft --set epochs=60")).ok();
    temper.run(&format!("{sft} --out other --set epochs=25")).ok();
    temper.write("prompts.jsonl", crate::util::DEMONSTRATIONS);
    temper
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"))
}

/// Prompt, completion and what else `temper score` is to say of.
fn score(temper: &Temper, model: &str, rows: &[(String, String)]) -> Vec<f64> {
    let row = |(prompt, completion): &(String, String)| {
        format!("{}\n", json!({"prompt": prompt, "completion": completion}))
    };
    temper.write("rows.jsonl", rows.iter().map(row).collect::<String>());
    let said = temper.run(&format!("score --model {model} --data rows.jsonl")).ok();
    said.rows().iter().map(|row| number(row, "score")).collect()
}

#[test]
fn a_reward_model_is_described_by_its_scores_its_lengths_and_its_confidence() {
    let temper = Temper::with_reward_model();
    let rows: Vec<Value> =
        crate::util::COMPARISONS.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let side = |key: &str| -> Vec<(String, String)> {
        let text = |row: &Value, key: &str| row[key].as_str().expect("a text").to_owned();
        rows.iter().map(|row| (text(row, "prompt"), text(row, key))).collect()
    };
    let (chosen, rejected) = (side("chosen"), side("rejected"));
    let found = temper.run("eval --model reward/final --data comparisons.jsonl").ok().rows().remove(0);

    let chosen_scores = score(&temper, "reward/final", &chosen);
    let rejected_scores = score(&temper, "reward/final", &rejected);
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let close = |key: &str, expected: f64| {
        let found = number(&found, key);
        assert!((found - expected).abs() < 1e-5, "{key}: {found}, expected {expected}");
    };
    close("eval_chosen_score", mean(&chosen_scores));
    close("eval_rejected_score", mean(&rejected_scores));
    let scores = [chosen_scores.clone(), rejected_scores.clone()].concat();
    let variance = |x: &[f64]| mean(&x.iter().map(|v| (v - mean(x)).powi(2)).collect::<Vec<_>>());
    close("eval_score_std", variance(&scores).sqrt());
    // A token per byte, and the end.
    let lens: Vec<f64> = chosen.iter().chain(&rejected).map(|(_, text)| text.len() as f64 + 1.0).collect();
    let products: Vec<f64> =
        scores.iter().zip(&lens).map(|(s, l)| (s - mean(&scores)) * (l - mean(&lens))).collect();
    let correlation = mean(&products) / (variance(&scores) * variance(&lens)).sqrt();
    let said = number(&found, "eval_score_length_correlation");
    assert!((said - correlation).abs() < 1e-3, "{said}, expected {correlation}");

    let pairs = |key: &str| -> u64 {
        let buckets = found[key].as_array().unwrap_or_else(|| panic!("{key} in {found}"));
        buckets.iter().map(|bucket| bucket["pairs"].as_u64().expect("a count")).sum()
    };
    for key in ["eval_by_length_order", "eval_by_length", "eval_by_confidence"] {
        assert_eq!(pairs(key), 4, "{key}");
    }
    // "A field." and "Robots." lie within a ninth, two others are longer, and "Cold." is shorter.
    let order: Vec<_> = found["eval_by_length_order"].as_array().unwrap().iter().collect();
    let order: Vec<_> =
        order.iter().map(|b| (b["chosen"].as_str().unwrap(), b["pairs"].as_u64().unwrap())).collect();
    assert_eq!(order, [("shorter", 1), ("longer", 3)]);
    // So the longer one would win three of the four.
    assert_eq!(number(&found, "eval_longer_wins"), 0.75);
    let bucket = &found["eval_by_confidence"][0];
    assert_eq!(keys(bucket), ["from", "to", "pairs", "accuracy", "expected"]);
    assert!(number(bucket, "expected") >= 0.5);
}

#[test]
fn a_duel_with_oneself_is_a_draw_at_no_distance() {
    let temper = Temper::with_reward_model();
    let said = temper
        .run("eval --model sft/final --against sft/final --judge reward/final --data prompts.jsonl --max-new-tokens 5")
        .ok();
    let row = &said.rows()[0];
    assert_eq!(
        keys(row),
        [
            "win_rate",
            "win_rate_ci95",
            "length_controlled_win_rate",
            "length_controlled_win_rate_ci95",
            "prompts",
            "score",
            "score_against",
            "eos_rate",
            "eos_rate_against",
            "length",
            "length_against",
            "tokens",
            "tokens_against",
            "best_of",
            "best_of_kl_bound",
            "kl",
            "kl_standard_error"
        ]
    );
    for (key, expected) in
        [("win_rate", 0.5), ("length_controlled_win_rate", 0.5), ("kl", 0.0), ("kl_standard_error", 0.0)]
    {
        assert_eq!(number(row, key), expected, "{key}");
    }
    assert_eq!(number(row, "length"), number(row, "length_against"));
    let shown: Vec<&str> = said.stderr.lines().filter(|line| line.starts_with("prompt ")).collect();
    assert_eq!(shown.len(), 3, "{said:?}");
}

/// The first policy's log-probabilities come from `generate`, the second one's from `logprobs`, which read text that
/// gives the same ids because it is ASCII and ends.
#[test]
fn the_kl_is_the_mean_difference_of_the_log_probabilities() {
    let temper = two_policies();
    temper.write("judge.sh", "while read -r line; do echo 1; done");
    let prompts: String = crate::util::DEMONSTRATIONS
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).expect("JSON");
            format!("{}\n", row["prompt"].as_str().expect("a prompt"))
        })
        .collect();
    let sampled_by = |seed: u64| {
        let generate = format!("generate --model sft/final --json --max-new-tokens 30 --seed {seed}");
        temper.run_with_stdin(&generate, &prompts).ok().rows()
    };
    let plain = |row: &Value| {
        let text = row["completion"].as_str().expect("a text");
        let n_tokens = row["tokens"].as_array().expect("tokens").len();
        text.is_ascii() && row["finish_reason"] == "stop" && n_tokens == text.len() + 1
    };
    let found = (0..20).map(|seed| (seed, sampled_by(seed))).find(|(_, rows)| rows.iter().all(plain));
    let (seed, sampled) = found.expect("a seed with plain answers");

    let rows = sampled
        .iter()
        .map(|r| format!("{}\n", json!({"prompt": r["prompt"], "completion": r["completion"]})));
    temper.write("said.jsonl", rows.collect::<String>());
    let read = temper.run("logprobs --model other/final --data said.jsonl").ok().rows();
    let sum = |row: &Value| -> f64 {
        row["logprobs"].as_array().expect("numbers").iter().map(|x| x.as_f64().expect("a number")).sum()
    };
    let differences: Vec<f64> = sampled.iter().zip(&read).map(|(a, b)| sum(a) - sum(b)).collect();
    let mean = differences.iter().sum::<f64>() / 5.0;
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 4.0;

    let seed = seed.to_string();
    let mut arguments: Vec<&str> = DUEL.split_whitespace().collect();
    arguments.extend(["--judge-program", "sh judge.sh", "--seed", &seed]);
    let said = temper.run_of(&arguments).ok();
    let row = &said.rows()[0];
    assert!(mean.abs() > 0.01, "the policies are too alike to tell: {mean}");
    assert!((number(row, "kl") - mean).abs() < 1e-3, "{row}, expected {mean}");
    let error = (variance / 5.0).sqrt();
    assert!((number(row, "kl_standard_error") - error).abs() < 1e-3, "{row}, expected {error}");
    assert_eq!(number(row, "win_rate"), 0.5, "a judge of one mind");
    let chars: usize = sampled.iter().map(|row| row["completion"].as_str().expect("a text").len()).sum();
    assert_eq!(number(row, "length"), chars as f64 / 5.0);
    assert_eq!(number(row, "tokens"), chars as f64 / 5.0 + 1.0);
}

#[test]
fn where_answers_are_not_drawn_from_the_whole_distribution_or_texts_differ_there_is_no_kl() {
    let temper = Temper::with_reward_model();
    let eval =
        "eval --model sft/final --judge reward/final --data prompts.jsonl --max-new-tokens 3 --against";
    for (arguments, why) in [
        ("sft/final --greedy", "whole distribution"),
        ("sft/final --top-k 5", "whole distribution"),
        ("sft/final --top-p 0.9", "whole distribution"),
        ("asked", "differently"),
    ] {
        temper.copy("sft/final", "asked");
        temper.edit_json("asked/template.json", |template| template["prompt"][1]["text"] = "Ask:".into());
        let said = temper.run(&format!("{eval} {arguments}")).ok();
        let row = &said.rows()[0];
        assert_eq!((&row["kl"], &row["kl_standard_error"]), (&Value::Null, &Value::Null), "{arguments}");
        assert!(said.stderr.contains("note: no `kl`") && said.stderr.contains(why), "{said:?}");
    }
}

/// It counts upwards, so that whoever answers second wins everything, and no length can explain that away.
#[test]
fn a_program_may_be_the_judge() {
    let temper = two_policies();
    temper.write("judge.sh", "n=0; while read -r line; do n=$((n+1)); echo \"{\\\"score\\\": $n}\"; done");
    let mut arguments: Vec<&str> = DUEL.split_whitespace().collect();
    arguments.extend(["--judge-program", "sh judge.sh"]);
    let said = temper.run_of(&arguments).ok();
    let row = &said.rows()[0];
    assert_eq!((number(row, "win_rate"), number(row, "prompts")), (0.0, 5.0));
    assert_eq!((number(row, "score"), number(row, "score_against")), (3.0, 8.0));
    assert_eq!(row["length_controlled_win_rate"], Value::Null);
    assert_eq!(row["length_controlled_win_rate_ci95"], Value::Null);
}

#[test]
fn a_judge_that_cannot_be_is_refused() {
    let temper = Temper::with_sft();
    let eval = "eval --model sft/final --against sft/final --data prompts.jsonl --max-new-tokens 2";
    let refused = |program: &str, more: &[&str], says: &[&str]| {
        let mut arguments: Vec<&str> = eval.split_whitespace().collect();
        arguments.extend(["--judge-program", program]);
        arguments.extend(more);
        let said = temper.refuses_of(&arguments, says);
        assert!(!said.hint().is_empty() && !said.hint().contains("--resume"), "{said:?}");
        said
    };
    refused("no-such-program", &[], &["cannot start `no-such-program`"]);
    refused("sh 'x", &[], &["`sh 'x` is not a command"]);
    refused("cat", &["--judge-seconds", "0"], &["`--judge-seconds 0` is not a time limit"]);
    refused("cat", &["--judge-seconds", "inf"], &["`--judge-seconds inf` is not a time limit"]);
    refused("cat", &[], &["which is neither a number nor an object with a `score`"]);
    refused("sh -c 'read -r line; exit 3'", &[], &["ended (exit status: 3) after 0 of 3 scores"]);
    refused("sh -c 'sleep 30'", &["--judge-seconds", "0.3"], &["of 3 scores within 0.3 s"]);
    for misuse in [
        "eval --model x --data y --against z --judge courtesy --judge-program cat",
        "eval --model x --data y --against z",
    ] {
        temper.run(misuse).misused();
    }
    temper.refuses(
        "eval --model sft/final --against nowhere --judge courtesy --data prompts.jsonl",
        &["nowhere is neither a model directory nor"],
    );
    temper.refuses(
        "eval --model sft/final --against sft/final --judge courtesy --data prompts.jsonl",
        &["courtesy judge"],
    );
}

#[test]
fn the_best_of_several_answers_is_that_of_the_highest_score() {
    let temper = Temper::with_reward_model();
    let duel = "eval --model sft/final --against sft/final --judge reward/final --data prompts.jsonl --max-new-tokens 6";
    let found = |flags: &str| temper.run(&format!("{duel} {flags}")).ok().rows()[0].clone();
    let (one, eight) = (found(""), found("--best-of 8 --reward reward/final"));
    let score = |row: &serde_json::Value| row["score"].as_f64().unwrap();
    // The judge is the model that picks, and the first of the eight is the one answer.
    assert_eq!(score(&one), eight["score_against"].as_f64().unwrap());
    assert!(score(&eight) > score(&one), "{one} {eight}");
    assert!(eight["kl"].is_null() && (eight["best_of_kl_bound"].as_f64().unwrap() - 1.204_442).abs() < 1e-5);
    for (flags, says) in [("--best-of 0 --reward reward/final", "0 is not in"), ("--best-of 4", "--reward")] {
        let said = temper.run(&format!("{duel} {flags}")).misused();
        assert!(said.stderr.contains(says), "{said:?}");
    }
    temper.refuses(&format!("{duel} --best-of 4 --reward sft/final"), &["reward model"]);
}
