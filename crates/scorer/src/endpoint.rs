//! An HTTP endpoint that scores answers.

use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::Uri;

use crate::error::{Error, SHOWN};
use crate::program::Answer;

/// A body longer than this is no list of scores.
const MAX_BODY: u64 = 16 * 1024 * 1024;
/// Waiting doubles from try to try, up to so many times the first.
const MAX_DOUBLINGS: u32 = 6;

/// An HTTP endpoint.
#[derive(Debug)]
pub struct Endpoint {
    url: String,
    agent: Agent,
    retries: Retries,
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

/// One try.
enum Failure {
    /// Another try may help.
    Passing(String),
    Final(Error),
}

impl Endpoint {
    /// An endpoint at an `http` or `https` address. Every try has `time_limit`; nothing is sent yet.
    ///
    /// Proxies from the environment are used, except for this machine itself.
    ///
    /// # Errors
    /// [`Error::BadUrl`].
    pub fn new(url: &str, time_limit: Duration, retries: Retries) -> Result<Self, Error> {
        let bad = || Error::BadUrl { url: url.into() };
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad());
        }
        let config = Agent::config_builder().timeout_global(Some(time_limit)).http_status_as_error(false);
        let is_here = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        let config = if is_here { config.proxy(None) } else { config };
        Ok(Self { url: url.into(), agent: config.build().into(), retries })
    }

    /// One score for each answer, by a POST of `{"answers": [{"prompt": …, "completion": …, "ended": …}, …]}`.
    ///
    /// The server answers with `{"scores": [1.5, …]}` or the array alone. No connection, no answer in time, and the
    /// statuses 429 and 5xx are tried again.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`], [`Error::BadBody`].
    pub fn score(&self, answers: &[Answer<'_>]) -> Result<Vec<f32>, Error> {
        if answers.is_empty() {
            return Ok(Vec::new());
        }
        let request = serde_json::to_vec(&Request { answers }).expect("strings and a bool are JSON");
        let mut tries = 0;
        loop {
            match self.ask(&request, answers.len()) {
                Ok(scores) => return Ok(scores),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(problem)) if tries == self.retries.n => {
                    return Err(Error::Unreachable { url: self.url.clone(), n_tries: tries + 1, problem });
                }
                Err(Failure::Passing(_)) => {}
            }
            thread::sleep(self.retries.pause * 2u32.pow(tries.min(MAX_DOUBLINGS)));
            tries += 1;
        }
    }

    fn ask(&self, request: &[u8], n: usize) -> Result<Vec<f32>, Failure> {
        let sent = self.agent.post(&self.url).header("content-type", "application/json").send(request);
        let mut response = sent.map_err(|error| Failure::Passing(error.to_string()))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(MAX_BODY).lossy_utf8(true).read_to_string();
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(Failure::Passing(format!("status {status}")));
        }
        let url = || self.url.clone();
        let bad =
            |body: &str, problem| Failure::Final(Error::BadBody { url: url(), body: shown(body), problem });
        let body = match body {
            Ok(body) => body,
            Err(ureq::Error::BodyExceedsLimit(_)) => {
                return Err(bad("", "too long for a list of scores".into()));
            }
            Err(error) => return Err(Failure::Passing(error.to_string())),
        };
        if !status.is_success() {
            return Err(Failure::Final(Error::Refused {
                url: url(),
                status: status.as_u16(),
                body: shown(&body),
            }));
        }
        let Ok(Scored::Bare(scores) | Scored::Object { scores }) = serde_json::from_str(&body) else {
            return Err(bad(&body, "neither an array of numbers nor an object with `scores`".into()));
        };
        if scores.len() != n {
            return Err(bad(&body, format!("{} scores for {n} answers", scores.len())));
        }
        let scores: Vec<f32> = scores.iter().map(|&score| score as f32).collect();
        if scores.iter().all(|score| score.is_finite()) {
            Ok(scores)
        } else {
            Err(bad(&body, "not of finite numbers".into()))
        }
    }
}

/// The beginning, quoted.
fn shown(body: &str) -> String {
    let head: String = body.chars().take(SHOWN).collect();
    let more = if head.len() < body.len() { "…" } else { "" };
    format!("{head:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    const QUICK: Retries = Retries { n: 2, pause: Duration::from_millis(1) };
    const LIMIT: Duration = Duration::from_secs(20);
    const ANSWERS: [Answer<'static>; 2] = [
        Answer { prompt: "p", completion: "a", ended: true },
        Answer { prompt: "p", completion: "b", ended: false },
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
        let found = Endpoint::new(&url, LIMIT, QUICK).unwrap().score(&ANSWERS).map_err(|e| e.to_string());
        let expected = r#"{"answers":[{"prompt":"p","completion":"a","ended":true},{"prompt":"p","completion":"b","ended":false}]}"#;
        assert!(server.join().unwrap().iter().all(|body| body == expected));
        found
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
        let endpoint = Endpoint::new(&format!("http://127.0.0.1:{port}/"), LIMIT, QUICK).unwrap();
        let line = endpoint.score(&ANSWERS).unwrap_err().to_string();
        assert!(line.contains("cannot be reached in 3 tries: ") && line.contains("refused"), "{line}");
    }

    #[test]
    fn a_server_that_is_silent_is_given_up_at_the_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let once = Retries { n: 0, ..QUICK };
        let endpoint = Endpoint::new(&url, Duration::from_millis(100), once).unwrap();
        let line = endpoint.score(&ANSWERS).unwrap_err().to_string();
        assert!(line.contains("cannot be reached in 1 tries: timeout"), "{line}");
    }

    #[test]
    fn what_is_no_address_is_named() {
        for url in ["", "runs/reward", "ftp://host/x", "http://"] {
            let error = Endpoint::new(url, LIMIT, QUICK).unwrap_err().to_string();
            assert_eq!(error, format!("`{url}` is no http or https address"));
        }
    }
}
