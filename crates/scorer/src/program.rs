//! A program that scores answers over its standard input and output.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, SHOWN, Status};

/// A line longer than this is no score.
const MAX_LINE: usize = 64 * 1024;
/// Lines that wait to be read; a program that writes on is held back by its pipe.
const MAX_WAITING: usize = 1024;
/// What a program that was told to end has left to do so, and one that closed its output to say how it ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// An answer to be scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Answer<'a> {
    /// What was asked.
    pub prompt: &'a str,
    /// What was answered, without the end token.
    pub completion: &'a str,
    /// Whether it ended by itself.
    pub ended: bool,
}

/// A running program. It ends when this is dropped.
#[derive(Debug)]
pub struct Program {
    command: String,
    time_limit: Duration,
    child: Child,
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
    /// No shell takes part. Every call of [`Program::score`] has `time_limit`.
    ///
    /// # Errors
    /// [`Error::BadCommand`], [`Error::Start`].
    pub fn start(command: &str, time_limit: Duration) -> Result<Self, Error> {
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
        thread::spawn(move || write_requests(stdin, &to_write));
        thread::spawn(move || read_lines(stdout, &read));
        Ok(Self { command: command.into(), time_limit, child, requests: Some(requests), lines })
    }

    /// One score for each answer.
    ///
    /// Lines in excess are found when the next call comes, not before.
    ///
    /// # Errors
    /// [`Error::Died`], [`Error::TimeLimit`], [`Error::BadLine`], [`Error::Unasked`]; the program is of no use then.
    pub fn score(&mut self, answers: &[Answer<'_>]) -> Result<Vec<f32>, Error> {
        match self.lines.try_recv() {
            Ok(line) => {
                return Err(Error::Unasked { command: self.command.clone(), line: line.shown() });
            }
            Err(TryRecvError::Disconnected) => return Err(self.died(0, answers.len())),
            Err(TryRecvError::Empty) => {}
        }
        let mut request = Vec::new();
        for answer in answers {
            serde_json::to_writer(&mut request, answer).expect("strings and a bool are JSON");
            request.push(b'\n');
        }
        if let Some(requests) = &self.requests {
            // The writer is gone if the program closed its input; what it wrote before that still counts.
            let _ = requests.send(request);
        }
        let deadline = Instant::now() + self.time_limit;
        let mut scores = Vec::with_capacity(answers.len());
        while scores.len() < answers.len() {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => scores.push(self.read_score(&line)?),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Error::TimeLimit {
                        command: self.command.clone(),
                        n_answered: scores.len(),
                        n_asked: answers.len(),
                        seconds: self.time_limit.as_secs_f64(),
                    });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.died(scores.len(), answers.len())),
            }
        }
        Ok(scores)
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
        let status = Status(self.wait());
        Error::Died { command: self.command.clone(), status, n_answered, n_asked }
    }

    /// How the program ended, if it does so soon.
    fn wait(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                found => return found.ok().flatten(),
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Its input ends, which is how it is told to.
        self.requests = None;
        if self.wait().is_none() {
            // It may have ended by now; there is nothing else to do about it.
            let _ = kill(&mut self.child);
            let _ = self.child.wait();
        }
    }
}

/// Ends a program and whatever it started: a shell's own programs would outlive it.
#[cfg(unix)]
fn kill(child: &mut Child) -> std::io::Result<()> {
    use rustix::process::{Pid, Signal, kill_process_group};
    Ok(kill_process_group(Pid::from_child(child), Signal::KILL)?)
}

#[cfg(not(unix))]
fn kill(child: &mut Child) -> std::io::Result<()> {
    child.kill()
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

/// Passes lines on, at most [`MAX_LINE`] bytes of each; ends with the program's output, or behind a line that cannot be
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

    const LIMIT: Duration = Duration::from_secs(20);

    fn start(script: &str, time_limit: Duration) -> Program {
        Program::start(&format!("sh -c '{script}'"), time_limit).expect("sh is there")
    }

    fn answers(n: usize) -> Vec<Answer<'static>> {
        vec![Answer { prompt: "p", completion: "say \"hi\"\n", ended: true }; n]
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
        let mut program = Program::start(&script, LIMIT).unwrap();
        assert_eq!(program.score(&answers(1)).unwrap(), [1.0]);
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
        let answers = vec![Answer { prompt: &long, completion: "c", ended: false }; 50];
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
        let message = |command: &str| Program::start(command, LIMIT).unwrap_err().to_string();
        assert!(message("no-such-program --x").starts_with("cannot start `no-such-program --x`: "));
        assert_eq!(message(""), "`` is not a command");
        assert_eq!(message("sh 'open"), "`sh 'open` is not a command");
    }

    #[test]
    fn a_program_ends_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("ended");
        drop(start(&format!("cat >/dev/null; echo > {}", mark.display()), LIMIT));
        assert!(mark.exists());
    }
}
