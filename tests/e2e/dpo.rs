//! `temper dpo` through the binary: what it makes, what it refuses, and that it resumes where it stopped.

use std::fs;

use crate::util::{Temper, without_times};

const DPO: &str = "dpo --data comparisons.jsonl --model sft/final --set batch_size=2 --set learning_rate=1e-3 \
     --set schedule.kind=constant --set schedule.warmup_steps=0";

fn column(temper: &Temper, run: &str, key: &str) -> Vec<f64> {
    let rows = without_times(&temper.read(&format!("{run}/metrics.jsonl")));
    rows.iter().filter_map(|row| row.get(key)?.as_f64()).collect()
}

#[test]
fn it_turns_comparisons_into_a_policy() {
    let temper = Temper::with_reward_model();
    let before = temper.snapshot("sft");
    let eval = "--eval-data comparisons.jsonl --set eval_every=8";
    let said = temper.run(&format!("{DPO} --out dpo --set epochs=20 {eval}")).ok();
    assert!(said.stderr.contains("eval_rewards/accuracies"), "{said:?}");
    assert!(temper.snapshot("sft") == before, "the reference stays as it was");
    let (losses, accuracies) = (column(&temper, "dpo", "loss"), column(&temper, "dpo", "rewards/accuracies"));
    assert!((losses[0] - 2f64.ln()).abs() < 1e-4, "{losses:?}");
    // The policy is its reference there: every margin is 0, up to rounding.
    assert_eq!(accuracies[0], 0.5);
    assert!(losses.len() == 40 && losses[39] < 0.2 && accuracies[39] == 1.0, "{losses:?} {accuracies:?}");
    assert_eq!(column(&temper, "dpo", "eval_loss").len(), 5);
    let best = temper.json("dpo/best/training/best.json");
    assert_eq!((best["metric"].as_str(), best["step"].as_u64()), (Some("eval_loss"), Some(40)));
    temper.assert_nothing_half_written("dpo");

    // The output is a policy like any other.
    temper.run("generate --model dpo/final --prompt Hi --max-new-tokens 3").ok();
    temper.run("eval --model dpo/final --against sft/final --judge reward/final --data prompts.jsonl --max-new-tokens 9").ok();
    temper.run(&format!("{DPO} --out again --set max_steps=1").replace("sft/final", "dpo/best")).ok();
    temper.run("report dpo").ok();
    assert!(temper.read("dpo/report.html").contains("Implied reward, chosen"));
}

#[test]
fn a_completion_more_or_less_is_a_pair_more_or_less() {
    let temper = Temper::with_sft();
    temper.write(
        "k.jsonl",
        "{\"prompt\": \"a\", \"completions\": [\"b\", \"c\", \"d\", \"e\"], \"ranking\": [2, 0, 1, 3]}\n\
         {\"prompt\": \"a\", \"completions\": [\"b\", \"c\", \"d\"], \"scores\": [1, 1, 0]}\n",
    );
    let dpo =
        "dpo --model sft/final --out dpo --data comparisons.jsonl --eval-data k.jsonl --set max_steps=1";
    temper.run(dpo).ok();
    // Six pairs of four completions, and two pairs of three, because two of the three are tied.
    assert_eq!(column(&temper, "dpo", "eval_pairs"), [8.0]);
}

#[test]
fn bad_comparisons_and_models_are_refused() {
    let temper = Temper::with_reward_model();
    let dpo = "dpo --out out --model sft/final --data";
    temper.refuses(&format!("{dpo} nowhere.jsonl"), &["nowhere.jsonl", "hint: "]);
    temper.refuses(&format!("{dpo} demonstrations.jsonl"), &["demonstrations.jsonl:1: ", "`chosen`"]);
    temper.write("s.jsonl", "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n");
    temper.refuses(&format!("{dpo} s.jsonl"), &["s.jsonl:1: ", "the same"]);
    temper.write(
        "l.jsonl",
        format!("{{\"prompt\": \"{}\", \"chosen\": \"b\", \"rejected\": \"c\"}}\n", "a".repeat(200)),
    );
    let said = temper.refuses(
        &format!("{dpo} l.jsonl --set overflow=drop"),
        &["none of the 1 comparisons fits into 128 tokens"],
    );
    assert!(said.hint().contains("overflow"), "{said:?}");
    temper.refuses("dpo --data comparisons.jsonl --out out --model nowhere", &["nowhere", "hint: "]);
    temper.refuses(
        "dpo --data comparisons.jsonl --out out --model reward/final",
        &["reward/final", "this is a reward model", "language model is needed"],
    );
    temper.run("dpo --data comparisons.jsonl --out out").misused();
}

#[test]
fn a_loss_that_is_not_a_number_ends_the_run_and_leaves_the_last_checkpoint() {
    let temper = Temper::with_sft();
    let run = "dpo --data comparisons.jsonl --model sft/final --out out --set epochs=9 --set checkpoint_every=1 \
               --set learning_rate=1e6 --set optimizer.weight_decay=1e6 --set optimizer.max_grad_norm=0";
    let said = temper.run(run).failed(&["of step 2 is ", "hint: "]);
    assert!(said.hint().contains("learning_rate"), "{said:?}");
    assert!(temper.path("out/checkpoints/step-000001").is_dir() && !temper.path("out/final").exists());
}

#[test]
fn an_interrupted_run_resumes_to_the_same_bytes() {
    let temper = Temper::with_sft();
    let command = format!("{DPO} --set epochs=60 --eval-data comparisons.jsonl --set eval_every=3");
    temper.run(&format!("{command} --out whole")).ok();
    let said = temper.interrupt(&command, "cut", "cut/metrics.jsonl", 5);
    assert_eq!(said.code, Some(130), "{said:?}");
    assert!(!temper.path("cut/final").exists(), "the run was over before the signal: {said:?}");
    let said = temper.run(&format!("{command} --out cut --resume")).ok();
    assert!(said.stderr.contains("resuming from step"), "{said:?}");
    for place in ["final", "best"] {
        assert!(
            temper.snapshot(&format!("whole/{place}")) == temper.snapshot(&format!("cut/{place}")),
            "{place}"
        );
    }
    let lines = |run: &str| without_times(&temper.read(&format!("{run}/metrics.jsonl")));
    assert_eq!(lines("whole"), lines("cut"));

    // Another reference is another run.
    fs::remove_dir_all(temper.path("cut/final")).expect("a finished run");
    temper.run("sft --data demonstrations.jsonl --model sft/final --out sft2 --set max_steps=1").ok();
    let other = command.replace("sft/final", "sft2/final");
    temper.refuses(&format!("{other} --out cut --resume"), &["`--model` was"]);
    temper.refuses(&format!("{command} --out cut --resume --set beta=0.2"), &["`beta` was"]);
}
