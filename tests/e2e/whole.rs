//! What the whole paper has in addition to the three stages: plain text among the demonstrations, a normalised reward
//! model, PPO-ptx, an averaged policy, and a judge in addition to the score. Through the real binary, with wrong
//! input.

use crate::util::Temper;

const PPO: &str = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --out ppo --set batch_size=2 \
                   --set epochs=9 --set max_steps=3 --set rollout.max_new_tokens=6";

fn with_texts() -> Temper {
    let temper = Temper::with_reward_model();
    temper.write("texts.jsonl", "{\"text\": \"All is well.\"}\n{\"text\": \"So it goes, and goes on.\"}\n");
    temper
}

#[test]
fn plain_text_is_learned_among_demonstrations_and_can_be_judged_alone() {
    let temper = with_texts();
    let before = temper.run("eval --model sft/final --data texts.jsonl").ok().rows();
    temper
        .run("sft --model sft/final --data demonstrations.jsonl texts.jsonl --out more --set epochs=30 --set learning_rate=2e-3 --set batch_size=32")
        .ok();
    let after = temper.run("eval --model more/final --data texts.jsonl").ok().rows();
    let loss = |rows: &[serde_json::Value]| rows[0]["eval_loss"].as_f64().unwrap();
    assert!(loss(&after) < 0.8 * loss(&before), "{before:?} {after:?}");
    // A token for each byte and the end.
    assert_eq!(after[0]["eval_n_targets"], "All is well.".len() + "So it goes, and goes on.".len() + 2);
}

#[test]
fn demonstrations_score_0_on_average_with_a_normalised_reward_model() {
    let temper = Temper::with_sft();
    let train =
        "reward --data comparisons.jsonl --model sft/final --normalize-data demonstrations.jsonl --out";
    let scores = |dir: &str| -> Vec<f64> {
        let said = temper.run(&format!("score --model {dir}/final --data demonstrations.jsonl")).ok();
        said.rows().iter().map(|row| row["score"].as_f64().unwrap()).collect()
    };
    let spread = |scores: &[f64]| {
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        (mean, (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / scores.len() as f64).sqrt())
    };
    for how in ["none", "mean", "mean_std"] {
        temper.run(&format!("{train} {how} --set normalize={how}")).ok();
    }
    let [plain, mean, both] = ["none", "mean", "mean_std"].map(scores);
    let ((level, scale), (centred, kept), (zero, one)) = (spread(&plain), spread(&mean), spread(&both));
    assert!(level.abs() > 1e-3, "there was something to do: {plain:?}");
    assert!(centred.abs() < 1e-4 && (kept - scale).abs() < 1e-4, "{mean:?}");
    assert!(zero.abs() < 1e-4 && (one - 1.0).abs() < 1e-4, "{both:?}");
    let logged = temper.read("mean/metrics.jsonl");
    assert!(
        logged.contains("\"eval_demonstrations_mean\"")
            && !temper.read("none/metrics.jsonl").contains("eval_")
    );
}

#[test]
fn ppo_mixes_text_in_averages_the_policy_and_records_a_judge() {
    let temper = with_texts();
    let whole = format!(
        "{PPO} --ptx-data texts.jsonl --set ema_decay=0.9 --set rollout.score_at=past_end \
         --set ptx.sequences_per_episode=0.5 --set checkpoint_every=2"
    );
    temper.run(&format!("{whole} --gold reward/final")).ok();
    let metrics = temper.read("ppo/metrics.jsonl");
    let lines: Vec<serde_json::Value> =
        metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        assert!(line["objective/gold"].is_f64() && line["ptx/loss"].as_f64().unwrap() > 0.0, "{line}");
    }
    let weights = |dir: &str| temper.bytes(&format!("ppo/{dir}/model.safetensors"));
    assert_ne!(weights("checkpoints/step-000002"), weights("checkpoints/step-000002/ema"));
    // What is recorded is not learned from.
    temper.run(&whole.replace("--out ppo", "--out unwatched")).ok();
    assert_eq!(weights("final"), temper.bytes("unwatched/final/model.safetensors"));
    temper.run("generate --model ppo/final --prompt hi --greedy --max-new-tokens 4").ok();
}

#[test]
fn mistakes_in_what_is_mixed_in_are_named() {
    let temper = with_texts();
    for (given, says) in [
        ("--ptx-data demonstrations.jsonl", "missing column `text`"),
        ("--ptx-data nowhere.jsonl", "nowhere.jsonl"),
        ("--gold nobody", "`nobody` is not a judge"),
        ("--set ptx.coef=-1", "`ptx.coef` must be between 0 and 1e9, got -1"),
        (
            "--set ptx.sequences_per_episode=0",
            "`ptx.sequences_per_episode` must be above 0 and up to 65536, got 0",
        ),
        ("--set ema_decay=1", "`ema_decay` must be at least 0 and below 1, got 1"),
        ("--set rollout.score_at=start", "wrong value for `rollout.score_at`"),
        ("--set schedule.warmup_from=2", "`schedule.warmup_from` must be between 0 and 1, got 2"),
        ("--set optimizer.epsilon_style=jax", "wrong value for `optimizer.epsilon_style`"),
    ] {
        temper.refuses(&format!("{PPO} {given}"), &[says]);
    }
    temper.write("empty_text.jsonl", "{\"text\": \"  \"}\n");
    temper.refuses(&format!("{PPO} --ptx-data empty_text.jsonl"), &["column `text` is empty"]);
    let reward = "reward --data comparisons.jsonl --model sft/final --out out";
    temper.refuses(&format!("{reward} --normalize-data prompts.jsonl"), &["missing column `completion`"]);
    temper.refuses(&format!("{reward} --set normalize=median"), &["wrong value for `normalize`"]);
}
