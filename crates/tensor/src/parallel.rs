//! Rows of a batch on several cores: on a CPU the rows are independent, the operations too small to share.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use burn::tensor::Device;
use rayon::{ThreadBuilder, ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

use crate::host::is_host;

/// Cuts a batch into one shard per CPU thread, or leaves it whole on a graphics card.
///
/// A step of a small model is hundreds of small operations. A CPU backend runs most of them on one core, and what
/// it shares it shares at a loss. One shard of rows per core keeps all cores busy from the first operation to the
/// last. Rows do not see each other, so the shards compute what the batch would, up to rounding.
///
/// Returns each shard with the index of its first row; at least one shard if there are rows.
pub fn shards<'a, T>(rows: &'a [T], device: &Device) -> Vec<(usize, &'a [T])> {
    if rows.is_empty() {
        return Vec::new();
    }
    let n = if is_host(device) { n_threads().min(rows.len()) } else { 1 };
    (0..n).map(|i| (i * rows.len() / n, (i + 1) * rows.len() / n)).map(|(a, b)| (a, &rows[a..b])).collect()
}

/// Runs `f` on each part, every part on a core of its own; results in the order of the parts.
///
/// The threads are made once and wait between calls. Where the system does not give so many, fewer of them take the
/// parts in turn, down to the thread that calls.
///
/// Modules are not `Sync`: put a clone (while training, a `fork`) of the model into each part.
///
/// # Panics
/// If `f` does.
pub fn in_parallel<P: Send, R: Send>(mut parts: Vec<P>, f: impl Fn(P) -> R + Sync) -> Vec<R> {
    if parts.len() <= 1 {
        return parts.pop().map(f).into_iter().collect();
    }
    let pools = pools(parts.len(), || ThreadPoolBuilder::new().num_threads(1).build());
    run_on(&pools, parts, &f)
}

/// Threads that the CPU backends and [`shards`] use.
pub fn n_threads() -> usize {
    rayon::current_num_threads()
}

/// Starts the threads of the CPU backends, `wanted` of them or as many as the system gives, and says how many. Without
/// any, the thread that calls computes alone.
///
/// Call it before anything is computed: what comes first starts them, and then a missing thread is a panic of `rayon`.
/// A later call changes nothing.
pub fn start_threads(wanted: usize) -> usize {
    let spawn = |receiver: Receiver<ThreadBuilder>| {
        let work = move || {
            if let Ok(worker) = receiver.recv() {
                worker.run();
            }
        };
        thread::Builder::new().name("temper-worker".into()).spawn(work).map(drop)
    };
    // Threads first, the pool after: rayon itself can be asked only once.
    let workers = spawn_workers(wanted, spawn);
    let pool = match workers.len() {
        0 => ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global(),
        n => ThreadPoolBuilder::new()
            .num_threads(n)
            .spawn_handler(|worker| {
                let thread = &workers[worker.index()];
                thread.send(worker).map_err(|_| io::Error::other("a thread ended before it worked"))
            })
            .build_global(),
    };
    if let Err(error) = pool {
        tracing::debug!("the threads were started before: {error}");
    }
    n_threads()
}

/// As many threads as `spawn` makes until it fails, `wanted` at most. Each waits for what it is to run.
fn spawn_workers(
    wanted: usize,
    spawn: impl Fn(Receiver<ThreadBuilder>) -> io::Result<()>,
) -> Vec<Sender<ThreadBuilder>> {
    let start = |_| {
        let (sender, receiver) = mpsc::channel();
        spawn(receiver).ok().map(|()| sender)
    };
    (0..wanted.max(1)).map_while(start).collect()
}

/// Pools of one thread each, `wanted` of them or as many as there could be made: operations inside one find no other
/// thread to wait for. They live as long as the process.
fn pools(
    wanted: usize,
    build: impl Fn() -> Result<ThreadPool, ThreadPoolBuildError>,
) -> Vec<&'static ThreadPool> {
    static POOLS: Mutex<Vec<&'static ThreadPool>> = Mutex::new(Vec::new());
    // A panic while the list was locked leaves it as it was.
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    while pools.len() < wanted {
        match build() {
            Ok(pool) => pools.push(Box::leak(Box::new(pool))),
            Err(error) => {
                tracing::debug!("{} threads for {wanted} shards: {error}", pools.len());
                break;
            }
        }
    }
    pools.iter().take(wanted).copied().collect()
}

/// Runs `f` on all parts, each pool taking an equal share of neighbours; without a pool on the thread that calls.
fn run_on<P: Send, R: Send>(pools: &[&ThreadPool], parts: Vec<P>, f: &(impl Fn(P) -> R + Sync)) -> Vec<R> {
    fn spread<P: Send, R: Send>(
        pools: &[&ThreadPool],
        mut jobs: Vec<(P, &mut Option<R>)>,
        f: &(impl Fn(P) -> R + Sync),
    ) {
        let run =
            |jobs: Vec<(P, &mut Option<R>)>| jobs.into_iter().for_each(|(part, slot)| *slot = Some(f(part)));
        let Some((pool, others)) = pools.split_last() else { return run(jobs) };
        let mine = jobs.split_off(jobs.len() * others.len() / pools.len());
        // The scope ends when its own job and, inside of it, all the others have ended.
        pool.in_place_scope(|scope| {
            scope.spawn(|_| run(mine));
            if !others.is_empty() {
                spread(others, jobs, f);
            }
        });
    }
    let mut results: Vec<Option<R>> = parts.iter().map(|_| None).collect();
    spread(pools, parts.into_iter().zip(&mut results).collect(), f);
    results.into_iter().map(|result| result.expect("every part was run")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn shards_cover_every_row_once_in_order() {
        for n in 0..20 {
            let rows: Vec<usize> = (0..n).collect();
            let parts = shards(&rows, &Device::flex());
            let joined: Vec<usize> = parts.iter().flat_map(|(_, part)| part.iter().copied()).collect();
            assert_eq!(joined, rows);
            assert!(parts.iter().all(|(first, part)| part.first() == Some(first)));
        }
    }

    #[test]
    fn results_keep_the_order_of_the_parts() {
        assert_eq!(in_parallel((0..7).collect(), |i: usize| i * i), [0, 1, 4, 9, 16, 25, 36]);
        assert!(in_parallel(Vec::<usize>::new(), |i| i).is_empty());
    }

    #[test]
    fn parts_are_run_in_turn_where_there_are_fewer_threads_than_parts() {
        let built = [(); 3].map(|()| ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        for n_pools in 0..=3 {
            let pools: Vec<&ThreadPool> = built.iter().take(n_pools).collect();
            assert_eq!(run_on(&pools, (0..7).collect(), &|i: usize| i * i), [0, 1, 4, 9, 16, 25, 36]);
        }
    }

    #[test]
    fn the_threads_of_the_first_call_serve_the_next_ones() {
        let name = |_| thread::current().id();
        let first = in_parallel(vec![0, 1], name);
        assert_ne!(first[0], first[1]);
        assert_eq!(in_parallel(vec![0, 1], name), first);
    }

    /// The system gives three threads and then refuses.
    #[test]
    fn threads_that_cannot_be_made_are_done_without() {
        let left = Cell::new(3);
        let spawn = |_| match left.get() {
            0 => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            n => {
                left.set(n - 1);
                Ok(())
            }
        };
        assert_eq!(spawn_workers(8, spawn).len(), 3);
        assert_eq!(spawn_workers(8, spawn).len(), 0);
    }

    #[test]
    fn a_panic_in_a_part_comes_out() {
        let run = || in_parallel(vec![1, 0, 2], |i: usize| 6 / i);
        assert!(std::panic::catch_unwind(run).is_err());
        assert_eq!(in_parallel(vec![1, 3, 2], |i: usize| 6 / i), [6, 2, 3]);
    }
}
