//! The allocator, and what happens when there is no more memory.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};
use mimalloc::MiMalloc;

/// mimalloc, which ends the process with one line and exit code 1 where memory is lacking.
///
/// Training allocates and frees the same large buffers at every step. The system's allocator gives them back to the
/// kernel each time and pays for every page again, so mimalloc makes a training step on a CPU faster.
///
/// Rust's own answer to a failed allocation is to abort, which looks like a crash and leaves a core file.
pub struct Allocator;

/// `mi_option_purge_delay` of mimalloc.h, which the crate has no name for.
const PURGE_DELAY: mi_option_t = 15;

/// How long freed pages are kept, in milliseconds: longer than a step of GPT-2 small. mimalloc's own is 10, and it keeps
/// large areas ten times as long.
const DELAY: c_long = 10_000;

/// Lets the allocator keep what is freed for a while, unless `MIMALLOC_PURGE_DELAY` says otherwise.
///
/// A training step frees all of its buffers and the next one takes the same again. Pages that went back to the system in
/// between have to be cleared by it: 12 % of the time of an SFT step of a GPT-2 of 4.9 million parameters.
///
/// Call it before another thread starts.
#[allow(unsafe_code)] // A call of a C function.
pub fn keep_freed_pages() {
    // SAFETY: the option exists in versions 2 and 3 of mimalloc, and no other thread reads it yet.
    unsafe { mi_option_set_default(PURGE_DELAY, DELAY) }
}

#[allow(unsafe_code)] // An allocator cannot be written without it.
// SAFETY: every call is passed on as it is, and a pointer that comes back is not null.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that mimalloc asks for; so below.
        checked(unsafe { MiMalloc.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        checked(unsafe { MiMalloc.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        checked(unsafe { MiMalloc.realloc(pointer, layout, new_size) }, new_size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

fn checked(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() {
        #[cfg(unix)]
        end(size);
        #[cfg(not(unix))]
        let _ = size;
    }
    pointer
}

/// Writes the error line and exits. Nothing here allocates, takes a lock or runs a destructor.
#[cfg(unix)]
#[cold]
fn end(size: usize) -> ! {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering};

    static SAID: AtomicBool = AtomicBool::new(false);
    if SAID.swap(true, Ordering::SeqCst) {
        // Another thread is writing the line and ends the process.
        loop {
            std::thread::yield_now();
        }
    }
    let mut buffer = [0; 512];
    let mut rest = &mut buffer[..];
    let _ = writeln!(
        rest,
        "error: out of memory: {size} bytes more are not to be had\n\
         hint: in a stage, `--memory SIZE` makes microbatches fit, and `--set gradient_checkpointing=true` keeps less of them; \
         otherwise use shorter texts or a smaller model, or raise the memory limit"
    );
    let unused = rest.len();
    let len = buffer.len() - unused;
    #[allow(unsafe_code)] // `std::process::exit` runs destructors, which may allocate.
    // SAFETY: the pointer and the length are those of the buffer.
    unsafe {
        libc::write(2, buffer.as_ptr().cast(), len);
        libc::_exit(1)
    }
}
