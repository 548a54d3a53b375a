//! Files of the user in the places where Temper writes: nothing that Temper did not write is ever overwritten.

use std::fs;
use std::os::unix::fs::symlink;

use crate::util::Temper;

const SFT: &str = "sft --model gpt2-tiny --data demonstrations.jsonl --set max_steps=1";

#[test]
fn a_recipe_overwrites_no_file() {
    let temper = Temper::new();
    for command in
        ["recipe notebook --out out", "recipe courtesy --out out", "pipeline --recipe notebook --out run"]
    {
        let dir = if command.starts_with("pipeline") { "run/data" } else { "out" };
        temper.write(&format!("{dir}/prompts.jsonl"), "MINE");
        let said =
            temper.refuses(command, &[&format!("{dir}/prompts.jsonl exists and is not of this recipe")]);
        assert!(said.hint().contains("another `--out`"), "{said:?}");
        fs::remove_file(temper.path(&format!("{dir}/prompts.jsonl"))).expect("the file");
    }
    // Nor what a link points to.
    temper.write("mine.jsonl", "MINE");
    symlink("../mine.jsonl", temper.path("out/comparisons.jsonl")).expect("a link");
    temper.refuses("recipe notebook --out out", &["out/comparisons.jsonl exists"]);
    fs::remove_file(temper.path("out/comparisons.jsonl")).expect("the link");
    // The recipe's own files are no hindrance, and other files none either.
    temper.write("out/notes.txt", "MINE");
    temper.run("recipe notebook --out out").ok();
    let before = temper.snapshot("out");
    temper.run("recipe notebook --out out").ok();
    assert!(temper.snapshot("out") == before);
    temper.refuses("recipe notebook-zh --out out", &["out/demonstrations.jsonl exists"]);
    // Nor the results of something else where a pipeline puts its own.
    temper.write("run/summary.json", "{}");
    temper.refuses("pipeline --recipe notebook --out run", &["run/summary.json exists"]);
}

#[test]
fn a_run_overwrites_no_file_that_is_not_of_a_run() {
    let temper = Temper::new();
    for (name, content) in [
        ("config.toml", "# notes of a week\nepochs = 2\n"),
        ("inputs.json", "{\"prompt\": \"a\", \"completion\": \"b\"}\n"),
        ("metrics.jsonl", ""),
        ("best/mine.txt", "MINE"),
        ("final/mine.txt", "MINE"),
    ] {
        temper.write(&format!("out/{name}"), content);
        let said =
            temper.refuses(&format!("{SFT} --out out"), &["exists, and out holds no run that Temper wrote"]);
        assert!(said.hint().contains("move it away"), "{said:?}");
        fs::remove_dir_all(temper.path("out")).expect("a directory");
    }
    // The working directory, with the data in it.
    temper.run(&format!("{SFT} --out .")).ok();
    assert!(temper.path("final/model.safetensors").exists());
}

#[test]
fn a_file_that_a_run_is_given_is_not_overwritten_by_it() {
    let temper = Temper::new();
    temper.write("config.toml", "# notes of a week\nepochs = 2\n");
    temper.refuses(&format!("{SFT} --config config.toml --out ."), &["overwrite config.toml"]);
    temper.write("dd/inputs.json", temper.read("demonstrations.jsonl"));
    let data = SFT.replace("demonstrations.jsonl", "dd/inputs.json");
    temper.refuses(&format!("{data} --out dd"), &["overwrite dd/inputs.json"]);
    // Through a link too, and where an earlier run has failed before its first step.
    temper.write("data.jsonl", temper.read("demonstrations.jsonl"));
    symlink("../data.jsonl", temper.path("dd/metrics.jsonl")).expect("a link");
    let data = SFT.replace("demonstrations.jsonl", "data.jsonl");
    temper.refuses(&format!("{data} --out dd"), &["overwrite data.jsonl"]);
    temper.write("failed/inputs.json", "{\"given\": {}, \"machine\": {}}");
    temper.write("failed/config.toml", "# changed by hand\nepochs = 2\n");
    temper.refuses(
        &format!("{SFT} --config failed/config.toml --out failed"),
        &["overwrite failed/config.toml"],
    );
}

/// The user learns before the training of a file in the way of the final model; if it appears during the training,
/// the last step is kept.
#[test]
fn what_is_in_the_way_of_the_final_model_costs_no_training() {
    let temper = Temper::new();
    let run =
        "sft --model gpt2-tiny --data demonstrations.jsonl --out out --set epochs=6 --set checkpoint_every=4";
    temper.run(run).ok();
    fs::remove_dir_all(temper.path("out/final")).expect("a finished run");
    let whole = temper.snapshot("out");
    temper.write("out/final", "MINE");
    temper.refuses(&format!("{run} --resume"), &["out/final exists and is not a checkpoint"]);
    fs::remove_file(temper.path("out/final")).expect("the file");
    temper.run(&format!("{run} --resume")).ok();
    fs::remove_dir_all(temper.path("out/final")).expect("a finished run");
    let names = |snapshot: &crate::util::Snapshot| snapshot.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&temper.snapshot("out")), names(&whole));
}

#[test]
fn a_run_that_was_interrupted_ends_with_the_same_checkpoints() {
    let temper = Temper::new();
    let run = "sft --model gpt2-tiny --data demonstrations.jsonl --set batch_size=2 --set epochs=80 \
               --set checkpoint_every=100";
    temper.run(&format!("{run} --out whole")).ok();
    let said = temper.interrupt(run, "cut", "cut/metrics.jsonl", 130);
    assert_eq!(said.code, Some(130), "{said:?}");
    assert!(temper.path("cut/checkpoints/step-000100").exists(), "it is not evicted");
    temper.run(&format!("{run} --out cut --resume")).ok();
    assert!(temper.snapshot("whole/checkpoints").keys().eq(temper.snapshot("cut/checkpoints").keys()));
    assert!(temper.snapshot("whole/final") == temper.snapshot("cut/final"));
}

/// The program that scores removes the directory, or puts something in the place of the metrics.
#[test]
fn a_run_whose_directory_is_taken_away_ends_with_one_line() {
    let temper = Temper::with_sft();
    let run = |out: &str, does: &str| {
        temper.write(
            "judge.sh",
            format!("n=0; while read -r l; do n=$((n+1)); [ $n = 9 ] && {{ {does}; }}; echo $n; done"),
        );
        temper.run_of(&[
            "ppo",
            "--policy",
            "sft/final",
            "--prompts",
            "prompts.jsonl",
            "--out",
            out,
            "--reward-program",
            "sh judge.sh",
            "--set",
            "critic.kind=value_head",
            "--set",
            "batch_size=2",
            "--set",
            "rollout.max_new_tokens=3",
            "--set",
            "epochs=9",
        ])
    };
    let said = run("a", "rm -rf a").failed(&["error: a was removed or replaced during the run"]);
    assert!(said.hint().contains("start the run again"), "{said:?}");
    assert!(!temper.path("a").exists());
    let said = run("b", "rm b/metrics.jsonl; mkdir b/metrics.jsonl");
    let said =
        said.failed(&["b/metrics.jsonl was replaced during the run; its lines are in b/metrics.saved.jsonl"]);
    assert!(said.hint().contains("--resume"), "{said:?}");
    assert_eq!(temper.read("b/metrics.saved.jsonl").lines().count(), 4);
    let said = run("c", "rm c/metrics.jsonl").ok();
    assert!(said.stderr.contains("was removed during the run, and was written again"), "{said:?}");
    assert_eq!(temper.read("c/metrics.jsonl").lines().count(), 18);
}
