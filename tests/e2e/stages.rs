//! The stages one after the other, the same twice, and interrupted.

use std::path::Path;

use serde_json::Value;

use crate::util::{Temper, keys, without_times};

const SFT: &str = "sft --data demonstrations.jsonl --model start --set batch_size=2 --set checkpoint_every=4";
const REWARD: &str =
    "reward --data comparisons.jsonl --model sft/final --set batch_size=2 --set checkpoint_every=4";
const PPO: &str = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --set batch_size=3 \
                   --set rollout.max_new_tokens=6 --set update.ppo_epochs=2 --set update.minibatch_size=2 \
                   --set checkpoint_every=4 --set kl.target=2";

/// With a starting model that has dropout, so that its random numbers take part.
fn with_dropout() -> Temper {
    let temper = Temper::new();
    temper.run("sft --data demonstrations.jsonl --model gpt2-tiny --out base --set max_steps=1").ok();
    temper.copy("base/final", "start");
    temper.edit_json("start/config.json", |config| {
        for key in ["embd_pdrop", "resid_pdrop", "attn_pdrop"] {
            config[key] = 0.1.into();
        }
    });
    temper
}

/// Weights and curves of two runs are the same, byte for byte but for the clock.
fn assert_same_runs(temper: &Temper, a: &str, b: &str) {
    let names: Vec<_> = temper.snapshot(&format!("{a}/final")).into_keys().collect();
    assert_eq!(names, temper.snapshot(&format!("{b}/final")).into_keys().collect::<Vec<_>>());
    for name in names.iter().filter(|name| name.extension().is_some_and(|e| e == "safetensors")) {
        let read = |run: &str| temper.bytes(&format!("{run}/final/{}", name.display()));
        assert!(read(a) == read(b), "{} of {a} and {b} differ", name.display());
    }
    let metrics = |run: &str| without_times(&temper.read(&format!("{run}/metrics.jsonl")));
    let (a, b) = (metrics(a), metrics(b));
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).for_each(|(a, b)| assert_eq!(a, b));
}

fn last(temper: &Temper, metrics: &str, key: &str) -> f64 {
    let rows = without_times(&temper.read(metrics));
    rows.iter().rev().find_map(|row| row.get(key)?.as_f64()).unwrap_or_else(|| panic!("{key} in {metrics}"))
}

#[test]
fn the_stages_follow_each_other_and_each_one_learns() {
    let temper = Temper::new();
    temper
        .run("sft --data demonstrations.jsonl --model tiny --out sft --set epochs=60 --set batch_size=5 --set learning_rate=5e-3 --set learn_prompts=false")
        .ok();
    assert!(last(&temper, "sft/metrics.jsonl", "loss") < 0.1, "five answers are learnt by heart");
    temper
        .run("reward --data comparisons.jsonl --model sft/final --out reward --set epochs=20 --set learning_rate=1e-3")
        .ok();
    assert_eq!(last(&temper, "reward/metrics.jsonl", "accuracy"), 1.0);
    temper
        .run(
            "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --out ppo --set epochs=2 \
             --set batch_size=3 --set rollout.max_new_tokens=30 --set update.ppo_epochs=1 --set update.minibatch_size=0",
        )
        .ok();
    let ppo = without_times(&temper.read("ppo/metrics.jsonl"));
    assert_eq!(ppo.len(), 2);
    for row in &ppo {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
        assert!((number("val/ratio") - 1.0).abs() < 1e-3, "{row}");
        assert!(number("objective/kl").abs() < 5.0, "{row}");
    }

    let greedy = |model: &str, prompt: &str| {
        let arguments = [
            "generate",
            "--model",
            model,
            "--greedy",
            "--max-new-tokens",
            "40",
            "--json",
            "--prompt",
            prompt,
        ];
        temper.run_of(&arguments).ok().rows().remove(0)
    };
    for model in ["sft/final", "ppo/final"] {
        let row = greedy(model, "What is 1+1?");
        assert_eq!(row["completion"], "1+1 is 2.", "{model}");
        assert_eq!(row["finish_reason"], "stop");
    }
    temper.write(
        "pair.jsonl",
        "{\"prompt\": \"What is 1+1?\", \"completion\": \"1+1 is 2.\"}\n{\"prompt\": \"What is 1+1?\", \"completion\": \"3\"}\n",
    );
    let scores = temper.run("score --model reward/final --data pair.jsonl").ok().rows();
    let [right, wrong] = [0, 1].map(|i| scores[i]["score"].as_f64().expect("a number"));
    assert!(right > wrong, "{scores:?}");
    let eval = temper.run("eval --model sft/final --data demonstrations.jsonl").ok().rows();
    assert_eq!(eval[0]["eval_mean_token_accuracy"], 1.0);
    let eval = temper.run("eval --model reward/final --data comparisons.jsonl").ok().rows();
    assert!(keys(&eval[0]).iter().any(|key| key.contains("accuracy") && eval[0][*key] == 1.0), "{eval:?}");
    let duel = "eval --model ppo/final --against sft/final --judge reward/final --data prompts.jsonl --max-new-tokens 30";
    let first = temper.run(&format!("{duel} --seed 1")).ok();
    assert_eq!(first.stdout, temper.run(&format!("{duel} --seed 1")).ok().stdout);
    for run in ["sft", "reward", "ppo"] {
        temper.run(&format!("report {run}")).ok();
        temper.assert_nothing_half_written(run);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let temper = with_dropout();
    for (command, a, b) in [
        (format!("{SFT} --set max_steps=6"), "sft", "sft-again"),
        (format!("{REWARD} --set max_steps=6"), "reward", "reward-again"),
        (format!("{PPO} --set epochs=3"), "ppo", "ppo-again"),
    ] {
        for out in [a, b] {
            temper.run(&format!("{command} --seed 11 --out {out}")).ok();
        }
        assert_same_runs(&temper, a, b);
        let other = format!("{a}-other");
        temper.run(&format!("{command} --seed 12 --out {other}")).ok();
        let model = |run: &str| temper.bytes(&format!("{run}/final/model.safetensors"));
        assert!(model(a) != model(&other), "another seed gives another {a}");
    }
}

/// Interrupts `command`, resumes it, and compares with `whole`, the same without a break.
fn assert_resume(temper: &Temper, command: &str, whole: &str) {
    temper.run(&format!("{command} --out {whole}")).ok();
    let cut = format!("{whole}-cut");
    let said = temper.interrupt(command, &cut, &format!("{cut}/metrics.jsonl"), 5);
    assert_eq!(said.code, Some(130), "{said:?}");
    assert!(!said.stderr.contains("error: "), "{said:?}");
    assert!(!temper.path(&cut).join("final").exists(), "the run was over before the signal: {said:?}");
    temper.assert_nothing_half_written(&cut);
    // The checkpoint is of the last step that was logged.
    let step = last(temper, &format!("{cut}/metrics.jsonl"), "step");
    assert!(temper.path(&cut).join(format!("checkpoints/step-{step:06}")).is_dir(), "step {step}");
    let resumed = temper.run(&format!("{command} --out {cut} --resume")).ok();
    assert!(resumed.stderr.contains(&format!("resuming from step {step}")), "{resumed:?}");
    assert_same_runs(temper, whole, &cut);
}

#[test]
fn an_interrupted_run_resumes_to_the_same_bytes() {
    let temper = with_dropout();
    assert_resume(&temper, &format!("{SFT} --set epochs=50"), "sft");
    assert_resume(&temper, &format!("{REWARD} --set epochs=75"), "reward");
    assert_resume(&temper, &format!("{PPO} --set epochs=40"), "ppo");
}

#[test]
fn a_crash_loses_no_more_than_the_last_checkpoint() {
    let temper = with_dropout();
    let command = format!("{SFT} --set epochs=8");
    temper.run(&format!("{command} --out whole")).ok();
    // As a run looks that was killed after step 7: the checkpoint of step 4, lines up to 7, a half checkpoint.
    temper.run(&format!("{command} --out dead")).ok();
    let checkpoints: Vec<_> = temper.snapshot("dead/checkpoints").into_keys().collect();
    assert!(checkpoints.contains(&Path::new("step-000020").to_owned()), "{checkpoints:?}");
    std::fs::remove_dir_all(temper.path("dead/final")).unwrap();
    let newest = "dead/checkpoints/step-000020/model.safetensors";
    let bytes = temper.bytes(newest);
    temper.write(newest, &bytes[..bytes.len() - 1]);
    let said = temper.run(&format!("{command} --out dead --resume")).ok();
    assert!(said.stderr.contains("passing over") && said.stderr.contains("step 16"), "{said:?}");
    assert_same_runs(&temper, "whole", "dead");
}

#[test]
fn a_finished_pipeline_does_nothing_again() {
    let temper = Temper::new();
    let pipeline = "pipeline --recipe notebook --out run --set sft.max_steps=2 --set reward.max_steps=2 \
                    --set ppo.max_steps=1 --set ppo.rollout.max_new_tokens=4 --set ppo.batch_size=2";
    let first = temper.run(pipeline).ok();
    assert!(first.stdout.contains("win rate"), "{first:?}");
    let stages = ["sft", "reward", "ppo"];
    let before = stages.map(|stage| temper.snapshot(&format!("run/{stage}")));
    let second = temper.run(pipeline).ok();
    assert!(!second.stderr.contains("stage "), "{second:?}");
    assert_eq!(before, stages.map(|stage| temper.snapshot(&format!("run/{stage}"))));

    let summary = temper.json("run/summary.json");
    assert_eq!(
        keys(&summary),
        [
            "recipe",
            "backend",
            "seed",
            "threads",
            "sft",
            "reward",
            "ppo",
            "judge",
            "seconds",
            "peak_rss_bytes"
        ]
    );
    assert_eq!(keys(&summary["sft"]), ["loss_first", "loss_last", "seconds", "tokens_per_second"]);
    assert_eq!(
        keys(&summary["reward"]),
        ["accuracy_heldout", "accuracy_same_manner", "loss_last", "seconds"]
    );
    assert_eq!(
        keys(&summary["ppo"]),
        ["score_first", "score_last", "kl_last", "seconds", "rollout_tokens_per_second"]
    );
    assert_eq!(
        keys(&summary["judge"]),
        [
            "gold_sft",
            "gold_ppo",
            "right_sft",
            "right_ppo",
            "eos_rate",
            "win_rate",
            "win_rate_ci95",
            "prompts",
            "text_loss_sft",
            "text_loss_ppo"
        ]
    );
    assert!(temper.path("run/report.html").is_file());

    // What is missing is done again, the rest is not.
    std::fs::remove_dir_all(temper.path("run/ppo")).unwrap();
    let third = temper.run(pipeline).ok();
    assert!(third.stderr.contains("stage 3") && !third.stderr.contains("stage 1"), "{third:?}");
    let ppo = |snapshot: &crate::util::Snapshot| snapshot.get(Path::new("final/model.safetensors")).cloned();
    assert!(ppo(&before[2]) == ppo(&temper.snapshot("run/ppo")), "and comes out the same");
    let judged: Vec<Value> = temper
        .read("run/samples.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(judged.len(), 5);
}

#[test]
fn an_interrupted_pipeline_resumes() {
    let temper = Temper::new();
    let pipeline = "pipeline --recipe notebook --set sft.max_steps=40 --set reward.max_steps=1 --set ppo.max_steps=1 \
                    --set ppo.rollout.max_new_tokens=4 --set ppo.batch_size=2";
    let said = temper.interrupt(pipeline, "cut", "cut/sft/metrics.jsonl", 2);
    assert_eq!(said.code, Some(130), "{said:?}");
    assert!(!temper.path("cut/reward").exists(), "{said:?}");
    let said = temper.run(&format!("{pipeline} --out cut")).ok();
    assert!(said.stderr.contains("resuming from step"), "{said:?}");
    assert!(temper.path("cut/summary.json").is_file());
}
