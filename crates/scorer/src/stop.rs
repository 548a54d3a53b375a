//! When a call ends although its scores have not all come: its time is over, or the user wants to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a wait looks whether it should end early.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A scorer that is about to answer when the user interrupts may still do so.
const LAST_CHANCE: Duration = Duration::from_millis(700);

/// The user's wish to stop, shared by whoever listens for signals and the scorers.
///
/// Calls in progress end within a second of it. The default is never asked.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    /// Process groups of the programs that run.
    groups: Arc<Mutex<Vec<Group>>>,
}

#[cfg(unix)]
pub(crate) type Group = rustix::process::Pid;
#[cfg(not(unix))]
pub(crate) type Group = u32;

impl Stop {
    /// Asked as soon as `flag` is true.
    pub fn when(flag: Arc<AtomicBool>) -> Self {
        Self { asked: flag, groups: Arc::default() }
    }

    /// What is true as soon as the user wants to stop.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// Whether the user wants to stop.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Kills every program that was started with this, and what they have started: before the process exits without
    /// dropping them.
    pub fn kill_programs(&self) {
        self.groups().drain(..).for_each(kill);
    }

    /// The program whose group this is has started.
    pub(crate) fn add(&self, group: Group) {
        self.groups().push(group);
    }

    /// Kills a group that was added, unless that has been done. Call this before its leader is reaped: until then the
    /// system gives its number to nobody else.
    pub(crate) fn kill_group(&self, group: Group) {
        let mut groups = self.groups();
        if let Some(place) = groups.iter().position(|other| *other == group) {
            groups.swap_remove(place);
            kill(group);
        }
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(unix)]
fn kill(group: Group) {
    // It fails where nothing of the group is left, which is what is wanted.
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
}

#[cfg(not(unix))]
fn kill(_: Group) {}

/// Why a call ends without its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Its time limit.
    Time,
    /// The user has asked to stop.
    Interrupt,
}

/// The end of one call.
pub(crate) struct Deadline<'a> {
    stop: &'a Stop,
    limit: Instant,
    last_chance: Option<Instant>,
}

impl<'a> Deadline<'a> {
    pub(crate) fn new(stop: &'a Stop, time_limit: Duration) -> Self {
        Self { stop, limit: Instant::now() + time_limit, last_chance: None }
    }

    /// What is left of the time limit.
    pub(crate) fn left(&self) -> Duration {
        self.limit.saturating_duration_since(Instant::now())
    }

    /// How long to wait until this is asked again, or why the call is over.
    pub(crate) fn slice(&mut self) -> Result<Duration, Over> {
        if self.stop.is_asked() {
            let now = Instant::now();
            if now >= *self.last_chance.get_or_insert(now + LAST_CHANCE) {
                return Err(Over::Interrupt);
            }
        }
        let left = self.left();
        if left.is_zero() { Err(Over::Time) } else { Ok(left.min(LOOK_EVERY)) }
    }

    /// Sleeps, unless the call is over before that.
    pub(crate) fn sleep(&mut self, pause: Duration) -> Result<(), Over> {
        let end = Instant::now() + pause;
        loop {
            let slice = self.slice()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(slice.min(left));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_leaves_a_last_chance_and_then_ends_the_call() {
        let flag = Arc::new(AtomicBool::new(false));
        let stop = Stop::when(Arc::clone(&flag));
        let mut deadline = Deadline::new(&stop, Duration::from_secs(60));
        assert_eq!(deadline.slice(), Ok(LOOK_EVERY));
        flag.store(true, Ordering::SeqCst);
        let began = Instant::now();
        assert_eq!(deadline.slice(), Ok(LOOK_EVERY));
        assert_eq!(deadline.sleep(Duration::from_secs(30)), Err(Over::Interrupt));
        assert!(began.elapsed() >= LAST_CHANCE && began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_call_is_over_at_its_limit() {
        let stop = Stop::default();
        let mut deadline = Deadline::new(&stop, Duration::from_millis(20));
        assert_eq!(deadline.sleep(Duration::from_millis(1)), Ok(()));
        assert_eq!(deadline.sleep(Duration::from_secs(30)), Err(Over::Time));
    }
}
