//! The cache of one model, in the layout of `huggingface_hub`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
use crate::hub::Watch;
use crate::spec::RepoSpec;

/// How often a blob that another process downloads is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The directory of one model in the cache.
pub(crate) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, spec: &RepoSpec) -> Self {
        let name = format!("models--{}", spec.repo().replace('/', "--"));
        Self { root: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The commit of a revision: what it was when the hub was last asked, or the revision itself if it is one.
    pub(crate) fn commit_of(&self, revision: &str) -> Result<Option<String>, Error> {
        let path = self.root.join("refs").join(revision);
        match fs::read_to_string(&path) {
            Ok(commit) => Ok(Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))),
            Err(_) if is_commit(revision) && self.snapshot(revision).is_dir() => {
                Ok(Some(revision.to_owned()))
            }
            Err(source) if is_absent(&source) => Ok(None),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// Remembers the commit of a branch or tag.
    pub(crate) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), Error> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        if fs::read(&path).is_ok_and(|known| known == commit.as_bytes()) {
            return Ok(());
        }
        make_parent(&path)?;
        // Renamed, so that nobody reads half a commit.
        let part = self.root.join(format!("refs-{}.incomplete", std::process::id()));
        let written = fs::write(&part, commit).and_then(|()| fs::rename(&part, &path));
        written.map_err(|source| Error::Io { path, source })
    }

    /// The files of a commit.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The bytes of a file by its checksum.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Where these bytes are while they arrive.
    pub(crate) fn incomplete(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// Makes a blob the file `name` of a commit.
    pub(crate) fn link(&self, commit: &str, name: &str, etag: &str) -> Result<(), Error> {
        let path = self.snapshot(commit).join(name);
        make_parent(&path)?;
        // A link whose blob was removed, or one that another process has just made.
        if let Err(source) = fs::remove_file(&path)
            && !is_absent(&source)
        {
            return Err(Error::Io { path, source });
        }
        match link(&self.blob(etag), &Path::new("../../blobs").join(etag), &path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(Error::Io { path, source }),
            _ => Ok(()),
        }
    }

    /// Waits until no other process downloads this blob, and keeps others waiting as long as the file is open.
    pub(crate) fn lock(&self, etag: &str, watch: &mut Watch<'_>) -> Result<File, Error> {
        let path = self.locks.join(format!("{etag}.lock"));
        let failed = |source| Error::Io { path: path.clone(), source };
        make_parent(&path)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                // A file system without locks must not keep anybody from a model.
                Err(TryLockError::Error(source)) if source.kind() == io::ErrorKind::Unsupported => {
                    return Ok(file);
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) => watch.pause(LOOK_EVERY)?,
            }
        }
    }
}

/// A relative link, as `huggingface_hub` makes it, so that the cache can be moved.
#[cfg(unix)]
fn link(_: &Path, relative: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, path)
}

/// Links need rights that few users have there: the same bytes under two names.
#[cfg(not(unix))]
fn link(blob: &Path, _: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(drop))
}

pub(crate) fn make_parent(path: &Path) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).map_err(|source| Error::Io { path: dir.into(), source })
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

/// Whether a text can be a commit or a checksum, and so the name of a file here.
pub(crate) fn is_commit(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}
