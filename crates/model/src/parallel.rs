//! Rows of a batch on several cores: on a CPU the rows are independent, the operations too small to share.

use std::sync::OnceLock;

use burn::tensor::Device;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::kv_cache::is_host;

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
    let n = if is_host(device) { rayon::current_num_threads().min(rows.len()) } else { 1 };
    (0..n).map(|i| (i * rows.len() / n, (i + 1) * rows.len() / n)).map(|(a, b)| (a, &rows[a..b])).collect()
}

/// Runs `f` on each part, every part on a core of its own; results in the order of the parts.
///
/// Modules are not `Sync`: put a clone (while training, a `fork`) of the model into each part.
///
/// # Panics
/// If `f` does.
pub fn in_parallel<P: Send, R: Send>(mut parts: Vec<P>, f: impl Fn(P) -> R + Sync) -> Vec<R> {
    if parts.len() <= 1 {
        return parts.pop().map(f).into_iter().collect();
    }
    let f = &f;
    std::thread::scope(|scope| {
        let running: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(i, part)| scope.spawn(move || pool(i).install(|| f(part))))
            .collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, R>| {
            handle.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
        };
        running.into_iter().map(join).collect()
    })
}

/// A pool of one thread for each shard: operations inside it find no other thread to wait for.
fn pool(index: usize) -> &'static ThreadPool {
    static POOLS: OnceLock<Vec<ThreadPool>> = OnceLock::new();
    let build = |_| ThreadPoolBuilder::new().num_threads(1).build().expect("the system gives another thread");
    let pools = POOLS.get_or_init(|| (0..rayon::current_num_threads()).map(build).collect());
    &pools[index % pools.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_every_row_once_in_order() {
        for n in 0..20 {
            let rows: Vec<usize> = (0..n).collect();
            let found = shards(&rows, &Device::flex());
            let joined: Vec<usize> = found.iter().flat_map(|(_, part)| part.iter().copied()).collect();
            assert_eq!(joined, rows);
            assert!(found.iter().all(|(first, part)| part.first() == Some(first)));
        }
    }

    #[test]
    fn results_keep_the_order_of_the_parts() {
        assert_eq!(in_parallel((0..7).collect(), |i: usize| i * i), [0, 1, 4, 9, 16, 25, 36]);
        assert!(in_parallel(Vec::<usize>::new(), |i| i).is_empty());
    }
}
