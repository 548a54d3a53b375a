//! Panics of other crates as values.
//!
//! The `tokenizers` crate believes its file: a `Strip` decoder that cuts more than there is, a `FixedLength` of 0 or a damaged
//! `precompiled_charsmap` index out of bounds, most of them not before some text comes along. A file is input, and bad
//! input is an error.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `f` returns, or `None` if it panics; then nothing is printed, since whoever asked says what is wrong.
///
/// This is for crates that panic where a file is damaged. A panic of our own code is a bug, which must be seen.
pub fn guarded<T>(f: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                previous(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    // A panic leaves at most a cache half written, and the crate asks its lock whether it is poisoned.
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    GUARDED.set(outer);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_none_and_what_comes_after_is_as_before() {
        assert_eq!(guarded(|| 7), Some(7));
        assert_eq!(guarded(|| -> u8 { panic!("inside") }), None);
        assert!(!GUARDED.get());
        assert_eq!(
            guarded(|| guarded(|| -> u8 { panic!("deep inside") }).is_none() && GUARDED.get()),
            Some(true)
        );
    }
}
