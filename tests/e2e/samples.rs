//! Answers that show what a model says: those of a run, and those of `temper eval`.

use serde_json::Value;

use crate::util::Temper;

const SFT: &str = "sft --data demonstrations.jsonl --model gpt2-tiny --set batch_size=5";

/// The rows of a file of JSON lines.
fn rows(temper: &Temper, name: &str) -> Vec<Value> {
    temper.read(name).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn steps(rows: &[Value]) -> Vec<u64> {
    rows.iter().map(|row| row["step"].as_u64().expect("a step")).collect()
}

#[test]
fn a_run_answers_the_first_held_out_prompts_again_and_again() {
    let temper = Temper::with_reward_model();
    let sft = format!("{SFT} --eval-data prompts_with_answers.jsonl --set samples=2 --set eval_every=2");
    temper.write("prompts_with_answers.jsonl", crate::util::DEMONSTRATIONS);
    temper.run(&format!("{sft} --set max_steps=3 --out own")).ok();
    let answers = rows(&temper, "own/samples.jsonl");
    assert_eq!(steps(&answers), [0, 0, 2, 2, 3, 3]);
    let prompts: Vec<&str> = answers[4..].iter().map(|row| row["prompt"].as_str().expect("a text")).collect();
    assert_eq!(prompts, ["What is AI?", "What is 1+1?"]);
    assert!(answers.iter().all(|row| row["answer"].is_string() && row["ended"].is_boolean()), "{answers:?}");
    assert!(answers.iter().all(|row| row["score"].is_null()), "nobody scores: {answers:?}");

    let dpo =
        "dpo --data comparisons.jsonl --eval-data comparisons.jsonl --model sft/final --set max_steps=1";
    temper.run(&format!("{dpo} --out dpo")).ok();
    assert_eq!(steps(&rows(&temper, "dpo/samples.jsonl")), [0, 0, 0, 0, 1, 1, 1, 1]);

    let ppo = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --eval-data prompts.jsonl \
               --set max_steps=1 --set rollout.max_new_tokens=5 --set samples=1 --gold reward/final --out ppo";
    let said = temper.run(ppo).ok();
    for note in [
        "prompts.jsonl (evaluation data) are in the training data, too: their figures say little about other rows",
        "`--gold` is the reward model that is learned from",
    ] {
        assert!(said.stderr.contains(note), "`{note}` is missing in {said:?}");
    }
    let answers = rows(&temper, "ppo/samples.jsonl");
    assert_eq!(steps(&answers), [0, 1]);
    assert!(answers.iter().all(|row| row["score"].is_number() && row["score"] == row["gold"]), "{answers:?}");

    temper.run("report ppo").ok();
    let page = temper.read("ppo/report.html");
    for part in ["What the model says", "Before training</th>", "After 1 rollout</th>", "What is AI?"] {
        assert!(page.contains(part), "`{part}` is missing in {page}");
    }
}

#[test]
fn a_run_without_held_out_prompts_has_no_samples() {
    let temper = Temper::new();
    let said = temper.run(&format!("{SFT} --set max_steps=1 --set samples=3 --out none")).ok();
    assert!(
        said.stderr.contains(
            "note: `samples` has no effect: its prompts are those of the evaluation data, and none is given"
        ),
        "{said:?}"
    );
    let off = format!("{SFT} --set max_steps=1 --set samples=0 --eval-data demonstrations.jsonl --out off");
    temper.run(&off).ok();
    assert!(!temper.path("none/samples.jsonl").exists() && !temper.path("off/samples.jsonl").exists());
    temper.refuses(&format!("{SFT} --set samples=65 --out many"), &["`samples` must be", "64"]);
}

#[test]
fn an_evaluation_saves_its_answers() {
    let temper = Temper::with_reward_model();
    let eval = "eval --model sft/final --data prompts.jsonl --judge reward/final --max-new-tokens 5";
    let said = temper.run(&format!("{eval} --best-of 2 --reward reward/final --out best.jsonl")).ok();
    assert!(said.stderr.contains("prompt 1 of 3: What is AI?"), "{said:?}");
    let answers = rows(&temper, "best.jsonl");
    let mean = answers.iter().map(|row| row["score"].as_f64().expect("a score")).sum::<f64>() / 3.0;
    let printed = said.rows()[0]["score"].as_f64().expect("the mean score");
    assert!((printed - mean).abs() < 1e-9, "{printed} {mean}");
    temper.refuses(&format!("{eval} --out best.jsonl"), &["best.jsonl", "is there already"]);
    temper.refuses(&format!("{eval} --out no/where.jsonl"), &["`--out` needs the directory no,"]);

    // What was saved can be scored.
    let scored = temper.run("score --model reward/final --data best.jsonl").ok().rows();
    assert_eq!(scored.len(), 3);

    temper.run(&format!("{eval} --against sft/final --out both.jsonl")).ok();
    for row in rows(&temper, "both.jsonl") {
        assert_eq!(row["answer"], row["answer_against"], "the same model, the same seed");
        assert_eq!(row["score"], row["score_against"]);
    }

    let alone = "eval --model sft/final --data demonstrations.jsonl --max-new-tokens 5 --out alone.jsonl";
    assert!(temper.run(alone).ok().rows()[0]["eval_loss"].is_number());
    let answers = rows(&temper, "alone.jsonl");
    assert!(answers.len() == 5 && answers[0]["score"].is_null(), "{answers:?}");
    let of_scores = "eval --model reward/final --data comparisons.jsonl --out scores.jsonl";
    temper.refuses(of_scores, &["a reward model gives none"]);
}

#[test]
fn a_reward_model_with_held_out_pairs_leaves_its_evaluation() {
    let temper = Temper::with_sft();
    let reward =
        "reward --data comparisons.jsonl --eval-data comparisons.jsonl --model sft/final --set max_steps=2";
    let said = temper.run(&format!("{reward} --out reward")).ok();
    let printed = temper.run("eval --model reward/final --data comparisons.jsonl").ok().rows().remove(0);
    let kept = temper.json("reward/evaluation.json");
    for key in ["eval_accuracy", "eval_longer_wins", "eval_by_length_order", "eval_by_confidence"] {
        assert_eq!(kept[key], printed[key], "{key}");
    }
    assert!(said.stderr.contains("reward: The reward model ranks "), "{said:?}");
    assert!(
        said.stderr.contains(" of 4 held-out pairs correctly; the longer answer wins 75.0 % of them"),
        "{said:?}"
    );
    assert!(said.stderr.contains("reward: next: temper report reward"), "{said:?}");
}
