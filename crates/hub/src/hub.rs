//! The hub with its cache: a model by its name, as a directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::cache::{RepoCache, is_commit, make_parent};
use crate::client::{Client, Head, Place, Reply, not_the_hub, shown};
use crate::environment::Environment;
use crate::files::{CARD, CONFIG, INDEX, ONE_FILE, files_of_index, is_small, other_weights};
use crate::spec::{RepoSpec, is_relative_path, segment};

/// Longest list of files, in bytes.
const MAX_LIST: usize = 64 << 20;
/// Longest index of weights, in bytes.
const MAX_INDEX: u64 = 64 << 20;
/// A longer model card is not worth its download, in bytes.
const MAX_CARD: u64 = 1 << 20;
/// Waiting doubles from try to try, up to so many times the first.
const MAX_DOUBLINGS: u32 = 6;

/// A hub and its cache.
pub struct Hub {
    client: Client,
    cache: PathBuf,
    is_offline: bool,
    patience: Patience,
}

/// How long the hub may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, for an answer, and between two pieces of a body.
    pub wait: Duration,
    /// Tries after the first one. A download that got further may be tried as often again.
    pub n_retries: u32,
    /// Before the first of them; doubles from one to the next.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { wait: Duration::from_secs(30), n_retries: 4, pause: Duration::from_millis(500) }
    }
}

/// Which files of a model are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// All that Temper reads.
    Whole,
    /// All but the weights.
    WithoutWeights,
}

/// How far the download of one file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Its name.
    pub file: &'a str,
    /// Bytes that are there, also of an earlier download that broke off.
    pub done: u64,
    /// Bytes of the file, where the hub says it.
    pub total: Option<u64>,
}

/// Who follows a download, and may end it. By default nobody does.
pub struct Watch<'a> {
    /// Is told of every piece of a file.
    pub progress: Box<dyn FnMut(Progress<'_>) + 'a>,
    /// Is told, in a sentence, what the user should know.
    pub note: Box<dyn FnMut(&str) + 'a>,
    /// Whether to end soon; it is asked several times in a second.
    pub stop: Box<dyn Fn() -> bool + 'a>,
}

impl Default for Watch<'_> {
    fn default() -> Self {
        Self { progress: Box::new(|_| {}), note: Box::new(|_| {}), stop: Box::new(|| false) }
    }
}

impl Watch<'_> {
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        if (self.stop)() { Err(Error::Interrupted) } else { Ok(()) }
    }

    pub(crate) fn pause(&mut self, pause: Duration) -> Result<(), Error> {
        let end = Instant::now() + pause;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The directory with its files.
    pub dir: PathBuf,
    /// The commit that they are of.
    pub commit: String,
}

/// What the hub says about a revision.
#[derive(Deserialize)]
struct Listing {
    sha: Option<String>,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Hub {
    /// The hub and the cache that the environment names.
    ///
    /// # Errors
    /// [`Error::BadEndpoint`], [`Error::BadToken`], [`Error::NoHome`], and a token file that cannot be read.
    pub fn from_env() -> Result<Self, Error> {
        let Environment { endpoint, cache, token, is_offline } =
            Environment::read(|name| std::env::var_os(name))?;
        let hub = Self::new(&endpoint, cache, token, Patience::default())?;
        Ok(hub.offline(is_offline))
    }

    /// A hub at an `http` or `https` address. The token goes to its host alone.
    ///
    /// # Errors
    /// [`Error::BadEndpoint`].
    pub fn new(
        endpoint: &str,
        cache: impl Into<PathBuf>,
        token: Option<String>,
        patience: Patience,
    ) -> Result<Self, Error> {
        let client = Client::new(endpoint, token, patience.wait)?;
        Ok(Self { client, cache: cache.into(), is_offline: false, patience })
    }

    /// Whether only the cache is used.
    #[must_use]
    pub fn offline(self, is_offline: bool) -> Self {
        Self { is_offline, ..self }
    }

    /// The files of a model. What the cache lacks is downloaded.
    ///
    /// The hub is asked which commit the revision is. If it cannot be reached, the commit of the last time is used, with
    /// a note.
    ///
    /// # Errors
    /// A model or revision that the hub does not have or not give, one without safetensors, a download that fails after
    /// all tries, answers that are not those of a hub, a cache that cannot be written, [`Error::NotInCache`],
    /// [`Error::Interrupted`].
    pub fn snapshot(&self, spec: &RepoSpec, parts: Parts, watch: &mut Watch<'_>) -> Result<Snapshot, Error> {
        let cache = RepoCache::new(&self.cache, spec);
        if self.is_offline {
            return self.cached(&cache, spec, parts);
        }
        let (commit, names) = match self.retried(false, watch, |watch| self.list(spec, watch)) {
            Err(error) if error.is_absence() => {
                let snapshot = self.cached(&cache, spec, parts).map_err(|_| &error);
                let Ok(snapshot) = snapshot else { return Err(error) };
                (watch.note)(&format!("{error}; using `{spec}` as it was when it was last downloaded"));
                return Ok(snapshot);
            }
            listed => listed?,
        };
        let download = Download { hub: self, cache: &cache, repo: spec.repo(), commit: &commit };
        if !names.contains(CONFIG) {
            return Err(Error::NoFile { repo: spec.repo().into(), file: CONFIG.into() });
        }
        let has_weights = names.contains(ONE_FILE) || names.contains(INDEX);
        if parts == Parts::Whole && !has_weights {
            let others = other_weights(names.iter().map(String::as_str));
            return Err(Error::NoSafetensors { repo: spec.repo().into(), others });
        }
        for name in names.iter().filter(|name| is_small(name)) {
            download.fetch(name, watch)?;
        }
        if parts == Parts::Whole {
            for name in download.weights(&names, watch)? {
                download.fetch(&name, watch)?;
            }
        }
        cache.set_commit(spec.revision(), &commit)?;
        Ok(Snapshot { dir: cache.snapshot(&commit), commit })
    }

    /// A model that is in the cache with all that is needed.
    fn cached(&self, cache: &RepoCache, spec: &RepoSpec, parts: Parts) -> Result<Snapshot, Error> {
        let missing =
            |missing| Error::NotInCache { cache: self.cache.clone(), spec: spec.to_string(), missing };
        let commit = cache.commit_of(spec.revision())?.ok_or_else(|| missing(None))?;
        let dir = cache.snapshot(&commit);
        let mut needed = BTreeSet::from([CONFIG.to_owned()]);
        if parts == Parts::Whole {
            match dir.join(INDEX).is_file() && !dir.join(ONE_FILE).is_file() {
                true => needed.extend(read_index(&dir.join(INDEX), spec.repo())?),
                false => _ = needed.insert(ONE_FILE.to_owned()),
            }
        }
        match needed.into_iter().find(|name| !dir.join(name).is_file()) {
            Some(name) => Err(missing(Some(name))),
            None => Ok(Snapshot { dir, commit }),
        }
    }

    /// The commit of a revision, and the names of the files in its root.
    fn list(&self, spec: &RepoSpec, watch: &mut Watch<'_>) -> Result<(String, BTreeSet<String>), Error> {
        let url = format!(
            "{}/api/models/{}/revision/{}",
            self.client.endpoint(),
            spec.repo(),
            segment(spec.revision())
        );
        let reply = self.client.get(&url, 0, watch)?;
        self.check_status(&reply.head, &url, spec.repo(), Some(spec.revision()))?;
        reply.refuse_page()?;
        let body = reply.body(MAX_LIST, watch)?;
        let listing: Listing = serde_json::from_slice(&body)
            .map_err(|e| not_the_hub(&url, format!("it is not a list of files: {e}")))?;
        let commit = listing.sha.or_else(|| reply.head.text("x-repo-commit").map(str::to_owned));
        let commit = commit.filter(|commit| is_commit(commit));
        let commit = commit.ok_or_else(|| not_the_hub(&url, "it names no commit".into()))?;
        let names: BTreeSet<String> = listing.siblings.into_iter().map(|file| file.rfilename).collect();
        match names.iter().find(|name| !is_relative_path(name)) {
            Some(name) => Err(Error::FileName { repo: spec.repo().into(), name: name.clone() }),
            None => Ok((commit, names)),
        }
    }

    /// What a status that is not 200 or 206 means.
    fn check_status(&self, head: &Head, url: &str, repo: &str, revision: Option<&str>) -> Result<(), Error> {
        let (endpoint, repo, status) = (self.client.endpoint().to_owned(), repo.to_owned(), head.status);
        let says = |code: &str| head.text("x-error-code") == Some(code);
        Err(match status {
            200 | 206 => return Ok(()),
            401 | 403 => Error::Denied { endpoint, repo, status, has_token: self.client.has_token() },
            404 if says("RevisionNotFound") => {
                Error::UnknownRevision { repo, revision: revision.unwrap_or_default().to_owned() }
            }
            404 if revision.is_some() => Error::UnknownRepo { endpoint, repo },
            _ => Error::Refused { url: shown(url), status },
        })
    }

    /// Tries again what may succeed in a moment. `is_reached`: whether the hub has answered before.
    fn retried<T>(
        &self,
        is_reached: bool,
        watch: &mut Watch<'_>,
        mut attempt: impl FnMut(&mut Watch<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (mut n_failed, mut most) = (0, 0);
        loop {
            let error = match attempt(watch) {
                Err(error) if error.is_passing(is_reached) => error,
                done => return done,
            };
            if let Error::Truncated { n_bytes, .. } = &error
                && *n_bytes > most
            {
                (n_failed, most) = (0, *n_bytes);
            }
            if n_failed == self.patience.n_retries {
                return Err(error);
            }
            watch.pause(self.patience.pause * 2u32.pow(n_failed.min(MAX_DOUBLINGS)))?;
            n_failed += 1;
        }
    }
}

/// The files of one commit on their way into the cache.
struct Download<'a> {
    hub: &'a Hub,
    cache: &'a RepoCache,
    repo: &'a str,
    commit: &'a str,
}

impl Download<'_> {
    /// The names of the files with weights; their index is fetched first, if there is one.
    fn weights(&self, names: &BTreeSet<String>, watch: &mut Watch<'_>) -> Result<BTreeSet<String>, Error> {
        if names.contains(ONE_FILE) {
            return Ok([ONE_FILE.to_owned()].into());
        }
        self.fetch(INDEX, watch)?;
        let files = read_index(&self.cache.snapshot(self.commit).join(INDEX), self.repo)?;
        match files.iter().find(|file| !names.contains(*file)) {
            Some(file) => {
                Err(Error::NoFile { repo: self.repo.into(), file: format!("{file}, which {INDEX} names") })
            }
            None => Ok(files),
        }
    }

    /// Makes a file of the commit part of its snapshot.
    fn fetch(&self, name: &str, watch: &mut Watch<'_>) -> Result<(), Error> {
        // A commit never changes, so a file that is there is the right one.
        if self.cache.snapshot(self.commit).join(name).is_file() {
            return Ok(());
        }
        self.hub.retried(true, watch, |watch| self.try_fetch(name, watch))
    }

    fn try_fetch(&self, name: &str, watch: &mut Watch<'_>) -> Result<(), Error> {
        let client = &self.hub.client;
        let url =
            format!("{}/{}/resolve/{}/{}", client.endpoint(), self.repo, segment(self.commit), segment(name));
        let mut place = match client.locate(&url, watch)? {
            Ok(place) => place,
            Err(reply) => {
                self.hub.check_status(&reply.head, &url, self.repo, None)?;
                return Err(Error::Refused { url: shown(&url), status: reply.head.status });
            }
        };
        if name == CARD && place.size.is_none_or(|size| size > MAX_CARD) {
            return Ok(());
        }
        let _lock = self.cache.lock(&place.etag, watch)?;
        if !self.cache.blob(&place.etag).is_file() {
            self.fill(name, &mut place, watch)?;
            self.check(name, &place)?;
        }
        self.cache.link(self.commit, name, &place.etag)
    }

    /// Downloads what is missing of the incomplete blob of a file.
    fn fill(&self, name: &str, place: &mut Place, watch: &mut Watch<'_>) -> Result<(), Error> {
        let path = self.cache.incomplete(&place.etag);
        let failed = |source| Error::Io { path: path.clone(), source };
        make_parent(&path)?;
        let mut file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        let mut done = file.metadata().map_err(failed)?.len();
        if place.size.is_some_and(|size| done > size) {
            file.set_len(0).map_err(failed)?;
            done = 0;
        }
        if done > 0 && place.size == Some(done) {
            return Ok(());
        }
        let whole = place.reply.take().filter(|_| done == 0);
        let reply = whole.map_or_else(|| self.hub.client.get(&place.url, done, watch), Ok)?;
        if done > 0 && (reply.head.status != 206 || reply.head.first_byte() != Some(done)) {
            // The server does not continue: everything once more.
            file.set_len(0).map_err(failed)?;
            done = 0;
            if reply.head.status != 200 {
                let problem = "the server does not continue it".to_owned();
                return Err(self.truncated(name, done, place, problem));
            }
        }
        self.hub.check_status(&reply.head, &place.url, self.repo, None)?;
        reply.refuse_page()?;
        place.size = place.size.or_else(|| Some(done + reply.head.number("content-length")?));
        self.copy(name, &reply, &mut file, done, place, watch)?;
        // A crash must not leave a blob that is whole by its name alone.
        file.sync_all().map_err(failed)
    }

    /// Appends a body to a file that has `done` bytes.
    fn copy(
        &self,
        name: &str,
        reply: &Reply,
        file: &mut File,
        mut done: u64,
        place: &Place,
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        loop {
            (watch.progress)(Progress { file: name, done, total: place.size });
            match reply.bytes(watch)? {
                Ok(Some(bytes)) => {
                    let written = file.write_all(&bytes);
                    written
                        .map_err(|source| Error::Io { path: self.cache.incomplete(&place.etag), source })?;
                    done += bytes.len() as u64;
                }
                Ok(None) if place.size.is_some_and(|size| done < size) => {
                    return Err(self.truncated(name, done, place, "the server sent no more".into()));
                }
                Ok(None) => return Ok(()),
                Err(problem) => return Err(self.truncated(name, done, place, problem)),
            }
            if place.size.is_some_and(|size| done > size) {
                return Ok(());
            }
        }
    }

    fn truncated(&self, name: &str, n_bytes: u64, place: &Place, problem: String) -> Error {
        let (repo, file) = (self.repo.to_owned(), name.to_owned());
        Error::Truncated { repo, file, n_bytes, expected: place.size, problem }
    }

    /// Gives a blob its name, if its bytes are those that the hub describes; otherwise removes them.
    fn check(&self, name: &str, place: &Place) -> Result<(), Error> {
        let path = self.cache.incomplete(&place.etag);
        let failed = |source| Error::Io { path: path.clone(), source };
        let n_bytes = fs::metadata(&path).map_err(failed)?.len();
        let problem = match place.size {
            Some(size) if size != n_bytes => Some(format!("it has {n_bytes} bytes, not {size}")),
            // Files in LFS are named by their SHA-256, others by their git object.
            _ if place.etag.len() == 64 && sha256(&path).map_err(failed)? != place.etag => {
                Some(format!("its SHA-256 is not {}", place.etag))
            }
            _ => None,
        };
        if let Some(problem) = problem {
            fs::remove_file(&path).map_err(failed)?;
            return Err(Error::Damaged { repo: self.repo.into(), file: name.into(), problem });
        }
        fs::rename(&path, self.cache.blob(&place.etag)).map_err(failed)
    }
}

/// The files that the index at `path` names.
fn read_index(path: &Path, repo: &str) -> Result<BTreeSet<String>, Error> {
    let failed = |source| Error::Io { path: path.into(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_INDEX).read_to_end(&mut bytes).map_err(failed)?;
    files_of_index(&bytes).map_err(|problem| {
        let (repo, file) = (repo.to_owned(), INDEX.to_owned());
        Error::Damaged { repo, file, problem }
    })
}

/// The SHA-256 of a file, in hexadecimal digits.
fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            n => hasher.update(&buffer[..n]),
        }
    }
}
