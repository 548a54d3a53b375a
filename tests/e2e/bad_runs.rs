//! Bad input: run directories, losses, judges and rubbish. One clear line, a hint, exit code 1, nothing half-written, never a panic.
//!
//! [`Temper::refuses`] checks all of that: the code, the one line and its hint, no output, and that not a file
//! in the directory has changed.

use crate::util::Temper;

const SFT: &str = "sft --model gpt2-tiny --out out --data";
const TRAIN: &str = "sft --model gpt2-tiny --out out --data demonstrations.jsonl";
const PPO: &str = "ppo --prompts prompts.jsonl --out out";

#[test]
fn a_full_disk_leaves_no_half_checkpoint() {
    let temper = Temper::new();
    // Files of at most 60 kB: the model has 150.
    let limited = |out: &str, sets: &str| {
        let train = format!(
            "sft --model gpt2-tiny --data demonstrations.jsonl --out {out} --set batch_size=2 {sets}"
        );
        temper.shell(&format!("trap '' XFSZ; ulimit -f 60; exec \"$TEMPER\" {train}"))
    };
    let said = limited("a", "--set checkpoint_every=1").failed(&["model.safetensors", "a/checkpoints"]);
    assert!(said.hint().contains("free some space"), "{said:?}");
    let said = limited("b", "").failed(&["model.safetensors"]);
    assert!(said.hint().contains("free some space"), "{said:?}");
    for run in ["a", "b"] {
        assert!(!temper.path(run).join("final").exists());
        temper.assert_nothing_half_written(run);
        assert!(!temper.snapshot(run).keys().any(|path| path.ends_with("model.safetensors")));
    }
    // A device that is always full.
    temper.shell("exec \"$TEMPER\" tokenize --prompt a --json > /dev/full").failed(&[
        "standard output",
        "No space",
        "hint: ",
    ]);
}

#[test]
fn a_full_disk_keeps_the_checkpoints_that_are_there() {
    let temper = Temper::new();
    let run = "sft --model gpt2-tiny --data demonstrations.jsonl --set batch_size=2 --set epochs=400 --set checkpoint_every=2";
    let said = temper.interrupt(run, "run", "run/metrics.jsonl", 3);
    assert_eq!(said.code, Some(130), "{said:?}");
    let before = temper.snapshot("run/checkpoints");
    assert!(!before.is_empty());
    let said =
        temper.shell(&format!("trap '' XFSZ; ulimit -f 60; exec \"$TEMPER\" {run} --out run --resume"));
    said.failed(&["model.safetensors"]);
    assert_eq!(temper.snapshot("run/checkpoints"), before);
}

#[test]
fn an_out_that_cannot_be_written_is_named() {
    let temper = Temper::with_reward_model();
    temper.write("file.txt", "x");
    for out in ["file.txt", "file.txt/run", "/proc/temper"] {
        temper.refuses(
            &format!("sft --model gpt2-tiny --data demonstrations.jsonl --out {out}"),
            &[out, "hint: "],
        );
        temper.refuses(
            &format!("reward --data comparisons.jsonl --model sft/final --out {out}"),
            &[out, "hint: "],
        );
        temper.refuses(
            &format!("ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --out {out}"),
            &[out, "hint: "],
        );
        temper.refuses(&format!("recipe notebook --out {out}"), &[out, "hint: "]);
        temper.refuses(&format!("recipe courtesy --out {out}"), &[out, "hint: "]);
        temper.refuses(&format!("pipeline --recipe notebook --out {out}"), &[out, "hint: "]);
    }
}

#[test]
fn an_out_that_holds_another_run_is_refused() {
    let temper = Temper::with_reward_model();
    let said = temper
        .refuses("sft --model gpt2-tiny --data demonstrations.jsonl --out sft", &["sft holds a run already"]);
    assert!(said.hint().contains("--resume"), "{said:?}");
    temper.refuses(
        "reward --model sft/final --data comparisons.jsonl --out reward",
        &["reward holds a run already"],
    );
    temper.refuses(
        "sft --model gpt2-tiny --data demonstrations.jsonl --out sft --resume --set max_steps=2 --set batch_size=3",
        &["sft/config.toml", "`batch_size`", "hint: "],
    );
    // Another stage's run is not resumed either.
    temper.refuses("reward --model sft/final --data comparisons.jsonl --out sft --resume", &["sft"]);
    temper.write("pipeline/pipeline.json", "{\"recipe\": \"courtesy\", \"seed\": 3}");
    temper.refuses("pipeline --recipe notebook --out pipeline", &["pipeline holds another run", "hint: "]);
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_and_names_the_step() {
    let temper = Temper::with_reward_model();
    let diverges =
        "--set learning_rate=1e6 --set optimizer.weight_decay=1e6 --set checkpoint_every=1 --set epochs=5";
    for (stage, command) in [
        ("sft", "sft --model gpt2-tiny --data demonstrations.jsonl --out a --set batch_size=2"),
        ("reward", "reward --model sft/final --data comparisons.jsonl --out a --set batch_size=2"),
        (
            "ppo",
            "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --out a --set batch_size=3 \
             --set rollout.max_new_tokens=3 --set critic.learning_rate=1e6 --set update.ppo_epochs=1 \
             --set update.minibatch_size=0",
        ),
    ] {
        let out = format!("{stage}-diverged");
        let command = command.replace("--out a", &format!("--out {out}"));
        let said = temper.run(&format!("{command} {diverges}")).failed(&["2"]);
        assert!(said.stderr.contains("step 2") || said.stderr.contains("update 2"), "{said:?}");
        assert!(said.hint().contains("learning_rate"), "{said:?}");
        assert!(!temper.path(&out).join("final").exists());
        temper.assert_nothing_half_written(&out);
        let checkpoint = format!("{out}/checkpoints/step-000001");
        assert!(temper.path(&checkpoint).is_dir(), "the last good checkpoint is kept");
        // It is whole: it loads, though what it says may be no number any more.
        let load = if stage == "reward" {
            format!("score --data demonstrations.jsonl --model {checkpoint}")
        } else {
            format!("logprobs --data demonstrations.jsonl --model {checkpoint}")
        };
        let said = temper.run(&load);
        assert!(said.code == Some(0) || said.hint().contains("the model has diverged"), "{said:?}");
    }
}

/// The last update takes every weight times -1e12: all are finite, and what the model computes is not.
#[test]
fn a_model_that_computes_nan_is_not_saved_as_a_result() {
    let temper = Temper::with_sft();
    let diverges = "--set learning_rate=1e6 --set optimizer.weight_decay=1e6 --set max_steps=1";
    for (command, eval) in [
        ("sft --model tiny --data demonstrations.jsonl", "demonstrations.jsonl"),
        ("reward --model sft/final --data comparisons.jsonl", "comparisons.jsonl"),
        ("dpo --model sft/final --data comparisons.jsonl", "comparisons.jsonl"),
    ] {
        let said = temper
            .run(&format!("{command} --out a {diverges}"))
            .failed(&["the model computes numbers that are not finite, though its weights are"]);
        let hint = said.hint().to_owned();
        assert!(hint.contains("learning_rate") && !hint.contains("checkpoint"), "{said:?}");
        assert!(!temper.path("a/final").exists());
        temper
            .run(&format!("{command} --out b --eval-data {eval} {diverges}"))
            .failed(&["the evaluation loss after step 1 is "]);
        assert!(!temper.path("b/best").exists() && !temper.path("b/final").exists());
        temper.assert_nothing_half_written("a");
        std::fs::remove_dir_all(temper.path("a")).expect("a run");
        std::fs::remove_dir_all(temper.path("b")).expect("a run");
    }
}

#[test]
fn a_number_of_threads_that_is_none_is_refused_by_the_name_of_its_variable() {
    let temper = Temper::new();
    let with = |threads: &str| temper.shell(&format!("RAYON_NUM_THREADS={threads} exec \"$TEMPER\" {TRAIN}"));
    for threads in ["20000", "-1", "abc", "1000000000000000000000"] {
        with(threads).refused(&["RAYON_NUM_THREADS", threads, "up to 1024", "hint: "]);
    }
    assert!(!temper.path("out").exists());
    with("3").ok();
    assert_eq!(temper.json("out/inputs.json")["machine"]["threads"], "3");
}

#[test]
fn a_judge_that_is_none_is_refused() {
    let temper = Temper::with_reward_model();
    let eval = "eval --model sft/final --against sft/final --data prompts.jsonl --max-new-tokens 2 --judge";
    let said = temper.refuses(&format!("{eval} nonsense"), &["`nonsense` is not a judge"]);
    assert!(said.hint().contains("courtesy"), "{said:?}");
    temper.refuses(&format!("{eval} sft/final"), &["sft/final", "reward model is needed"]);
    temper.write("strange.jsonl", "{\"prompt\": \"Sing me the song of the blue whale\"}\n");
    let said = temper.refuses(
        &eval.replace("prompts.jsonl", "strange.jsonl").replace("--judge", "--judge courtesy"),
        &["courtesy judge does not know", "blue whale"],
    );
    assert!(said.hint().contains("temper recipe courtesy"), "{said:?}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let temper = Temper::with_sft();
    let prompts: String = (0..400).map(|i| format!("{i}\n")).collect();
    temper.write("many.txt", prompts);
    let script = "\"$TEMPER\" generate --model sft/final --max-new-tokens 2 --json < many.txt | head -1";
    let said = temper.shell(script).ok();
    assert_eq!((said.stdout.lines().count(), said.stderr.as_str()), (1, ""));
    let said = temper.shell("\"$TEMPER\" config ppo | true").ok();
    assert_eq!(said.stderr, "");
    let said = temper.shell("(\"$TEMPER\" sft --help; \"$TEMPER\" devices) | true").ok();
    assert_eq!(said.stderr, "");
}

/// A few kinds of rubbish; none may do more than fail.
fn rubbish() -> Vec<Vec<u8>> {
    let noise = |seed: u32, len: usize| {
        let mut state = seed;
        let step = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(step).collect::<Vec<u8>>()
    };
    let deep = "[".repeat(100_000).into_bytes();
    let deep_object = "{\"prompt\":".repeat(100_000).into_bytes();
    vec![
        vec![0],
        vec![0xff; 64],
        b"\x1f\x8b".to_vec(),
        b"\xef\xbb\xbf".to_vec(),
        noise(1, 1000),
        noise(2, 10_000),
        deep,
        deep_object,
        b"{\"prompt\": 1e999, \"completion\": \"\\ud800\"}".to_vec(),
        b"{\"a\": {\"b\": null}, \"model\": 3, \"prompt\": [[]], \"steps\": -1}".to_vec(),
    ]
}

#[test]
fn rubbish_in_any_file_never_panics() {
    let temper = Temper::with_reward_model();
    temper.copy("sft/final", "model");
    temper.copy("reward/final", "scorer");
    for (i, bytes) in rubbish().into_iter().enumerate() {
        temper.write("rubbish", &bytes);
        for command in [
            format!("{SFT} rubbish"),
            "reward --model sft/final --out out --data rubbish".into(),
            "ppo --policy sft/final --reward reward/final --out out --prompts rubbish".into(),
        ] {
            temper.refuses(&command, &["rubbish"]);
        }
        // A byte order mark alone is a file without settings.
        if bytes != b"\xef\xbb\xbf" {
            temper.refuses(&format!("{TRAIN} --config rubbish"), &["rubbish"]);
        }
        for name in ["config.json", "model.safetensors", "tokenizer.json", "template.json"] {
            let file = format!("model/{name}");
            let whole = temper.bytes(&file);
            temper.write(&file, &bytes);
            temper.refuses("generate --prompt a --model model", &["model/"]);
            temper.write(&file, whole);
        }
        let file = "scorer/config.json";
        let whole = temper.bytes(file);
        temper.write(file, &bytes);
        temper.refuses("score --data demonstrations.jsonl --model scorer", &["scorer"]);
        temper.write(file, whole);
        temper.write(&format!("p{i}/pipeline.json"), &bytes);
        temper.refuses(&format!("pipeline --recipe notebook --out p{i}"), &[&format!("p{i}")]);
        // The report leaves out what it cannot read, or refuses it; it does not fall.
        temper.copy("sft", &format!("r{i}"));
        temper.write(&format!("r{i}/metrics.jsonl"), &bytes);
        let said = temper.run(&format!("report r{i}"));
        assert!(matches!(said.code, Some(0 | 1)), "{said:?}");
        temper.run(&format!(
            "sft --model gpt2-tiny --data demonstrations.jsonl --out r{i} --resume --set max_steps=2"
        ));
    }
}

#[test]
fn a_number_of_absurd_size_is_refused_or_cut() {
    let temper = Temper::with_sft();
    let most = u64::MAX;
    temper.refuses(&format!("tokenize --prompt a --max-len {most}"), &["`--max-len` must be at most"]);
    temper.refuses(&format!("{TRAIN} --seed {most}"), &["`--seed`"]);
    temper.refuses(&format!("config sft --set epochs={most}"), &["`epochs`"]);
    temper.run(&format!("generate --model sft/final --prompt a --max-new-tokens {most}")).ok();
    temper
        .run(&format!(
            "generate --model sft/final --prompt a --max-new-tokens 1 --top-k {most} --seed {most}"
        ))
        .ok();
    let sets = ["microbatch_size", "epochs", "checkpoint_every", "eval_every", "schedule.warmup_steps"];
    let sets: String = sets.iter().map(|key| format!(" --set {key}={}", i64::MAX)).collect();
    temper.run(&format!("{TRAIN} --set max_steps=1{sets}")).ok();
}

#[test]
fn a_name_that_is_empty_is_refused() {
    let temper = Temper::with_sft();
    for (flag, command) in [
        ("--data", vec!["sft", "--model", "tiny", "--out", "out", "--data", ""]),
        ("--model", vec!["sft", "--data", "demonstrations.jsonl", "--out", "out", "--model", ""]),
        ("--out", vec!["sft", "--model", "gpt2-tiny", "--data", "demonstrations.jsonl", "--out", ""]),
        ("--model", vec!["generate", "--prompt", "a", "--model", ""]),
        ("--config", vec!["config", "sft", "--config", ""]),
    ] {
        let said = temper.run_of(&command);
        assert!(matches!(said.code, Some(1 | 2)), "{flag}: {said:?}");
        assert!(said.stderr.starts_with("error: "), "{flag}: {said:?}");
    }
    temper.refuses("generate --prompt a --model demonstrations.jsonl", &["demonstrations.jsonl"]);
    temper.refuses(
        "sft --data demonstrations.jsonl --out out --model demonstrations.jsonl",
        &["demonstrations.jsonl"],
    );
}

#[test]
fn answers_of_one_token_are_trained_on() {
    let temper = Temper::with_reward_model();
    let ppo = format!("{PPO} --policy sft/final --reward reward/final --set max_steps=1 --set batch_size=2");
    temper.run(&format!("{ppo} --set rollout.max_new_tokens=1")).ok();
}

#[test]
fn a_rollout_of_absurd_size_is_refused() {
    let temper = Temper::with_reward_model();
    let ppo = format!("{PPO} --policy sft/final --reward reward/final --set max_steps=1");
    temper.run(&format!("{ppo} --set batch_size={}", i64::MAX)).refused(&["`batch_size`"]);
    let says = "`rollout.max_new_tokens` must be at most 127, got 9223372036854775807";
    let longest = format!("--set rollout.max_new_tokens={}", i64::MAX);
    temper.run(&format!("{ppo} --set batch_size=2 {longest}")).refused(&[says]);
}

#[test]
fn a_model_of_absurd_size_is_refused() {
    let temper = Temper::with_sft();
    for (key, value) in
        [("n_embd", 1_u64 << 40), ("vocab_size", 1 << 62), ("n_layer", 1 << 50), ("n_positions", 1 << 60)]
    {
        temper.copy("sft/final", "huge");
        temper.edit_json("huge/config.json", |config| config[key] = value.into());
        // Limited memory, so that a failure does not take the machine with it.
        let said = temper.shell("ulimit -v 8000000; exec \"$TEMPER\" generate --prompt a --model huge");
        said.refused(&["huge"]);
    }
}

#[test]
fn every_number_has_its_range() {
    let temper = Temper::new();
    for (stage, set, says) in [
        ("sft", "schedule.final_fraction=2", "`schedule.final_fraction` must be between 0 and 1, got 2"),
        ("ppo", "schedule.final_fraction=-1", "`schedule.final_fraction` must be between 0 and 1, got -1"),
        ("ppo", "kl.coef=inf", "`kl.coef` must be between 0 and 1e9, got inf"),
        ("ppo", "update.entropy_coef=nan", "`update.entropy_coef` must be between -1e9 and 1e9, got NaN"),
        ("ppo", "update.vf_coef=nan", "`update.vf_coef` must be between 0 and 1e9, got NaN"),
        (
            "ppo",
            "rollout.missing_eos_value=nan",
            "`rollout.missing_eos_value` must be between -1e9 and 1e9, got NaN",
        ),
    ] {
        temper.refuses(&format!("config {stage} --set {set}"), &[says]);
    }
}

#[test]
fn a_pipeline_checks_its_settings_before_it_writes() {
    let temper = Temper::new();
    temper.refuses("pipeline --recipe notebook --out out --set epochs=1", &["names no stage"]);
    temper.refuses("pipeline --recipe notebook --out out --set ppo.update.gamma=7", &["`update.gamma`"]);
    temper.refuses("pipeline --recipe notebook --out out --set ppo.typo=7", &["`typo`"]);
}
