//! Run directories that somebody else has prepared, and files of the user's own in the way.

use std::fs;
use std::path::{Path, PathBuf};

use temper_report::{Error, compare, draw};

const METRICS: &str = "{\"step\":1,\"loss\":1}\n{\"step\":2,\"loss\":2}\n";

fn sft_run(dir: &Path) {
    fs::write(dir.join("metrics.jsonl"), METRICS).expect("the file can be written");
}

/// A run that can be compared, its metric names and its inputs as given.
fn ppo_run(dir: &Path, name: &str, gold: &str) -> PathBuf {
    let run = dir.join(name);
    fs::create_dir_all(&run).expect("the folder can be made");
    let line = |step: usize| {
        format!("{{\"step\":{step},\"objective/kl\":{step},\"objective/scores\":1,\"objective/gold\":0.5}}\n")
    };
    fs::write(run.join("metrics.jsonl"), (1..4).map(line).collect::<String>()).expect("it can be written");
    let inputs = format!("{{\"given\":{{\"--gold\":\"{gold}\",\"--reward\":\"files\"}},\"machine\":{{}}}}");
    fs::write(run.join("inputs.json"), inputs).expect("it can be written");
    run
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn links_at_names_that_the_report_might_use_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (run, victim) = (dir.path().join("run"), dir.path().join("victim.txt"));
        fs::create_dir(&run).unwrap();
        sft_run(&run);
        fs::write(&victim, "precious").unwrap();
        for name in ["report.partial", "curves-sft.partial", "report.html", "curves-sft.svg"] {
            symlink(&victim, run.join(name)).unwrap();
        }
        draw(&run).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert!(fs::read_to_string(run.join("report.html")).unwrap().starts_with("<!doctype html>"));
        assert!(!fs::symlink_metadata(run.join("report.html")).unwrap().is_symlink());
        // Whoever may read the directory may read the report, not its owner alone.
        assert_eq!(fs::metadata(run.join("report.html")).unwrap().permissions().mode() & 0o600, 0o600);
    }

    #[test]
    fn what_is_read_is_a_regular_file_and_nothing_else() {
        for name in ["metrics.jsonl", "summary.json", "config.toml", "samples.jsonl", "machine.json"] {
            for kind in ["fifo", "device", "link", "directory"] {
                let dir = tempfile::tempdir().unwrap();
                sft_run(dir.path());
                let path = dir.path().join(name);
                let _ = fs::remove_file(&path);
                match kind {
                    "fifo" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                    "device" => symlink("/dev/zero", &path).unwrap(),
                    "link" => {
                        fs::write(dir.path().join("private"), "{\"step\":1,\"loss\":1}\n").unwrap();
                        symlink("private", &path).unwrap();
                    }
                    _ => fs::create_dir(&path).unwrap(),
                }
                let (done, result) = mpsc::channel();
                let place = dir.path().to_path_buf();
                std::thread::spawn(move || done.send(draw(&place)));
                let result = result.recv_timeout(Duration::from_secs(20));
                let error = result.unwrap_or_else(|_| panic!("{name} as {kind} hangs")).unwrap_err();
                assert!(matches!(&error, Error::NotAFile { path: at, .. } if *at == path), "{error}");
                assert!(!dir.path().join("report.html").exists());
            }
        }
    }

    #[test]
    fn a_comparison_replaces_no_link_and_no_device() {
        let dir = tempfile::tempdir().unwrap();
        let run = ppo_run(dir.path(), "a", "courtesy");
        let link = dir.path().join("link.html");
        symlink("elsewhere.html", &link).unwrap();
        for out in [link, PathBuf::from("/dev/null")] {
            let error = compare(std::slice::from_ref(&run), None, &out).unwrap_err();
            assert!(matches!(&error, Error::Occupied { path, .. } if *path == out), "{error}");
        }
        assert!(!dir.path().join("elsewhere.html").exists() && !Path::new("/dev/null.svg").exists());
    }
}

#[test]
fn files_of_the_users_own_stay() {
    let dir = tempfile::tempdir().unwrap();
    sft_run(dir.path());
    fs::write(dir.path().join("report.partial"), "mine").unwrap();
    draw(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("report.partial")).unwrap(), "mine");
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["curves-sft.svg", "metrics.jsonl", "report.html", "report.partial"]);

    for (name, text) in [("report.html", "<h1>my notes</h1>"), ("curves-sft.svg", "<svg>mine</svg>")] {
        let old = fs::read(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name), text).unwrap();
        let error = draw(dir.path()).unwrap_err();
        assert!(error.to_string().contains(name) && error.to_string().contains("did not draw"), "{error}");
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), text);
        fs::write(dir.path().join(name), old).unwrap();
        draw(dir.path()).unwrap();
    }
}

#[test]
fn a_comparison_goes_exactly_where_it_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let runs = [ppo_run(dir.path(), "a", "courtesy")];
    let at = |name: &str| dir.path().join(name);
    fs::write(at("cmp.html"), "mine").unwrap();
    for (out, page, picture) in [
        ("cmp.v2", "cmp.v2", "cmp.v2.svg"),
        ("cmp.v3.html", "cmp.v3.html", "cmp.v3.svg"),
        ("plain", "plain", "plain.svg"),
        ("UPPER.HTML", "UPPER.HTML", "UPPER.svg"),
    ] {
        assert_eq!(compare(&runs, None, &at(out)).unwrap(), [at(page), at(picture)]);
        assert!(fs::read_to_string(at(page)).unwrap().starts_with("<!doctype html>"), "{out}");
        assert!(fs::read_to_string(at(picture)).unwrap().starts_with("<svg"), "{out}");
        // An older comparison is replaced.
        compare(&runs, None, &at(out)).unwrap();
    }
    assert_eq!(fs::read_to_string(at("cmp.html")).unwrap(), "mine");
    let refused = |out: &Path| compare(&runs, None, out).unwrap_err();
    assert!(matches!(refused(&at("cmp.html")), Error::Occupied { .. }));
    assert!(matches!(refused(&at("a")), Error::Occupied { kind: "a directory", .. }));
    assert!(matches!(refused(dir.path()), Error::Occupied { kind: "a directory", .. }));
    assert!(matches!(refused(&at("picture.svg")), Error::BadOut { .. }));
    assert!(matches!(refused(Path::new("..")), Error::Occupied { .. } | Error::BadOut { .. }));
    assert!(matches!(refused(&at("missing/cmp.html")), Error::Write { .. }));
    // Only the picture is in the way.
    fs::write(at("half.svg"), "mine").unwrap();
    assert!(matches!(refused(&at("half.html")), Error::Occupied { .. }));
    assert!(!at("half.html").exists() && fs::read_to_string(at("half.svg")).unwrap() == "mine");
}

/// Fails unless `text` is well-formed XML as far as this crate writes it: allowed characters, known entities, quoted
/// attributes, and elements that are closed in their order.
fn parse_xml(text: &str) {
    for c in text.chars() {
        let allowed =
            matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        assert!(allowed, "XML has no U+{:04X}", c as u32);
    }
    let references = |text: &str| {
        for reference in text.split('&').skip(1) {
            let name = reference.split_once(';').map(|(name, _)| name);
            assert!(matches!(name, Some("amp" | "lt" | "gt" | "quot" | "apos" | "#39")), "&{reference}");
        }
    };
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text.trim();
    assert!(rest.starts_with('<'), "no root");
    while let Some(at) = rest.find('<') {
        references(&rest[..at]);
        assert!(!rest[..at].contains('>'), "a > outside of a tag: {}", &rest[..at]);
        let end = at + rest[at..].find('>').expect("a tag is closed");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name.trim()), "closed in another order");
            assert!(!open.is_empty() || rest.is_empty(), "something after the root: {rest}");
            continue;
        }
        let empty = tag.ends_with('/');
        let (name, attributes) =
            tag.trim_end_matches('/').split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
        let mut attributes = attributes.trim();
        while !attributes.is_empty() {
            let (key, value) =
                attributes.split_once("=\"").unwrap_or_else(|| panic!("an attribute in {tag}"));
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-:".contains(c);
            assert!(!key.is_empty() && key.chars().all(is_name), "`{key}` in {tag}");
            let (value, after) = value.split_once('"').unwrap_or_else(|| panic!("a quote in {tag}"));
            references(value);
            attributes = after.trim_start();
        }
        if !empty {
            open.push(name);
        }
    }
    assert!(open.is_empty() && rest.is_empty(), "{open:?} stay open");
}

/// Everything that a text may hold and a picture may not.
const NASTY: &str = "a\u{0}\u{1b}[31m\u{7}\u{202e}\u{2066}\u{fffe}\u{85}<b x='&\">";

#[test]
fn texts_in_pictures_are_visible_and_valid_xml() {
    let dir = tempfile::tempdir().unwrap();
    let points = dir.path().join("points.json");
    let point = serde_json::json!([{"label": NASTY, "kl": 1.0, "gold": 0.5, "note": NASTY}]);
    fs::write(&points, point.to_string()).unwrap();
    let runs = [ppo_run(dir.path(), "r<\u{1b}\u{202e}&", "courtesy")];
    let written = compare(&runs, Some(&points), &dir.path().join("all.html")).unwrap();

    let key = serde_json::to_string(NASTY).unwrap();
    let rows = format!("{{\"step\":1,\"loss\":1,{key}:1}}\n{{\"step\":2,\"loss\":2,{key}:3}}\n");
    let run = dir.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("metrics.jsonl"), rows).unwrap();
    let drawn = draw(&run).unwrap();

    for path in written.iter().chain(&drawn) {
        let text = fs::read_to_string(path).unwrap();
        for hidden in ['\0', '\u{1b}', '\u{7}', '\u{202e}', '\u{2066}', '\u{fffe}', '\u{85}'] {
            assert!(!text.contains(hidden), "{} holds U+{:04X}", path.display(), hidden as u32);
        }
        if path.extension().is_some_and(|ending| ending == "svg") {
            parse_xml(&text);
        }
    }
    let picture = fs::read_to_string(&written[1]).unwrap();
    assert!(picture.contains("a␀␛[31m␇"), "{picture}");
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.matches("a␀␛[31m␇").count() >= 2, "the label and the picture of the metric");
}

#[test]
fn scores_of_different_judges_are_called_so() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (ppo_run(dir.path(), "a", "courtesy"), ppo_run(dir.path(), "b", "rm/<final>"));
    let same = ppo_run(dir.path(), "c", "courtesy");
    let out = dir.path().join("all.html");
    let texts = |runs: &[PathBuf]| {
        compare(runs, None, &out)
            .unwrap()
            .iter()
            .map(|path| fs::read_to_string(path).unwrap())
            .collect::<Vec<_>>()
    };
    let mixed = texts(&[a.clone(), b]);
    for text in &mixed {
        assert!(text.contains("Score of the independent judge: courtesy"), "{text}");
        assert!(text.contains("Score of the independent judge: rm/&lt;final&gt;"), "{text}");
        assert!(!text.contains("Score that is learned from:"), "the reward models are the same");
    }
    assert!(mixed[0].contains("a: courtesy; b: rm/&lt;final&gt;"), "{}", mixed[0]);
    assert!(texts(&[a.clone(), same]).iter().all(|text| !text.contains("judge: courtesy")));
    // Other reward models, the same judge.
    let other = ppo_run(dir.path(), "d", "courtesy");
    let inputs = fs::read_to_string(other.join("inputs.json"))
        .unwrap()
        .replace("\"files\"", "\"files with checksum 1\"");
    fs::write(other.join("inputs.json"), inputs).unwrap();
    let mixed = texts(&[a, other]);
    assert!(mixed.iter().all(|text| text.contains("Score that is learned from: the model of d")
        && !text.contains("judge: courtesy")));
}

#[test]
fn every_error_has_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let run = ppo_run(dir.path(), "a", "courtesy");
    let out = dir.path().join("out.html");
    fs::write(dir.path().join("bad.json"), "[{}]").unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    let compared = |runs: &[PathBuf], points: Option<&str>, out: &Path| {
        compare(runs, points.map(|name| dir.path().join(name)).as_deref(), out).unwrap_err()
    };
    let runs = [run];
    for error in [
        draw(&dir.path().join("missing")).unwrap_err(),
        draw(&dir.path().join("empty")).unwrap_err(),
        compared(&runs, Some("bad.json"), &out),
        compared(&runs, Some("missing.json"), &out),
        compared(&runs, Some("empty"), &out),
        compared(&[dir.path().join("empty")], None, &out),
        compared(&vec![runs[0].clone(); 9], None, &out),
        compared(&runs, None, &dir.path().join("x.svg")),
        compared(&runs, None, &dir.path().join("missing/x.html")),
        compared(&runs, None, dir.path()),
    ] {
        assert!(!error.hint().is_empty() && !error.hint().contains('\n'), "{error}");
    }
}
