//! What PPO samples, how long it may be, and what is kept of a run whose scorer fails.

use std::collections::BTreeSet;

use burn::tensor::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use temper_model::{CausalLm, ModelConfig};

use crate::util::{Said, Temper, without_times};

const PPO: &str = "ppo --policy sft/final --prompts prompts.jsonl --set batch_size=3 --set critic.kind=value_head \
                   --set rollout.max_new_tokens=6";
/// Scores an answer by its length; dies at the answer whose number is in the file `die`, if there is one.
const LENGTHS: &str = "n=0\nwhile read -r line; do\n  n=$((n+1))\n  \
                       [ -e die ] && [ $n -gt $(cat die) ] && exit 3\n  echo ${#line}\ndone\n";

/// PPO with the program in `score.sh` and more arguments.
fn run(temper: &Temper, more: &str) -> Said {
    let words = PPO.split_whitespace().chain(more.split_whitespace());
    temper.run_of(&words.chain(["--reward-program", "sh score.sh"]).collect::<Vec<_>>())
}

fn with_program(program: &str) -> Temper {
    let temper = Temper::with_sft();
    temper.write("score.sh", program);
    temper
}

/// A model of another shape with fresh weights, next to the tokenizer and the template of `sft/final`.
fn other_model(temper: &Temper, name: &str, change: impl FnOnce(&mut ModelConfig)) {
    temper.copy("sft/final", name);
    let mut config = ModelConfig::preset("gpt2-tiny").expect("a preset");
    change(&mut config);
    let model = CausalLm::new(&config, &mut ChaCha8Rng::seed_from_u64(1), &Device::flex());
    model.save(&temper.path(name), 3).expect("a directory to write into");
}

fn metrics(temper: &Temper, out: &str) -> Vec<Value> {
    without_times(&temper.read(&format!("{out}/metrics.jsonl")))
}

/// The context of the reward model is shorter than the policy's, and prompt plus answer have to fit into it.
#[test]
fn a_long_prompt_leaves_room_for_a_whole_answer_in_every_model() {
    let temper = Temper::with_sft();
    other_model(&temper, "short", |config| config.max_seq_len = 40);
    temper
        .run("reward --data comparisons.jsonl --model short --out reward --set overflow=truncate_prompt")
        .ok();
    let long = "a".repeat(60);
    temper.write("prompts.jsonl", format!("{{\"prompt\": \"hi\"}}\n{{\"prompt\": \"{long}\"}}\n"));
    let ppo = "ppo --policy sft/final --reward reward/final --prompts prompts.jsonl --set batch_size=2 \
               --set rollout.max_new_tokens=20";
    temper.refuses(&format!("{ppo} --out out"), &["`max_seq_len` is 128, the model's context has 40 tokens"]);
    for (overflow, says) in [("drop", "left out"), ("truncate_prompt", "cut the prompt on the left in")] {
        let settings =
            format!("--set max_seq_len=40 --set overflow={overflow} --set rollout.missing_eos=keep");
        let said = temper.run(&format!("{ppo} --out {overflow} {settings}")).ok();
        let says = format!("note: {says} 1 of 2 rows of prompts.jsonl (training data)");
        assert!(said.stderr.contains(&says), "{said:?}");
        // An untrained model ends an answer at one of 260 tokens; without room most would have one token.
        let row = &metrics(&temper, overflow)[0];
        assert!(row["response_length/mean"].as_f64().unwrap() > 10.0, "{row}");
    }
    temper.refuses(
        &format!("{ppo} --out no --set max_seq_len=20"),
        &["`rollout.max_new_tokens` must be at most 19, got 20"],
    );
    temper.refuses(
        &format!("{ppo} --out no --set max_seq_len=40 --set max_prompt_len=21"),
        &["`max_prompt_len` must be at most 20, got 21"],
    );
}

/// GPT-2s are often padded to a multiple of 64 rows. A reward model without these rows has no score for them.
#[test]
fn ids_that_the_tokenizer_does_not_have_are_never_sampled() {
    let temper = Temper::with_reward_model();
    other_model(&temper, "padded", |config| config.vocab_size = 320);
    let said = temper.run("generate --model padded --prompt hi --json --max-new-tokens 60").ok();
    let tokens: BTreeSet<u64> =
        said.rows()[0]["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    assert!(tokens.len() > 20 && tokens.iter().all(|id| *id < 260), "{tokens:?}");
    let ppo = "ppo --policy padded --reward reward/final --prompts prompts.jsonl --set batch_size=3 \
               --set rollout.max_new_tokens=24";
    temper.run(&format!("{ppo} --out ppo")).ok();
    let row = &metrics(&temper, "ppo")[0];
    // Sampling, reference and update have one distribution.
    assert_eq!(row["objective/kl"].as_f64(), Some(0.0), "{row}");
    assert!(row["val/sampler_error"].as_f64().unwrap() < 1e-4, "{row}");
}

#[test]
fn a_stop_token_ends_an_answer_and_must_be_one_token() {
    let temper = with_program(LENGTHS);
    let all: Vec<String> = (32..127).map(|byte| char::from(byte).to_string()).collect();
    // A model that has learned nothing says every byte; one of them comes soon.
    let stop = |more: &str| run(&temper, &format!("--out out {more}"));
    stop("--set rollout.stop_token=ab").refused(&["`rollout.stop_token` is \"ab\"", "2 tokens"]);
    assert!(!temper.path("out").exists());
    let ended = all.iter().filter(|byte| byte.chars().all(char::is_alphanumeric)).any(|byte| {
        let out = format!("stop-{}", byte.bytes().next().unwrap());
        let settings = format!("--set rollout.stop_token=\"{byte}\" --set rollout.missing_eos=replace");
        let settings = format!("{settings} --set rollout.missing_eos_value=-5 --set max_steps=1");
        run(&temper, &format!("--out {out} {settings} --set rollout.max_new_tokens=40")).ok();
        metrics(&temper, &out)[0]["val/num_eos_tokens"].as_u64().unwrap() > 0
    });
    assert!(ended, "no answer ended at any letter or digit");
}

#[test]
fn scores_are_logged_after_the_rule_for_missing_ends_and_raw_under_a_name_of_their_own() {
    let temper = with_program("while read -r line; do echo 2; done\n");
    // One token is hardly ever an end.
    run(&temper, "--out out --set rollout.max_new_tokens=1 --set rollout.missing_eos_value=5").ok();
    let row = &metrics(&temper, "out")[0];
    let of = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} in {row}"));
    assert_eq!((of("objective/raw_scores"), of("val/num_eos_tokens")), (2.0, 0.0));
    assert_eq!(of("objective/scores"), -3.0);
    let sum = of("objective/scores") + of("objective/non_score_reward");
    assert!((sum - of("objective/rlhf_reward")).abs() < 1e-6, "{row}");
}

/// The program dies in an evaluation: after step 2 of 3, and after the last one.
#[test]
fn a_scorer_that_fails_in_an_evaluation_leaves_a_checkpoint() {
    let temper = with_program(LENGTHS);
    let settings = "--eval-data prompts.jsonl --set eval_every=2 --set epochs=3 --set samples=0";
    run(&temper, &format!("--out whole {settings}")).ok();
    // Three answers in each rollout and in each evaluation.
    for (out, answers, step) in [("second", 7, 2), ("last", 13, 3)] {
        temper.write("die", answers.to_string());
        run(&temper, &format!("--out {out} {settings}")).failed(&["exit status: 3"]);
        assert!(temper.path(&format!("{out}/checkpoints/step-00000{step}")).is_dir(), "{out}");
        std::fs::remove_file(temper.path("die")).unwrap();
        run(&temper, &format!("--out {out} {settings} --resume")).ok();
        assert_eq!(metrics(&temper, out), metrics(&temper, "whole"), "{out}");
        for dir in ["final", "best"] {
            let files = |out: &str| temper.snapshot(&format!("{out}/{dir}"));
            assert!(files(out) == files("whole"), "{out}/{dir} differs from that of the whole run");
        }
    }
}

#[test]
fn a_score_out_of_range_ends_the_run_with_a_checkpoint() {
    let temper =
        with_program("n=0\nwhile read -r line; do n=$((n+1)); [ $n -gt 6 ] && echo 1e38 || echo 1; done\n");
    let said = run(&temper, "--out out --set epochs=3");
    let said = said.failed(&["step 3", "the score 1e38, which is not between -1e9 and 1e9"]);
    assert!(said.hint().contains("--resume"), "{said:?}");
    assert!(temper.path("out/checkpoints/step-000002").is_dir());
}

#[test]
fn the_best_policy_is_the_judges_where_there_is_one() {
    let temper = Temper::with_reward_model();
    temper.write("score.sh", LENGTHS);
    let best = |more: &str, out: &str| {
        run(&temper, &format!("--out {out} --set epochs=2 --set checkpoint_every=1 {more}")).ok();
        temper.json(&format!("{out}/best/training/best.json"))["metric"].as_str().unwrap().to_owned()
    };
    assert_eq!(best("", "alone"), "objective/scores");
    assert_eq!(best("--gold reward/final", "gold"), "objective/gold");
    assert_eq!(best("--gold reward/final --eval-data prompts.jsonl", "evaluated"), "eval/gold");
    let rows = metrics(&temper, "evaluated");
    let evaluation = rows.last().unwrap();
    assert!(evaluation["eval/gold"].is_f64() && evaluation["eval/raw_scores"].is_f64(), "{evaluation}");
}
