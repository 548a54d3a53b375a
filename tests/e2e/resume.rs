//! What `--resume` accepts and what it refuses: everything that is not the run that was started.

use std::fs;

use crate::util::{Temper, without_times};

const SFT: &str = "sft --data demonstrations.jsonl --model start --out run --set batch_size=2 --set epochs=8 \
                   --set checkpoint_every=4";

/// A model in `start`, and in `run` an SFT run as it looks that was killed after its last checkpoint, of step 20.
fn killed() -> Temper {
    let temper = Temper::new();
    temper.run("sft --data demonstrations.jsonl --model gpt2-tiny --out base --set max_steps=1").ok();
    temper.copy("base/final", "start");
    temper.run(SFT).ok();
    fs::remove_dir_all(temper.path("run/final")).expect("a finished run");
    temper
}

#[test]
fn other_settings_are_refused_by_name() {
    let temper = killed();
    for (set, key) in [
        ("--set learning_rate=0.5", "`learning_rate`"),
        ("--set batch_size=3", "`batch_size`"),
        ("--set keep_last=5", "`keep_last`"),
        ("--set schedule.kind=linear", "`schedule.kind`"),
        ("--seed 7", "`seed`"),
    ] {
        let said = temper
            .refuses(&format!("{SFT} --resume {set}"), &["run/config.toml", key, "when the run started"]);
        assert!(said.hint().contains("stored settings"), "{said:?}");
    }
}

#[test]
fn other_data_and_models_are_refused_by_flag() {
    let temper = killed();
    let rows = temper.read("demonstrations.jsonl");
    temper.write("demonstrations.jsonl", rows.replace("Madrid", "Lisbon"));
    let said =
        temper.refuses(&format!("{SFT} --resume"), &["run: `--data` was 5 rows", "when the run started"]);
    assert!(said.hint().contains("data and models of the start"), "{said:?}");
    let more = format!("{rows}{{\"prompt\": \"More?\", \"completion\": \"Yes.\"}}\n");
    temper.write("demonstrations.jsonl", more);
    temper.refuses(&format!("{SFT} --resume"), &["`--data` was 5 rows", "is 6 rows"]);
    // The same rows from another file are the same data.
    temper.write("demonstrations.jsonl", "");
    temper.write("elsewhere.jsonl", rows.replace("}\n", "}\n\n"));
    let elsewhere = SFT.replace("demonstrations", "elsewhere");
    temper.refuses(
        &format!("{elsewhere} --resume --eval-data elsewhere.jsonl"),
        &["`--eval-data` was not given"],
    );
    temper.edit_json("start/config.json", |config| config["layer_norm_epsilon"] = 1e-6.into());
    temper.refuses(&format!("{elsewhere} --resume"), &["`--model` was files with checksum"]);
    temper.copy("base/final", "start");
    let said = temper.run(&format!("{elsewhere} --resume")).ok();
    assert!(said.stderr.contains("resuming from step 20"), "{said:?}");
}

#[test]
fn another_reference_or_reward_model_is_refused() {
    let temper = Temper::with_reward_model();
    let ppo = "ppo --prompts prompts.jsonl --out run --set batch_size=2 --set rollout.max_new_tokens=3 \
               --set checkpoint_every=1 --set epochs=4";
    temper.run(&format!("{ppo} --policy sft/final --reward reward/final")).ok();
    fs::remove_dir_all(temper.path("run/final")).expect("a finished run");
    temper.run("sft --data demonstrations.jsonl --model sft/final --out sft2 --set max_steps=1").ok();
    temper.run("reward --data comparisons.jsonl --model sft/final --out reward2 --seed 2").ok();
    temper.refuses(&format!("{ppo} --policy sft2/final --reward reward/final --resume"), &["`--policy` was"]);
    temper.refuses(&format!("{ppo} --policy sft/final --reward reward2/final --resume"), &["`--reward` was"]);
    temper.write(
        "prompts.jsonl",
        "{\"prompt\": \"What is AI?\"}\n{\"prompt\": \"Hello\"}\n{\"prompt\": \"a\"}\n",
    );
    temper.refuses(
        &format!("{ppo} --policy sft/final --reward reward/final --resume"),
        &["`--prompts` was 3 rows"],
    );
}

#[test]
fn another_number_of_threads_is_reported() {
    let temper = killed();
    let script = format!("RAYON_NUM_THREADS=1 exec \"$TEMPER\" {SFT} --resume");
    temper.write(
        "run/inputs.json",
        temper.read("run/inputs.json").replace("\"threads\": \"", "\"threads\": \"9"),
    );
    let said = temper.shell(&script).ok();
    assert!(said.stderr.contains("threads was 9") && said.stderr.contains("is 1 now"), "{said:?}");
}

#[test]
fn a_run_without_a_whole_checkpoint_does_not_begin_again_by_itself() {
    let temper = killed();
    for step in [16, 20] {
        let file = format!("run/checkpoints/step-0000{step}/training/optimizer.safetensors");
        let bytes = temper.bytes(&file);
        temper.write(&file, &bytes[..bytes.len() - 1]);
    }
    let says = ["run has no whole checkpoint", "step-000020 is damaged: training/optimizer.safetensors has"];
    let said = temper.refuses(&format!("{SFT} --resume"), &says);
    assert!(said.hint().contains("remove `checkpoints`"), "{said:?}");
    let metrics = temper.read("run/metrics.jsonl");
    fs::remove_dir_all(temper.path("run/checkpoints")).expect("checkpoints");
    let said = temper.run(&format!("{SFT} --resume")).ok();
    assert!(said.stderr.contains("run has no checkpoint yet and begins again"), "{said:?}");
    assert_eq!(without_times(&metrics), without_times(&temper.read("run/metrics.jsonl")));
}

#[test]
fn a_checkpoint_of_another_step_or_without_its_metrics_is_refused() {
    let temper = killed();
    let metrics = temper.read("run/metrics.jsonl");
    let lines: Vec<&str> = metrics.lines().collect();
    temper.write("run/metrics.jsonl", lines[..7].join("\n") + "\n");
    let said =
        temper.refuses(&format!("{SFT} --resume"), &["run/metrics.jsonl has 7 whole lines", "with 20"]);
    assert!(said.hint().contains("older one"), "{said:?}");
    temper.write("run/metrics.jsonl", metrics);
    fs::rename(temper.path("run/checkpoints/step-000020"), temper.path("run/checkpoints/step-000023"))
        .expect("a name");
    temper.refuses(&format!("{SFT} --resume"), &["step-000023", "it is of sft step 20, not of sft step 23"]);
}

#[test]
fn a_finished_run_is_left_as_it_is() {
    let temper = Temper::new();
    let run =
        "sft --data demonstrations.jsonl --model gpt2-tiny --out run --set epochs=4 --set checkpoint_every=2";
    let said = temper.run(&format!("{run} --resume")).ok();
    assert!(said.stderr.contains("run holds no run yet"), "{said:?}");
    let before = temper.snapshot("run");
    let said = temper.run(&format!("{run} --resume")).ok();
    assert!(said.stderr.contains("run is finished"), "{said:?}");
    assert!(temper.snapshot("run") == before);
    temper.refuses(&format!("{run} --resume --seed 4"), &["`seed`"]);
}

#[test]
fn the_last_checkpoints_and_the_best_model_are_kept() {
    let temper = Temper::with_sft();
    let kept = |run: &str| {
        let files = temper.snapshot(&format!("{run}/checkpoints")).into_keys();
        files
            .filter(|path| path.components().count() == 1)
            .map(|p| p.display().to_string())
            .collect::<Vec<_>>()
    };
    // A rate that grows until the end, so that the last model is not the best one.
    let sft = "sft --data demonstrations.jsonl --model sft/final --set batch_size=2 --set epochs=6 \
               --set checkpoint_every=3 --set eval_every=2 --set learning_rate=0.5 --set schedule.kind=constant \
               --set schedule.warmup_steps=40 --seed 1";
    temper.run(&format!("{sft} --out a --eval-data demonstrations.jsonl --set keep_last=3")).ok();
    // With a constant rate the run could become longer, so that its last step has a checkpoint, too.
    assert_eq!(kept("a"), ["step-000012", "step-000015", "step-000018"]);
    let losses: Vec<(u64, f64)> = without_times(&temper.read("a/metrics.jsonl"))
        .iter()
        .filter_map(|row| Some((row["step"].as_u64()?, row.get("eval_loss")?.as_f64()?)))
        .collect();
    let lowest = losses.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).expect("evaluations");
    assert!(losses.len() == 9 && lowest.0 < 18, "the best model is an earlier one: {losses:?}");
    let best = temper.json("a/best/training/best.json");
    assert_eq!((best["step"].as_u64(), best["metric"].as_str()), (Some(lowest.0), Some("eval_loss")));
    let eval =
        |model: &str| temper.run(&format!("eval --model {model} --data demonstrations.jsonl")).ok().rows();
    let loss = |model: &str| eval(model)[0]["eval_loss"].as_f64().expect("a number");
    assert!((loss("a/best") - lowest.1).abs() < 1e-5, "best/ is the model of step {}", lowest.0);
    assert!(loss("a/final") > loss("a/best"));

    temper.run(&format!("{sft} --out b --eval-data demonstrations.jsonl --set keep_best=false")).ok();
    temper.run(&format!("{sft} --out c")).ok();
    assert!(!temper.path("b/best").exists() && !temper.path("c/best").exists(), "nothing asks for it");
    assert_eq!(kept("b"), ["step-000015", "step-000018"]);
    temper.refuses(&format!("{sft} --out d --set keep_last=0"), &["`keep_last` must be at least 1, got 0"]);
}

/// The best policy is judged by the rollouts since the last checkpoint that was due, those before the break included.
#[test]
fn an_interrupt_between_two_checkpoints_changes_nothing_about_the_best() {
    let temper = Temper::with_reward_model();
    let ppo = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --set batch_size=3 \
               --set rollout.max_new_tokens=3 --set epochs=60 --set checkpoint_every=1000";
    temper.run(&format!("{ppo} --out whole")).ok();
    let said = temper.interrupt(ppo, "cut", "cut/metrics.jsonl", 5);
    assert_eq!(said.code, Some(130), "{said:?}");
    temper.run(&format!("{ppo} --out cut --resume")).ok();
    let best = |run: &str| temper.json(&format!("{run}/best/training/best.json"));
    assert_eq!(best("whole")["metric"], "objective/scores");
    assert_eq!(best("whole"), best("cut"));
    assert!(temper.snapshot("whole/best") == temper.snapshot("cut/best"));
}

#[test]
fn two_runs_do_not_write_into_one_directory() {
    let temper = killed();
    let lock = fs::File::open(temper.path("run")).expect("the run directory");
    lock.lock().expect("what a running process holds");
    let said = temper.refuses(&format!("{SFT} --resume"), &["run is in use by another run"]);
    assert!(said.hint().contains("another `--out`"), "{said:?}");
    drop(lock);
    temper.run(&format!("{SFT} --resume")).ok();
}

/// Where the rate is constant, a run that becomes longer ends as one that was that long from the start.
#[test]
fn a_finished_run_becomes_longer_where_its_schedule_allows_it() {
    let temper = Temper::new();
    let sft = "sft --data demonstrations.jsonl --model gpt2-tiny --set batch_size=2 --set schedule.kind=constant \
         --set schedule.warmup_steps=1";
    temper.run(&format!("{sft} --out long --set max_steps=6")).ok();
    temper.run(&format!("{sft} --out run --set max_steps=4")).ok();
    let short = temper.bytes("run/final/model.safetensors");
    let said = temper.run(&format!("{sft} --out run --set max_steps=6 --resume")).ok();
    assert!(said.stderr.contains("run becomes longer: `max_steps` is 6 instead of 4"), "{said:?}");
    assert_eq!(temper.bytes("run/final/model.safetensors"), temper.bytes("long/final/model.safetensors"));
    // The model that was finished before stays.
    assert_eq!(temper.bytes("run/final-000004/model.safetensors"), short);
    assert!(temper.read("run/config.toml").contains("max_steps = 6"));
    // Without the limit, it would be many times as long: that is a mistake.
    temper.refuses(&format!("{sft} --out run --resume"), &["`max_steps` was `6`"]);
    let ppo = "ppo --policy run/final --reward reward/final --prompts prompts.jsonl --set batch_size=2";
    temper.run("reward --data comparisons.jsonl --model run/final --out reward --set max_steps=1").ok();
    temper.run(&format!("{ppo} --out longer --set max_steps=3")).ok();
    temper.run(&format!("{ppo} --out ppo --set max_steps=2")).ok();
    // The same command without the limit: it stays what it was.
    let said = temper.run(&format!("{ppo} --out ppo --resume")).ok();
    assert!(said.stderr.contains("ppo is finished, there is nothing left to do"), "{said:?}");
    temper.run(&format!("{ppo} --out ppo --set max_steps=3 --resume")).ok();
    assert_eq!(temper.bytes("ppo/final/model.safetensors"), temper.bytes("longer/final/model.safetensors"));
    // With all prompts in a rollout, one more of them needs one more pass, which nobody has asked for.
    let all = "ppo --policy run/final --reward reward/final --prompts prompts.jsonl --set batch_size=100";
    temper.run(&format!("{all} --out all --set max_steps=1")).ok();
    let said = temper.run(&format!("{all} --out all --set max_steps=2 --resume")).ok();
    assert!(said.stderr.contains("`epochs` is 2 instead of 1, `max_steps` is 2 instead of 1"), "{said:?}");
    assert_eq!(temper.read("all/metrics.jsonl").lines().count(), 2);
}

#[test]
fn a_run_whose_rate_falls_to_its_end_does_not_become_longer() {
    let temper = Temper::new();
    let sft = "sft --data demonstrations.jsonl --model gpt2-tiny --out run";
    temper.run(&format!("{sft} --set epochs=2")).ok();
    let before = temper.snapshot("run");
    let said = temper.refuses(&format!("{sft} --set epochs=3 --resume"), &["`epochs` was 2", "cosine"]);
    assert!(said.hint().contains("`final/`"), "{said:?}");
    assert_eq!(temper.snapshot("run"), before);
    temper.refuses(&format!("{sft} --set epochs=1 --resume"), &["`epochs` was `2`"]);
}
