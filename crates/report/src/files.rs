//! Reading and writing in a run directory, which may be somebody else's: what lies there is not trusted.
//!
//! Reading takes regular files only: a link could show a private file of the reader on the page, and a pipe or a device
//! could hold the report up for ever. Writing goes to a new file of an unpredictable name, which is then renamed; it
//! neither follows a link nor touches a file that it did not create, and what is replaced must be an older report.

use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use crate::Error;

/// An older report is recognised by its beginning, which lies within this many bytes.
const SIGNATURE_BYTES: u64 = 8192;

/// The text of a regular file, or nothing if there is no such file; bytes that are not UTF-8 become U+FFFD.
pub fn read(path: &Path) -> Result<Option<String>, Error> {
    let mut bytes = Vec::new();
    match open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                Error::NotAFile { path: path.to_path_buf(), kind: kind(metadata.file_type()) }
            }
            _ => Error::Read { path: path.to_path_buf(), source },
        }),
    }
}

/// Opens a regular file. The question is asked of the opened file, so that nothing can be exchanged in between.
fn open(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        // Without NONBLOCK, opening a pipe waits for somebody to write into it.
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
    }
    #[cfg(not(unix))]
    if fs::symlink_metadata(path)?.is_symlink() {
        return Err(io::Error::other("it is a link"));
    }
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

fn kind(file_type: FileType) -> &'static str {
    if file_type.is_symlink() {
        "a link"
    } else if file_type.is_dir() {
        "a directory"
    } else {
        "a pipe, a socket or a device"
    }
}

/// Fails if something is in the place of `path` that is not an older report and would be lost: a directory, a device,
/// or a file of somebody's own. A link is replaced, and what it points to stays.
pub fn check_replaceable(path: &Path) -> Result<(), Error> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Write { path: path.to_path_buf(), source }),
    };
    if metadata.is_symlink() {
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(Error::Occupied { path: path.to_path_buf(), kind: kind(metadata.file_type()) });
    }
    let mut beginning = Vec::new();
    open(path)
        .and_then(|file| file.take(SIGNATURE_BYTES).read_to_end(&mut beginning))
        .map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    if beginning.is_empty() || is_report(&String::from_utf8_lossy(&beginning)) {
        return Ok(());
    }
    Err(Error::Occupied { path: path.to_path_buf(), kind: "a file that `temper report` did not draw" })
}

/// [`check_replaceable`], and a link counts as something of somebody's own: `path` was asked for by name.
pub fn check_free(path: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        return Err(Error::Occupied { path: path.to_path_buf(), kind: "a link" });
    }
    check_replaceable(path)
}

/// Whether a file begins as the pages and pictures of this crate do.
fn is_report(beginning: &str) -> bool {
    let page =
        beginning.starts_with("<!doctype html>\n<html lang=\"en\">") && beginning.contains("<title>Temper: ");
    let picture = beginning.starts_with("<svg viewBox=\"0 0 ")
        && beginning.contains(" stroke-linejoin=\"round\" stroke-linecap=\"round\">");
    page || picture
}

/// Writes a new file next to the target and renames it, so that an older report is never left half overwritten.
pub fn write(path: &Path, text: &str) -> Result<(), Error> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tmp-report-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Otherwise the page would be for its owner only; the umask still applies.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let written = || -> io::Result<()> {
        let mut file = builder.tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.persist(path).map_err(|failure| failure.error)?;
        Ok(())
    };
    written().map_err(|source| Error::Write { path: path.to_path_buf(), source })
}
