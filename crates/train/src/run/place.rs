//! Which directory a run writes into, and that no other process does.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use crate::error::Error;
use crate::files::load_json;
use crate::inputs::Inputs;

use super::INPUTS_FILE;

/// What a directory is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Device and inode, where the system has them.
    #[cfg(unix)]
    pub(super) id: (u64, u64),
}

impl Place {
    pub(super) fn of(dir: &Path) -> Result<Self, Error> {
        let metadata = fs::metadata(dir).map_err(Error::io("read", dir))?;
        #[cfg(unix)]
        let id = {
            use std::os::unix::fs::MetadataExt;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let _ = metadata;
        Ok(Self {
            #[cfg(unix)]
            id,
        })
    }
}

/// The lock on a run directory, where the system has such locks. It ends with the process, however that ends.
pub(super) fn lock(dir: &Path) -> Result<Option<File>, Error> {
    let Some(file) = cfg!(unix).then(|| File::open(dir).ok()).flatten() else { return Ok(None) };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::RunInUse { dir: dir.to_owned() }),
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::Error(error)) => {
            tracing::debug!("{} cannot be locked: {error}", dir.display());
            Ok(None)
        }
    }
}

/// Whether a run has begun here: nothing else writes an `inputs.json` like ours.
pub(super) fn is_ours(dir: &Path) -> bool {
    let path = dir.join(INPUTS_FILE);
    fs::symlink_metadata(&path).is_ok_and(|file| file.is_file()) && load_json::<Inputs>(&path).is_ok()
}
