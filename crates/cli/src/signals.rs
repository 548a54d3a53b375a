//! The signals that ask a run to end.

use std::io;

/// Calls `heard` for every SIGINT, SIGTERM and SIGHUP, on a thread of its own.
///
/// A signal that was ignored when the process started stays ignored: `nohup` does so with SIGHUP, so that a run
/// outlives its terminal, and a shell with SIGINT for what it starts in the background.
///
/// # Errors
/// The system allows no handler, or no thread.
#[cfg(unix)]
pub fn listen(mut heard: impl FnMut() + Send + 'static) -> io::Result<()> {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    use signal_hook::iterator::Signals;

    // Nobody reads this flag. With a handler, a write beyond `ulimit -f` fails and is reported; without one the signal
    // ends the process.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)))?;
    let listening = std::thread::Builder::new().name("signals".into());
    listening.spawn(move || signals.forever().for_each(|_| heard()))?;
    Ok(())
}

/// Calls `heard` for every Ctrl-C.
///
/// # Errors
/// The system allows no handler.
#[cfg(not(unix))]
pub fn listen(heard: impl FnMut() + Send + 'static) -> io::Result<()> {
    ctrlc::set_handler(heard).map_err(io::Error::other)
}

#[cfg(unix)]
#[allow(unsafe_code)] // The system tells it in no other way that works on every Unix.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeros is a valid `sigaction`, and without a new action the call only fills in the present one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}
