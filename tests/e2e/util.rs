//! The real binary in a temporary directory, and what it said.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Five demonstrations that fit into every preset.
pub const DEMONSTRATIONS: &str = r#"{"prompt": "What is AI?", "completion": "A field."}
{"prompt": "What is 1+1?", "completion": "1+1 is 2."}
{"prompt": "Write a greeting", "completion": "Hello, nice to meet you!"}
{"prompt": "Capital of Spain?", "completion": "Madrid."}
{"prompt": "Opposite of hot?", "completion": "Cold."}
"#;
/// Four comparisons.
pub const COMPARISONS: &str = r#"{"prompt": "What is AI?", "chosen": "A field.", "rejected": "Robots."}
{"prompt": "What is 1+1?", "chosen": "1+1 is 2.", "rejected": "3"}
{"prompt": "Write a greeting", "chosen": "Hello, nice to meet you!", "rejected": "What."}
{"prompt": "Opposite of hot?", "chosen": "Cold.", "rejected": "No idea at all."}
"#;
/// Three prompts.
pub const PROMPTS: &str =
    "{\"prompt\": \"What is AI?\"}\n{\"prompt\": \"What is 1+1?\"}\n{\"prompt\": \"Greet!\"}\n";

/// Waiting for the program ends with an error after this.
const PATIENCE: Duration = Duration::from_secs(60);

/// All files below a directory by their relative paths, directories with no content.
pub type Snapshot = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// A temporary directory in which `temper` runs.
pub struct Temper {
    dir: TempDir,
}

impl Temper {
    /// With `demonstrations.jsonl`, `comparisons.jsonl` and `prompts.jsonl` in it.
    pub fn new() -> Self {
        let temper = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        temper.write("demonstrations.jsonl", DEMONSTRATIONS);
        temper.write("comparisons.jsonl", COMPARISONS);
        temper.write("prompts.jsonl", PROMPTS);
        temper
    }

    /// And a language model in `sft/final`.
    pub fn with_sft() -> Self {
        let temper = Self::new();
        temper.run("sft --data demonstrations.jsonl --model gpt2-tiny --out sft --set max_steps=2").ok();
        temper
    }

    /// And a reward model in `reward/final`.
    pub fn with_reward_model() -> Self {
        let temper = Self::with_sft();
        temper.run("reward --data comparisons.jsonl --model sft/final --out reward --set max_steps=2").ok();
        temper
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the temporary directory")).expect("a directory");
        fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A copy of a directory.
    pub fn copy(&self, from: &str, to: &str) {
        for (path, content) in self.snapshot(from) {
            if let Some(content) = content {
                self.write(&format!("{to}/{}", path.display()), content);
            }
        }
    }

    /// Changes one file of JSON.
    pub fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = self.json(name);
        edit(&mut value);
        self.write(name, value.to_string());
    }

    pub fn snapshot(&self, name: &str) -> Snapshot {
        let root = self.path(name);
        let mut found = Snapshot::new();
        collect(&root, &root, &mut found);
        found
    }

    /// The command, its arguments as one text with spaces between them.
    pub fn command(&self, arguments: &str) -> Command {
        self.command_of(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// The command with arguments that may hold spaces.
    pub fn command_of(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
        // A path with a typing mistake can have the form of a name on the hub.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("hf"));
        command
    }

    pub fn run(&self, arguments: &str) -> Said {
        Said::of(arguments, self.command(arguments).output())
    }

    pub fn run_of(&self, arguments: &[&str]) -> Said {
        Said::of(&arguments.join(" "), self.command_of(arguments).output())
    }

    pub fn run_with_stdin(&self, arguments: &str, input: impl AsRef<[u8]>) -> Said {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("temper starts");
        // It may have failed and gone before it reads.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_ref());
        Said::of(arguments, child.wait_with_output())
    }

    /// By a shell, in which `$TEMPER` is the binary.
    pub fn shell(&self, script: &str) -> Said {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(script)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .env("TEMPER", binary());
        Said::of(script, command.output())
    }

    /// [`Temper::shell`] for what may end by a signal.
    pub fn shell_output(&self, script: &str) -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("TEMPER", binary()).output().expect("a shell")
    }

    /// A command that must fail with exit code 1 and one line, and must not write anything anywhere.
    pub fn refuses(&self, arguments: &str, says: &[&str]) -> Said {
        self.refuses_of(&arguments.split_whitespace().collect::<Vec<_>>(), says)
    }

    /// [`Temper::refuses`] with arguments that may hold spaces.
    pub fn refuses_of(&self, arguments: &[&str], says: &[&str]) -> Said {
        let before = self.snapshot(".");
        let said = self.run_of(arguments).refused(says);
        let after = self.snapshot(".");
        let changed: Vec<_> =
            after.iter().filter(|(path, content)| before.get(*path) != Some(content)).collect();
        let names: Vec<_> = changed.iter().map(|(path, _)| path).collect();
        assert!(names.is_empty(), "`{}` wrote {names:?}", said.command);
        assert_eq!(before.len(), after.len(), "`{}` removed something", said.command);
        said
    }

    /// Starts a run in `out`, waits until `metrics` has `lines` lines, and presses Ctrl-C. A run that is over before
    /// the signal comes, on a busy machine, is tried again.
    pub fn interrupt(&self, arguments: &str, out: &str, metrics: &str, lines: usize) -> Said {
        let path = self.path(metrics);
        let far_enough =
            || fs::read(&path).is_ok_and(|bytes| bytes.iter().filter(|&&b| b == b'\n').count() >= lines);
        for _ in 0..5 {
            let mut command = self.command(&format!("{arguments} --out {out}"));
            let mut child =
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("temper starts");
            wait_for(&mut child, far_enough);
            press_ctrl_c(&child);
            let said = Said::of(arguments, child.wait_with_output());
            if said.code != Some(0) {
                return said;
            }
            fs::remove_dir_all(self.path(out)).expect("a run directory");
        }
        panic!("`{arguments}` is always over before it can be interrupted");
    }

    /// Starts a command, waits until it has said `line` on standard error, and presses Ctrl-C.
    pub fn interrupt_when(&self, arguments: &str, line: &str) -> Said {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("temper starts");
        let input = child.stdin.take();
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        assert!(lines.any(|said| said.is_ok_and(|said| said.contains(line))), "temper never said `{line}`");
        press_ctrl_c(&child);
        wait_for(&mut child, || false);
        let mut output = child.wait_with_output();
        if let Ok(output) = &mut output {
            output.stderr = lines.map_while(Result::ok).collect::<Vec<_>>().join("\n").into_bytes();
        }
        drop(input);
        Said::of(arguments, output)
    }

    /// Nothing that looks half-written is in a run directory.
    pub fn assert_nothing_half_written(&self, name: &str) {
        for path in self.snapshot(name).keys() {
            let text = path.to_string_lossy();
            assert!(!text.contains(".tmp") && !text.contains(".partial"), "{name} holds {text}");
        }
    }
}

/// What a command printed, and its exit code.
pub struct Said {
    pub command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn of(command: &str, output: std::io::Result<Output>) -> Self {
        let output = output.unwrap_or_else(|e| panic!("{command}: {e}"));
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let said = Self {
            command: command.to_owned(),
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        let noise = ["panicked", "RUST_BACKTRACE", "core dumped"];
        assert!(!noise.iter().any(|noise| said.stderr.contains(noise)), "a panic: {said:?}");
        assert!(said.code.is_some(), "killed by {}: {said:?}", output.status);
        said
    }

    /// It worked.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert!(!self.stderr.contains("error: "), "{self:?}");
        self
    }

    /// Wrong usage.
    pub fn misused(self) -> Self {
        assert_eq!(self.code, Some(2), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        self
    }

    /// Exit code 1, nothing on standard output, and one line that says all of `says`.
    pub fn refused(self, says: &[&str]) -> Self {
        assert_eq!(self.stdout, "", "{self:?}");
        self.failed(says)
    }

    /// [`Said::refused`], where part of the work was done: output, progress and warnings may come before.
    pub fn failed(self, says: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        let lines: Vec<&str> = self.stderr.lines().filter(|line| !is_progress(line)).collect();
        let error = lines.first().and_then(|line| line.strip_prefix("error: "));
        let error = error.unwrap_or_else(|| panic!("no line of error: {self:?}"));
        match lines[1..] {
            [] => {}
            [hint] if hint.starts_with("hint: ") => {}
            _ => panic!("more than an error and a hint: {self:?}"),
        }
        for part in says {
            assert!(lines.iter().any(|line| line.contains(part)), "`{part}` is not said in {self:?}");
        }
        // One message, not the same thing twice.
        let os_error = error.matches("(os error").count();
        assert!(os_error <= 1, "said twice: {self:?}");
        self
    }

    pub fn hint(&self) -> &str {
        self.stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap_or("")
    }

    /// Standard output as JSON lines: every line of it.
    pub fn rows(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {self:?}"));
        self.stdout.lines().map(parse).collect()
    }
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = |text: &str| text.chars().take(1500).collect::<String>();
        writeln!(f, "`{}`: code {:?}", self.command, self.code)?;
        write!(f, "--- stdout\n{}\n--- stderr\n{}", cut(&self.stdout), cut(&self.stderr))
    }
}

fn is_progress(line: &str) -> bool {
    let stages = ["sft", "reward", "dpo", "ppo"].map(|stage| [format!("{stage} step"), format!("{stage}:")]);
    line.starts_with("note: ")
        || line.starts_with("stage ")
        || stages.as_flattened().iter().any(|stage| line.starts_with(stage.as_str()))
}

/// The keys of an object in their order.
pub fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Rows of `metrics.jsonl` without what depends on the clock.
pub fn without_times(text: &str) -> Vec<Value> {
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for row in &mut rows {
        let row = row.as_object_mut().expect("an object");
        row.retain(|key, _| !key.starts_with("time/") && key != "tokens_per_second" && key != "eps");
    }
    rows
}

/// `TEMPER_BIN`, or what was built next to this test.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TEMPER_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test has a path");
    let path = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join("temper");
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --release -p temper-cli`, or set TEMPER_BIN to a `temper` binary",
        path.display()
    );
    path
}

fn press_ctrl_c(child: &Child) {
    let sent = Command::new("kill").args([interrupt_signal(), &child.id().to_string()]).status();
    assert!(sent.expect("kill").success(), "no process to interrupt");
}

/// SIGINT; or SIGTERM where a shell has started these tests in the background, and all that they start ignores SIGINT.
fn interrupt_signal() -> &'static str {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    // The first bit is signal 1, SIGINT is 2.
    if ignored.unwrap_or(0) & 2 != 0 { "-TERM" } else { "-INT" }
}

/// Waits until the condition holds or the program has ended.
fn wait_for(child: &mut Child, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() && child.try_wait().expect("a child").is_none() {
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("temper did not get so far in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn collect(root: &Path, dir: &Path, found: &mut Snapshot) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let entry = entry.expect("an entry");
        let path = entry.path();
        let name = path.strip_prefix(root).expect("below").to_owned();
        if entry.file_type().expect("a type").is_dir() {
            found.insert(name, None);
            collect(root, &path, found);
        } else if entry.file_type().expect("a type").is_file() {
            found.insert(name, Some(fs::read(&path).expect("a file")));
        }
    }
}
