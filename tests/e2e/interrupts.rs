//! Signals: what a run does and says when it is asked to end, and what outlives it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::util::Temper;

const SFT: &str = "sft --data demonstrations.jsonl --model gpt2-tiny --set batch_size=2";
/// Its scorer answers two rollouts of three prompts.
const PPO: &str = "ppo --policy sft/final --prompts prompts.jsonl --set batch_size=3 --set epochs=9 \
                   --set rollout.max_new_tokens=4 --set critic.kind=value_head --reward-program ./hang.sh";

/// With a scorer that hangs after six answers, and writes down the number of a process that it has started.
fn with_a_scorer_that_hangs() -> Temper {
    let temper = Temper::with_sft();
    temper.write(
        "hang.sh",
        "#!/bin/sh\nsleep 300 & echo $! > child\nn=0\n\
         while read -r line; do n=$((n+1)); echo 1; if [ $n = 6 ]; then sleep 300; fi; done\n",
    );
    fs::set_permissions(temper.path("hang.sh"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    temper
}

/// Whether the process of that number ends soon. One that nobody has reaped counts as ended.
fn ends(pid: &str) -> bool {
    let lives = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|state| !state.is_empty() && !state.starts_with(" Z"))
    };
    let began = Instant::now();
    while lives() && began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    !lives()
}

#[test]
fn an_interrupted_run_says_what_it_does_and_how_to_continue() {
    let temper = Temper::new();
    let said = temper.interrupt(&format!("{SFT} --set epochs=400"), "out", "out/metrics.jsonl", 3);
    assert_eq!(said.code, Some(130), "{said:?}");
    for part in [
        "note: this step is being finished and a checkpoint written; a second Ctrl-C ends at once",
        "sft: interrupted after step ",
        "the checkpoint is out/checkpoints/step-",
        "sft: to continue: ",
        "--out out --resume",
    ] {
        assert!(said.stderr.contains(part), "`{part}` is missing in {said:?}");
    }
    let quiet = format!("{SFT} --set epochs=400 -q");
    let said = temper.interrupt(&quiet, "quiet", "quiet/metrics.jsonl", 3);
    assert_eq!((said.code, said.stderr.as_str()), (Some(130), ""));
}

#[test]
fn a_finished_run_says_where_its_model_is_and_what_comes_next() {
    let temper = Temper::new();
    let said = temper.run(&format!("{SFT} --out runs/sft --set max_steps=1")).ok();
    for part in [
        "sft: finished (",
        "sft: The training loss ",
        "sft: the model is runs/sft/final",
        "sft: next: temper reward --data comparisons.jsonl --model runs/sft/final --out runs/reward",
    ] {
        assert!(said.stderr.contains(part), "`{part}` is missing in {said:?}");
    }
    let said = temper
        .run("reward --data comparisons.jsonl --model runs/sft/final --out runs/reward --set max_steps=1")
        .ok();
    let next = "reward: next: temper ppo --policy runs/sft/final --reward runs/reward/final";
    assert!(said.stderr.contains(next), "{said:?}");
    let said = temper.run(&format!("{SFT} --out quiet --set max_steps=1 -q")).ok();
    assert_eq!(said.stderr, "");
}

/// `nohup` ignores SIGHUP, and a shell without job control ignores SIGINT for what it starts in the background.
#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let temper = Temper::new();
    let script = format!(
        "trap '' HUP; \"$TEMPER\" -q {SFT} --set epochs=9000 --out out & P=$!
         lines() {{ cat out/metrics.jsonl 2>/dev/null | wc -l; }}
         more() {{ n=$(lines); for i in $(seq 1000); do if [ $(lines) -gt $n ]; then echo more; return; fi; sleep 0.02; done; }}
         more; kill -HUP $P; sleep 0.3; more; kill -INT $P; sleep 0.3; more; kill -TERM $P; wait $P; echo $?"
    );
    let said = temper.shell(&script).ok();
    assert_eq!(said.stdout, "more\nmore\nmore\n130\n", "{said:?}");
}

#[test]
fn an_interrupt_does_not_wait_for_a_scorer_that_hangs() {
    let temper = with_a_scorer_that_hangs();
    let began = Instant::now();
    let said = temper.interrupt(PPO, "out", "out/metrics.jsonl", 2);
    assert_eq!(said.code, Some(130), "{said:?}");
    assert!(began.elapsed() < Duration::from_secs(40), "the limit of 60 s was waited for");
    assert!(temper.path("out/checkpoints/step-000002").is_dir(), "{said:?}");
    assert!(said.stderr.contains("ppo: interrupted after step 2 of 9"), "{said:?}");
    assert!(ends(&temper.read("child")), "a process of the scorer lives on");
}

#[test]
fn the_second_interrupt_ends_the_scorer_too() {
    let temper = with_a_scorer_that_hangs();
    let script = format!(
        "\"$TEMPER\" -q {PPO} --out out & P=$!
         until [ -s out/metrics.jsonl ]; do sleep 0.02; done
         kill -TERM $P; sleep 0.4; kill -TERM $P; wait $P; echo $?"
    );
    let said = temper.shell(&script).ok();
    assert_eq!(said.stdout, "130\n", "{said:?}");
    assert!(ends(&temper.read("child")), "a process of the scorer lives on");
}
