//! PPO without a critic: RLOO and GRPO through the command.

use std::fs;
use std::path::Path;

use crate::util::{Said, Temper, keys, without_times};

const PPO: &str = "ppo --policy sft/final --prompts prompts.jsonl --set rollout.max_new_tokens=4 \
                   --set batch_size=2 --set epochs=3 --set checkpoint_every=1";
/// Gives one point more to each of six answers, and begins again.
const COUNTS: &str = "sh -c 'n=0; while read -r line; do n=$((n%6+1)); echo $n; done'";

/// The stage with a program that scores, no reward model, and more arguments.
fn arguments(more: &str) -> Vec<&str> {
    let words = PPO.split_whitespace().chain(more.split_whitespace());
    words.chain(["--reward-program", COUNTS]).collect()
}

fn run(temper: &Temper, more: &str) -> Said {
    temper.run_of(&arguments(more))
}

#[test]
fn a_group_baseline_without_a_group_is_refused_by_its_key() {
    let temper = Temper::with_sft();
    for kind in ["rloo", "grpo"] {
        let more = format!("--out out --set advantage.kind={kind} --set rollout.samples_per_prompt=1");
        let says =
            format!("`rollout.samples_per_prompt` must be at least 2 with `advantage.kind` {kind}, got 1");
        temper.refuses_of(&arguments(&more), &[&says]);
        let more = more.replace("prompt=1", "prompt=2");
        temper.refuses_of(
            &arguments(&format!("{more} --set update.gamma=0.9")),
            &[&format!("`update.gamma` must be 1 with `advantage.kind` {kind}, got 0.9")],
        );
        let says = ["`update.whiten_rewards` must be false with"];
        temper.refuses_of(&arguments(&format!("{more} --set update.whiten_rewards=true")), &says);
    }
    let says = ["advantage.kind", "gae"];
    temper.refuses_of(&arguments("--out out --set advantage.kind=reinforce"), &says);
    let says = ["`rollout.samples_per_prompt` must be at least 1, got 0"];
    temper.refuses_of(&arguments("--out out --set rollout.samples_per_prompt=0"), &says);
    let says = ["`rollout.samples_per_prompt` must be at most 65536 answers in a rollout, got 40000"];
    temper.refuses_of(&arguments("--out out --set rollout.samples_per_prompt=40000"), &says);
}

#[test]
fn without_a_critic_none_is_asked_for_written_or_reported() {
    let temper = Temper::with_sft();
    for kind in ["rloo", "grpo"] {
        let settings = format!("--set advantage.kind={kind} --set rollout.samples_per_prompt=3");
        run(&temper, &format!("{settings} --out {kind}")).ok();
        let files = temper.snapshot(kind);
        assert!(files.contains_key(Path::new("final/model.safetensors")));
        let critics: Vec<_> = files.keys().filter(|path| path.to_string_lossy().contains("critic")).collect();
        assert!(critics.is_empty(), "{critics:?}");
        let rows = without_times(&temper.read(&format!("{kind}/metrics.jsonl")));
        for row in &rows {
            let of_values = ["loss/value_avg", "val/clipfrac_avg", "val/explained_var"];
            assert!(of_values.iter().all(|key| !keys(row).contains(key)), "{row}");
            assert_eq!(row.get("loss/kl_avg").is_some(), kind == "grpo", "{row}");
        }
        // Two prompts, three answers to each, one point more for each: (1 + … + 6) / 6.
        assert_eq!(
            (rows[0]["episode"].as_u64(), rows[0]["objective/raw_scores"].as_f64()),
            (Some(6), Some(3.5))
        );
        temper.run(&format!("report {kind}")).ok();
        let page = temper.read(&format!("{kind}/report.html"));
        assert!(page.contains("KL to the SFT model") && !page.contains("Value loss"));

        // From a checkpoint to the same bytes.
        let whole = temper.bytes(&format!("{kind}/final/model.safetensors"));
        let last = rows.len();
        assert!(last >= 4, "{last}");
        fs::remove_dir_all(temper.path(&format!("{kind}/final"))).expect("a finished run");
        let checkpoint = format!("{kind}/checkpoints/step-{:06}", last - 1);
        fs::remove_dir_all(temper.path(&checkpoint)).expect("a checkpoint");
        run(&temper, &format!("{settings} --out {kind} --resume")).ok();
        assert!(temper.bytes(&format!("{kind}/final/model.safetensors")) == whole);
    }
}

/// A critic may learn from several answers to a prompt as well.
#[test]
fn several_answers_to_a_prompt_go_with_a_critic_too() {
    let temper = Temper::with_reward_model();
    let settings = "--reward reward/final --set rollout.samples_per_prompt=3 --set max_steps=1";
    temper.run(&format!("{PPO} {settings} --out out")).ok();
    let row = &without_times(&temper.read("out/metrics.jsonl"))[0];
    assert_eq!(row["episode"].as_u64(), Some(6));
    assert!(keys(row).contains(&"loss/value_avg") && temper.path("out/final/critic").is_dir());
}

/// A scorer that says the same to everything teaches nothing; that is said once, at the third rollout.
#[test]
fn a_scorer_that_says_the_same_to_everything_is_reported() {
    let temper = Temper::with_sft();
    let constant = "sh -c 'while read -r line; do echo 1.5; done'";
    let settings = format!("{PPO} --out out --set critic.kind=value_head --set epochs=5");
    let mut words: Vec<&str> = settings.split_whitespace().collect();
    words.extend(["--reward-program", constant]);
    let said = temper.run_of(&words).ok();
    let warnings: Vec<&str> = said.stderr.lines().filter(|line| line.contains("score the same")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("step 3:"), "{said:?}");
}

#[test]
fn the_recipes_without_a_critic_are_settings_of_ppo() {
    let temper = Temper::new();
    for (kind, text) in [
        ("rloo", include_str!("../../assets/recipes/courtesy/rloo.toml")),
        ("grpo", include_str!("../../assets/recipes/courtesy/grpo.toml")),
    ] {
        temper.write("recipe.toml", text);
        let said = temper.run("config ppo --config recipe.toml").ok();
        assert!(said.stdout.contains(&format!("kind = \"{kind}\"")), "{said:?}");
    }
}
