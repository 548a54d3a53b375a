//! The whole of `draw`, on directories as a pipeline, an interruption or a single stage leaves them.

use std::fs;
use std::path::Path;

use temper_report::{Error, draw};

const SUMMARY: &str = r#"{"recipe":"courtesy","backend":"flex","seed":0,"threads":2,
 "sft":{"loss_first":4.1,"loss_last":0.4,"seconds":101.5,"tokens_per_second":21000},
 "judge":{"gold_sft":0.4,"gold_ppo":0.7,"win_rate":0.84,"win_rate_ci95":[0.79,0.88],"prompts":240},
 "seconds":310.2,"peak_rss_bytes":812000000}"#;

const SAMPLE: &str = r#"{"prompt":"2 + 2? <script>alert('x')</script>\u0007","sft":"5","ppo":"It is 4. & bye","score_sft":-0.5,"score_ppo":1.5,"gold_sft":0,"gold_ppo":1}"#;

const PPO_KEYS: [&str; 13] = [
    "objective/scores",
    "objective/kl",
    "objective/kl_coef",
    "objective/rlhf_reward",
    "policy/approxkl_avg",
    "policy/clipfrac_avg",
    "policy/entropy_avg",
    "loss/value_avg",
    "val/explained_var",
    "response/eos_rate",
    "response_length/mean",
    "lr",
    "an/unknown_key",
];

fn put(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("the folder can be made");
    fs::write(path, text).expect("the file can be written");
}

fn lines(steps: usize, keys: &[&str], value: impl Fn(usize) -> String) -> String {
    let row = |step| {
        let values: String = keys.iter().map(|key| format!(",\"{key}\":{}", value(step))).collect();
        format!("{{\"step\":{step}{values}}}\n")
    };
    (1..=steps).map(row).collect()
}

fn full(dir: &Path) {
    let falling = |step: usize| format!("{}", 1.0 / step as f64);
    put(dir, "summary.json", SUMMARY);
    put(dir, "samples.jsonl", SAMPLE);
    put(dir, "machine.json", r#"{"cpu":"a <fast> one","threads":2}"#);
    put(dir, "sft/config.toml", "epochs = 3 # <3\n");
    put(
        dir,
        "sft/metrics.jsonl",
        &lines(60, &["loss", "mean_token_accuracy", "learning_rate", "eval_loss"], falling),
    );
    put(dir, "reward/metrics.jsonl", &lines(60, &["loss", "accuracy", "margin"], falling));
    put(dir, "ppo/metrics.jsonl", &lines(60, &PPO_KEYS, falling));
}

fn names(written: &[std::path::PathBuf]) -> Vec<String> {
    written
        .iter()
        .map(|path| path.file_name().expect("files have names").to_string_lossy().into_owned())
        .collect()
}

#[test]
fn a_full_directory_gives_all_files() {
    let dir = tempfile::tempdir().unwrap();
    full(dir.path());
    let written = draw(dir.path()).unwrap();
    assert_eq!(names(&written), ["curves-sft.svg", "curves-reward.svg", "curves-ppo.svg", "report.html"]);
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    // Every panel, the one metric that no panel knows, and the picture of score against KL.
    assert_eq!(page.matches("<svg").count(), 3 + 3 + 12 + 1 + 1);
    let order = [
        "class=\"verdict\"",
        "class=\"figures\"",
        "id=\"answers\"",
        "id=\"sft\"",
        "id=\"reward\"",
        "id=\"ppo\"",
        "1 other metrics that moved",
        "id=\"frontier\"",
        "id=\"settings\"",
        "id=\"machine\"",
        "id=\"timings\"",
    ];
    let places: Vec<_> = order.iter().map(|part| page.find(part).expect(part)).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(
        !fs::read_dir(dir.path()).unwrap().any(|entry| entry
            .unwrap()
            .path()
            .extension()
            .is_some_and(|e| e == "partial"))
    );
}

#[test]
fn drawing_twice_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    full(dir.path());
    draw(dir.path()).unwrap();
    let first = fs::read(dir.path().join("report.html")).unwrap();
    draw(dir.path()).unwrap();
    assert_eq!(first, fs::read(dir.path().join("report.html")).unwrap());
}

#[test]
fn text_from_the_run_is_escaped() {
    let dir = tempfile::tempdir().unwrap();
    full(dir.path());
    draw(dir.path()).unwrap();
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;␇"));
    assert!(
        page.contains("It is 4. &amp; bye")
            && page.contains("# &lt;3")
            && page.contains("a &lt;fast&gt; one")
    );
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    full(dir.path());
    for path in draw(dir.path()).unwrap() {
        let text = fs::read_to_string(&path).unwrap().replace("http://www.w3.org/2000/svg", "");
        for forbidden in ["http", "//", "src=", "href=", "url(", "@import", "NaN", "inf\""] {
            assert!(!text.contains(forbidden), "{} holds {forbidden}", path.display());
        }
    }
}

#[test]
fn an_interrupted_pipeline_gives_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "sft/metrics.jsonl", &lines(30, &["loss"], |step| format!("{}", 5.0 / step as f64)));
    put(dir.path(), "reward/metrics.jsonl", "");
    put(dir.path(), "ppo/config.toml", "epochs = 1\n");
    put(dir.path(), "pipeline.json", "{\"recipe\":\"courtesy\"}");
    put(dir.path(), "summary.json", "{\"recipe\":\"cour");
    assert_eq!(names(&draw(dir.path()).unwrap()), ["curves-sft.svg", "report.html"]);
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("has not reached its end") && page.contains("summary.json is not a JSON object"));
    assert_eq!(page.matches("No steps have been logged yet").count(), 2);
}

#[test]
fn odd_series_draw_without_panic() {
    let values: [&dyn Fn(usize) -> String; 9] = [
        &|_| "1.0".to_owned(),
        &|_| "0".to_owned(),
        &|_| "-0.0001".to_owned(),
        &|_| "null".to_owned(),
        &|_| "\"NaN\"".to_owned(),
        &|step| if step == 2 { "1e300".to_owned() } else { "-5e29".to_owned() },
        &|step| if step.is_multiple_of(2) { "1e29".to_owned() } else { "-1e29".to_owned() },
        &|step| format!("{}", 1e16 + 2.0 * step as f64),
        &|step| format!("{step}e-300"),
    ];
    for steps in [0, 1, 2, 50] {
        for (idx, value) in values.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path(), "summary.json", "{}");
            put(
                dir.path(),
                "sft/metrics.jsonl",
                &lines(steps, &["loss", "mean_token_accuracy", "learning_rate"], value),
            );
            put(dir.path(), "ppo/metrics.jsonl", &lines(steps, &PPO_KEYS, value));
            draw(dir.path()).unwrap_or_else(|error| panic!("series {idx}, {steps} steps: {error}"));
        }
    }
}

#[test]
fn a_run_that_stops_in_the_middle_of_a_line_draws_the_lines_before_it() {
    let dir = tempfile::tempdir().unwrap();
    put(
        dir.path(),
        "metrics.jsonl",
        "{\"step\":1,\"loss\":2.0,\"accuracy\":0.5}\n{\"step\":2,\"loss\":1.0,\"accuracy\":1.0}\n{\"step\":3,\"lo",
    );
    assert_eq!(names(&draw(dir.path()).unwrap()), ["curves-reward.svg", "report.html"]);
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(
        page.contains("of its training pairs correctly; there was no held-out data")
            && !page.contains("left out")
    );
}

#[test]
fn a_directory_with_nothing_to_draw_is_named() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "metrics.jsonl", "");
    let error = draw(dir.path()).unwrap_err();
    assert!(matches!(error, Error::NothingToDraw { .. }));
    assert!(error.to_string().contains(&dir.path().display().to_string()));
    let missing = dir.path().join("missing");
    assert!(draw(&missing).unwrap_err().to_string().contains("missing"));
}

#[test]
fn tens_of_thousands_of_steps_stay_a_small_page() {
    let dir = tempfile::tempdir().unwrap();
    put(
        dir.path(),
        "metrics.jsonl",
        &lines(40_000, &["loss"], |step| format!("{}", (step * 7919 % 1000) as f64)),
    );
    draw(dir.path()).unwrap();
    assert!(fs::metadata(dir.path().join("report.html")).unwrap().len() < 100_000);
}

#[test]
fn stages_without_a_pipeline_are_finished_when_they_have_their_final_models() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "sft/metrics.jsonl", &lines(30, &["loss"], |step| format!("{}", 5.0 / step as f64)));
    put(dir.path(), "sft/final/config.json", "{}");
    put(
        dir.path(),
        "reward/metrics.jsonl",
        &lines(9, &["loss", "accuracy"], |step| format!("{}", 5.0 / step as f64)),
    );
    put(dir.path(), "reward/final/config.json", "{}");
    let page = || {
        draw(dir.path()).unwrap();
        fs::read_to_string(dir.path().join("report.html")).unwrap()
    };
    assert!(!page().contains("has not reached its end") && !page().contains("has not finished"));
    // A run of PPO is added, and has come to rollout 33 of 40.
    put(dir.path(), "ppo/config.toml", "epochs = 9\nmax_steps = 40\n");
    put(dir.path(), "ppo/metrics.jsonl", &lines(33, &["objective/scores"], |step| format!("{step}")));
    let unfinished = page();
    assert!(unfinished.contains("PPO has not finished: 33 of at most 40 rollouts."), "{unfinished}");
    assert!(!unfinished.contains("SFT has not finished") && !unfinished.contains("The pipeline"));
}

#[test]
fn a_run_directory_of_any_name_is_recognised_by_its_files() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "my first <sft>/metrics.jsonl", &lines(3, &["loss"], |step| format!("{step}")));
    put(dir.path(), "rm/metrics.jsonl", &lines(3, &["loss", "accuracy", "margin"], |step| format!("{step}")));
    put(dir.path(), "waiting/config.toml", "epochs = 1\n\n[rollout]\nmax_new_tokens = 8\n");
    put(dir.path(), "sft/metrics.jsonl", &lines(3, &["loss"], |step| format!("{step}")));
    put(dir.path(), "foreign/metrics.jsonl", "{\"step\":1,\"bleu\":0.5}\n");
    put(dir.path(), "data/demonstrations.jsonl", "{}\n");
    let written = draw(dir.path()).unwrap();
    assert_eq!(
        names(&written),
        ["curves-sft.svg", "curves-my_first__sft_.svg", "curves-rm.svg", "report.html"]
    );
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    for part in [
        "SFT: imitate demonstrations</h2>",
        "SFT: imitate demonstrations (my first &lt;sft&gt;)</h2>",
        "Reward model: learn what people prefer (rm)</h2>",
        "PPO: write what the reward model prefers (waiting)</h2>",
        "<code>waiting/config.toml</code>",
        "Note: foreign has a metrics.jsonl, but its metrics belong to no stage of Temper",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    // A second report is drawn over the first one, and its pictures are not taken for runs.
    assert_eq!(draw(dir.path()).unwrap(), written);
}

#[test]
fn a_run_directory_with_another_run_inside_shows_both() {
    let dir = tempfile::tempdir().unwrap();
    let outer = dir.path().join("outer");
    put(&outer, "metrics.jsonl", &lines(3, &["loss"], |step| format!("{step}")));
    put(&outer, "sft/metrics.jsonl", &lines(3, &["loss"], |step| format!("{step}")));
    assert_eq!(names(&draw(&outer).unwrap()), ["curves-sft.svg", "curves-outer.svg", "report.html"]);
}

#[test]
fn the_evaluation_of_a_reward_model_is_on_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = "{\"step\":1,\"loss\":0.7,\"accuracy\":0.5}\n{\"step\":1,\"eval_accuracy\":0.75}\n";
    put(dir.path(), "metrics.jsonl", metrics);
    put(
        dir.path(),
        "evaluation.json",
        r#"{"eval_accuracy":0.75,"eval_pairs":4,"eval_longer_wins":0.5,
            "eval_by_length_order":[{"chosen":"shorter","pairs":4,"accuracy":0.75}]}"#,
    );
    let page = || {
        draw(dir.path()).unwrap();
        fs::read_to_string(dir.path().join("report.html")).unwrap().replace('\u{a0}', " ")
    };
    let with = page();
    assert!(with.contains("the longer answer wins 50.0 % of them"), "{with}");
    assert!(with.contains("would be right in 50 %") && with.contains("shorter than the rejected one"));
    put(dir.path(), "evaluation.json", "{\"win_rate\":0.5}");
    assert!(page().contains("Note: The evaluation.json of"));
}
