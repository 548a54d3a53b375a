//! Requests to the hub: headers, redirects, and a body that a silent server cannot keep open for ever.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderMap, Uri};

use crate::Error;
use crate::cache::is_commit;
use crate::hub::Watch;

/// More redirects than this lead nowhere.
const MOST_REDIRECTS: usize = 10;
/// How often a request that waits looks whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Bytes of a body that are passed on together.
const CHUNK: usize = 1 << 18;

/// Asks one hub.
pub(crate) struct Client {
    endpoint: String,
    token: Option<String>,
    agent: Agent,
    wait: Duration,
}

/// What a server said before its body.
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: HeaderMap,
}

/// An answer whose body is still arriving.
pub(crate) struct Reply {
    pub(crate) url: String,
    pub(crate) head: Head,
    parts: Receiver<Part>,
}

/// What the thread of a request passes on.
enum Part {
    Head(Head),
    Bytes(Vec<u8>),
    End,
    /// No answer, or a body that ends early.
    Failed(ureq::Error),
}

/// Where the bytes of a file are, and what the hub says about them.
pub(crate) struct Place {
    /// Names the content. It is the name of a blob: never a path.
    pub(crate) etag: String,
    /// Bytes of the file, where the hub says it.
    pub(crate) size: Option<u64>,
    /// The address that has the bytes.
    pub(crate) url: String,
    /// The body from its first byte, if this address was asked already.
    pub(crate) reply: Option<Reply>,
}

impl Client {
    pub(crate) fn new(endpoint: &str, token: Option<String>, wait: Duration) -> Result<Self, Error> {
        let bad = |problem| Error::BadEndpoint { url: endpoint.to_owned(), problem };
        let uri: Uri = endpoint.parse().map_err(|_| bad("it is not an address"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(bad("it must begin with `http://` or `https://` and a host"));
        }
        if uri.query().is_some() || uri.authority().is_some_and(|place| place.as_str().contains('@')) {
            return Err(bad("it must be the address of a hub, without a password or a query"));
        }
        // Redirects are followed here, where it is known who may see the token.
        let config = Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let config =
            config.accept_encoding("identity").user_agent(concat!("temper/", env!("CARGO_PKG_VERSION")));
        let config =
            config.timeout_connect(Some(wait)).timeout_recv_response(Some(wait)).timeout_per_read(Some(wait));
        let config = if is_here(&uri) { config.proxy(None) } else { config };
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        Ok(Self { endpoint, token, agent: config.build().into(), wait })
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The answer to one request, with the bytes of the file from `start` on. A redirect is an answer.
    fn ask(&self, url: &str, start: u64, watch: &mut Watch<'_>) -> Result<Reply, Error> {
        let mut request = self.agent.get(url);
        if start > 0 {
            request = request.header("range", format!("bytes={start}-"));
        }
        if let (Some(token), true) = (&self.token, same_host(url, &self.endpoint)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let (send, parts) = sync_channel(4);
        // On a thread of its own, so that an interrupt does not have to wait. It ends when nobody listens any more.
        let asking = thread::Builder::new().name("hub".into()).spawn(move || {
            let response = match request.call() {
                Ok(response) => response,
                Err(error) => return drop(send.send(Part::Failed(error))),
            };
            let head = Head { status: response.status().as_u16(), headers: response.headers().clone() };
            if send.send(Part::Head(head)).is_err() {
                return;
            }
            let mut body = response.into_body().into_reader();
            loop {
                let mut bytes = vec![0; CHUNK];
                let part = match body.read(&mut bytes) {
                    Ok(0) => Part::End,
                    Ok(n) => {
                        bytes.truncate(n);
                        Part::Bytes(bytes)
                    }
                    Err(error) => Part::Failed(error.into()),
                };
                let is_last = !matches!(part, Part::Bytes(_));
                if send.send(part).is_err() || is_last {
                    return;
                }
            }
        });
        asking.map_err(|source| Error::Thread { source })?;
        match next(&parts, watch)? {
            Part::Head(head) => Ok(Reply { url: url.to_owned(), head, parts }),
            Part::Failed(error) => Err(self.failure(url, &error)),
            Part::Bytes(_) | Part::End => unreachable!("the head comes first"),
        }
    }

    /// The answer of the last address that redirects lead to.
    pub(crate) fn get(&self, url: &str, start: u64, watch: &mut Watch<'_>) -> Result<Reply, Error> {
        let mut at = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let reply = self.ask(&at, start, watch)?;
            match reply.head.target(&at)? {
                None => return Ok(reply),
                Some(target) => at = target,
            }
        }
        Err(endless(url))
    }

    /// Asks the hub for a file, as far as its own answer; a redirect to the place that stores the bytes is left to the
    /// caller, who may want only some of them.
    pub(crate) fn locate(&self, url: &str, watch: &mut Watch<'_>) -> Result<Result<Place, Reply>, Error> {
        let mut at = url.to_owned();
        for _ in 0..=MOST_REDIRECTS {
            let reply = self.ask(&at, 0, watch)?;
            let target = reply.head.target(&at)?;
            if target.is_none() && reply.head.status != 200 {
                return Ok(Err(reply));
            }
            // A redirect within the hub has an ETag of its own, which is not that of the file.
            let own = match &target {
                Some(_) if !reply.head.is_absolute_redirect() => None,
                _ => reply.head.text("etag"),
            };
            let etag = reply.head.text("x-linked-etag").or(own);
            let size = reply.head.number("x-linked-size");
            match (etag, target) {
                (None, Some(target)) => at = target,
                (None, None) => {
                    return Err(not_the_hub(&at, "it names no ETag of the file".into()));
                }
                (Some(etag), target) => {
                    let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
                    if !is_commit(&etag) {
                        return Err(not_the_hub(&at, format!("its ETag {etag:?} is not a checksum")));
                    }
                    return Ok(Ok(match target {
                        Some(url) => Place { etag, size, url, reply: None },
                        None => {
                            reply.refuse_page()?;
                            let size = size.or(reply.head.number("content-length"));
                            Place { etag, size, url: at, reply: Some(reply) }
                        }
                    }));
                }
            }
        }
        Err(endless(url))
    }

    /// What it means that a request has no answer.
    fn failure(&self, url: &str, error: &ureq::Error) -> Error {
        use ureq::Error as E;
        match error {
            E::Timeout(_) => Error::TimeLimit { url: shown(url), seconds: self.wait.as_secs_f64() },
            E::Protocol(problem) => not_the_hub(url, format!("it is not valid HTTP: {problem}")),
            E::LargeResponseHeader(..) => not_the_hub(url, "its header is too large".into()),
            error => Error::Unreachable { url: shown(url), problem: error.to_string() },
        }
    }
}

impl Head {
    /// A header as text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
    }

    /// A header as a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// The first byte of a part of a file, as the server says it.
    pub(crate) fn first_byte(&self) -> Option<u64> {
        self.text("content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
    }

    fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308)
    }

    fn is_absolute_redirect(&self) -> bool {
        self.is_redirect()
            && self.text("location").is_some_and(|to| to.contains("://") || to.starts_with("//"))
    }

    /// The address that a redirect of `url` leads to.
    fn target(&self, url: &str) -> Result<Option<String>, Error> {
        if !self.is_redirect() {
            return Ok(None);
        }
        let bad = |problem: String| Error::Redirects { url: shown(url), problem };
        let to = self.text("location").ok_or_else(|| bad("to an address that it does not name".into()))?;
        let from: Uri = url.parse().map_err(|_| bad("to nowhere".into()))?;
        let (scheme, host) =
            (from.scheme_str().unwrap_or("https"), from.authority().map_or("", |a| a.as_str()));
        let target = match to {
            _ if to.contains("://") => to.to_owned(),
            _ if to.starts_with("//") => format!("{scheme}:{to}"),
            _ if to.starts_with('/') => format!("{scheme}://{host}{to}"),
            _ => {
                let dir = from.path().rsplit_once('/').map_or("", |(dir, _)| dir);
                format!("{scheme}://{host}{dir}/{to}")
            }
        };
        let is_web =
            target.parse::<Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        if !is_web || (scheme == "https" && !target.starts_with("https://")) {
            return Err(bad(format!("to {:?}, which is not followed", shown(&target))));
        }
        Ok(Some(target))
    }
}

impl Reply {
    /// A page for people is not a file of a model: it is from a proxy, or asks for a login.
    pub(crate) fn refuse_page(&self) -> Result<(), Error> {
        match self.head.text("content-type") {
            Some(kind) if kind.to_ascii_lowercase().starts_with("text/html") => {
                Err(not_the_hub(&self.url, "it is a web page (text/html)".into()))
            }
            _ => Ok(()),
        }
    }

    /// The next bytes of the body; `None` at its end. The inner error says how it broke off.
    pub(crate) fn bytes(&self, watch: &mut Watch<'_>) -> Result<Result<Option<Vec<u8>>, String>, Error> {
        Ok(match next(&self.parts, watch)? {
            Part::Bytes(bytes) => Ok(Some(bytes)),
            Part::End => Ok(None),
            Part::Failed(ureq::Error::Timeout(_)) => Err("the server stopped sending".into()),
            Part::Failed(ureq::Error::Io(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err("the connection was closed".into())
            }
            Part::Failed(error) => Err(error.to_string()),
            Part::Head(_) => unreachable!("the head comes once"),
        })
    }

    /// The whole body, which is text of at most `limit` bytes.
    pub(crate) fn body(&self, limit: usize, watch: &mut Watch<'_>) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        loop {
            match self.bytes(watch)? {
                Ok(None) => return Ok(body),
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Err(problem) => return Err(Error::Unreachable { url: shown(&self.url), problem }),
            }
            if body.len() > limit {
                return Err(not_the_hub(&self.url, "its answer is too long".into()));
            }
        }
    }
}

fn next(parts: &Receiver<Part>, watch: &mut Watch<'_>) -> Result<Part, Error> {
    loop {
        match parts.recv_timeout(LOOK_EVERY) {
            Ok(part) => return Ok(part),
            Err(RecvTimeoutError::Timeout) => watch.check()?,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the thread ends after the last part"),
        }
    }
}

fn endless(url: &str) -> Error {
    Error::Redirects { url: shown(url), problem: format!("more than {MOST_REDIRECTS} times") }
}

pub(crate) fn not_the_hub(url: &str, problem: String) -> Error {
    Error::NotTheHub { url: shown(url), problem }
}

/// An address for a message: signed ones have their secret in the query.
pub(crate) fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or_default().to_owned()
}

/// Whether two addresses are of the same server.
fn same_host(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (a.parse::<Uri>(), b.parse::<Uri>()) else { return false };
    a.scheme_str() == b.scheme_str() && a.authority() == b.authority()
}

/// This machine is never asked through a proxy.
fn is_here(uri: &Uri) -> bool {
    uri.host().is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderValue;

    fn target(url: &str, location: &'static str) -> Result<Option<String>, Error> {
        let headers = [(ureq::http::header::LOCATION, HeaderValue::from_static(location))];
        Head { status: 302, headers: headers.into_iter().collect() }.target(url)
    }

    #[test]
    fn redirects_are_relative_to_the_address_that_sends_them() {
        for (location, expected) in [
            ("https://cdn/x?sig=1", "https://cdn/x?sig=1"),
            ("//cdn/x", "https://cdn/x"),
            ("/api/y", "https://hub:8/api/y"),
            ("y", "https://hub:8/a/y"),
        ] {
            assert_eq!(target("https://hub:8/a/b?c", location).unwrap().as_deref(), Some(expected));
        }
        for location in ["http://hub:8/plain", "ftp://hub/x", "file:///etc/passwd"] {
            assert!(
                matches!(target("https://hub:8/a", location), Err(Error::Redirects { .. })),
                "{location}"
            );
        }
    }

    #[test]
    fn only_the_same_server_is_the_same_host() {
        assert!(same_host("http://h:1/a?b", "http://h:1"));
        for other in ["https://h:1", "http://h:2", "http://h", "http://x.h:1", "nonsense"] {
            assert!(!same_host("http://h:1/a", other), "{other}");
        }
    }

    #[test]
    fn an_endpoint_is_a_plain_address() {
        for url in ["", "hub", "ftp://hub", "http://", "http://u:p@hub", "http://hub/?a"] {
            assert!(
                matches!(Client::new(url, None, Duration::from_secs(1)), Err(Error::BadEndpoint { .. })),
                "{url}"
            );
        }
        assert_eq!(
            Client::new("https://hub/x/", None, Duration::from_secs(1)).unwrap().endpoint(),
            "https://hub/x"
        );
    }
}
