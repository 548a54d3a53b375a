//! A server on loopback that speaks the paths of the hub, and another one, on another port, that stores large files.

#![allow(dead_code)] // Each test program uses a part of it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use sha2::{Digest, Sha256};

/// The commit of every revision.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The one model.
pub const REPO: &str = "org/name";

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed after so many bytes of the body.
    Cut(usize),
    /// This status, without a body.
    Status(u16),
    /// A page, as a proxy sends it.
    Page,
    /// Other bytes of the same length.
    Garbled,
    /// The whole file, whatever was asked for.
    NoRange,
    /// Nothing, ever.
    Silence,
    /// A redirect to the same address.
    Loop,
}

/// What a client has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub token: Option<String>,
    pub range: Option<String>,
}

#[derive(Default)]
pub struct State {
    /// The files of the model by their names. Those that end with `.safetensors` are stored elsewhere.
    pub files: BTreeMap<String, Vec<u8>>,
    /// A text in the path, what goes wrong there, and how often.
    pub faults: Vec<(&'static str, Fault, usize)>,
    /// Without this token the model is not given.
    pub token: Option<String>,
    /// In the order in which they came.
    pub requests: Vec<Request>,
    store: String,
}

/// The two servers. They end with the process.
pub struct Loopback {
    /// The address for `HF_ENDPOINT`.
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Loopback {
    /// A hub with these files.
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let store = serve(&state);
        let url = serve(&state);
        let hub = Self { url, state };
        hub.state().store = store;
        for (name, bytes) in files {
            hub.state().files.insert((*name).to_owned(), bytes.to_vec());
        }
        hub
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread has panicked")
    }

    /// Lets something go wrong `times` times, where the path holds a text.
    pub fn fail(&self, path: &'static str, fault: Fault, times: usize) {
        self.state().faults.push((path, fault, times));
    }

    /// The paths that were asked for since the last call, without repeated ones.
    pub fn asked(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.state().requests.drain(..).map(|request| request.path).collect();
        paths.dedup();
        paths
    }
}

fn serve(state: &Arc<Mutex<State>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("a port"));
    let (state, own) = (Arc::clone(state), url.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (state, own) = (Arc::clone(&state), own.clone());
            // A client that goes away is not a failure of the server.
            thread::spawn(move || _ = answer(stream, &state, &own));
        }
    });
    url
}

fn answer(mut stream: TcpStream, state: &Mutex<State>, own: &str) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut words = first.split(' ');
    let (is_head, path) = (words.next() == Some("HEAD"), words.next().unwrap_or_default().to_owned());
    let mut request = Request { path: path.clone(), token: None, range: None };
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.token = value.strip_prefix("Bearer ").map(str::to_owned),
            "range" => request.range = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut state = state.lock().expect("no thread has panicked");
    state.requests.push(request.clone());
    let fault = state.faults.iter_mut().find(|(part, _, times)| *times > 0 && path.contains(part));
    let fault = fault.map(|(_, fault, times)| {
        *times -= 1;
        *fault
    });
    let mut response = match fault {
        Some(Fault::Status(status)) => Response::of(status),
        Some(Fault::Page) => {
            Response::of(200).with("Content-Type", "text/html; charset=utf-8").body(b"<html>Log in")
        }
        Some(Fault::Loop) => Response::of(302).with("Location", &path),
        Some(Fault::Silence) => {
            drop(state);
            thread::sleep(std::time::Duration::from_secs(60));
            return Ok(());
        }
        _ => state.respond(&request, own),
    };
    drop(state);
    if fault == Some(Fault::Garbled) {
        response.body.iter_mut().for_each(|byte| *byte ^= 1);
    }
    let range = request.range.filter(|_| response.status == 200 && fault != Some(Fault::NoRange));
    if let Some(start) =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
    {
        let total = response.body.len();
        response.body.drain(..start);
        let of = format!("bytes {start}-{}/{total}", total - 1);
        response = Response { status: 206, ..response }.with("Content-Range", &of);
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", response.status);
    head += &format!("Content-Length: {}\r\n", response.body.len());
    response.headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    stream.write_all((head + "\r\n").as_bytes())?;
    let n_sent = match fault {
        _ if is_head => 0,
        Some(Fault::Cut(n)) => n.min(response.body.len()),
        _ => response.body.len(),
    };
    stream.write_all(&response.body[..n_sent])
}

struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Response {
    fn of(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn body(self, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..self }
    }
}

impl State {
    fn respond(&self, request: &Request, own: &str) -> Response {
        let path = request.path.split('?').next().unwrap_or_default();
        if own == self.store {
            let bytes = path.strip_prefix("/store/").and_then(|name| self.files.get(name));
            return bytes.map_or(Response::of(404), |bytes| Response::of(200).body(bytes));
        }
        if !path.contains(REPO) {
            return Response::of(404).with("X-Error-Code", "RepoNotFound");
        }
        if self.token.is_some() && request.token != self.token {
            return Response::of(401).with("X-Error-Code", "GatedRepo");
        }
        if let Some(revision) = path.strip_prefix("/api/models/org/name/revision/") {
            if !["main", "v1", "refs%2Fpr%2F1", COMMIT].contains(&revision) {
                return Response::of(404).with("X-Error-Code", "RevisionNotFound");
            }
            let files: Vec<String> =
                self.files.keys().map(|name| format!("{{\"rfilename\": {name:?}}}")).collect();
            let list = format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", files.join(", "));
            return Response::of(200).with("Content-Type", "application/json").body(list.as_bytes());
        }
        let name = path.strip_prefix(&format!("/{REPO}/resolve/{COMMIT}/"));
        let Some((name, bytes)) = name.and_then(|name| Some((name, self.files.get(name)?))) else {
            return Response::of(404).with("X-Error-Code", "EntryNotFound");
        };
        let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if name.ends_with(".safetensors") {
            let target = format!("{}/store/{name}?signature=secret", self.store);
            let response = Response::of(302).with("Location", &target).with("X-Repo-Commit", COMMIT);
            let response = response.with("X-Linked-Size", &bytes.len().to_string());
            // What is stored elsewhere has an ETag of the redirect as well.
            return response
                .with("ETag", "\"of-the-redirect\"")
                .with("X-Linked-ETag", &format!("\"{sha256}\""));
        }
        let response =
            Response::of(200).with("X-Repo-Commit", COMMIT).with("ETag", &format!("\"{}\"", &sha256[..40]));
        response.with("Content-Type", "text/plain").body(bytes)
    }
}
