//! `temper report`: where it writes, what it refuses, and that every refusal says what to do.

use std::process::Command;

use crate::util::Temper;

/// Run directories `a` and `b` that can be compared.
fn two_runs() -> Temper {
    let temper = Temper::new();
    for name in ["a", "b"] {
        let line =
            |step: i32| format!("{{\"step\":{step},\"objective/kl\":{step},\"objective/scores\":{step}}}\n");
        std::fs::create_dir(temper.path(name)).expect("the folder can be made");
        temper.write(&format!("{name}/metrics.jsonl"), (1..=9).map(line).collect::<String>());
    }
    temper
}

#[test]
fn a_report_leads_nowhere_else_and_waits_for_nothing() {
    let temper = two_runs();
    temper.write("victim.txt", "precious");
    temper.write("b/report.partial", "mine");
    for name in ["a/report.partial", "a/report.html"] {
        std::os::unix::fs::symlink("../victim.txt", temper.path(name)).unwrap();
    }
    temper.run("report a").ok();
    temper.run("report b").ok();
    assert_eq!(
        (temper.read("victim.txt"), temper.read("b/report.partial")),
        ("precious".into(), "mine".into())
    );
    // A pipe that nobody writes into.
    assert!(Command::new("mkfifo").arg(temper.path("a/summary.json")).status().unwrap().success());
    let said = temper.shell("timeout 60 $TEMPER report a").refused(&["a/summary.json", "a pipe"]);
    assert!(said.hint().contains("real file"), "{said:?}");
}

#[test]
fn a_comparison_is_written_where_it_was_asked_for_or_refused() {
    let temper = two_runs();
    temper.write("cmp.html", "mine");
    let said = temper.run("report --compare a b --out cmp.v2").ok();
    assert_eq!(said.stdout.lines().collect::<Vec<_>>(), ["cmp.v2", "cmp.v2.svg"]);
    assert_eq!(temper.read("cmp.html"), "mine");
    for (out, says) in [
        ("cmp.html", "a file that `temper report` did not draw"),
        ("a", "a directory"),
        (".", "a directory"),
        ("picture.svg", "not the name of a page"),
        ("missing/cmp.html", "missing/cmp.html"),
        ("/dev/null", "a device"),
    ] {
        let said = temper.refuses(&format!("report --compare a b --out {out}"), &[out, says]);
        assert!(!said.hint().is_empty(), "{said:?}");
    }
    assert!(!std::path::Path::new("/dev/null.html").exists());
}

#[test]
fn every_refusal_of_a_report_has_a_hint() {
    let temper = two_runs();
    std::fs::create_dir(temper.path("empty")).unwrap();
    temper.write("points.json", "[{}]");
    for command in [
        "report nonsense",
        "report empty",
        "report points.json",
        "report --compare empty --out x.html",
        "report --compare a a a a a a a a a --out x.html",
        "report --compare a --points points.json --out x.html",
        "report --compare a --points a --out x.html",
    ] {
        let said = temper.refuses(command, &[]);
        assert!(!said.hint().is_empty(), "{said:?}");
    }
}

#[test]
fn only_what_has_not_finished_is_called_so() {
    let temper = Temper::with_reward_model();
    std::fs::create_dir(temper.path("all")).unwrap();
    temper.copy("sft", "all/sft");
    temper.copy("reward", "all/reward");
    temper.run("report all").ok();
    let page = temper.read("all/report.html");
    assert!(!page.contains("has not reached its end") && !page.contains("has not finished"), "{page}");
    // What `temper eval` prints can be kept next to the run, and is then on its page.
    let printed = temper.run("eval --model reward/final --data comparisons.jsonl").ok().stdout;
    temper.write("all/reward/evaluation.json", printed);
    std::fs::create_dir(temper.path("all/ppo")).unwrap();
    temper.write("all/ppo/config.toml", "max_steps = 40\n");
    temper.write("all/ppo/metrics.jsonl", "{\"step\":33,\"val/explained_var\":0.5}\n");
    temper.run("report all").ok();
    let page = temper.read("all/report.html").replace('\u{a0}', " ");
    assert!(page.contains("PPO has not finished: 33 of at most 40 rollouts."), "{page}");
    assert!(page.contains("“The longer answer wins” would be right in 75 %"), "{page}");
}
