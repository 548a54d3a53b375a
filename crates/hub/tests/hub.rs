//! Models from a hub on loopback, and everything that can go wrong with it.

mod loopback;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loopback::{COMMIT, Fault, Loopback};
use temper_hub::{Error, Hub, Parts, Patience, Progress, RepoSpec, Snapshot, Watch};
use tempfile::TempDir;

const QUICK: Patience =
    Patience { wait: Duration::from_secs(20), n_retries: 2, pause: Duration::from_millis(1) };

const WEIGHTS: [u8; 1000] = [7; 1000];
/// By `hashlib` of Python.
const SHA256: &str = "df1329c8b6c7cf3740bbe2f8bab34d253a8d9534a79dceea18177081fdf9f0e9";

fn small_files() -> Vec<(&'static str, &'static [u8])> {
    vec![("config.json", b"{}"), ("tokenizer.json", b"{\"a\": 1}"), ("onnx/model.onnx", b"large")]
}

fn whole_model() -> Loopback {
    let mut files = small_files();
    files.extend([
        ("model.safetensors", &WEIGHTS[..]),
        ("pytorch_model.bin", b"the same"),
        ("README.md", b"Hi"),
    ]);
    Loopback::new(&files)
}

struct Client {
    hub: Hub,
    cache: TempDir,
}

impl Client {
    fn of(server: &Loopback) -> Self {
        Self::with(server, None, QUICK)
    }

    fn with(server: &Loopback, token: Option<&str>, patience: Patience) -> Self {
        let cache = tempfile::tempdir().expect("a temporary directory");
        let token = token.map(str::to_owned);
        Self { hub: Hub::new(&server.url, cache.path(), token, patience).expect("an address"), cache }
    }

    fn get(&self, spec: &str) -> Result<Snapshot, Error> {
        self.get_parts(spec, Parts::Whole)
    }

    fn get_parts(&self, spec: &str, parts: Parts) -> Result<Snapshot, Error> {
        self.hub.snapshot(&RepoSpec::parse(spec).expect("a name"), parts, &mut Watch::default())
    }

    fn fails(&self, spec: &str) -> String {
        self.get(spec).expect_err("an error").to_string()
    }

    fn offline(self) -> Self {
        Self { hub: self.hub.offline(true), ..self }
    }

    fn root(&self) -> PathBuf {
        self.cache.path().join("models--org--name")
    }

    fn incomplete(&self) -> Vec<PathBuf> {
        let blobs =
            fs::read_dir(self.root().join("blobs")).into_iter().flatten().flatten().map(|entry| entry.path());
        blobs.filter(|path| path.extension().is_some_and(|end| end == "incomplete")).collect()
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory").flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[test]
fn a_model_is_downloaded_once_into_the_layout_of_huggingface_hub() {
    let server = whole_model();
    let client = Client::of(&server);
    let snapshot = client.get("org/name").unwrap();
    assert_eq!(snapshot.commit, COMMIT);
    assert_eq!(snapshot.dir, client.root().join("snapshots").join(COMMIT));
    assert_eq!(names(&snapshot.dir), ["README.md", "config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
    assert_eq!(fs::read_to_string(client.root().join("refs/main")).unwrap(), COMMIT);
    assert!(client.root().join("blobs").join(SHA256).is_file());
    #[cfg(unix)]
    {
        let link = fs::read_link(snapshot.dir.join("model.safetensors")).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(SHA256));
    }
    assert!(client.incomplete().is_empty());
    server.asked();
    assert_eq!(client.get("org/name").unwrap(), snapshot);
    assert_eq!(server.asked(), ["/api/models/org/name/revision/main"], "nothing is downloaded again");
    let other = client.get("org/name@refs/pr/1").unwrap();
    assert_eq!(other, snapshot);
    assert_eq!(server.asked(), ["/api/models/org/name/revision/refs%2Fpr%2F1"]);
    assert_eq!(fs::read_to_string(client.root().join("refs/refs/pr/1")).unwrap(), COMMIT);
    let pinned = client.get(&format!("org/name@{COMMIT}")).unwrap();
    assert_eq!(pinned, snapshot);
    assert_eq!(names(&client.root().join("refs")), ["main", "refs"], "a commit is not a reference");
}

#[test]
fn tokens_go_to_the_hub_and_to_no_other_host() {
    let server = whole_model();
    server.state().token = Some("hf_secret".into());
    Client::with(&server, Some("hf_secret"), QUICK).get("org/name").unwrap();
    let requests = server.state().requests.clone();
    let (stored, own): (Vec<_>, Vec<_>) =
        requests.iter().partition(|request| request.path.contains("/store/"));
    assert_eq!(stored.len(), 1);
    assert!(stored.iter().all(|request| request.token.is_none()), "{stored:?}");
    assert!(
        own.len() > 3 && own.iter().all(|request| request.token.as_deref() == Some("hf_secret")),
        "{own:?}"
    );
}

#[test]
fn a_model_that_is_not_given_says_why() {
    let server = whole_model();
    let client = Client::of(&server);
    let url = &server.url;
    assert_eq!(client.fails("org/other"), format!("{url} has no model `org/other`"));
    assert_eq!(client.fails("org/name@v9"), "the model `org/name` has no revision `v9`");
    server.state().token = Some("hf_secret".into());
    let line = client.fails("org/name");
    assert!(line.contains("to someone without a token (status 401)"), "{line}");
    let line = Client::with(&server, Some("hf_other"), QUICK).fails("org/name");
    assert!(line.contains("to the owner of this token (status 401)") && !line.contains("hf_"), "{line}");
    assert!(!client.root().exists(), "nothing was written");
}

#[test]
fn a_model_without_safetensors_or_config_is_refused_before_anything_is_downloaded() {
    let mut files = small_files();
    files.extend([("pytorch_model.bin", &b"1"[..]), ("model.gguf", b"2")]);
    let server = Loopback::new(&files);
    let client = Client::of(&server);
    assert_eq!(
        client.fails("org/name"),
        "`org/name` has no model.safetensors, only model.gguf, pytorch_model.bin"
    );
    assert!(!client.root().exists());
    client.get_parts("org/name", Parts::WithoutWeights).unwrap();
    server.state().files.remove("config.json");
    assert_eq!(client.fails("org/name"), "`org/name` has no config.json");
}

#[test]
fn the_files_of_an_index_are_downloaded_and_no_others() {
    let mut files = small_files();
    let index = br#"{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}"#;
    files.extend([
        ("model.safetensors.index.json", &index[..]),
        ("model-1-of-2.safetensors", b"first"),
        ("model-2-of-2.safetensors", b"second"),
        ("consolidated.safetensors", b"both once more"),
    ]);
    let server = Loopback::new(&files);
    let client = Client::of(&server);
    let snapshot = client.get("org/name").unwrap();
    assert_eq!(fs::read(snapshot.dir.join("model-2-of-2.safetensors")).unwrap(), b"second");
    assert!(!snapshot.dir.join("consolidated.safetensors").exists());
    server.state().files.remove("model-2-of-2.safetensors");
    let line = Client::of(&server).fails("org/name");
    assert!(line.starts_with("`org/name` has no model-2-of-2.safetensors, which"), "{line}");
    // A shard that was removed from the cache is missing there.
    fs::remove_file(snapshot.dir.join("model-1-of-2.safetensors")).unwrap();
    let line = client.offline().fails("org/name");
    assert!(line.contains("does not have model-1-of-2.safetensors of `org/name`"), "{line}");
}

#[test]
fn names_that_lead_out_of_the_directory_are_refused() {
    for name in
        ["../evil.json", "/etc/passwd", "a/../../tokenizer.json", "c:\\tokenizer.json", "a//b", "x\ny"]
    {
        let server = whole_model();
        server.state().files.insert(name.to_owned(), b"x".to_vec());
        let client = Client::of(&server);
        assert!(matches!(client.get("org/name"), Err(Error::FileName { .. })), "{name}");
        assert!(!client.root().exists());
    }
    let mut files = small_files();
    files.push(("model.safetensors.index.json", br#"{"weight_map": {"a": "../../x.safetensors"}}"#));
    let line = Client::of(&Loopback::new(&files)).fails("org/name");
    assert!(line.contains("\"../../x.safetensors\" is not the name of a file"), "{line}");
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_ended() {
    let server = whole_model();
    server.fail("/store/", Fault::Cut(300), 1);
    server.fail("/store/", Fault::Cut(200), 1);
    let client = Client::of(&server);
    let snapshot = client.get("org/name").unwrap();
    assert_eq!(fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
    let ranges: Vec<_> =
        server.state().requests.iter().filter(|r| r.path.contains("/store/")).cloned().collect();
    let ranges: Vec<_> = ranges.iter().map(|request| request.range.as_deref()).collect();
    assert_eq!(ranges, [None, Some("bytes=300-"), Some("bytes=500-")]);
}

#[test]
fn a_later_call_continues_an_earlier_download() {
    let server = whole_model();
    server.fail("/store/", Fault::Cut(300), 1);
    server.fail("/store/", Fault::Cut(0), 9);
    let client = Client::of(&server);
    let line = client.fails("org/name");
    assert!(
        line.starts_with("the download of model.safetensors from `org/name` ended after 300 bytes of 1000"),
        "{line}"
    );
    assert_eq!(client.incomplete().len(), 1);
    assert!(!client.root().join("refs").exists(), "no reference to a model that is not whole");
    server.state().faults.clear();
    server.state().requests.clear();
    let mut told = Vec::new();
    let progress =
        |progress: Progress<'_>| told.push((progress.file.to_owned(), progress.done, progress.total));
    let mut watch = Watch { progress: Box::new(progress), ..Watch::default() };
    client.hub.snapshot(&RepoSpec::parse("org/name").unwrap(), Parts::Whole, &mut watch).unwrap();
    drop(watch);
    let (file, total) = ("model.safetensors".to_owned(), Some(1000));
    assert_eq!(told.first(), Some(&(file.clone(), 300, total)));
    assert_eq!(told.last(), Some(&(file, 1000, total)));
    assert_eq!(server.state().requests.last().unwrap().range.as_deref(), Some("bytes=300-"));
}

#[test]
fn a_server_that_cannot_continue_sends_everything_again() {
    let server = whole_model();
    server.fail("/store/", Fault::Cut(300), 1);
    server.fail("/store/", Fault::NoRange, 1);
    let client = Client::of(&server);
    let snapshot = client.get("org/name").unwrap();
    assert_eq!(fs::read(snapshot.dir.join("model.safetensors")).unwrap(), WEIGHTS);
}

#[test]
fn bytes_that_are_not_those_of_the_hub_are_removed() {
    let server = whole_model();
    server.fail("/store/", Fault::Garbled, 1);
    let client = Client::of(&server);
    let line = client.fails("org/name");
    assert!(
        line.starts_with("the download of model.safetensors from `org/name` is damaged: its SHA-256"),
        "{line}"
    );
    assert!(client.incomplete().is_empty());
    client.get("org/name").unwrap();
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let server = whole_model();
    server.fail("/api/", Fault::Status(503), 2);
    server.fail("/config.json", Fault::Status(429), 2);
    Client::of(&server).get("org/name").unwrap();
    server.fail("/api/", Fault::Status(500), 3);
    let line = Client::of(&server).fails("org/name");
    assert!(line.ends_with("/api/models/org/name/revision/main answered with status 500"), "{line}");
}

#[test]
fn answers_of_something_else_are_named() {
    let server = whole_model();
    let cases = [
        ("/api/", Fault::Page, "did not answer as a hub does: it is a web page (text/html)"),
        ("/config.json", Fault::Page, "did not answer as a hub does: "),
        ("/store/", Fault::Page, "/store/model.safetensors did not answer as a hub does: it is a web page"),
        ("/api/", Fault::Loop, "redirects more than 10 times"),
        ("/config.json", Fault::Loop, "redirects more than 10 times"),
        ("/store/", Fault::Loop, "redirects more than 10 times"),
        ("/config.json", Fault::Status(404), "/config.json answered with status 404"),
        ("/store/", Fault::Status(418), "/store/model.safetensors answered with status 418"),
    ];
    for (path, fault, expected) in cases {
        server.fail(path, fault, 20);
        let line = Client::of(&server).fails("org/name");
        assert!(line.contains(expected), "{path} {fault:?}: {line}");
        assert!(!line.contains("secret"), "{line}");
        server.state().faults.clear();
    }
}

#[test]
fn without_the_hub_the_cache_will_do() {
    let server = whole_model();
    let client = Client::of(&server);
    let snapshot = client.get("org/name").unwrap();
    server.fail("/api/", Fault::Status(503), 99);
    let mut notes = Vec::new();
    let note = |line: &str| notes.push(line.to_owned());
    let mut watch = Watch { note: Box::new(note), ..Watch::default() };
    let again = client.hub.snapshot(&RepoSpec::parse("org/name").unwrap(), Parts::Whole, &mut watch);
    drop(watch);
    assert_eq!(again.unwrap(), snapshot);
    assert!(
        matches!(&notes[..], [note] if note.ends_with("using `org/name` as it was when it was last downloaded")),
        "{notes:?}"
    );
    assert!(client.fails("org/name@v1").contains("status 503"));
    server.asked();
    let client = client.offline();
    assert_eq!(client.get("org/name").unwrap(), snapshot);
    assert_eq!(client.get(&format!("org/name@{COMMIT}")).unwrap(), snapshot);
    assert_eq!(server.asked(), [""; 0]);
    let line = client.fails("org/name@v1");
    assert!(
        line.contains("does not have any revision of `org/name@v1`") && line.contains("HF_HUB_OFFLINE"),
        "{line}"
    );
    assert!(client.fails("org/other").contains("any revision of `org/other`"));
    fs::remove_file(snapshot.dir.join("model.safetensors")).unwrap();
    assert!(client.fails("org/name").contains("does not have model.safetensors of `org/name`"));
    client.get_parts("org/name", Parts::WithoutWeights).unwrap();
}

#[test]
fn nobody_there_is_said_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cache = tempfile::tempdir().unwrap();
    let slow = Patience { pause: Duration::from_secs(60), ..QUICK };
    let hub = Hub::new(&format!("http://127.0.0.1:{port}"), cache.path(), None, slow).unwrap();
    let spec = RepoSpec::parse("org/name").unwrap();
    let line = hub.snapshot(&spec, Parts::Whole, &mut Watch::default()).unwrap_err().to_string();
    assert!(line.contains("cannot be reached: ") && line.contains("refused"), "{line}");
}

#[test]
fn a_silent_server_is_given_up() {
    let server = whole_model();
    server.fail("/api/", Fault::Silence, 1);
    let quick = Patience { wait: Duration::from_millis(200), ..QUICK };
    let line = Client::with(&server, None, quick).fails("org/name");
    assert!(line.ends_with("did not answer within 0.2 s"), "{line}");
}

#[test]
fn an_interrupt_ends_the_wait_and_keeps_what_came() {
    let server = whole_model();
    server.fail("/store/", Fault::Cut(300), 1);
    server.fail("/store/", Fault::Silence, 1);
    let client = Client::of(&server);
    let began = Instant::now();
    let stop = || server.state().requests.iter().any(|request| request.range.is_some());
    let mut watch = Watch { stop: Box::new(stop), ..Watch::default() };
    let error =
        client.hub.snapshot(&RepoSpec::parse("org/name").unwrap(), Parts::Whole, &mut watch).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(fs::metadata(&client.incomplete()[0]).unwrap().len(), 300);
}

#[test]
fn a_blob_that_another_process_downloads_is_waited_for() {
    let server = whole_model();
    let client = Client::of(&server);
    client.get("org/name").unwrap();
    let locks = client.cache.path().join(".locks/models--org--name");
    fs::remove_dir_all(client.root()).unwrap();
    let name = names(&locks).into_iter().find(|name| name.len() == 64 + ".lock".len()).unwrap();
    let lock = fs::File::create(locks.join(name)).unwrap();
    lock.lock().unwrap();
    let began = Instant::now();
    let stop = || began.elapsed() > Duration::from_millis(300);
    let mut watch = Watch { stop: Box::new(stop), ..Watch::default() };
    let spec = RepoSpec::parse("org/name").unwrap();
    assert!(matches!(client.hub.snapshot(&spec, Parts::Whole, &mut watch), Err(Error::Interrupted)));
    assert_eq!(fs::metadata(client.root().join("blobs")).map(|_| client.incomplete().len()).unwrap(), 0);
    drop(lock);
    client.get("org/name").unwrap();
}

#[test]
fn a_large_model_card_is_left_out() {
    let server = whole_model();
    server.state().files.insert("README.md".into(), vec![b'x'; (1 << 20) + 1]);
    let snapshot = Client::of(&server).get("org/name").unwrap();
    assert!(!snapshot.dir.join("README.md").exists());
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let server = whole_model();
    let client = Client::of(&server);
    fs::write(client.root(), "a file").unwrap();
    let line = client.fails("org/name");
    assert!(line.contains("models--org--name"), "{line}");
}
