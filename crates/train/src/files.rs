//! Small files that are either the old one or the new one, never half of it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, one_line};

/// What the names of unfinished files and directories begin with; a reader ignores them.
const TEMP_PREFIX: &str = ".tmp-";

/// Settings and state are small; devices and pipes may have no end.
const MOST_BYTES: u64 = 64 << 20;

/// Reads a small file of a run directory. Whoever made the directory may have put something else in its place.
///
/// # Errors
///
/// [`Error::Io`], [`Error::NotRegular`], [`Error::TooLarge`].
pub(crate) fn read_regular(path: &Path) -> Result<Vec<u8>, Error> {
    check_regular(path)?;
    read_small(path, MOST_BYTES)
}

/// Refuses a device or a pipe; what is not there, or is a directory, fails when it is read.
///
/// # Errors
///
/// [`Error::NotRegular`].
pub(crate) fn check_regular(path: &Path) -> Result<(), Error> {
    let is_other = |file: fs::Metadata| !file.is_file() && !file.is_dir();
    if fs::metadata(path).is_ok_and(is_other) {
        return Err(Error::NotRegular { path: path.to_owned() });
    }
    Ok(())
}

/// Reads a file that has at most `limit` bytes, whatever kind of file it is.
///
/// # Errors
///
/// [`Error::Io`], [`Error::TooLarge`].
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Writes `value` as indented JSON, atomically.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be written; [`Error::BadState`] if `value` is not expressible as JSON.
pub fn save_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::BadState { path: path.to_owned(), message: error.to_string() })?;
    text.push('\n');
    write_file(path, text.as_bytes())
}

/// Reads what [`save_json`] wrote.
///
/// # Errors
///
/// Those of `read_regular`; [`Error::BadState`] if it is not JSON or not a `T`.
pub fn load_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    serde_json::from_slice(&read_regular(path)?)
        .map_err(|error| Error::BadState { path: path.to_owned(), message: one_line(&error.to_string()) })
}

/// Writes a file next to `path`, then renames it to `path`; after a power cut it is the old one or the new one.
///
/// # Errors
///
/// [`Error::Io`] if it cannot be written; what was there is still there then.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Io { action: "write", path: path.to_owned(), source };
    let (temp, mut file) = create_temp(path, |temp| File::create_new(temp)).map_err(failed)?;
    let mut write = || -> io::Result<()> {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temp, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temp);
        failed(source)
    })?;
    sync_dir(parent_of(path))
}

/// Makes a file or directory next to `path` under a temporary name that nothing else has: neither a link of somebody
/// else nor what a killed process left there is written to.
pub(crate) fn create_temp<T>(
    path: &Path,
    create: impl Fn(&Path) -> io::Result<T>,
) -> io::Result<(PathBuf, T)> {
    loop {
        let temp = temp_sibling(path);
        match create(&temp) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|made| (temp, made)),
        }
    }
}

/// Makes a directory with all that it lies in, so that a power cut does not take them away again.
pub(crate) fn create_dir(path: &Path) -> Result<(), Error> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    fs::create_dir_all(path).map_err(Error::io("create", path))?;
    // Outermost first: an entry is worth something only when the way to it is there.
    missing.into_iter().rev().try_for_each(|dir| sync_dir(parent_of(dir)))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name next to `path` that no other process or thread of this machine uses.
pub(crate) fn temp_sibling(path: &Path) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!("{TEMP_PREFIX}{}-{count}-{name}", std::process::id()))
}

/// Whether [`temp_sibling`] made this name: `.tmp-PROCESS-COUNT-…`. A user's own `.tmp-x` is not ours to remove.
pub(crate) fn is_temp_name(name: &str) -> bool {
    let mut parts = name.strip_prefix(TEMP_PREFIX).unwrap_or_default().splitn(3, '-');
    let mut number = || parts.next().is_some_and(|part| part.parse::<u64>().is_ok());
    number() && number() && parts.next().is_some_and(|rest| !rest.is_empty())
}

/// Makes a rename or a new name in `dir` durable, where the system can.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(error) if cannot_be_flushed(&error) => Ok(()),
        result => result.map_err(Error::io("flush", dir)),
    }
}

/// Whether the file system flushes no directories at all (some network and FUSE ones), or cannot be written.
fn cannot_be_flushed(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), InvalidInput | Unsupported | ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_refused() {
        let small = read_small(Path::new("/dev/zero"), 1000).unwrap_err().to_string();
        assert_eq!(small, "/dev/zero has more than 1000 bytes");
        let state = load_json::<u8>(Path::new("/dev/zero")).unwrap_err().to_string();
        assert_eq!(state, "/dev/zero is not a regular file");
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load_json::<u8>(dir.path()), Err(Error::Io { .. })));
        assert_eq!(
            read_small(
                &{
                    let path = dir.path().join("x");
                    fs::write(&path, "abc").unwrap();
                    path
                },
                3
            )
            .unwrap(),
            b"abc"
        );
    }

    #[test]
    fn json_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        save_json(&path, &vec![1.5, 0.1]).unwrap();
        save_json(&path, &vec![0.1, 2.5e-8]).unwrap();
        assert_eq!(load_json::<Vec<f64>>(&path).unwrap(), [0.1, 2.5e-8]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_or_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        assert!(matches!(load_json::<u8>(&path), Err(Error::Io { action: "read", .. })));
        fs::write(&path, "{").unwrap();
        let message = load_json::<u8>(&path).unwrap_err().to_string();
        assert!(message.contains("state.json: "), "{message}");
    }

    #[test]
    fn only_our_own_temporary_names_are_known() {
        let ours = temp_sibling(Path::new("run/step-000004"));
        assert!(is_temp_name(&ours.file_name().unwrap().to_string_lossy()), "{}", ours.display());
        for name in ["step-000004", ".tmp-", ".tmp-notes", ".tmp-1-", ".tmp-1-2", ".tmp-1-2-", ".tmp-a-2-x"] {
            assert!(!is_temp_name(name), "{name}");
        }
    }

    /// Raw numbers of Linux: EINVAL, ENOTSUP, ENOSYS and EROFS.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_without_flushes_of_directories_is_not_an_error() {
        for code in [22, 95, 38, 30] {
            assert!(cannot_be_flushed(&io::Error::from_raw_os_error(code)), "{code}");
        }
        // EIO and ENOSPC: the name may be lost.
        assert!(![5, 28].into_iter().any(|code| cannot_be_flushed(&io::Error::from_raw_os_error(code))));
    }

    /// Links at the temporary names that come next, as a hostile or a killed process may leave them.
    #[cfg(unix)]
    #[test]
    fn a_link_at_a_temporary_name_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, victim) = (dir.path().join("state.json"), dir.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        let process = std::process::id();
        for count in 0..2000 {
            let name = format!("{TEMP_PREFIX}{process}-{count}-state.json");
            std::os::unix::fs::symlink(&victim, dir.path().join(name)).unwrap();
        }
        save_json(&path, &1).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(load_json::<u8>(&path).unwrap(), 1);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(write_file(&taken, b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
