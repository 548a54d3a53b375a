//! Presets with their sources: what `temper config` prints of them, and what the stages take from them.

use crate::util::Temper;

const PRESETS: [(&str, &[&str]); 4] = [
    ("instructgpt-1.3b", &["sft", "reward", "ppo"]),
    ("tldr-1b", &["sft", "reward", "ppo"]),
    ("lm-human-preferences", &["reward", "ppo"]),
    ("trl", &["sft", "reward", "ppo"]),
];

/// The line of a key, whatever its table.
fn line<'a>(toml: &'a str, key: &str) -> &'a str {
    let found = toml.lines().find(|line| line.starts_with(&format!("{key} = ")));
    found.unwrap_or_else(|| panic!("{key} in {toml}"))
}

#[test]
fn a_printed_preset_keeps_its_sources_and_reads_back_as_the_same_settings() {
    let temper = Temper::new();
    for (preset, stages) in PRESETS {
        for stage in stages {
            let printed = temper.run(&format!("config {stage} --preset {preset}")).ok();
            assert_eq!(printed.stderr, "");
            let settings: Vec<&str> = printed.stdout.lines().filter(|line| line.contains(" = ")).collect();
            assert!(settings.len() > 15, "{printed:?}");
            for line in settings {
                assert!(line.contains("  # "), "{preset} {stage}: {line}");
            }
            temper.write("printed.toml", &printed.stdout);
            let again = temper.run(&format!("config {stage} --config printed.toml")).ok().stdout;
            // What the preset says about itself does not belong to a key, so it is not printed again.
            let header = printed.stdout.lines().take_while(|line| line.starts_with('#')).count();
            assert!(header > 0 && printed.stdout.lines().nth(header) == Some(""), "{printed:?}");
            let bare: String = printed
                .stdout
                .lines()
                .skip(header + 1)
                .map(|line| if line.contains(" = ") { line.split("  # ").next().unwrap() } else { line })
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(again, bare, "{preset} {stage}");
        }
    }
}

/// The numbers that the paper and the repositories print, and how the printed file says where they are from.
#[test]
fn well_known_values_are_where_they_belong() {
    let temper = Temper::new();
    for (preset, stage, key, begins) in [
        ("instructgpt-1.3b", "sft", "learning_rate", "learning_rate = 0.00000965  # C.1"),
        ("instructgpt-1.3b", "sft", "epochs", "epochs = 16  # C.1"),
        ("instructgpt-1.3b", "reward", "batch_size", "batch_size = 64  # C.2"),
        ("instructgpt-1.3b", "ppo", "coef", "coef = 0.02  # C.4"),
        ("instructgpt-1.3b", "ppo", "gae_lambda", "gae_lambda = 0.95  # not published: Temper's default"),
        ("instructgpt-1.3b", "ppo", "seed", "seed = 0  # not published: Temper's default"),
        ("instructgpt-1.3b", "ppo", "learning_rate", "learning_rate = 0.00000805  # appendix E"),
        ("tldr-1b", "ppo", "missing_eos", "missing_eos = \"replace\"  # ppo.py"),
        ("tldr-1b", "ppo", "whiten_rewards", "whiten_rewards = false  # ppo.py"),
        ("instructgpt-1.3b", "ppo", "max_prompt_len", "max_prompt_len = 1024  # C: prompts of more than 1k"),
        ("lm-human-preferences", "ppo", "stop_token", "stop_token = \".\"  # launch.py: books_task"),
        ("lm-human-preferences", "ppo", "stop_after", "stop_after = 16  # launch.py: books_task"),
        ("lm-human-preferences", "ppo", "target", "target = 6.0  # launch.py"),
        ("trl", "sft", "learning_rate", "learning_rate = 0.00002  # trl/trainer/sft_config.py"),
    ] {
        let printed = temper.run(&format!("config {stage} --preset {preset}")).ok().stdout;
        assert!(line(&printed, key).starts_with(begins), "{preset} {stage}: {}", line(&printed, key));
    }
}

/// Their prompts are as long as their sources say: what the setting leaves, less what an answer needs.
#[test]
fn prompts_of_the_presets_leave_room_for_their_answers() {
    let temper = Temper::new();
    for (preset, prompt) in [("trl", 512), ("tldr-1b", 512), ("lm-human-preferences", 64)] {
        let printed = temper.run(&format!("config ppo --preset {preset}")).ok().stdout;
        let number = |key: &str| -> usize {
            line(&printed, key).split([' ', '=']).find_map(|word| word.parse().ok()).expect("a number")
        };
        assert_eq!(number("max_seq_len") - number("max_new_tokens"), prompt, "{preset}");
    }
}

#[test]
fn a_preset_says_what_it_needs_and_a_run_what_it_does_not_use() {
    let temper = Temper::with_reward_model();
    let printed = temper.run("config ppo --preset tldr-1b").ok().stdout;
    assert!(printed.contains("# Its base model, Pythia, is a GPT-NeoX: docs/models.md says"), "{printed}");

    let ppo = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --preset trl \
               --set max_seq_len=0 --set rollout.max_new_tokens=4 --set batch_size=2 --set max_steps=1 --out ppo";
    let said = temper.run(ppo).ok();
    assert!(
        said.stderr.contains("note: `update.vf_coef` has no effect: `critic.kind` is reward_model"),
        "{said:?}"
    );
    assert!(!said.stderr.contains("ptx.coef"), "{said:?}");
    let said = temper.run(&format!("{ppo}-2 --set ptx.coef=0.5")).ok();
    assert!(said.stderr.contains("note: `ptx.coef` has no effect: there is no `--ptx-data`"), "{said:?}");

    let reward = "reward --data comparisons.jsonl --model sft/final --preset lm-human-preferences \
                  --set max_steps=1 --out rm";
    let said = temper.run(reward).ok();
    assert_eq!(said.stderr.matches("`--normalize-data`").count(), 1, "once: {said:?}");
    assert!(
        said.stderr.contains("note: `normalize` has no effect: there is no `--normalize-data`"),
        "{said:?}"
    );
    let said = temper.run(&format!("{reward}-2 --normalize-data demonstrations.jsonl")).ok();
    assert!(!said.stderr.contains("`normalize` has no effect"), "{said:?}");
}

#[test]
fn a_value_that_is_set_by_hand_has_no_source() {
    let temper = Temper::new();
    let printed = temper.run("config ppo --preset trl --set kl.coef=0.5 --seed 4").ok().stdout;
    assert_eq!(line(&printed, "coef"), "coef = 0.5");
    assert_eq!(line(&printed, "seed"), "seed = 4");
    assert!(line(&printed, "temperature").starts_with("temperature = 0.7  # config"));
    // Our own recipes have no sources to name.
    let printed = temper.run("config ppo --preset courtesy").ok().stdout;
    assert!(printed.lines().filter(|line| line.contains(" = ")).all(|line| !line.contains('#')), "{printed}");
}

#[test]
fn a_stage_trains_by_a_preset() {
    let temper = Temper::new();
    temper
        .run(
            "sft --data demonstrations.jsonl --model gpt2-tiny --out sft --preset instructgpt-1.3b --set max_steps=2 \
             --set batch_size=2",
        )
        .ok();
    let config = temper.read("sft/config.toml");
    assert_eq!(line(&config, "learning_rate"), "learning_rate = 0.00000965");
    assert_eq!(line(&config, "max_steps"), "max_steps = 2");
}

#[test]
fn a_preset_or_a_stage_that_there_is_not_is_named() {
    let temper = Temper::with_sft();
    for command in ["config ppo", "sft --data demonstrations.jsonl --model tiny --out out"] {
        let said = temper
            .refuses(&format!("{command} --preset instructgpt"), &["no preset is called `instructgpt`"]);
        for (preset, _) in PRESETS {
            assert!(said.hint().contains(preset), "{said:?}");
        }
    }
    for command in ["config sft", "sft --data demonstrations.jsonl --model tiny --out out"] {
        let said = temper.refuses(
            &format!("{command} --preset lm-human-preferences"),
            &["`lm-human-preferences` has no SFT stage"],
        );
        assert!(said.hint().contains("GPT-2"), "{said:?}");
    }
    // A model that is too small for it says so.
    let said = temper.refuses(
        "sft --data demonstrations.jsonl --model sft/final --out out --preset trl",
        &["`max_seq_len` is 1024"],
    );
    assert!(!said.hint().is_empty(), "{said:?}");
}
