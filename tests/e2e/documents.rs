//! What the documents show is what the commands accept: every fenced block of every document is parsed, read or run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::util::{Temper, keys};

const TEMPLATES: &str = include_str!("../../docs/templates.md");
/// Programs that the shell blocks may call. Each is replaced by a script that only writes down its arguments.
const PROGRAMS: [&str; 10] = [
    "temper",
    "target/release/temper",
    "cargo",
    "git",
    "pip",
    "python",
    "mkdir",
    ".ci/run",
    "assets/from_scratch.sh",
    "assets/sweep.sh",
];
/// Between the arguments of a call that was written down.
const SEPARATOR: char = '\u{1f}';
/// Columns of the rows that the documents show, and of points in a picture.
const COLUMNS: [&str; 11] = [
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "completions",
    "ranking",
    "text",
    "label",
    "kl",
    "gold",
    "note",
];
const STAGES: [&str; 4] = ["sft", "reward", "dpo", "ppo"];

/// A fenced block of a document.
struct Block {
    /// `path:line`, for messages.
    place: String,
    language: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the workspace")
}

/// Every document with its path from the root: those in the root, in `docs`, and one for each crate.
fn documents() -> Vec<(PathBuf, String)> {
    let names = |folder: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
        entries.map(|entry| Path::new(folder).join(entry.expect("an entry").file_name())).collect()
    };
    let mut paths = names("");
    paths.extend(names("docs"));
    paths.extend(names("crates").into_iter().map(|path| path.join("README.md")));
    paths.retain(|path| path.extension().is_some_and(|end| end == "md") && root().join(path).is_file());
    paths.sort();
    assert!(paths.len() > 20, "{paths:?}");
    let read = |path: PathBuf| {
        let text =
            fs::read_to_string(root().join(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

fn blocks_of(path: &Path, document: &str) -> Vec<Block> {
    let mut blocks = vec![];
    let mut lines = document.lines().enumerate();
    while let Some((i, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let text: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| !line.starts_with("```")).collect();
        blocks.push(Block {
            place: format!("{}:{}", path.display(), i + 1),
            language: language.into(),
            text: text.join("\n") + "\n",
        });
    }
    blocks
}

fn blocks(language: &str) -> Vec<Block> {
    let mut found: Vec<Block> =
        documents().iter().flat_map(|(path, document)| blocks_of(path, document)).collect();
    found.retain(|block| block.language == language);
    assert!(!found.is_empty(), "no document has a block of {language}");
    found
}

/// The text of every pair of backticks in a line of prose.
fn code_spans(document: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    let prose = document.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        in_block ^= is_fence;
        !in_block && !is_fence
    });
    prose.flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The calls that a shell makes of a block, with loops and variables resolved. Nothing is executed.
fn calls(block: &Block) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("calls");
    for program in PROGRAMS {
        // What has no folder of its own is found by its name.
        let path = if program.contains('/') { program.into() } else { format!("bin/{program}") };
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let arguments = format!("for it in {program} \"$@\"; do printf '%s\\037' \"$it\"; done");
        let script = format!("#!/bin/sh\n{{ {arguments}; echo; }} >> '{}'\n", log.display());
        fs::write(&path, script).expect("a script");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).expect("a script that can be started");
    }
    // A call whose input is not there would not be made.
    for input in block.text.split("< ").skip(1).filter_map(|rest| rest.split_whitespace().next()) {
        fs::write(dir.path().join(input), "").expect("an input");
    }
    // Nor one whose output has no folder.
    for output in block.text.split("> ").skip(1).filter_map(|rest| rest.split_whitespace().next()) {
        let folder = dir.path().join(output);
        fs::create_dir_all(folder.parent().expect("a folder")).expect("a folder");
    }
    let script = format!("cd() {{ :; }}\n{}", block.text);
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", &script])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .env("PATH", dir.path().join("bin"));
    let output = shell.output().expect("a shell");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{}: {complaints}", block.place);
    let log = fs::read_to_string(log).unwrap_or_default();
    let calls = log.lines().map(|line| line.split_terminator(SEPARATOR).map(Into::into).collect());
    calls.collect()
}

/// What follows each occurrence of a flag.
fn values<'a>(arguments: &'a [String], flag: &str) -> Vec<&'a str> {
    arguments.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1].as_str()).collect()
}

/// The parser accepts it, and its settings exist. It runs in an empty directory, where no file that it names is.
fn check_temper(place: &str, arguments: &[String]) {
    let temper = Temper::new();
    let empty = tempfile::tempdir().expect("a temporary directory");
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let settings = match arguments.first() {
        Some(&"pipeline") => {
            // Refused after the parser, so that nothing is trained.
            arguments.extend(["--set", "nothing.of.this=1"]);
            vec![]
        }
        Some(stage) if STAGES.contains(stage) => {
            let mut settings = vec!["config", *stage];
            for pair in arguments.windows(2).filter(|pair| pair[0] == "--set" || pair[0] == "--preset") {
                settings.extend(pair);
            }
            settings
        }
        _ => vec![],
    };
    let mut command = temper.command_of(&arguments);
    let output = command.current_dir(empty.path()).output().expect("temper starts");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        matches!(output.status.code(), Some(0 | 1)) && !complaints.contains("panicked"),
        "{place}: `temper {}`: {complaints}",
        arguments.join(" ")
    );
    if !settings.is_empty() {
        let said = temper.run_of(&settings);
        assert_eq!(said.code, Some(0), "{place}: {said:?}");
    }
}

/// Packages, examples, tests, features and tasks exist.
fn check_cargo(place: &str, arguments: &[String]) {
    let said = format!("{place}: `cargo {}`", arguments.join(" "));
    let folder = |package: &str| match package {
        "temper-tests" => Some("tests".to_owned()),
        _ => package.strip_prefix("temper-").map(|name| format!("crates/{name}")),
    };
    let packages: Vec<&str> = values(arguments, "-p");
    for package in &packages {
        let folder = folder(package).unwrap_or_else(|| panic!("{said}: {package} is not ours"));
        assert!(root().join(folder).join("Cargo.toml").is_file(), "{said}: there is no package {package}");
    }
    let manifests: String =
        packages.iter().filter_map(|package| folder(package)).fold(String::new(), |manifests, folder| {
            manifests + &fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("TOML")
        });
    for example in values(arguments, "--example") {
        let path = format!("{}/examples/{example}.rs", folder(packages[0]).expect("a folder"));
        assert!(root().join(&path).is_file(), "{said}: there is no {path}");
    }
    for test in values(arguments, "--test") {
        assert!(root().join("tests").join(test).join("main.rs").is_file(), "{said}: there is no test {test}");
    }
    if arguments[0] != "+nightly" {
        for feature in values(arguments, "--features").into_iter().flat_map(|features| features.split(',')) {
            let line = format!("\n{feature} = [");
            assert!(manifests.contains(&line), "{said}: there is no feature {feature}");
        }
    }
    if arguments[0] == "xtask" {
        let task = arguments[1].as_str();
        assert!(["pipeline", "bench", "tidy", "ci"].contains(&task), "{said}: there is no task {task}");
        if task == "pipeline" {
            // The same options as those of `temper pipeline`, but for one.
            let device = |argument: &String| argument.replace("--backend", "--device");
            let pipeline: Vec<String> = arguments[1..].iter().map(device).collect();
            check_temper(place, &pipeline);
            for setting in values(arguments, "--set") {
                let (stage, setting) = setting.split_once('.').unwrap_or_else(|| panic!("{said}: no stage"));
                check_temper(place, &["config", stage, "--set", setting].map(Into::into));
                let said = Temper::new().run_of(&["config", stage, "--set", setting]);
                assert_eq!(said.code, Some(0), "{place}: {said:?}");
            }
        }
    }
}

#[test]
fn every_block_has_a_language_that_is_checked() {
    for (path, document) in documents() {
        for block in blocks_of(&path, &document) {
            let place = &block.place;
            match block.language.as_str() {
                "sh" | "json" | "toml" | "python" => {}
                // A picture or a list of files.
                "text" => {
                    let is_command = |line: &str| line.starts_with("temper ") || line.starts_with("cargo ");
                    assert!(!block.text.lines().any(is_command), "{place}: commands belong in a block of sh");
                }
                language if language.starts_with("rust") => {
                    let library = path.with_file_name("src").join("lib.rs");
                    let library = fs::read_to_string(root().join(library)).unwrap_or_default();
                    let included = library.contains("doc = include_str!(\"../README.md\")");
                    assert!(included, "{place}: no documentation test compiles this");
                }
                language => panic!("{place}: `{language}` is not checked"),
            }
        }
    }
}

#[test]
fn every_command_of_a_shell_block_is_accepted() {
    let mut n_temper = 0;
    for block in blocks("sh") {
        let place = &block.place;
        let calls = calls(&block);
        assert!(!calls.is_empty(), "{place}: no command");
        for call in calls {
            match call[0].as_str() {
                "temper" | "target/release/temper" => {
                    n_temper += 1;
                    check_temper(place, &call[1..]);
                }
                "cargo" => check_cargo(place, &call[1..]),
                "python" | "pip" => {
                    for path in call.iter().filter(|path| path.starts_with("assets/")) {
                        assert!(root().join(path).is_file(), "{place}: there is no {path}");
                    }
                }
                _ => {}
            }
        }
    }
    assert!(n_temper > 40, "{n_temper} commands");
}

/// In prose, a command may be shortened, but its name must exist.
#[test]
fn every_command_in_prose_exists() {
    let help = Temper::new().run("--help").ok().stdout;
    let names: Vec<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    for (path, document) in documents() {
        for span in code_spans(&document) {
            let place = path.display().to_string();
            let words: Vec<String> = span.split_whitespace().map(Into::into).collect();
            match words.first().map(String::as_str) {
                Some("temper") if words.len() > 1 => {
                    // `bench` is for developers, and so not among the others.
                    let name = words[1].as_str();
                    let exists = name == "…" || name == "bench" || names.contains(&name);
                    assert!(exists, "{place}: `{span}`: there is no such command");
                }
                Some("cargo") if words.len() > 1 && !words.iter().any(|word| word == "N" || word == "…") => {
                    check_cargo(&place, &words[1..]);
                }
                _ => {}
            }
        }
    }
}

/// Data by training on it for a step, points by drawing them. Templates have a test of their own.
#[test]
fn every_json_block_is_read() {
    let temper = Temper::with_reward_model();
    let ppo =
        "ppo --policy sft/final --reward reward/final --set rollout.max_new_tokens=4 --set batch_size=2";
    temper.run(&format!("{ppo} --prompts prompts.jsonl --out ppo --set epochs=2 --set max_steps=2")).ok();
    for (i, block) in blocks("json").iter().enumerate() {
        let (place, text) = (&block.place, block.text.as_str());
        // The rows of the other document have the columns of other formats, which temper-data reads in its own test.
        if place.starts_with("docs/templates.md") || place.starts_with("docs/data.md") {
            continue;
        }
        temper.write("block.json", text);
        let first = text.lines().next().expect("a line").trim_start_matches('[').trim_end_matches([',', ']']);
        let row: Value = serde_json::from_str(first).unwrap_or_else(|e| panic!("{place}: {e}"));
        // Other columns are ignored, so that one with a slip in its name would be one of them.
        let unknown = keys(&row).into_iter().find(|column| !COLUMNS.contains(column));
        assert_eq!(unknown, None, "{place}: a column that nothing reads");
        let has = |column: &str| row.get(column).is_some();
        let out = format!("--out out-{i} --set max_steps=1");
        let command = if has("kl") {
            format!("report --compare ppo --points block.json --out block-{i}.html")
        } else if has("chosen") || has("completions") {
            format!("reward --data block.json --model sft/final {out}")
        } else if has("text") {
            format!("{ppo} --prompts prompts.jsonl --ptx-data block.json {out}")
        } else if has("completion") {
            format!("sft --data block.json --model small {out}")
        } else {
            format!("{ppo} --prompts block.json {out}")
        };
        let said = temper.run(&command);
        assert_eq!(said.code, Some(0), "{place}: {said:?}");
        for word in ["left out", "dropped", "cut"] {
            assert!(!said.stderr.contains(&format!(" {word}")), "{place}: {said:?}");
        }
    }
}

/// Settings by the stage that has their keys, a manifest by its form and its paths.
#[test]
fn every_toml_block_is_read() {
    let temper = Temper::new();
    for block in blocks("toml") {
        temper.write("block.toml", &block.text);
        let read = |stage| temper.run(&format!("config {stage} --config block.toml"));
        if !block.text.contains("[package]") {
            let said = STAGES.map(read);
            assert!(said.iter().any(|said| said.code == Some(0)), "{}: {said:?}", block.place);
            continue;
        }
        let said = read("sft").refused(&["unknown key"]);
        assert!(said.stderr.contains("package"), "{}: {said:?}", block.place);
        for path in block.text.split("path = \"../temper/").skip(1).filter_map(|rest| rest.split('"').next())
        {
            assert!(root().join(path).join("Cargo.toml").is_file(), "{}: there is no {path}", block.place);
        }
    }
}

#[test]
fn every_python_block_compiles() {
    let has_python =
        Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_python {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    for block in blocks("python") {
        fs::write(dir.path().join("block.py"), &block.text).expect("a file");
        let mut python = Command::new("python3");
        let output = python.args(["-m", "py_compile", "block.py"]).current_dir(dir.path()).output();
        let output = output.expect("Python starts");
        assert!(output.status.success(), "{}: {}", block.place, String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_template_of_the_document_is_trained_with_and_stored() {
    let temper = Temper::with_sft();
    let blocks = blocks_of(Path::new("docs/templates.md"), TEMPLATES);
    let [written] = blocks.iter().filter(|block| block.language == "json").collect::<Vec<_>>()[..] else {
        panic!("one template is shown")
    };
    temper.write("sft/final/template.json", &written.text);
    temper.run("sft --data demonstrations.jsonl --model sft/final --out qa --set max_steps=1").ok();
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(parse(&temper.read("qa/final/template.json")), parse(&written.text));
    // A setting does not replace what the directory brings.
    let train = "sft --data demonstrations.jsonl --model qa/final --out again --set max_steps=1";
    let said = temper.run(&format!("{train} --set template=bare")).ok();
    assert!(said.stderr.contains("note: `template` has no effect: the model directory brings"), "{said:?}");
    assert_eq!(parse(&temper.read("again/final/template.json"))["name"], "qa");
}

#[test]
fn the_built_in_templates_of_the_document_are_those_that_there_are() {
    let temper = Temper::new();
    let rows = TEMPLATES.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let names: Vec<&str> = rows.collect();
    assert_eq!(names, ["notebook", "bare", "plain", "plain_eos"]);
    for name in names {
        let out = format!("out-{name}");
        let train = "sft --data demonstrations.jsonl --model tiny --set max_steps=1";
        temper.run(&format!("{train} --out {out} --set template={name}")).ok();
        assert!(
            temper.read(&format!("{out}/final/template.json")).contains(&format!("\"name\": \"{name}\""))
        );
    }
    let said = temper.run("config sft").ok();
    assert!(said.stdout.contains("docs/templates.md"), "{said:?}");
}
