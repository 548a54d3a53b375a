//! Reports: whatever a run directory holds is drawn, or named in an error.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;
use temper_report::draw;

use crate::damage::{damaged, damages};
use crate::tiny::cases;

const FILES: [(&str, &str); 6] = [
    (
        "summary.json",
        r#"{"recipe":"courtesy","backend":"flex","seed":0,"threads":2,"sft":{"loss_first":4.1,"loss_last":0.4,
            "seconds":101.5,"tokens_per_second":21000},"ppo":{"score_first":-0.5,"score_last":1.25},
            "judge":{"gold_sft":0.4,"gold_ppo":0.7,"win_rate":0.84,"win_rate_ci95":[0.79,0.88],"prompts":240},
            "seconds":310.2,"peak_rss_bytes":812000000}"#,
    ),
    (
        "samples.jsonl",
        "{\"prompt\":\"2 + 2?\",\"sft\":\"5\",\"ppo\":\"4\",\
         \"score_sft\":-0.5,\"score_ppo\":1.5,\"gold_sft\":0,\"gold_ppo\":1}\n",
    ),
    ("machine.json", r#"{"cpu":"fast","threads":2}"#),
    (
        "sft/metrics.jsonl",
        "{\"step\":1,\"loss\":4.5,\"mean_token_accuracy\":0.1,\"learning_rate\":1e-3}\n\
         {\"step\":2,\"loss\":3.25,\"eval_loss\":3.5}\n{\"step\":3,\"loss\":2.5}\n",
    ),
    (
        "ppo/metrics.jsonl",
        "{\"step\":1,\"objective/scores\":0.5,\"objective/kl\":0.0,\"val/explained_var\":-3.5}\n\
         {\"step\":2,\"objective/scores\":0.75,\"objective/kl\":0.25,\"val/explained_var\":0.5}\n",
    ),
    ("sft/config.toml", "epochs = 3\n[schedule]\nkind = \"cosine\"\n"),
];

fn lay_out(dir: &Path, changed: &str, change: impl FnOnce(&[u8]) -> Vec<u8>) {
    for stage in ["sft", "ppo"] {
        fs::create_dir(dir.join(stage)).unwrap();
    }
    for (name, text) in FILES {
        fs::write(dir.join(name), text).unwrap();
    }
    let path = dir.join(changed);
    let bytes = fs::read(&path).unwrap();
    fs::write(path, change(&bytes)).unwrap();
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(FILES.map(|(name, _)| name).to_vec())
}

/// A step and a value as people never log them.
fn numbers() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(0.0),
        (-5i32..5).prop_map(f64::from),
        (-300i32..308, -10.0..10.0).prop_map(|(power, x)| x * 10f64.powi(power)),
        prop::sample::select(vec![
            1e29,
            -1e29,
            1e30,
            f64::MAX,
            f64::MIN_POSITIVE,
            9e15,
            9_007_199_254_740_993.0
        ]),
    ]
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn any_bytes_in_any_file_are_drawn_around(name in names(), bytes: Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        lay_out(dir.path(), name, |_| bytes);
        draw(dir.path()).unwrap();
    }

    #[test]
    fn damaged_files_are_drawn_around(name in names(), damages in damages()) {
        let dir = tempfile::tempdir().unwrap();
        lay_out(dir.path(), name, |bytes| damaged(bytes, &damages));
        draw(dir.path()).unwrap();
    }

    #[test]
    fn any_numbers_are_drawn(rows in prop::collection::vec((numbers(), numbers(), numbers()), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let line = |(step, loss, share): &(f64, f64, f64)| {
            let row = json!({"step": step, "loss": loss, "mean_token_accuracy": share, "eval_loss": loss});
            format!("{row}\n")
        };
        let text: String = rows.iter().map(line).collect();
        lay_out(dir.path(), "sft/metrics.jsonl", |_| text.into_bytes());
        draw(dir.path()).unwrap();
        let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
        prop_assert!(!page.contains("NaN") && !page.contains("inf\""), "an axis without numbers");
    }

    #[test]
    fn any_summary_is_reported(numbers in prop::collection::vec(numbers(), 10)) {
        let summary = json!({
            "sft": {"loss_first": numbers[0], "loss_last": numbers[1], "seconds": numbers[2]},
            "ppo": {"score_first": numbers[3], "score_last": numbers[4], "tokens_per_second": numbers[5]},
            "judge": {"win_rate": numbers[6], "win_rate_ci95": [numbers[7], numbers[0]], "prompts": numbers[8]},
            "seconds": numbers[9], "peak_rss_bytes": numbers[2],
        });
        let dir = tempfile::tempdir().unwrap();
        lay_out(dir.path(), "summary.json", |_| summary.to_string().into_bytes());
        draw(dir.path()).unwrap();
    }
}
