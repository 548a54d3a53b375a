//! Warnings that are given once, however often their reason comes up.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Warns, unless there was a warning under this key before.
pub fn once(key: &str, message: impl FnOnce() -> String) {
    static GIVEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned()) {
        tracing::warn!("{}", message());
    }
}
