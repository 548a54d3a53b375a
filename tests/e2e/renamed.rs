//! Settings under the names of earlier versions, and runs that are older than a setting.

use std::fs;

use crate::util::{Temper, without_times};

const PPO: &str = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --set checkpoint_every=1 \
                   --set rollout.max_new_tokens=4 --set batch_size=2 --set max_steps=2 --set max_seq_len=0";

#[test]
fn an_old_name_is_accepted_with_one_warning() {
    let temper = Temper::new();
    temper.write("old.toml", "[ppo]\nppo_epochs = 4\nclip_range = 0.3\ngamma = 0.5\ngae_lambda = 0.9\n");
    let expected = temper
        .run(
            "config ppo --set update.ppo_epochs=4 --set update.clip_range=0.3 --set update.gamma=0.5 \
             --set update.gae_lambda=0.9",
        )
        .ok();
    assert_eq!(expected.stderr, "");
    assert!(expected.stdout.contains("\n[update]\n") && !expected.stdout.contains("[ppo]"), "{expected:?}");
    let warning = "settings were renamed: `ppo.ppo_epochs` is now `update.ppo_epochs`, `ppo.clip_range` is now \
                   `update.clip_range`, `ppo.gamma` is now `update.gamma`, and 1 more";
    let sets = "--set ppo.ppo_epochs=4 --set ppo.clip_range=0.3 --set ppo.gamma=0.5 --set ppo.gae_lambda=0.9";
    for given in [sets, "--config old.toml"] {
        let said = temper.run(&format!("config ppo {given}")).ok();
        assert_eq!(said.stdout, expected.stdout);
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    }
    let said = temper.run(&format!("config ppo {sets}")).ok();
    assert!(said.stderr.contains(warning), "{said:?}");
}

#[test]
fn an_old_name_together_with_the_new_one_is_refused() {
    let temper = Temper::new();
    temper.write("both.toml", "[ppo]\ngamma = 1\n\n[update]\ngamma = 1\n");
    let says = "both.toml:2 is the old name of `update.gamma`, which is given there, too";
    temper.refuses("config ppo --config both.toml", &[says, "hint: remove the old one"]);
    let says = "`ppo.gamma` in `--set` is the old name of `update.gamma`";
    temper.refuses("config ppo --set update.gamma=1 --set ppo.gamma=1", &[says]);
    // A pipeline has the stage before the key, so the key of PPO looked like this.
    let said = temper.run("pipeline --recipe notebook --out out --set ppo.ppo.gamma=7");
    assert!(
        said.code == Some(1) && said.stderr.contains("`update.gamma` must be between 0 and 1"),
        "{said:?}"
    );
}

/// A directory as an earlier version left it: a section with its old name, and settings that did not exist.
#[test]
fn a_run_of_an_earlier_version_is_resumed_to_the_same_end() {
    let temper = Temper::with_reward_model();
    temper.run(&format!("{PPO} --out run")).ok();
    temper.copy("run", "old");
    for later in ["old/final", "old/checkpoints/step-000002"] {
        fs::remove_dir_all(temper.path(later)).expect("a finished run, which could become longer");
    }
    let config = temper.read("run/config.toml");
    let config: Vec<&str> = config.lines().filter(|line| !line.starts_with("dual_clip")).collect();
    temper.write("old/config.toml", config.join("\n").replace("[update]", "[ppo]"));

    temper.refuses(
        &format!("{PPO} --out old --resume --set update.dual_clip=3"),
        &["old/config.toml", "`update.dual_clip` was `0.0` when the run started and is `3.0` now"],
    );
    temper.refuses(
        &format!("{PPO} --out old --resume --set update.gamma=0.5"),
        &["`update.gamma` was `1.0` when the run started and is `0.5` now"],
    );
    let said = temper.run(&format!("{PPO} --out old --resume")).ok();
    let note = "old/config.toml: this run is older than the setting `update.dual_clip`, which counts as `0.0`, its default";
    assert!(said.stderr.contains("resuming from step 1 of 2") && said.stderr.contains(note), "{said:?}");
    assert_eq!(temper.snapshot("old/final"), temper.snapshot("run/final"));
    let metrics = |run: &str| without_times(&temper.read(&format!("{run}/metrics.jsonl")));
    assert_eq!(metrics("old"), metrics("run"));
}

/// `bucket_by_length` is newer than the first runs.
#[test]
fn an_sft_run_without_a_newer_setting_is_resumed_and_selected_from() {
    let temper = Temper::with_reward_model();
    let sft =
        "sft --data demonstrations.jsonl --model tiny --out old --set max_steps=2 --set checkpoint_every=1";
    temper.run(sft).ok();
    let config = temper.read("old/config.toml");
    let config: Vec<&str> = config.lines().filter(|line| !line.starts_with("bucket_by_length")).collect();
    temper.write("old/config.toml", config.join("\n"));
    fs::remove_dir_all(temper.path("old/final")).expect("a finished run");
    let said =
        temper.refuses(&format!("{sft} --resume --set bucket_by_length=false"), &["`bucket_by_length`"]);
    assert!(said.stderr.contains("was `true` when the run started and is `false` now"), "{said:?}");
    temper.run(&format!("{sft} --resume")).ok();
    temper.run("select --run old --reward reward/final --prompts prompts.jsonl --max-new-tokens 3").ok();
}
