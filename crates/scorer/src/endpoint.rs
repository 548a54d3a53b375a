//! An HTTP endpoint that scores answers.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::StatusCode;
use ureq::http::header::{CONTENT_ENCODING, LOCATION};

use crate::address::{Address, masked};
use crate::error::{Error, SHOWN};
use crate::program::Answer;
use crate::stop::{Deadline, Over, Stop};

/// A longer body is not a list of scores.
const MAX_BODY: u64 = 16 * 1024 * 1024;
/// Waiting doubles from try to try, up to so many times the first.
const MAX_DOUBLINGS: u32 = 6;

/// An HTTP endpoint.
#[derive(Debug)]
pub struct Endpoint {
    address: Address,
    agent: Agent,
    time_limit: Duration,
    retries: Retries,
    stop: Stop,
}

/// What to do about a server that is not there, or not now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Tries after the first one.
    pub n: u32,
    /// Before the first of them; doubles from one to the next.
    pub pause: Duration,
}

impl Default for Retries {
    /// Half a minute in all, for a server that starts again.
    fn default() -> Self {
        Self { n: 6, pause: Duration::from_millis(500) }
    }
}

#[derive(Serialize)]
struct Request<'a> {
    answers: &'a [Answer<'a>],
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scored {
    Bare(Vec<f64>),
    Object { scores: Vec<f64> },
}

/// How one try ended without scores.
enum Failure {
    /// Another try may help.
    Passing(String),
    /// The limit of the whole call, or an interrupt.
    Over(Over),
    Final(Error),
}

/// What a server sent back.
struct Reply {
    status: StatusCode,
    location: Option<String>,
    encoding: Option<String>,
    body: Result<Vec<u8>, ureq::Error>,
}

impl Endpoint {
    /// An endpoint at an `http` or `https` address; nothing is sent yet.
    ///
    /// Every call of [`Endpoint::score`] has `time_limit`, all tries and the pauses between them included, and ends
    /// soon after `stop` is asked. Proxies from the environment are used, except for this machine itself.
    ///
    /// # Errors
    /// [`Error::BadUrl`], [`Error::BadPort`].
    pub fn new(url: &str, time_limit: Duration, retries: Retries, stop: &Stop) -> Result<Self, Error> {
        let address = Address::new(url)?;
        // A redirect would turn the POST into a GET without answers, or send them where nobody meant them to go.
        let config = Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let config = if address.is_here { config.proxy(None) } else { config };
        Ok(Self { address, agent: config.build().into(), time_limit, retries, stop: stop.clone() })
    }

    /// One score for each answer, by a POST of `{"answers": [{"prompt": …, "completion": …, "ended": …}, …]}`. What
    /// an answer holds is that of a [`Program`](crate::Program).
    ///
    /// The server answers with `{"scores": [1.5, …]}` or the array alone. No connection, a broken one, and the
    /// statuses 429 and 5xx are tried again until the time limit.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::NoAnswer`], [`Error::Interrupted`], [`Error::Refused`],
    /// [`Error::Redirects`], [`Error::BadResponse`], [`Error::BadBody`], [`Error::Thread`].
    pub fn score(&self, answers: &[Answer<'_>]) -> Result<Vec<f32>, Error> {
        if answers.is_empty() {
            return Ok(Vec::new());
        }
        let request = serde_json::to_vec(&Request { answers }).expect("strings and a bool are JSON");
        let request = Arc::new(request);
        let mut deadline = Deadline::new(&self.stop, self.time_limit);
        let mut problem = "it did not answer".to_owned();
        let mut n_tries = 0;
        loop {
            n_tries += 1;
            match self.ask(&request, answers.len(), &mut deadline) {
                Ok(scores) => return Ok(scores),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Over(over)) => return Err(self.given_up(over, n_tries, problem)),
                Err(Failure::Passing(found)) => problem = found,
            }
            let pause = self.retries.pause * 2u32.pow((n_tries - 1).min(MAX_DOUBLINGS));
            // A pause that lasts until the limit leaves nothing for another try.
            if n_tries > self.retries.n || pause >= deadline.left() {
                return Err(Error::Unreachable { url: self.url(), n_tries, problem });
            }
            if let Err(over) = deadline.sleep(pause) {
                return Err(self.given_up(over, n_tries, problem));
            }
        }
    }

    /// For messages.
    fn url(&self) -> String {
        self.address.shown().to_owned()
    }

    fn given_up(&self, over: Over, n_tries: u32, problem: String) -> Error {
        match over {
            Over::Interrupt => Error::Interrupted { scorer: self.url() },
            Over::Time => {
                Error::NoAnswer { url: self.url(), seconds: self.time_limit.as_secs_f64(), n_tries, problem }
            }
        }
    }

    /// One try. A thread of its own waits for the server, so that an interrupt does not have to.
    fn ask(
        &self,
        request: &Arc<Vec<u8>>,
        n: usize,
        deadline: &mut Deadline<'_>,
    ) -> Result<Vec<f32>, Failure> {
        let (agent, url, request) = (self.agent.clone(), self.address.full().to_owned(), Arc::clone(request));
        let (send, receive) = sync_channel(1);
        let left = deadline.left();
        let waiting = thread::Builder::new().name("endpoint".into()).spawn(move || {
            // Nobody listens after an interrupt.
            let _ = send.send(post(&agent, &url, &request, left));
        });
        let waiting =
            waiting.map_err(|source| Failure::Final(Error::Thread { scorer: self.url(), source }))?;
        loop {
            let slice = deadline.slice().map_err(Failure::Over)?;
            match receive.recv_timeout(slice) {
                Ok(Ok(reply)) => return self.scores(reply, n),
                Ok(Err(ureq::Error::Timeout(_))) => return Err(Failure::Over(Over::Time)),
                Ok(Err(error)) => return Err(self.failure(&error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => match waiting.join() {
                    Err(panic) => std::panic::resume_unwind(panic),
                    Ok(()) => unreachable!("the thread ends after it has sent"),
                },
            }
        }
    }

    /// What a reply holds.
    fn scores(&self, reply: Reply, n: usize) -> Result<Vec<f32>, Failure> {
        let Reply { status, location, encoding, body } = reply;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Failure::Passing(format!("status {status}")));
        }
        if status.is_redirection() {
            let target = location.map_or("an address that it does not name".into(), |to| shown(&masked(&to)));
            let (url, status) = (self.url(), status.as_u16());
            return Err(Failure::Final(Error::Redirects { url, status, target }));
        }
        let bad = |body, problem: String| Failure::Final(Error::BadBody { url: self.url(), body, problem });
        let body = match body {
            Ok(body) => body,
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                return Err(bad("a long text".into(), "too long for a list of scores".into()));
            }
            Err(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(self.unusable("its body ends before its length".into()));
            }
            Err(ureq::Error::Timeout(_)) => return Err(Failure::Over(Over::Time)),
            Err(error) => return Err(self.failure(&error)),
        };
        if !status.is_success() {
            return Err(Failure::Final(Error::Refused {
                url: self.url(),
                status: status.as_u16(),
                body: shown(&String::from_utf8_lossy(&body)),
            }));
        }
        let Ok(body) = String::from_utf8(body) else {
            let encoding =
                encoding.map_or(String::new(), |name| format!(" (its encoding is {})", shown(&name)));
            return Err(bad("bytes".into(), format!("not UTF-8{encoding}")));
        };
        let bad = |problem| bad(shown(&body), problem);
        let Ok(Scored::Bare(scores) | Scored::Object { scores }) = serde_json::from_str(&body) else {
            return Err(bad("neither an array of numbers nor an object with `scores`".into()));
        };
        if scores.len() != n {
            return Err(bad(format!("{} scores for {n} answers", scores.len())));
        }
        let scores: Vec<f32> = scores.iter().map(|&score| score as f32).collect();
        if scores.iter().all(|score| score.is_finite()) {
            Ok(scores)
        } else {
            Err(bad("not of finite numbers".into()))
        }
    }

    /// Whether another try may help. A server that answers, but not as a server does, will do so again.
    fn failure(&self, error: &ureq::Error) -> Failure {
        use ureq::Error as E;
        match error {
            E::Protocol(problem) => self.unusable(format!("it is not valid HTTP: {problem}")),
            E::LargeResponseHeader(..) => self.unusable("its header is too large".into()),
            E::Io(_) | E::HostNotFound | E::ConnectionFailed | E::ConnectProxyFailed(_) => {
                Failure::Passing(self.without_password(error))
            }
            _ => self.unusable(self.without_password(error)),
        }
    }

    fn unusable(&self, problem: String) -> Failure {
        Failure::Final(Error::BadResponse { url: self.url(), problem })
    }

    fn without_password(&self, error: &ureq::Error) -> String {
        error.to_string().replace(self.address.full(), self.address.shown())
    }
}

/// Sends a request and reads all of the reply.
fn post(agent: &Agent, url: &str, request: &[u8], time_limit: Duration) -> Result<Reply, ureq::Error> {
    let post = agent.post(url).config().timeout_global(Some(time_limit)).build();
    let mut response = post.header("content-type", "application/json").send(request)?;
    let header = |name| {
        response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let (status, location, encoding) = (response.status(), header(LOCATION), header(CONTENT_ENCODING));
    let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec();
    Ok(Reply { status, location, encoding, body })
}

/// The beginning, quoted.
fn shown(text: &str) -> String {
    let head: String = text.chars().take(SHOWN).collect();
    let more = if head.len() < text.len() { "…" } else { "" };
    format!("{head:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;
    use temper_tokenizer::PromptRef;

    const QUICK: Retries = Retries { n: 2, pause: Duration::from_millis(1) };
    const LIMIT: Duration = Duration::from_secs(20);
    const ANSWERS: [Answer<'static>; 2] = [
        Answer { prompt: PromptRef::Text("p"), completion: "a", ended: true, row: None },
        Answer { prompt: PromptRef::Text("p"), completion: "b", ended: false, row: None },
    ];

    /// Gives one of `responses` to each request, then closes; the thread returns the bodies that came.
    fn serve(responses: Vec<(u16, &'static str)>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/score", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let answer = |(status, body): (u16, &str)| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut length = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    if line.trim().is_empty() {
                        break;
                    }
                }
                let mut request = vec![0; length];
                reader.read_exact(&mut request).unwrap();
                let n = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nContent-Length: {n}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
                String::from_utf8(request).unwrap()
            };
            responses.into_iter().map(answer).collect()
        });
        (url, server)
    }

    fn ask(responses: Vec<(u16, &'static str)>) -> Result<Vec<f32>, String> {
        let (url, server) = serve(responses);
        let endpoint = Endpoint::new(&url, LIMIT, QUICK, &Stop::default()).unwrap();
        let scores = endpoint.score(&ANSWERS).map_err(|e| e.to_string());
        let expected = r#"{"answers":[{"prompt":"p","completion":"a","ended":true},{"prompt":"p","completion":"b","ended":false}]}"#;
        assert!(server.join().unwrap().iter().all(|body| body == expected));
        scores
    }

    #[test]
    fn an_array_or_an_object_with_scores_will_do() {
        assert_eq!(ask(vec![(200, "[1, -2.5]")]).unwrap(), [1.0, -2.5]);
        assert_eq!(ask(vec![(200, r#"{"scores": [1, 2], "model": "x"}"#)]).unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn a_server_that_is_busy_is_asked_again() {
        assert_eq!(ask(vec![(503, ""), (429, "later"), (200, "[3, 4]")]).unwrap(), [3.0, 4.0]);
        let line = ask(vec![(500, ""), (500, ""), (502, "")]).unwrap_err();
        assert!(line.ends_with("cannot be reached in 3 tries: status 502 Bad Gateway"), "{line}");
    }

    #[test]
    fn a_refusal_is_final_and_shown() {
        let line = ask(vec![(404, "no such page")]).unwrap_err();
        assert!(line.contains("refused (status 404): \"no such page\""), "{line}");
    }

    #[test]
    fn nonsense_is_shown() {
        for (body, expected) in [
            ("hello", "answered \"hello\", which is neither an array of numbers nor an object with `scores`"),
            ("[1]", "which is 1 scores for 2 answers"),
            ("[1, 1e300]", "which is not of finite numbers"),
            ("{\"scores\": [1, null]}", "neither an array"),
        ] {
            let line = ask(vec![(200, body)]).unwrap_err();
            assert!(line.contains(expected), "{line}");
        }
    }

    #[test]
    fn nobody_there_is_said_after_the_last_try() {
        // Bound and closed again: nobody listens at this port.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/");
        let endpoint = Endpoint::new(&url, LIMIT, QUICK, &Stop::default()).unwrap();
        let line = endpoint.score(&ANSWERS).unwrap_err().to_string();
        assert!(line.contains("cannot be reached in 3 tries: ") && line.contains("refused"), "{line}");
    }

    /// A server that takes connections and never answers, and its address.
    fn silent() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, url)
    }

    #[test]
    fn a_server_that_is_silent_is_given_up_at_the_limit_of_the_whole_call() {
        let (_listener, url) = silent();
        let limit = Duration::from_millis(300);
        let endpoint = Endpoint::new(&url, limit, Retries::default(), &Stop::default()).unwrap();
        let began = Instant::now();
        let line = endpoint.score(&ANSWERS).unwrap_err().to_string();
        assert_eq!(line, format!("{url} gave no scores within 0.3 s (1 try): it did not answer"));
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn tries_and_their_pauses_end_at_the_limit_of_the_whole_call() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/");
        let limit = Duration::from_secs(1);
        // The pauses would be 31.5 seconds.
        let endpoint = Endpoint::new(&url, limit, Retries::default(), &Stop::default()).unwrap();
        let began = Instant::now();
        let line = endpoint.score(&ANSWERS).unwrap_err().to_string();
        assert!(line.contains("cannot be reached in 2 tries: ") && line.contains("refused"), "{line}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn an_interrupt_ends_the_wait_for_a_silent_server() {
        let (_listener, url) = silent();
        let stop = Stop::when(Arc::new(true.into()));
        let endpoint = Endpoint::new(&url, LIMIT, QUICK, &stop).unwrap();
        let began = Instant::now();
        let error = endpoint.score(&ANSWERS).unwrap_err();
        assert!(matches!(error, Error::Interrupted { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    /// Sends `response` as it is to every connection, and counts them.
    fn serve_raw(response: &'static [u8]) -> (String, Arc<AtomicU32>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://user:secret@{}/score", listener.local_addr().unwrap());
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                // All of the request, or the system resets the connection under the response.
                let mut request = Vec::new();
                let mut buffer = [0; 4096];
                while !request.ends_with(b"]}") {
                    let n = stream.read(&mut buffer).unwrap();
                    assert!(n > 0, "the request ends early");
                    request.extend_from_slice(&buffer[..n]);
                }
                let _ = stream.write_all(response);
            }
        });
        (url, count)
    }

    #[test]
    fn a_fault_that_stays_is_named_and_not_tried_again() {
        let large: &'static [u8] =
            Box::leak(format!("HTTP/1.1 200 X\r\na: {}\r\n\r\n", "x".repeat(200_000)).into_bytes().into());
        for (response, expected) in [
            (&b"SSH-2.0-OpenSSH_9.6\r\n\r\n"[..], "cannot be used: it is not valid HTTP"),
            (large, "cannot be used: its header is too large"),
            (b"HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n[1, 2]", "its body ends before its length"),
            (
                b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
                "cannot be used: it is not valid HTTP",
            ),
            (
                b"HTTP/1.1 200 X\r\nContent-Length: 4\r\n\r\n\xff\xfe1\x00",
                "answered bytes, which is not UTF-8",
            ),
            (
                b"HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
                "not UTF-8 (its encoding is \"gzip\")",
            ),
            (
                b"HTTP/1.1 302 X\r\nLocation: http://u:pw@other/y\r\nContent-Length: 0\r\n\r\n",
                "redirects (status 302) to \"http://u:***@other/y\"",
            ),
            (
                b"HTTP/1.1 307 X\r\nLocation: /score/\r\nContent-Length: 0\r\n\r\n",
                "redirects (status 307) to \"/score/\"",
            ),
            (b"HTTP/1.1 308 X\r\nContent-Length: 0\r\n\r\n", "to an address that it does not name"),
        ] {
            let (url, count) = serve_raw(response);
            let endpoint = Endpoint::new(&url, LIMIT, QUICK, &Stop::default()).unwrap();
            let line = endpoint.score(&ANSWERS).unwrap_err().to_string();
            assert!(line.contains(expected), "{line}");
            assert!(line.contains("user:***@") && !line.contains("secret"), "{line}");
            assert_eq!(count.load(Ordering::SeqCst), 1, "{line}");
        }
    }

    #[test]
    fn a_connection_that_breaks_is_tried_again() {
        let (url, count) = serve_raw(b"");
        let endpoint = Endpoint::new(&url, LIMIT, QUICK, &Stop::default()).unwrap();
        let line = endpoint.score(&ANSWERS).unwrap_err().to_string();
        assert!(line.contains("cannot be reached in 3 tries"), "{line}");
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }
}
