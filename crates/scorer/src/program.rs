//! A program that scores answers over its standard input and output.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use temper_tokenizer::PromptRef;

use crate::error::{Error, SHOWN, Status};
use crate::stop::{Deadline, Group, Over, Stop};

/// A longer line is not a score.
const MAX_LINE: usize = 64 * 1024;
/// Lines that wait to be read; a program that writes on is held back by its pipe.
const MAX_WAITING: usize = 1024;
/// What a program that was told to end has left to do so, and one that closed its output to say how it ended.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a program that has ended wrote last is read within this, though a child of it may hold its output open.
const LAST_LINES: Duration = Duration::from_millis(300);
/// Lines in excess are waited for once, after the first call: a program that writes scores before it is asked would
/// give every answer the score of another one.
const SETTLING: Duration = Duration::from_millis(100);

/// The other columns of a prompt's row, by their names.
pub type Row = Map<String, Value>;

/// An answer to be scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Answer<'a> {
    /// What was asked: in JSON a string, or a list of messages.
    pub prompt: PromptRef<'a>,
    /// What was answered, without the end token.
    pub completion: &'a str,
    /// Whether it ended by itself.
    pub ended: bool,
    /// What else the row of the prompt says, such as a reference answer. JSON has no `row` without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<&'a Row>,
}

impl<'a> Answer<'a> {
    /// An answer whose prompt has no other columns.
    pub fn new(prompt: impl Into<PromptRef<'a>>, completion: &'a str, ended: bool) -> Self {
        Self { prompt: prompt.into(), completion, ended, row: None }
    }
}

/// A running program. It ends when this is dropped, with every process that it has started (on Unix, those that are
/// still of its process group).
#[derive(Debug)]
pub struct Program {
    command: String,
    time_limit: Duration,
    stop: Stop,
    group: Group,
    child: Child,
    /// Whether a call has got its scores.
    has_answered: bool,
    /// To the thread that writes; `None` while ending.
    requests: Option<Sender<Vec<u8>>>,
    /// From the thread that reads.
    lines: Receiver<Line>,
}

#[derive(Debug)]
enum Line {
    Text(String),
    TooLong(String),
    NotUtf8,
}

/// What a line may hold.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scored {
    Bare(f64),
    Object { score: f64 },
}

impl Program {
    /// Starts `command`, a program with its arguments as one would type them in a shell, quotation marks included.
    ///
    /// No shell takes part. Every call of [`Program::score`] has `time_limit`, and ends soon after `stop` is asked.
    ///
    /// # Errors
    /// [`Error::BadCommand`], [`Error::Start`], [`Error::Thread`].
    pub fn start(command: &str, time_limit: Duration, stop: &Stop) -> Result<Self, Error> {
        let words = shlex::split(command).unwrap_or_default();
        let Some((program, arguments)) = words.split_first() else {
            return Err(Error::BadCommand { command: command.into() });
        };
        let mut spawn = Command::new(program);
        spawn.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for Temper, which finishes its step first: the program must be there for it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut spawn, 0);
        let mut child = spawn.spawn().map_err(|source| Error::Start { command: command.into(), source })?;
        let stdin = child.stdin.take().expect("stdin is a pipe");
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (requests, to_write) = channel();
        let (read, lines) = sync_channel(MAX_WAITING);
        let group = group_of(&child);
        stop.add(group);
        let program = Self {
            command: command.into(),
            time_limit,
            stop: stop.clone(),
            group,
            child,
            has_answered: false,
            requests: Some(requests),
            lines,
        };
        program.spawn(move || write_requests(stdin, &to_write))?;
        program.spawn(move || read_lines(stdout, &read))?;
        Ok(program)
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let failed = |source| Error::Thread { scorer: self.command.clone(), source };
        thread::Builder::new().name("scorer".into()).spawn(work).map_err(failed).map(drop)
    }

    /// One score for each answer.
    ///
    /// Lines in excess are found when the next call comes; those of the first call also at once, if they come soon.
    ///
    /// # Errors
    /// [`Error::Died`], [`Error::TimeLimit`], [`Error::Interrupted`], [`Error::BadLine`], [`Error::Unasked`]; the
    /// program cannot be used after any of them.
    pub fn score(&mut self, answers: &[Answer<'_>]) -> Result<Vec<f32>, Error> {
        match self.lines.try_recv() {
            Ok(line) => return Err(self.unasked(&line)),
            Err(TryRecvError::Disconnected) => return Err(self.died(0, answers.len())),
            Err(TryRecvError::Empty) => {}
        }
        let mut request = Vec::new();
        for answer in answers {
            serde_json::to_writer(&mut request, answer).expect("strings, a bool and JSON are JSON");
            request.push(b'\n');
        }
        if let Some(requests) = &self.requests {
            // The writer is gone if the program closed its input; what it wrote before that still counts.
            let _ = requests.send(request);
        }
        let stop = self.stop.clone();
        let mut deadline = Deadline::new(&stop, self.time_limit);
        let mut ended = None;
        let mut scores = Vec::with_capacity(answers.len());
        while scores.len() < answers.len() {
            let slice = deadline.slice().map_err(|over| self.given_up(over, scores.len(), answers.len()))?;
            match self.lines.recv_timeout(slice) {
                Ok(line) => {
                    scores.push(self.read_score(&line)?);
                    ended = None;
                }
                // A child that has inherited its output keeps it open.
                Err(RecvTimeoutError::Timeout) if self.has_ended() => {
                    if ended.get_or_insert_with(Instant::now).elapsed() >= LAST_LINES {
                        return Err(self.died(scores.len(), answers.len()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.died(scores.len(), answers.len())),
            }
        }
        if !self.has_answered && !answers.is_empty() {
            self.has_answered = true;
            if let Ok(line) = self.lines.recv_timeout(SETTLING) {
                return Err(self.unasked(&line));
            }
        }
        Ok(scores)
    }

    fn unasked(&self, line: &Line) -> Error {
        Error::Unasked { command: self.command.clone(), line: line.shown() }
    }

    fn given_up(&self, over: Over, n_answered: usize, n_asked: usize) -> Error {
        match over {
            Over::Interrupt => Error::Interrupted { scorer: self.command.clone() },
            Over::Time => Error::TimeLimit {
                command: self.command.clone(),
                n_answered,
                n_asked,
                seconds: self.time_limit.as_secs_f64(),
            },
        }
    }

    fn read_score(&self, line: &Line) -> Result<f32, Error> {
        let bad = |problem| Error::BadLine { command: self.command.clone(), line: line.shown(), problem };
        let text = match line {
            Line::Text(text) => text,
            Line::TooLong(_) => return Err(bad("too long for a score")),
            Line::NotUtf8 => return Err(bad("not UTF-8")),
        };
        let score = match serde_json::from_str(text) {
            Ok(Scored::Bare(score) | Scored::Object { score }) => score as f32,
            Err(_) => return Err(bad("neither a number nor an object with a `score`")),
        };
        if score.is_finite() { Ok(score) } else { Err(bad("not a finite number")) }
    }

    fn died(&mut self, n_answered: usize, n_asked: usize) -> Error {
        let status = Status(self.end());
        Error::Died { command: self.command.clone(), status, n_answered, n_asked }
    }

    /// Waits a while for the program to end, then kills what is left of its group. Says how the program ended, if it
    /// did so by itself.
    fn end(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_ended() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let by_itself = self.has_ended();
        // Before the program is reaped, even if it has ended: its children may live on.
        self.stop.kill_group(self.group);
        if cfg!(not(unix)) && !by_itself {
            // It may have ended by now; nothing else can be done about it.
            let _ = self.child.kill();
        }
        let status = self.child.wait().ok();
        status.filter(|_| by_itself)
    }

    /// Whether the program has ended, which leaves it to be reaped later.
    #[cfg(unix)]
    fn has_ended(&self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // There is nothing to look at once it has been reaped.
        waitid(WaitId::Pid(self.group), look).map_or(true, |found| found.is_some())
    }

    #[cfg(not(unix))]
    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its input ends, which is how it is told to.
        self.requests = None;
        self.end();
    }
}

#[cfg(unix)]
fn group_of(child: &Child) -> Group {
    rustix::process::Pid::from_child(child)
}

#[cfg(not(unix))]
fn group_of(child: &Child) -> Group {
    child.id()
}

impl Line {
    /// The beginning, quoted, with escapes for what does not print.
    fn shown(&self) -> String {
        let text = match self {
            Line::Text(text) | Line::TooLong(text) => text,
            Line::NotUtf8 => return "bytes".into(),
        };
        let head: String = text.chars().take(SHOWN).collect();
        let more = if head.len() < text.len() { "…" } else { "" };
        format!("{head:?}{more}")
    }
}

fn write_requests(mut stdin: ChildStdin, requests: &Receiver<Vec<u8>>) {
    for request in requests {
        if stdin.write_all(&request).and_then(|()| stdin.flush()).is_err() {
            return;
        }
    }
}

/// Passes lines on, at most [`MAX_LINE`] bytes of each; ends with the program's output, or after a line that cannot be
/// a score.
fn read_lines(stdout: ChildStdout, lines: &SyncSender<Line>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let mut bytes = Vec::new();
        match stdout.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let whole = bytes.ends_with(b"\n") || bytes.len() < MAX_LINE;
        let line = match String::from_utf8(bytes) {
            Ok(text) if whole => Line::Text(text.trim_end().to_owned()),
            Ok(text) => Line::TooLong(text),
            Err(_) => Line::NotUtf8,
        };
        let last = !matches!(line, Line::Text(_));
        if lines.send(line).is_err() || last {
            return;
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    const LIMIT: Duration = Duration::from_secs(20);

    fn start(script: &str, time_limit: Duration) -> Program {
        Program::start(&format!("sh -c '{script}'"), time_limit, &Stop::default()).expect("sh is there")
    }

    fn answers(n: usize) -> Vec<Answer<'static>> {
        vec![Answer::new("p", "say \"hi\"\n", true); n]
    }

    /// The one line that a user sees, of the `n_calls`th call.
    fn failure(script: &str, time_limit: Duration, n_calls: usize) -> String {
        let mut program = start(script, time_limit);
        for _ in 1..n_calls {
            program.score(&answers(2)).expect("it answers");
        }
        program.score(&answers(2)).expect_err("it fails").to_string()
    }

    #[test]
    fn every_answer_gets_its_score_in_order_call_after_call() {
        let mut program = start("n=0; while read -r line; do n=$((n+1)); echo $n.5; done", LIMIT);
        assert_eq!(program.score(&answers(3)).unwrap(), [1.5, 2.5, 3.5]);
        assert_eq!(program.score(&answers(2)).unwrap(), [4.5, 5.5]);
        assert_eq!(program.score(&[]).unwrap(), Vec::<f32>::new());
    }

    #[test]
    fn the_program_reads_one_json_object_per_line() {
        let expected = r#"{"prompt":"p","completion":"say \"hi\"\n","ended":true}"#;
        let script = format!("sh -c 'read -r line; if [ \"$line\" = \"$0\" ]; then echo 1; fi' '{expected}'");
        let mut program = Program::start(&script, LIMIT, &Stop::default()).unwrap();
        assert_eq!(program.score(&answers(1)).unwrap(), [1.0]);
    }

    #[test]
    fn the_other_columns_of_a_row_are_in_the_line_as_they_are() {
        let columns = serde_json::json!({"answer": "4\n#### 4", "tests": [1, {"n": 2.5}]});
        let answer = Answer { row: columns.as_object(), ..Answer::new("p", "c", false) };
        let expected = r##"{"prompt":"p","completion":"c","ended":false,"row":{"answer":"4\n#### 4","tests":[1,{"n":2.5}]}}"##;
        let script = format!("sh -c 'read -r line; if [ \"$line\" = \"$0\" ]; then echo 1; fi' '{expected}'");
        let mut program = Program::start(&script, LIMIT, &Stop::default()).unwrap();
        assert_eq!(program.score(&[answer]).unwrap(), [1.0]);
    }

    #[test]
    fn an_object_with_a_score_will_do() {
        let mut program =
            start("while read -r line; do echo \"{\\\"score\\\": -2, \\\"why\\\": []}\"; done", LIMIT);
        assert_eq!(program.score(&answers(2)).unwrap(), [-2.0, -2.0]);
    }

    #[test]
    fn more_than_a_pipe_holds_goes_through() {
        let long = "x".repeat(100_000);
        let answers = vec![Answer::new(&long, "c", false); 50];
        let mut program = start("while read -r line; do echo 1; done", LIMIT);
        assert_eq!(program.score(&answers).unwrap().len(), 50);
    }

    #[test]
    fn a_program_that_dies_is_named_with_how_it_ended() {
        let line = failure("read -r line; echo 1; exit 3", LIMIT, 1);
        assert!(line.contains("ended (exit status: 3) after 1 of 2 scores"), "{line}");
        let line = failure("read -r a; read -r b; echo 1; echo 2; exit 4", LIMIT, 2);
        assert!(line.contains("ended (exit status: 4) after 0 of 2 scores"), "{line}");
    }

    #[test]
    fn a_program_that_hangs_is_given_up_at_the_limit() {
        let started = Instant::now();
        let line = failure("read -r line; echo 1; sleep 60", Duration::from_millis(200), 1);
        assert!(line.contains("of 2 scores within 0.2 s"), "{line}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn nonsense_is_shown() {
        for (script, expected) in [
            ("echo hello", "answered \"hello\", which is neither a number"),
            ("echo", "answered \"\", which is neither"),
            ("echo \"{\\\"reward\\\": 1}\"", "which is neither a number nor an object with a `score`"),
            ("echo 1e300", "which is not a finite number"),
            ("printf \"\\\\377\\\\n\"", "answered bytes, which is not UTF-8"),
            ("head -c 200000 /dev/zero | tr \"\\\\0\" 1", "which is too long for a score"),
        ] {
            let line = failure(script, LIMIT, 1);
            assert!(line.contains(expected) && line.len() < 300, "{line}");
        }
    }

    #[test]
    fn a_flood_is_stopped() {
        let mut program = start("while :; do echo 1; done", LIMIT);
        // The first calls may be too quick for it to get ahead.
        let error = (0..100_000).find_map(|_| program.score(&answers(2)).err()).unwrap().to_string();
        assert!(error.contains("wrote \"1\" without being asked"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_or_no_command_is_named() {
        let message =
            |command: &str| Program::start(command, LIMIT, &Stop::default()).unwrap_err().to_string();
        assert!(message("no-such-program --x").starts_with("cannot start `no-such-program --x`: "));
        assert_eq!(message(""), "`` is not a command");
        assert_eq!(message("sh 'open"), "`sh 'open` is not a command");
    }

    /// The number of a process that a script has written to a file, once it is there.
    fn pid_in(path: &std::path::Path) -> rustix::process::Pid {
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if let Some(pid) = text.strip_suffix('\n').and_then(|pid| pid.parse().ok()) {
                return rustix::process::Pid::from_raw(pid).expect("not 0");
            }
            assert!(began.elapsed() < LIMIT, "no number of a process in {}", path.display());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it ends soon; one that nobody has reaped yet counts as ended.
    fn ends(pid: rustix::process::Pid) -> bool {
        let lives = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            let zombie = state.is_ok_and(|stat| stat.rsplit(')').next().unwrap_or("").starts_with(" Z"));
            rustix::process::test_kill_process(pid).is_ok() && !zombie
        };
        let began = Instant::now();
        while lives() && began.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(5));
        }
        !lives()
    }

    #[test]
    fn what_a_program_has_started_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        for (name, rest, fails) in [
            ("lives", "while read -r line; do echo 1; done", false),
            ("ends", "read -r a; read -r b; echo 1; echo 2; exit 0", false),
            ("dies", "read -r a; exit 5", true),
        ] {
            for pipe in ["", ">/dev/null"] {
                let file = dir.path().join(format!("{name}{}", pipe.len()));
                let script = format!("sleep 100 {pipe} & echo $! > {}; {rest}", file.display());
                let mut program = start(&script, LIMIT);
                assert_eq!(program.score(&answers(2)).is_err(), fails, "{script}");
                let child = pid_in(&file);
                drop(program);
                assert!(ends(child), "{script}");
            }
        }
    }

    #[test]
    fn a_dead_program_whose_child_holds_its_output_is_named_at_once() {
        let began = Instant::now();
        let line = failure("sleep 100 & read -r line; echo 1; exit 5", LIMIT, 1);
        assert!(line.contains("ended (exit status: 5) after 1 of 2 scores"), "{line}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn an_interrupt_ends_the_wait_for_a_program_that_hangs() {
        let flag = Arc::new(AtomicBool::new(false));
        let stop = Stop::when(Arc::clone(&flag));
        let mut program = Program::start("sh -c 'read -r line; echo 1; sleep 100'", LIMIT, &stop).unwrap();
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(100));
                flag.store(true, std::sync::atomic::Ordering::SeqCst);
            });
            let error = program.score(&answers(2)).unwrap_err();
            assert!(matches!(error, Error::Interrupted { .. }), "{error}");
        });
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_program_that_answers_may_finish_after_an_interrupt() {
        let stop = Stop::when(Arc::new(AtomicBool::new(true)));
        let mut program =
            Program::start("sh -c 'while read -r line; do echo 1; done'", LIMIT, &stop).unwrap();
        assert_eq!(program.score(&answers(2)).unwrap(), [1.0, 1.0]);
    }

    #[test]
    fn all_programs_can_be_killed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!("sh -c 'sleep 100 & echo $! > {}; wait'", file.display());
        let stop = Stop::default();
        let program = Program::start(&script, LIMIT, &stop).unwrap();
        let child = pid_in(&file);
        stop.kill_programs();
        assert!(ends(child));
        drop(program);
    }

    #[test]
    fn scores_that_nobody_asked_for_are_not_taken_for_answers() {
        // The first call waits already when the line comes.
        let line = failure("sleep 0.3; echo 9; while read -r line; do echo 1; done", LIMIT, 1);
        assert!(line.contains("wrote \"1\" without being asked"), "{line}");
    }

    #[test]
    fn a_program_ends_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("ended");
        drop(start(&format!("cat >/dev/null; echo > {}", mark.display()), LIMIT));
        assert!(mark.exists());
    }
}
