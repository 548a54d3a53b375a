//! The frontier of a run in its report, and of several runs in one picture.

use std::fs;
use std::path::{Path, PathBuf};

use temper_report::{Error, compare, draw};

/// A run of 100 rollouts whose KL grows to 4 and whose judge, where there is one, turns at √KL = 1.
fn run(dir: &Path, name: &str, judged: bool) -> PathBuf {
    let dir = dir.join(name);
    fs::create_dir_all(&dir).expect("the folder can be made");
    let line = |step: i32| {
        let kl = f64::from(step) / 25.0;
        let root = kl.sqrt();
        let gold =
            if judged { format!(",\"objective/gold\":{}", root * (2.0 - root)) } else { String::new() };
        format!("{{\"step\":{step},\"objective/kl\":{kl},\"objective/scores\":{root}{gold}}}\n")
    };
    fs::write(dir.join("metrics.jsonl"), (1..=100).map(line).collect::<String>())
        .expect("the file can be written");
    dir
}

fn page(written: &[PathBuf]) -> String {
    let html =
        written.iter().find(|path| path.extension().is_some_and(|e| e == "html")).expect("a page is written");
    fs::read_to_string(html).expect("the page can be read")
}

#[test]
fn the_report_of_a_judged_run_marks_where_its_judge_turns() {
    let dir = tempfile::tempdir().unwrap();
    let page = page(&draw(&run(dir.path(), "judged", true)).unwrap());
    let section = page.split("id=\"frontier\"").nth(1).unwrap();
    // √KL = 1 is step 25; the means around it are a little lower than the 1 of the curve.
    assert!(section.contains("over-optimisation"), "{section}");
    let mark = section.split("highest: ").nth(1).unwrap();
    let (value, rest) = mark.split_once(" at √KL ").unwrap();
    let (root, step) = rest.split_once(", step ").unwrap();
    let step: f64 = step.split_whitespace().next().unwrap().parse().unwrap();
    assert!((value.parse::<f64>().unwrap() - 1.0).abs() < 0.01, "{value}");
    assert!((root.parse::<f64>().unwrap() - 1.0).abs() < 0.05 && (step - 25.0).abs() < 3.0, "{root}, {step}");
    assert!(
        section.contains("Score of the independent judge")
            && section.contains("Score that the policy learns")
    );
}

#[test]
fn the_report_of_a_run_without_a_judge_has_the_score_alone() {
    let dir = tempfile::tempdir().unwrap();
    let page = page(&draw(&run(dir.path(), "alone", false)).unwrap());
    let section = page.split("id=\"frontier\"").nth(1).unwrap();
    assert!(!section.contains("Score of the independent judge") && !section.contains("highest"), "{section}");
    assert!(section.contains("no independent") || section.contains("none scored these answers"), "{section}");
}

#[test]
fn a_run_without_a_critic_leaves_no_empty_panel() {
    let dir = tempfile::tempdir().unwrap();
    let dir = run(dir.path(), "rloo", false);
    let keys = "\"policy/clipfrac_avg\":0.1,\"loss/value_avg\":null,\"rloo/new_key\"";
    let lines = (1..=9).map(|step| format!("{{\"step\":{step},\"objective/scores\":1,{keys}:{step}}}\n"));
    fs::write(dir.join("metrics.jsonl"), lines.collect::<String>()).unwrap();
    fs::write(dir.join("config.toml"), "epochs = 1\n\n[advantage]\nkind = \"rloo\"\n").unwrap();
    let page = page(&draw(&dir).unwrap());
    // Score, clipped ratios, and under its own name what no panel knows.
    assert_eq!(page.matches("<svg").count(), 3, "{page}");
    assert!(
        page.contains("rloo/new_key") && !page.contains("Explained variance") && !page.contains("Value loss")
    );
    assert!(page.contains("<h1>RLOO: rloo</h1>") && !page.contains("id=\"frontier\""));
}

#[test]
fn a_run_of_dpo_has_its_own_panels() {
    let dir = tempfile::tempdir().unwrap();
    let keys =
        ["rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected", "logps/chosen"];
    let values = |step: i32| keys.map(|key| format!(",\"{key}\":{}", f64::from(step) / 10.0)).concat();
    let lines = (1..=9).map(|step| format!("{{\"step\":{step},\"loss\":0.6{}}}\n", values(step)));
    fs::write(dir.path().join("metrics.jsonl"), lines.collect::<String>()).unwrap();
    let written = draw(dir.path()).unwrap();
    assert!(written[0].ends_with("curves-dpo.svg"), "{written:?}");
    let page = page(&written);
    assert_eq!(page.matches("<svg").count(), 6);
    let claim = "DPO: The policy prefers the chosen answer in 90.0\u{a0}% of its training pairs";
    assert!(page.contains(claim) && page.contains("Implied reward, rejected"));
}

#[test]
fn several_runs_and_points_share_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    let runs =
        [run(dir.path(), "ppo", true), run(dir.path(), "r<oo", true), run(dir.path(), "unjudged", false)];
    let points = dir.path().join("points.json");
    let text = r#"[{"label":"best of n","kl":0.25,"gold":0.625,"note":"n = 4"},
        {"label":"best of n","kl":-0.1,"gold":0.125,"score":7.5},{"label":"DPO","kl":2,"gold":0.375}]"#;
    fs::write(&points, text).unwrap();
    let written = compare(&runs, Some(&points), &dir.path().join("all.html")).unwrap();
    assert_eq!(written, [dir.path().join("all.html"), dir.path().join("all.svg")]);
    let (page, picture) = (page(&written), fs::read_to_string(&written[1]).unwrap());
    for text in [&page, &picture] {
        for label in ["ppo", "r&lt;oo", "unjudged", "best of n", "DPO", "n = 4"] {
            assert!(text.contains(label), "{label}");
        }
        assert!(!text.contains("r<oo") && !text.contains("NaN"));
        let inside = text.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http", "src=", "href=", "url(", "<script"] {
            assert!(!inside.contains(outside), "{outside}");
        }
    }
    // The curve itself at √KL = 1.97, as far as both judged runs come: 1.97 · 0.03 = 0.059 at KL 3.9 and about.
    let at_shared =
        page.split("Gold at KL ").nth(1).unwrap().split('<').next().unwrap().parse::<f64>().unwrap();
    assert!((3.7..=4.0).contains(&at_shared), "{at_shared}");
    let row = page.split("<th scope=\"row\">ppo</th>").nth(1).unwrap().split("</tr>").next().unwrap();
    let last: f64 =
        row.rsplit("<td class=\"n\">").next().unwrap().split('<').next().unwrap().parse().unwrap();
    let expected = at_shared.sqrt() * (2.0 - at_shared.sqrt());
    assert!((last - expected).abs() < 0.01, "{last}, expected {expected}");
    assert!(page.contains("7.50") && page.contains("DPO</th>"));
}

#[test]
fn what_cannot_be_compared_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (out, good) = (dir.path().join("out.html"), run(dir.path(), "good", true));
    let sft = dir.path().join("sft");
    fs::create_dir(&sft).unwrap();
    fs::write(sft.join("metrics.jsonl"), "{\"step\":1,\"loss\":1}\n").unwrap();
    let refused = |runs: &[PathBuf], points: Option<&Path>| compare(runs, points, &out).unwrap_err();
    let error = refused(&[good.clone(), sft.clone()], None);
    assert!(matches!(&error, Error::NoFrontier { dir } if *dir == sft), "{error}");
    let error = refused(&[dir.path().join("missing")], None);
    assert!(matches!(error, Error::NotADirectory { .. }), "{error}");
    let error = refused(&vec![good.clone(); 9], None);
    assert!(matches!(error, Error::TooManySeries { n: 9, most: 8 }), "{error}");
    let points = dir.path().join("points.json");
    for (text, part) in [
        ("[{\"label\":\"a\",\"kl\":1}]", "neither `gold` nor `score`"),
        ("[{\"label\":\"a\",\"kl\":1e300,\"gold\":1}]", "1e300 is not a result"),
        ("[{\"label\":\"a\",\"kl\":1,\"golt\":1}]", "golt"),
        ("{\"label\":\"a\"", "line 1"),
    ] {
        fs::write(&points, text).unwrap();
        let error = refused(std::slice::from_ref(&good), Some(&points)).to_string();
        assert!(error.contains("points.json") && error.contains(part), "{error}");
    }
    assert!(!out.exists());
}

#[test]
fn a_run_of_two_rollouts_or_of_one_kl_draws() {
    let dir = tempfile::tempdir().unwrap();
    for (name, kls) in [("two", vec![0.0, 0.1]), ("still", vec![0.0; 30]), ("below", vec![-1e-9; 30])] {
        let run = dir.path().join(name);
        fs::create_dir(&run).unwrap();
        let line = |(i, kl): (usize, &f64)| {
            format!(
                "{{\"step\":{},\"objective/kl\":{kl},\"objective/scores\":0,\"objective/gold\":0.5}}\n",
                i + 1
            )
        };
        fs::write(run.join("metrics.jsonl"), kls.iter().enumerate().map(line).collect::<String>()).unwrap();
        let page = page(&draw(&run).unwrap());
        assert!(page.contains("id=\"frontier\"") && !page.contains("NaN"), "{name}");
    }
}
