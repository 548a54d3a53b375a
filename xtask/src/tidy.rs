//! `cargo xtask tidy`: the rules that no compiler checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::cargo::root;

const MOST_LINES: usize = 600;
const MANY_LINES: usize = 500;
const ARCHITECTURE: &str = "ARCHITECTURE.md";
/// The picture of the arrows is the first block of code after this line.
const PICTURE_HEADING: &str = "## The arrows between the crates";
/// Means all crates in the picture.
const EVERY_CRATE: &str = "every crate";
const DOCUMENTS: [&str; 5] = ["README.md", ARCHITECTURE, "CONTRIBUTING.md", PAPER_MAP, MUTATIONS];
/// Names functions, settings and tests; each must be there.
const PAPER_MAP: &str = "docs/paper-map.md";
/// Names tests with their crates; each must be in its crate.
const MUTATIONS: &str = "docs/mutations.md";
/// Where the one question about features is asked: once for the binary, once for the tests.
const ASKS_FEATURES: [&str; 4] = [
    "crates/cli/src/device.rs",
    "crates/kernels/src/lib.rs",
    "tests/budgets/main.rs",
    "tests/parity/backends.rs",
];

/// A file of the repository, its path with forward slashes.
struct File {
    path: String,
    text: String,
}

pub fn run() -> Result<ExitCode> {
    let files = files()?;
    let mut problems: Vec<String> = Vec::new();
    let architecture = files.iter().find(|file| file.path == ARCHITECTURE);
    let picture = architecture.map_or_else(Picture::default, |file| Picture::parse(&file.text));
    problems.extend(picture.without_manifest(&files));
    for file in &files {
        problems.extend(picture.violations(file));
        problems.extend(length(file));
        problems.extend(machine_paths(file));
        problems.extend(unfinished(file));
        problems.extend(feature_questions(file));
        problems.extend(prints(file));
        problems.extend(crate_docs(file));
        problems.extend(dead_links(file, |path| root().join(path).exists()));
    }
    let map = files.iter().find(|file| file.path == PAPER_MAP);
    problems.extend(map.map_or_else(Vec::new, |map| unknown_names(map, &words_of_code(&files))));
    let mutations = files.iter().find(|file| file.path == MUTATIONS);
    problems.extend(mutations.map_or_else(Vec::new, |mutations| missing_tests(mutations, &files)));
    for document in DOCUMENTS {
        if !files.iter().any(|file| file.path == document) {
            problems.push(format!("{document}:1: there is no such file"));
        }
    }
    for file in files.iter().filter(|file| counts_lines(file) && file.text.lines().count() > MANY_LINES) {
        println!("note: {}: {} lines, look for a seam", file.path, file.text.lines().count());
    }
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    println!("tidy: {} files, {} problems", files.len(), problems.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Text files that git tracks, or would after `git add`.
fn files() -> Result<Vec<File>> {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.current_dir(root()).output().context("cannot run git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let paths = String::from_utf8(output.stdout)?;
    let read =
        |path: &str| Some(File { path: path.into(), text: std::fs::read_to_string(root().join(path)).ok()? });
    Ok(paths.split_terminator('\0').filter_map(read).collect())
}

/// Lines with a bad word, as `path:line: …`.
fn lines_with(file: &File, bad: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let at = |(i, line): (usize, &str)| bad(line).map(|what| format!("{}:{}: {what}", file.path, i + 1));
    file.text.lines().enumerate().filter_map(at).collect()
}

/// The crates that each crate may depend on, as ARCHITECTURE.md draws them.
#[derive(Debug, Default)]
struct Picture {
    /// By the name of the crate's folder. `None` means every crate.
    arrows: BTreeMap<String, Option<BTreeSet<String>>>,
}

impl Picture {
    /// Reads the first block of code after [`PICTURE_HEADING`]. A line is `crates → dependencies`, or `crates` alone for
    /// crates that depend on no other; names are separated by commas, and `#` starts a comment.
    fn parse(architecture: &str) -> Self {
        let section = architecture.split_once(PICTURE_HEADING).map_or("", |(_, section)| section);
        // What follows the backquotes on their line is the language of the block.
        let block = section.split("```").nth(1).and_then(|block| block.split_once('\n'));
        let block = block.map_or("", |(_, lines)| lines);
        let names = |list: &str| -> Vec<String> {
            list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
        };
        let mut arrows = BTreeMap::new();
        for line in block.lines().map(|line| line.split('#').next().unwrap_or_default()) {
            let (crates, dependencies) = line.split_once('→').unwrap_or((line, ""));
            let is_all = dependencies.trim() == EVERY_CRATE;
            let allowed = (!is_all).then(|| names(dependencies).into_iter().collect::<BTreeSet<String>>());
            arrows.extend(names(crates).into_iter().map(|name| (name, allowed.clone())));
        }
        Self { arrows }
    }

    /// Crates of the picture that have no manifest.
    fn without_manifest(&self, files: &[File]) -> Vec<String> {
        let has_manifest =
            |name: &&String| files.iter().any(|file| crate_of(&file.path).as_ref() == Some(name));
        let missing = self.arrows.keys().filter(|name| !has_manifest(name));
        missing
            .map(|name| format!("{ARCHITECTURE}:1: the picture has a crate `{name}` that is not there"))
            .collect()
    }

    /// Dependencies of a manifest that the picture does not have.
    fn violations(&self, file: &File) -> Vec<String> {
        let Some(name) = crate_of(&file.path) else { return vec![] };
        let Some(allowed) = self.arrows.get(&name) else {
            return vec![format!("{}:1: the picture in {ARCHITECTURE} has no crate `{name}`", file.path)];
        };
        let Some(allowed) = allowed else { return vec![] };
        lines_with(file, |line| {
            let dependency = line.split(['.', ' ', '=']).next()?.strip_prefix("temper-")?;
            let is_drawn = allowed.contains(dependency);
            (!is_drawn).then(|| format!("{ARCHITECTURE} has no arrow from `{name}` to `{dependency}`"))
        })
    }
}

/// The name of the crate whose manifest this is, without `temper-`; the workspace's own manifest has none.
fn crate_of(path: &str) -> Option<String> {
    let folder = path.strip_suffix("/Cargo.toml")?;
    Some(folder.strip_prefix("crates/").unwrap_or(folder).to_owned())
}

/// Every identifier of the code and the settings.
fn words_of_code(files: &[File]) -> BTreeSet<&str> {
    let is_code = |file: &&File| file.path.ends_with(".rs") || file.path.ends_with(".toml");
    let is_outside = |c: char| !c.is_alphanumeric() && c != '_';
    files.iter().filter(is_code).flat_map(|file| file.text.split(is_outside)).collect()
}

/// Identifiers in the quotes of a document that no code has.
fn unknown_names(file: &File, known: &BTreeSet<&str>) -> Vec<String> {
    lines_with(file, |line| {
        let quoted = line.split('`').skip(1).step_by(2);
        let mut words = quoted.flat_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_'));
        let unknown = words.find(|word| word.contains('_') && !known.contains(word))?;
        Some(format!("there is no `{unknown}`"))
    })
}

/// Tests that are not where a document says they are.
///
/// A cell of a table names a crate or a folder of `tests`, then its tests: "ppo: `a_test` and `another_…`". A name that
/// ends in `…` is the beginning of a longer one.
fn missing_tests(document: &File, files: &[File]) -> Vec<String> {
    let in_cell = |cell: &str| {
        let (place, _) = cell.trim().split_once(": `")?;
        if !place.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '/') {
            return None;
        }
        let folder =
            if place.starts_with("tests/") { format!("{place}/") } else { format!("crates/{place}/") };
        let code =
            || files.iter().filter(|file| file.path.starts_with(&folder) && file.path.ends_with(".rs"));
        let missing = cell.split('`').skip(1).step_by(2).find(|test| {
            let function =
                test.strip_suffix('…').map_or(format!("fn {test}("), |start| format!("fn {start}"));
            !code().any(|file| file.text.contains(&function))
        })?;
        Some(format!("there is no test `{missing}` in {folder}"))
    };
    lines_with(document, |line| line.starts_with('|').then(|| line.split('|').find_map(in_cell))?)
}

fn counts_lines(file: &File) -> bool {
    let counted = file.path.starts_with("tests/")
        || file.path.starts_with("crates/")
        || file.path.starts_with("xtask/");
    counted && file.path.ends_with(".rs")
}

fn length(file: &File) -> Vec<String> {
    let n = file.text.lines().count();
    if !counts_lines(file) || n <= MOST_LINES {
        return vec![];
    }
    vec![format!("{}:{n}: {n} lines, {MOST_LINES} are the limit", file.path)]
}

/// Absolute paths of somebody's machine.
fn machine_paths(file: &File) -> Vec<String> {
    lines_with(file, |line| {
        ["work", "root", "home"].map(|top| format!("/{top}/")).into_iter().find_map(|path| {
            let starts = |(at, _): (usize, &str)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || ".-_~}*".contains(c))
            };
            line.match_indices(path.as_str())
                .any(starts)
                .then(|| format!("`{path}` is a path of one machine"))
        })
    })
}

fn unfinished(file: &File) -> Vec<String> {
    if !file.path.ends_with(".rs") {
        return vec![];
    }
    let words = [concat!("to", "do!"), concat!("unimple", "mented!"), concat!("#[ig", "nore")];
    lines_with(file, |line| {
        words.into_iter().find(|word| line.contains(word)).map(|word| format!("`{word}`"))
    })
}

fn feature_questions(file: &File) -> Vec<String> {
    if !file.path.ends_with(".rs") || ASKS_FEATURES.contains(&file.path.as_str()) {
        return vec![];
    }
    let question = concat!("feature", " = \"");
    lines_with(file, |line| {
        line.contains(question)
            .then(|| format!("only {} ask which features are on", ASKS_FEATURES.join(" and ")))
    })
}

/// `eprintln!` panics where standard error cannot be written to, and would end a run.
fn prints(file: &File) -> Vec<String> {
    if !file.path.starts_with("crates/") || !file.path.contains("/src/") || !file.path.ends_with(".rs") {
        return vec![];
    }
    let words = [concat!("epri", "nt!("), concat!("epri", "ntln!("), concat!("clippy::pri", "nt_st")];
    lines_with(file, |line| {
        words
            .into_iter()
            .find(|word| line.contains(word))
            .map(|word| format!("`{word}`: use `terminal::say`"))
    })
}

fn crate_docs(file: &File) -> Vec<String> {
    let entry = file.path.ends_with("src/lib.rs")
        || file.path.ends_with("src/main.rs")
        || file.path == "tests/lib.rs";
    if !entry || file.text.starts_with("//!") {
        return vec![];
    }
    vec![format!("{}:1: the crate does not say what it is for", file.path)]
}

/// Links and code spans of the documents that name files which are not there.
fn dead_links(file: &File, exists: impl Fn(&str) -> bool) -> Vec<String> {
    if !file.path.ends_with(".md") || file.path.starts_with("assets/") {
        return vec![];
    }
    let folder = Path::new(&file.path).parent().expect("a file is in a folder");
    lines_with(file, |line| {
        let link = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
        let link = link.filter(|link| !link.is_empty() && !link.contains(':'));
        let dead = link.map(|link| folder.join(link).display().to_string()).find(|path| !exists(path));
        let span = line.split('`').skip(1).step_by(2).filter(|span| {
            let ours = ["assets/", "crates/", "xtask/", "tests/", "docs/", ".ci/", ".github/"];
            ours.iter().any(|top| span.starts_with(top)) && !span.contains(['{', '*', ' ', '<', '…'])
        });
        let dead = dead.or_else(|| span.map(str::to_owned).find(|path| !exists(path)));
        dead.map(|path| format!("there is no `{path}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    #[test]
    fn a_name_that_no_code_has_is_found() {
        let code = [file("a.rs", "fn policy_loss() {}"), file("b.py", "python_name")];
        let known = words_of_code(&code);
        let map = file(PAPER_MAP, "`policy_loss` of `crates/ppo`\nplain_word `PPO` `x.python_name`\n");
        assert_eq!(unknown_names(&map, &known), ["docs/paper-map.md:2: there is no `python_name`"]);
    }

    #[test]
    fn a_test_that_is_not_in_its_crate_is_found() {
        let code = [
            file("crates/ppo/src/kl.rs", "fn a_kl_is_positive() {}\nfn equal_scores_give_nothing() {}\n"),
            file("tests/e2e/kills.rs", "fn every_stage_is_killed() {}\n"),
        ];
        let document = "| a bug | ppo: `a_kl_is_positive` and `equal_scores_…` |\n\
                        | a bug: `kl` | tests/e2e: `every_stage_…` |\n\
                        | a bug | reward: `a_kl_is_positive` |\n\
                        | a bug | ppo: `a_kl_is_positive`, `a_kl_is` |\n\
                        | a bug | tests/e2e: `a_kl_…` | exit code 0 |\n";
        assert_eq!(
            missing_tests(&file(MUTATIONS, document), &code),
            [
                "docs/mutations.md:3: there is no test `a_kl_is_positive` in crates/reward/",
                "docs/mutations.md:4: there is no test `a_kl_is` in crates/ppo/",
                "docs/mutations.md:5: there is no test `a_kl_…` in tests/e2e/",
            ]
        );
    }

    #[test]
    fn an_arrow_that_is_not_in_the_picture_is_named_with_its_line() {
        let architecture = "# A\n\n## The arrows between the crates\n\n```text\nmodel, train   # roots\n\
                            sft, ppo → model, train\ncli → every crate\n```\n\n```\nppo → sft\n```\n";
        let picture = Picture::parse(architecture);
        let manifest = "[dependencies]\ntemper-model.workspace = true\ntemper-sft = { path = \"../sft\" }\n";
        let violations = |path: &str| picture.violations(&file(path, manifest));
        assert_eq!(
            violations("crates/ppo/Cargo.toml"),
            ["crates/ppo/Cargo.toml:3: ARCHITECTURE.md has no arrow from `ppo` to `sft`"]
        );
        assert_eq!(violations("crates/train/Cargo.toml").len(), 2);
        assert!(violations("crates/cli/Cargo.toml").is_empty());
        assert!(violations("Cargo.toml").is_empty());
        assert_eq!(
            violations("crates/new/Cargo.toml"),
            ["crates/new/Cargo.toml:1: the picture in ARCHITECTURE.md has no crate `new`"]
        );
        let manifests =
            ["model", "train", "sft", "ppo"].map(|name| file(&format!("crates/{name}/Cargo.toml"), ""));
        assert_eq!(
            picture.without_manifest(&manifests),
            ["ARCHITECTURE.md:1: the picture has a crate `cli` that is not there"]
        );
    }

    #[test]
    fn a_file_of_601_lines_is_too_long() {
        assert_eq!(length(&file("crates/a/src/b.rs", &"x\n".repeat(601))).len(), 1);
        assert!(length(&file("crates/a/src/b.rs", &"x\n".repeat(600))).is_empty());
        assert!(length(&file("Cargo.lock", &"x\n".repeat(601))).is_empty());
    }

    #[test]
    fn absolute_paths_are_found_and_others_are_not() {
        let found = |text: &str| machine_paths(&file("a.md", text)).len();
        assert_eq!(found(concat!("cd /wo", "rk/main")), 1);
        assert_eq!(found(concat!("a\n`/ho", "me/me/x` and /ro", "ot/y")), 1);
        assert_eq!(found(concat!("https://example.org/ho", "me/ ../ro", "ot/ $X/wo", "rk/")), 0);
    }

    #[test]
    fn unfinished_work_is_found() {
        let text = concat!("fn a() {\n    to", "do!()\n}\n#[ig", "nore]\n");
        assert_eq!(
            unfinished(&file("a.rs", text)),
            [concat!("a.rs:2: `to", "do!`"), concat!("a.rs:4: `#[ig", "nore`"),]
        );
        assert!(unfinished(&file("a.md", text)).is_empty());
    }

    #[test]
    fn one_file_asks_for_features() {
        let text = concat!("#[cfg(feature", " = \"wgpu\")]");
        assert_eq!(feature_questions(&file("crates/model/src/lib.rs", text)).len(), 1);
        assert!(ASKS_FEATURES.iter().all(|path| feature_questions(&file(path, text)).is_empty()));
    }

    #[test]
    fn prints_to_standard_error_are_found() {
        let text = concat!("    epri", "ntln!(\"x\");\n#[allow(clippy::pri", "nt_stderr)]\n");
        assert_eq!(prints(&file("crates/cli/src/a.rs", text)).len(), 2);
        assert!(prints(&file("crates/cli/examples/a.rs", text)).is_empty());
        assert!(prints(&file("xtask/src/main.rs", text)).is_empty());
    }

    #[test]
    fn a_crate_without_docs_is_found() {
        assert_eq!(crate_docs(&file("crates/a/src/lib.rs", "mod b;\n")).len(), 1);
        assert!(crate_docs(&file("crates/a/src/lib.rs", "//! What.\n")).is_empty());
    }

    #[test]
    fn dead_links_and_spans_are_found() {
        let text = "[a](docs/a.md) [b](https://b.org)\n`crates/gone/src` `crates/{a,b}` [c](#here)\n";
        let found = |there: &str| dead_links(&file("README.md", text), |path| path == there);
        assert_eq!(found("docs/a.md"), ["README.md:2: there is no `crates/gone/src`"]);
        assert_eq!(found("crates/gone/src"), ["README.md:1: there is no `docs/a.md`"]);
    }
}
