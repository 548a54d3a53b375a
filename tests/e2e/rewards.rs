//! PPO against scores from outside.

#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use crate::util::{Said, Temper};

const PPO: &str = "ppo --policy sft/final --prompts prompts.jsonl --set critic.kind=value_head \
                   --set rollout.max_new_tokens=4 --set batch_size=3 --set epochs=3";
/// Says 1.5 to every answer.
const CONSTANT: &str = "sh -c 'while read -r line; do echo 1.5; done'";

/// The stage with a program that scores, and more arguments.
fn run(temper: &Temper, program: &str, more: &str) -> Said {
    let mut arguments: Vec<&str> = PPO.split_whitespace().collect();
    arguments.extend(["--reward-program", program]);
    arguments.extend(more.split_whitespace());
    temper.run_of(&arguments)
}

fn scores(temper: &Temper, out: &str) -> Vec<f64> {
    let rows = temper.read(&format!("{out}/metrics.jsonl"));
    let score = |row| {
        let row: serde_json::Value = serde_json::from_str(row).expect("a row of metrics");
        row["objective/scores"].as_f64().expect("a score")
    };
    rows.lines().map(score).collect()
}

#[test]
fn a_program_alone_scores_every_rollout() {
    let temper = Temper::with_sft();
    run(&temper, CONSTANT, "--out out").ok();
    assert_eq!(scores(&temper, "out"), [1.5, 1.5, 1.5]);
}

#[test]
fn a_program_and_a_reward_model_add_up_by_their_weights() {
    let temper = Temper::with_reward_model();
    let reward = "--reward reward/final";
    run(&temper, CONSTANT, &format!("{reward} --reward-weight 0 --program-weight -2 --out program")).ok();
    assert_eq!(scores(&temper, "program"), [-3.0, -3.0, -3.0]);
    run(&temper, CONSTANT, &format!("{reward} --program-weight 0 --set max_steps=1 --out model")).ok();
    run(&temper, CONSTANT, &format!("{reward} --program-weight 2 --set max_steps=1 --out both")).ok();
    let (model, both) = (scores(&temper, "model")[0], scores(&temper, "both")[0]);
    assert!((both - model - 3.0).abs() < 1e-6, "{both}, {model}");
}

#[test]
fn an_endpoint_scores_too() {
    let temper = Temper::with_sft();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/score", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let head: Vec<String> =
                reader.by_ref().lines().map(Result::unwrap).take_while(|l| !l.is_empty()).collect();
            let length = head.iter().find_map(|line| {
                line.to_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
            });
            let mut body = vec![0; length.unwrap()];
            reader.read_exact(&mut body).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let scores = vec![2.5; body["answers"].as_array().unwrap().len()];
            let reply = format!("{{\"scores\": {scores:?}}}");
            let n = reply.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {n}\r\nConnection: close\r\n\r\n{reply}")
                .unwrap();
        }
    });
    temper.run(&format!("{PPO} --reward-url {url} --out out")).ok();
    server.join().unwrap();
    assert_eq!(scores(&temper, "out"), [2.5, 2.5, 2.5]);
}

/// It scores the first rollout and dies in the second; mended, the run goes on to what an uninterrupted one gives.
#[test]
fn a_program_that_dies_ends_the_run_with_a_checkpoint() {
    let temper = Temper::with_sft();
    // The program reads what to do from a file, so that its command stays the same.
    let program = "sh program.sh";
    temper.write("program.sh", "while read -r line; do echo 0.5; done");
    run(&temper, program, "--out whole").ok();
    temper.write("program.sh", "for n in 1 2 3; do read -r line; echo 0.5; done; exit 7");
    let said = run(&temper, program, "--out out");
    let said = said.failed(&["step 2", "`sh program.sh` ended (exit status: 7) after 0 of 3 scores"]);
    assert!(said.hint().contains("--resume"), "{}", said.hint());
    assert!(temper.path("out/checkpoints/step-000001").is_dir() && !temper.path("out/final").exists());
    temper.write("program.sh", "while read -r line; do echo 0.5; done");
    run(&temper, program, "--out out --resume").ok();
    let model = |dir: &str| temper.bytes(&format!("{dir}/final/model.safetensors"));
    assert!(model("out") == model("whole"));
}

/// The first update starts at the policy that sampled, so it is the second that is found to be too far from it.
#[test]
fn a_policy_that_has_moved_too_far_gets_no_more_updates_from_a_rollout() {
    let temper = Temper::with_sft();
    let program = "sh -c 'n=0; while read -r line; do n=$((n+1)); echo $n; done'";
    let updates = |limit: &str, out: &str| {
        let settings = "--set ppo.ppo_epochs=4 --set ppo.minibatch_size=0 --set learning_rate=1e-3";
        run(&temper, program, &format!("{settings} --set ppo.max_approx_kl={limit} --out {out}")).ok();
        let rows = temper.read(&format!("{out}/metrics.jsonl"));
        let row: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
        row["policy/updates"].as_u64().unwrap()
    };
    assert_eq!(updates("0", "free"), 4);
    assert_eq!(updates("1e-12", "held"), 2);
}

#[test]
fn a_program_that_hangs_is_given_up() {
    let temper = Temper::with_sft();
    let said = run(&temper, "sh -c 'read -r line; echo 1; sleep 100'", "--out out --reward-seconds 0.3");
    said.failed(&["of 3 scores within 0.3 s"]);
}

#[test]
fn nonsense_from_a_program_is_shown() {
    let temper = Temper::with_sft();
    run(&temper, "sh -c 'while read -r line; do echo good; done'", "--out out")
        .failed(&["answered \"good\"", "neither a number nor an object with a `score`"]);
    run(&temper, "yes 1", "--out flood").failed(&["`yes 1` wrote \"1\" without being asked"]);
}

#[test]
fn a_source_that_cannot_be_is_refused_before_anything_is_written() {
    let temper = Temper::with_reward_model();
    for (arguments, says) in [
        (&["--reward-program", "no-such-program"][..], "cannot start `no-such-program`"),
        (&["--reward-program", "sh 'x"], "`sh 'x` is not a command"),
        (&["--reward-url", "reward/final"], "`reward/final` is no http or https address"),
        (&["--reward-program", "cat", "--program-weight", "inf"], "the weight inf is not a finite number"),
        (&["--reward-program", "cat", "--reward-seconds", "0"], "`--reward-seconds 0` is no time limit"),
    ] {
        let mut all: Vec<&str> = PPO.split_whitespace().collect();
        all.extend(["--out", "out"]);
        all.extend(arguments);
        temper.refuses_of(&all, &[says]);
    }
    let critic = "ppo --policy sft/final --prompts prompts.jsonl --reward-program cat --out out";
    let said = temper.refuses(critic, &["no model for the critic to start from"]);
    assert!(said.hint().contains("critic.kind=value_head"));
    temper.run("ppo --policy sft/final --prompts prompts.jsonl --out out").misused();
}
