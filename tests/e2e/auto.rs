//! Settings whose values Temper chooses.

use std::fs;

use safetensors::tensor::SafeTensors;

use crate::util::Temper;

/// The line of a setting in a `config.toml`.
fn line(config: &str, key: &str) -> String {
    let line = config.lines().find(|line| line.starts_with(&format!("{key} = ")));
    line.unwrap_or_else(|| panic!("no {key} in\n{config}")).to_owned()
}

#[test]
fn what_is_chosen_is_said_and_stored_with_its_reason_and_what_is_given_counts() {
    let temper = Temper::new();
    let sft = "sft --data demonstrations.jsonl --model tiny --out run --set batch_size=2";
    let said = temper.run(&format!("{sft} --set max_steps=2")).ok();
    assert!(said.stderr.contains("note: chosen for this run: epochs "), "{said:?}");
    let config = temper.read("run/config.toml");
    assert_eq!(line(&config, "batch_size"), "batch_size = 2");
    assert_eq!(line(&config, "kind"), "kind = \"cosine\"  # auto: 2 updates");
    let rate = line(&config, "learning_rate");
    assert!(rate.ends_with("  # auto: 225k fresh parameters"), "{rate}");
    // With every setting given, nothing is chosen.
    let settings = temper.path("settings.toml");
    fs::write(&settings, &config).expect("a file");
    let said =
        temper.run("sft --data demonstrations.jsonl --model tiny --out again --config settings.toml").ok();
    assert!(!said.stderr.contains("chosen for this run"), "{said:?}");
    assert_eq!(temper.bytes("run/final/model.safetensors"), temper.bytes("again/final/model.safetensors"));
    let printed = temper.run("config sft --set learning_rate=0.1").ok().stdout;
    assert_eq!(line(&printed, "learning_rate"), "learning_rate = 0.1");
    assert!(
        line(&printed, "epochs").starts_with("epochs = \"auto\"  # from the number of rows"),
        "{printed}"
    );
    temper.refuses(&format!("{sft} --set max_grad_norm=auto"), &["max_grad_norm"]);
}

/// The answers of a policy are as long as those that it has learned, and a group has several without being told.
#[test]
fn ppo_chooses_from_the_policy_and_from_the_kind_of_advantage() {
    let temper = Temper::with_reward_model();
    let ppo = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --set max_steps=1";
    temper.run(&format!("{ppo} --out run --set advantage.kind=rloo --set batch_size=2")).ok();
    let config = temper.read("run/config.toml");
    assert_eq!(line(&config, "samples_per_prompt"), "samples_per_prompt = 4  # auto: advantage.kind is rloo");
    let longest = temper.json("sft/final/generation_config.json")["max_new_tokens"].clone();
    let expected =
        format!("max_new_tokens = {longest}  # auto: the policy has learned answers of this length");
    assert_eq!(line(&config, "max_new_tokens"), expected);
}

#[test]
fn a_resumed_run_keeps_what_its_start_has_chosen() {
    let temper = Temper::new();
    let sft =
        "sft --data demonstrations.jsonl --model tiny --out run --set max_steps=3 --set checkpoint_every=1";
    temper.run(sft).ok();
    let finished = temper.bytes("run/final/model.safetensors");
    fs::remove_dir_all(temper.path("run/final")).expect("a finished run");
    // As if another version had chosen otherwise.
    let config = temper.read("run/config.toml");
    let rate = line(&config, "learning_rate");
    let other = format!("learning_rate = 0.5  # auto: {}", rate.split("auto: ").last().expect("a reason"));
    temper.write("run/config.toml", config.replace(&rate, &other));
    temper.run(&format!("{sft} --resume")).ok();
    assert_eq!(line(&temper.read("run/config.toml"), "learning_rate"), other);
    assert!(temper.bytes("run/final/model.safetensors") != finished, "the last update had the stored rate");
    fs::remove_dir_all(temper.path("run/final")).expect("a finished run");
    temper.refuses(&format!("{sft} --resume --set learning_rate=0.25"), &["`learning_rate` was `0.5`"]);
}

/// The first number of a tensor of a weights file.
fn first_number(weights: &[u8], name: &str) -> f32 {
    let tensors = SafeTensors::deserialize(weights).expect("weights");
    let data = tensors.tensor(name).expect(name).data();
    f32::from_le_bytes(data[..4].try_into().expect("four bytes"))
}

/// Scores of any scale become those of mean 0 and deviation 1, and the critic starts with them.
#[test]
fn ppo_scales_the_scores_by_those_of_the_first_answers() {
    let temper = Temper::with_reward_model();
    let ppo = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --out run --set max_steps=2 \
               --set checkpoint_every=1 --set critic.learning_rate=1e-12 --set rollout.missing_eos=keep";
    let said = temper.run(ppo).ok();
    assert!(said.stderr.contains("note: scores are now (raw score - "), "{said:?}");
    let config = temper.read("run/config.toml");
    assert!(
        line(&config, "score_scale").starts_with("score_scale = \"first_rollout\"  # auto: "),
        "{config}"
    );
    let scale = temper.json("run/checkpoints/step-000001/training/state.json")["score_scale"].clone();
    let number = |key: &str| -> f32 { scale[key].as_str().expect("a text").parse().expect("a number") };
    let (mean, deviation) = (number("mean"), number("deviation"));
    let first = temper.read("run/metrics.jsonl").lines().next().map(str::to_owned).expect("a line");
    let first: serde_json::Value = serde_json::from_str(&first).expect("metrics");
    let metric = |name: &str| first[name].as_f64().expect("a number") as f32;
    // The mean is that of the same answers.
    assert!((metric("objective/raw_scores") - mean).abs() < 1e-3, "{first} {scale}");
    assert!(metric("objective/scores").abs() < 1e-3, "{first}");
    let (reward, critic) =
        (temper.bytes("reward/final/model.safetensors"), temper.bytes("run/final/critic/model.safetensors"));
    let ratio = first_number(&reward, "score.weight") / first_number(&critic, "score.weight");
    assert!((ratio / deviation - 1.0).abs() < 1e-3, "{ratio} {deviation}");

    // A run that continues after its first rollout has its scale.
    let finished = temper.bytes("run/final/model.safetensors");
    for gone in ["run/final", "run/checkpoints/step-000002"] {
        fs::remove_dir_all(temper.path(gone)).ok();
    }
    temper.run(&format!("{ppo} --resume")).ok();
    assert!(temper.bytes("run/final/model.safetensors") == finished, "resumed");
}

/// All weights and adapters, in every stage.
#[test]
fn blocks_that_are_computed_again_change_no_bit() {
    let temper = Temper::with_reward_model();
    let of_two_steps = |command: &str, name: &str, more: &str| {
        let run = |out: &str, settings: &str| {
            temper.run(&format!("{command} --out {out} --set max_steps=2 {more} {settings}")).ok();
            let policy = temper.bytes(&format!("{out}/final/model.safetensors"));
            let critic = temper.path(&format!("{out}/checkpoints/step-000002/critic/model.safetensors"));
            (policy, fs::read(critic).ok())
        };
        let expected = run(&format!("{name}-kept"), "");
        let again = run(&format!("{name}-again"), "--set gradient_checkpointing=true");
        assert!(again == expected, "{name}: the weights differ");
    };
    let sft = "sft --data demonstrations.jsonl --model sft/final --set batch_size=4";
    of_two_steps(sft, "sft", "");
    of_two_steps(sft, "lora", "--set adapter.rank=2");
    of_two_steps("reward --data comparisons.jsonl --model sft/final --set batch_size=2", "reward", "");
    of_two_steps("dpo --data comparisons.jsonl --model sft/final --set batch_size=2", "dpo", "");
    let ppo = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --set batch_size=2 \
               --set rollout.max_new_tokens=4 --set update.ppo_epochs=2 --set rollout.missing_eos=keep";
    of_two_steps(ppo, "ppo", "--set checkpoint_every=1");
    of_two_steps(ppo, "values", "--set critic.kind=value_head");
    of_two_steps(ppo, "groups", "--set advantage.kind=grpo --set rollout.samples_per_prompt=2");
}

#[test]
fn microbatches_follow_from_the_memory_that_a_run_may_need() {
    let temper = Temper::with_reward_model();
    let with = |arguments: &str| temper.shell(&format!("RAYON_NUM_THREADS=2 exec \"$TEMPER\" {arguments}"));
    let sft =
        "sft --data demonstrations.jsonl --model small --set batch_size=8 --set max_steps=1 --set epochs=4";
    // `small` has 860 thousand parameters: seven times that in numbers and 96 MiB are 119 MiB.
    with(&format!("{sft} --out narrow --memory 128MiB")).ok();
    let config = temper.read("narrow/config.toml");
    let rows = line(&config, "microbatch_size");
    assert!(rows.contains("# auto: about ") && rows.contains(" MiB for rows of "), "{rows}");
    assert_eq!(line(&config, "memory"), "memory = \"128MiB\"");
    for (memory, says) in [
        ("--memory 100MiB", "`memory` is 100MiB, and the run needs about 1"),
        ("--set memory=128", "none, or a size such as 4GiB or 600MiB"),
    ] {
        with(&format!("{sft} --out no {memory}")).refused(&[says]);
        assert!(!temper.path("no").exists(), "{memory}");
    }
    let ppo = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --set max_steps=1";
    with(&format!("{ppo} --out no --memory 96MiB"))
        .refused(&["`memory` is 96MiB, and the run needs about 1"]);
    with(&format!("{ppo} --out ppo --memory 200MiB")).ok();
}
