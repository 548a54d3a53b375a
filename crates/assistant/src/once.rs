//! Warnings that are given once, however often their reason occurs.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Warns, unless this process has already warned under this key.
pub(crate) fn warn_once(key: &str, message: impl FnOnce() -> String) {
    static GIVEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned()) {
        tracing::warn!("{}", message());
    }
}
