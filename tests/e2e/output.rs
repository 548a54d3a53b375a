//! What is written to standard error and standard output, and what happens where that is impossible; limits of the
//! system, and files without an end.

use std::os::unix::fs::symlink;

use crate::util::Temper;

const SFT: &str = "sft --data demonstrations.jsonl --model gpt2-tiny --set batch_size=2";

#[test]
fn a_standard_error_that_cannot_be_written_to_ends_nothing() {
    let temper = Temper::new();
    let code =
        |command: &str| temper.shell_output(&format!("\"$TEMPER\" {command} 2>/dev/full")).status.code();
    assert_eq!(code(&format!("{SFT} --out sft --set max_steps=2")), Some(0));
    assert!(temper.path("sft/final").is_dir());
    // A reader that leaves after the first line.
    let script =
        format!("(\"$TEMPER\" {SFT} --out piped --set epochs=9 2>&1 >/dev/null; echo $? > code) | head -1");
    temper.shell(&script).ok();
    assert_eq!(temper.read("code"), "0\n");
    assert!(temper.path("piped/final").is_dir());
    // Errors, wrong usage, notes, and a warning of a library: the run has lost its model and has no checkpoint.
    assert_eq!(code("generate --model nowhere --prompt x"), Some(1));
    assert_eq!(code("generate --nonsense"), Some(2));
    assert_eq!(code("recipe notebook --out data"), Some(0));
    std::fs::remove_dir_all(temper.path("piped/final")).expect("a directory");
    assert_eq!(code(&format!("{SFT} --out piped --set epochs=9 --resume")), Some(0));
    assert!(temper.path("piped/final").is_dir());
    let chat =
        temper.shell_output("echo hi | \"$TEMPER\" chat --model sft/final --max-new-tokens 1 2>/dev/full");
    assert_eq!(chat.status.code(), Some(0));
    // Warnings are written even with `-q`.
    let ppo = "-q ppo --policy sft/final --prompts prompts.jsonl --set critic.kind=value_head --set batch_size=3 \
               --set rollout.max_new_tokens=3 --set epochs=4 --out ppo --reward-program 'sh -c \"while read -r line; do echo 1; done\"'";
    assert_eq!(code(ppo), Some(0));
    assert!(temper.path("ppo/final").is_dir());
}

#[test]
fn results_that_cannot_be_written_are_an_error() {
    let temper = Temper::new();
    for command in ["--help", "--version", "sft --help", "devices", "config sft"] {
        let said = temper.shell(&format!("exec \"$TEMPER\" {command} > /dev/full"));
        said.failed(&["error: standard output", "No space"]);
    }
}

#[test]
fn no_control_character_reaches_the_terminal() {
    let temper = Temper::new();
    temper.write("keys.toml", "\"\\u001b[31m\\u0007key\" = 1\n");
    temper.write("model/config.json", "{\"model_type\": \"\\u001b]0;title\\u0007\\u009b\"}");
    for arguments in [
        &["config", "sft", "--config", "keys.toml"][..],
        &["config", "sft", "--set", "device=\u{1b}[31m"],
        &["generate", "--prompt", "x", "--model", "model"],
        &["generate", "--prompt", "x", "--model", "no\u{1b}[31mwhere\n"],
        &["generate", "--\u{1b}[31mflag"],
        &["sft", "--model", "tiny", "--out", "out", "--data", "\u{1b}]0;title\u{7}.jsonl"],
    ] {
        let said = temper.run_of(arguments);
        assert!(matches!(said.code, Some(1 | 2)), "{said:?}");
        let printable = |c: char| c == '\n' || !c.is_control();
        assert!(said.stderr.chars().all(printable), "{:?}", said.stderr);
    }
}

#[test]
fn a_line_quotes_only_the_ends_of_what_is_long() {
    let temper = Temper::new();
    let long = "x".repeat(3_000_000);
    temper.write("device.toml", format!("device = \"{long}\"\n"));
    temper.write("key.toml", format!("{long} = 1\n"));
    temper.write("rows.jsonl", format!("{{\"{long}\": 1}}\n"));
    for command in [
        "config sft --config device.toml",
        "config sft --config key.toml",
        "sft --model tiny --out out --data rows.jsonl",
    ] {
        let said = temper.run(command).refused(&["xxx"]);
        assert!(said.stderr.lines().all(|line| line.chars().count() < 1500), "{}", said.stderr.len());
    }
}

#[test]
fn memory_that_is_lacking_is_one_line() {
    let temper = Temper::new();
    let tokenize = "exec \"$TEMPER\" tokenize --prompt a --max-len 16777216 --json > /dev/null";
    let said = temper.shell(&format!("ulimit -v 600000; {tokenize}")).refused(&["out of memory: "]);
    assert!(said.hint().contains("memory limit"), "{said:?}");
}

/// Without `trap '' XFSZ`, which the tests of full disks set, the system ends a process that knows nothing of it.
#[test]
fn a_limit_on_the_size_of_files_is_an_error() {
    let temper = Temper::new();
    let said = temper.shell(&format!("ulimit -f 60; exec \"$TEMPER\" {SFT} --out out"));
    let said = said.failed(&["model.safetensors"]);
    assert!(said.hint().contains("free some space"), "{said:?}");
    temper.assert_nothing_half_written("out");
}

#[test]
fn files_without_an_end_are_refused() {
    let temper = Temper::new();
    for device in ["/dev/zero", "/dev/urandom", "/dev/full"] {
        temper.refuses(&format!("{SFT} --out out --config {device}"), &[device, "bytes", "hint: "]);
    }
    temper.refuses(&format!("{SFT} --out out --config ."), &["a directory", "hint: "]);
    temper.run(&format!("{SFT} --out run --set max_steps=1")).ok();
    for name in ["config.toml", "inputs.json", "metrics.jsonl"] {
        let whole = temper.bytes(&format!("run/{name}"));
        std::fs::remove_file(temper.path(&format!("run/{name}"))).expect("it is there");
        symlink("/dev/zero", temper.path(&format!("run/{name}"))).expect("a link");
        let resume = format!("{SFT} --out run --set max_steps=1 --resume");
        temper.run(&resume).refused(&[&format!("run/{name} is not a regular file"), "hint: "]);
        std::fs::remove_file(temper.path(&format!("run/{name}"))).expect("a link");
        temper.write(&format!("run/{name}"), whole);
    }
}

#[test]
fn what_is_damaged_or_out_of_range_has_a_hint() {
    let temper = Temper::new();
    temper.run(&format!("{SFT} --out run --set max_steps=1")).ok();
    temper.write("run/inputs.json", "{");
    temper.refuses(
        &format!("{SFT} --out run --set max_steps=1 --resume"),
        &["inputs.json", "hint: the file is damaged"],
    );
    temper.write("pipeline/pipeline.json", "{");
    temper.refuses(
        "pipeline --recipe notebook --out pipeline",
        &["pipeline.json", "hint: the file is damaged"],
    );
    temper.run(&format!("{SFT} --out formats --set max_steps=2 --set checkpoint_every=1")).ok();
    std::fs::remove_dir_all(temper.path("formats/final")).expect("a directory");
    temper.edit_json("formats/checkpoints/step-000001/training/manifest.json", |manifest| {
        manifest["format_version"] = 99.into();
    });
    temper
        .run(&format!("{SFT} --out formats --set max_steps=2 --set checkpoint_every=1 --resume"))
        .failed(&["has format 99", "hint: use the version of Temper that wrote it"]);
    let long = "x".repeat(300);
    temper.refuses(&format!("{SFT} --out {long}"), &["hint: choose a shorter name"]);
    symlink("loop.jsonl", temper.path("loop.jsonl")).expect("a link");
    temper.run("sft --model tiny --out out --data loop.jsonl").refused(&["loop.jsonl", "symbolic link"]);
    temper.refuses("config sft --device bogus", &["unknown device `bogus`", "hint: devices: "]);
    temper.refuses("config sft --set device=cud", &["unknown device `cud`"]);
    temper.run("config sft --device cuda:1").ok();
    for threads in ["abc", "-1", "100000000000000000000", "100000"] {
        let said = temper.shell(&format!("RAYON_NUM_THREADS={threads} exec \"$TEMPER\" config sft"));
        said.refused(&["RAYON_NUM_THREADS must be a whole number up to ", threads, "hint: unset it "]);
    }
    for (flags, says) in [
        ("--temperature -1", "`--temperature` must be a number from 0.0001 to 10000, got -1"),
        ("--top-p -0.5", "`--top-p` must be between 0 and 1, got -0.5"),
    ] {
        let said = temper.run(&format!("generate --model . --prompt a {flags}"));
        said.refused(&[says]);
    }
}
