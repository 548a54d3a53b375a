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
        row["objective/raw_scores"].as_f64().expect("a score")
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
    let row =
        |prompt: &str| format!("{{\"prompt\": \"{prompt}\", \"length\": {}, \"id\": null}}\n", prompt.len());
    temper.write("prompts.jsonl", ["a", "bc", "def"].map(row).concat());
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
            let answers = body["answers"].as_array().unwrap();
            for answer in answers {
                let prompt = answer["prompt"].as_str().unwrap();
                assert_eq!(answer["row"], serde_json::json!({"length": prompt.len()}));
            }
            let scores = vec![2.5; answers.len()];
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

/// The program scores the first rollout and dies in the second. After its repair, the resumed run ends like one
/// without a break.
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
        let settings = "--set update.ppo_epochs=4 --set update.minibatch_size=0 --set learning_rate=1e-3";
        run(&temper, program, &format!("{settings} --set update.max_approx_kl={limit} --out {out}")).ok();
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
fn a_judge_that_does_not_know_a_prompt_gives_its_own_hint() {
    let temper = Temper::with_sft();
    let said = run(&temper, CONSTANT, "--gold courtesy --out out");
    let said = said.failed(&["the courtesy judge does not know the prompt"]);
    assert!(said.hint().contains("temper recipe courtesy"), "{said:?}");
}

/// Nobody listens at port 1.
#[test]
fn a_password_in_an_address_is_neither_stored_nor_shown() {
    let temper = Temper::with_sft();
    let ppo = |password: &str, more: &str| {
        temper.run(&format!(
            "{PPO} --reward-url http://me:{password}@127.0.0.1:1/ --reward-seconds 0.2 --out out {more}"
        ))
    };
    let said = ppo("secret", "").failed(&["http://me:***@127.0.0.1:1/"]);
    assert!(!said.stderr.contains("secret"), "{said:?}");
    assert!(temper.read("out/inputs.json").contains("http://me:***@127.0.0.1:1/"));
    for (path, content) in temper.snapshot("out") {
        let content = content.unwrap_or_default();
        assert!(!String::from_utf8_lossy(&content).contains("secret"), "{}", path.display());
    }
    // The same server under another password is the same scorer.
    ppo("changed", "--resume").failed(&["http://me:***@127.0.0.1:1/"]);
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
        (&["--reward-url", "reward/final"], "`reward/final` is not an http or https address"),
        (&["--reward-url", "http://127.0.0.1:99999/"], "the port 99999 is not between 1 and 65535"),
        (&["--reward-program", "cat", "--reward-seconds", "-1"], "`--reward-seconds -1` is not a time limit"),
        (&["--reward-program", "cat", "--program-weight", "inf"], "the weight inf is not a finite number"),
        (&["--reward-program", "cat", "--reward-seconds", "0"], "`--reward-seconds 0` is not a time limit"),
    ] {
        let mut all: Vec<&str> = PPO.split_whitespace().collect();
        all.extend(["--out", "out"]);
        all.extend(arguments);
        temper.refuses_of(&all, &[says]);
    }
    let critic = "ppo --policy sft/final --prompts prompts.jsonl --reward-program cat --out out \
                  --set critic.kind=reward_model";
    let said = temper.refuses(critic, &["no reward model is given"]);
    assert!(said.hint().contains("critic.kind=value_head"));
    temper.run("ppo --policy sft/final --prompts prompts.jsonl --out out").misused();
}

/// A policy that has its demonstrations by heart, and a reward model of its texts in `reward/final`.
fn with_a_policy_that_speaks() -> Temper {
    let temper = Temper::new();
    temper
        .run("sft --data demonstrations.jsonl --model tiny --out sft --set epochs=60 --set batch_size=5 --set learning_rate=5e-3")
        .ok();
    temper.run("reward --data comparisons.jsonl --model sft/final --out reward --set max_steps=2").ok();
    temper.write("prompts.jsonl", crate::util::DEMONSTRATIONS);
    temper
}

/// Next to temperature 0 the policy says its demonstrations, and `temper score` says what these are worth.
#[test]
fn a_reward_model_of_other_texts_scores_text_where_it_only_scores() {
    let temper = with_a_policy_that_speaks();
    let ppo = "ppo --policy sft/final --prompts prompts.jsonl --set rollout.max_new_tokens=30 --set batch_size=5 \
               --set rollout.temperature=0.01 --set max_steps=1";
    let swap = |tokenizer: &mut serde_json::Value| {
        let vocab = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
        vocab["a"] = 102.into();
        vocab["b"] = 101.into();
    };
    let other_template = serde_json::json!({
        "name": "qa",
        "prompt": ["<bos>", {"text": "Q: "}, "<prompt>"],
        "completion": [{"text": " A: "}, "<completion>", "<eos>"],
    });
    for what in ["tokenizer", "template"] {
        temper.copy("reward/final", "other");
        if what == "tokenizer" {
            temper.edit_json("other/tokenizer.json", swap);
        } else {
            temper.write("other/template.json", other_template.to_string());
        }
        let said = temper.refuses(
            &format!("{ppo} --reward other --out out --set critic.kind=reward_model"),
            &[&format!("sft/final and other have different {what}s")],
        );
        assert!(said.hint().contains("critic.kind=value_head"), "{said:?}");
        let out = format!("by-{what}");
        let said =
            temper.run(&format!("{ppo} --reward other --set rollout.score_scale=none --out {out}")).ok();
        let note = format!("note: other has another {what} than sft/final, so it scores text");
        assert!(said.stderr.contains(&note), "{said:?}");
        let expected = temper.run("score --model other --data demonstrations.jsonl").ok().rows();
        let expected = expected.iter().map(|row| row["score"].as_f64().expect("a score")).sum::<f64>() / 5.0;
        let found = scores(&temper, &out)[0];
        assert!((found - expected).abs() < 1e-4, "{what}: {found}, expected {expected}");
    }
    // Read as ids, the same texts are worth something else.
    temper.run(&format!("{ppo} --reward reward/final --set critic.kind=value_head --out ids")).ok();
    assert!((scores(&temper, "ids")[0] - scores(&temper, "by-template")[0]).abs() > 1e-3);
}

/// Compares an answer with that of the row, and dies if there is none.
const COMPARE: &str = r#"
part() { printf '%s\n' "$line" | sed -n "s/.*$1:\"\([^\"]*\)\".*/\1/p"; }
while read -r line; do
    expected=$(part '"row":{.*"answer"')
    if [ -z "$expected" ]; then exit 7; fi
    if [ "$expected" = "$(part '"completion"')" ]; then echo 1; else echo 0; fi
done
"#;

/// The policy gives the answers of the data, and one of the five is changed there.
#[test]
fn programs_compare_with_the_reference_answers_of_the_prompts() {
    let temper = with_a_policy_that_speaks();
    temper.write("compare.sh", COMPARE);
    let questions = |change: bool| -> String {
        let question = |(idx, line): (usize, &str)| {
            let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let answer = if change && idx == 2 { &"something else".into() } else { &row["completion"] };
            format!("{}\n", serde_json::json!({"question": row["prompt"], "answer": answer, "id": null}))
        };
        crate::util::DEMONSTRATIONS.lines().enumerate().map(question).collect()
    };
    temper.write("questions.jsonl", questions(true));
    let ppo = |prompts: &str, more: &str| {
        let mut arguments: Vec<&str> =
            "ppo --policy sft/final --set rollout.max_new_tokens=30 --set batch_size=5 --set critic.kind=value_head \
             --set rollout.temperature=0.01 --set max_steps=1"
                .split_whitespace()
                .collect();
        arguments.extend(["--reward-program", "sh compare.sh", "--prompts", prompts]);
        arguments.extend(more.split_whitespace());
        temper.run_of(&arguments)
    };
    ppo("questions.jsonl", "--eval-data questions.jsonl --set eval_every=1 --out out").ok();
    let metrics = temper.read("out/metrics.jsonl");
    let rows = metrics.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).expect("JSON"));
    for key in ["objective/raw_scores", "eval/raw_scores"] {
        let score = rows.clone().find_map(|row| row[key].as_f64()).expect("a score");
        assert!((score - 0.8).abs() < 1e-6, "{key}: {score}");
    }
    let eval = "eval --model sft/final --data questions.jsonl --max-new-tokens 30 --temperature 0.01 --judge-program";
    let mut eval: Vec<&str> = eval.split_whitespace().collect();
    eval.push("sh compare.sh");
    assert_eq!(temper.run_of(&eval).ok().rows()[0]["score"], 0.8);

    // Without a reference answer, the program ends.
    temper.write("alone.jsonl", questions(true).replace("answer", "reply"));
    ppo("alone.jsonl", "--out alone").failed(&["`sh compare.sh` ended (exit status: 7)"]);
    // Other reference answers give other scores.
    temper.write("questions.jsonl", questions(false));
    ppo("questions.jsonl", "--eval-data questions.jsonl --set eval_every=1 --out out --resume")
        .failed(&["the other columns of --"]);
}

#[test]
fn an_answer_that_does_not_end_is_scored_without_an_end() {
    let temper = with_a_policy_that_speaks();
    temper.copy("reward/final", "other");
    // Without an end token in the template, `temper score` reads the text as far as it goes.
    let template = |end: bool| {
        let completion = if end {
            serde_json::json!(["<completion>", "<eos>"])
        } else {
            serde_json::json!(["<completion>"])
        };
        serde_json::json!({"name": "qa", "prompt": ["<bos>", {"text": "Q: "}, "<prompt>"], "completion": completion})
    };
    temper.write("other/template.json", template(true).to_string());
    temper
        .run(
            "ppo --policy sft/final --prompts prompts.jsonl --set rollout.max_new_tokens=3 --set batch_size=5 \
             --set rollout.temperature=0.01 --set max_steps=1 --set rollout.missing_eos=keep \
             --set critic.kind=value_head --reward other --out out",
        )
        .ok();
    temper.write("other/template.json", template(false).to_string());
    let cut: String = crate::util::DEMONSTRATIONS
        .lines()
        .map(|line| {
            let mut row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            row["completion"] = row["completion"].as_str().expect("a text")[..3].into();
            format!("{row}\n")
        })
        .collect();
    temper.write("cut.jsonl", cut);
    let expected = temper.run("score --model other --data cut.jsonl").ok().rows();
    let expected = expected.iter().map(|row| row["score"].as_f64().expect("a score")).sum::<f64>() / 5.0;
    let found = scores(&temper, "out")[0];
    assert!((found - expected).abs() < 1e-4, "{found}, expected {expected}");
}
