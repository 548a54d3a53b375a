//! The processes of one job, and what they tell each other.

use std::fmt::Debug;
use std::sync::Arc;

/// How the processes of one job, its ranks, reach each other.
///
/// Every rank makes the same calls in the same order. [`Link::gather`] is enough; an implementation with faster ways to
/// sum or to broadcast overrides those, and must give the same bits on all ranks.
pub trait Link: Debug + Send + Sync {
    /// Which of the ranks this is, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn size(&self) -> usize;

    /// What every rank passed, in the order of the ranks.
    fn gather(&self, bytes: Vec<u8>) -> Vec<Vec<u8>>;

    /// Replaces each value by its sum over the ranks, added in the order of the ranks.
    fn sum(&self, values: &mut [f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        values.fill(0.0);
        for of_rank in self.gather(bytes) {
            for (sum, bytes) in values.iter_mut().zip(of_rank.as_chunks::<4>().0) {
                *sum += f32::from_le_bytes(*bytes);
            }
        }
    }

    /// What the rank `root` passed; the others' bytes are ignored.
    fn broadcast(&self, bytes: Vec<u8>, root: usize) -> Vec<u8> {
        self.gather(bytes).swap_remove(root)
    }

    /// Returns when every rank has called it.
    fn barrier(&self) {
        self.gather(Vec::new());
    }
}

/// The processes of this job. Alone, which is the default, every operation leaves its values as they are.
#[derive(Clone, Debug, Default)]
pub struct World {
    link: Option<Arc<dyn Link>>,
}

impl World {
    /// One process by itself.
    pub fn alone() -> Self {
        Self::default()
    }

    /// Several processes that reach each other through `link`.
    pub fn linked(link: impl Link + 'static) -> Self {
        Self { link: Some(Arc::new(link)) }
    }

    /// Which of the processes this is, from 0.
    pub fn rank(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.rank())
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.link.as_ref().map_or(1, |link| link.size())
    }

    /// The rows of a batch that this rank computes, as `start..end`: consecutive, and as many as every other rank's up
    /// to one.
    pub fn share(&self, n_rows: usize) -> std::ops::Range<usize> {
        let cut = |rank: usize| rank * n_rows / self.size();
        cut(self.rank())..cut(self.rank() + 1)
    }

    /// Replaces each value by its sum over the ranks, added in the order of the ranks.
    pub fn sum_f32(&self, values: &mut [f32]) {
        if let Some(link) = &self.link {
            link.sum(values);
        }
    }

    /// [`World::sum_f32`] in double precision, for losses and counts.
    pub fn sum_f64(&self, values: &mut [f64]) {
        let Some(link) = &self.link else { return };
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        values.fill(0.0);
        for of_rank in link.gather(bytes) {
            for (sum, bytes) in values.iter_mut().zip(of_rank.as_chunks::<8>().0) {
                *sum += f64::from_le_bytes(*bytes);
            }
        }
    }

    /// The values of all ranks, one rank after the other.
    pub fn concat(&self, values: Vec<f64>) -> Vec<f64> {
        let Some(link) = &self.link else { return values };
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let read =
            |of_rank: Vec<u8>| of_rank.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        link.gather(bytes).into_iter().flat_map(|of_rank| -> Vec<f64> { read(of_rank) }).collect()
    }

    /// What the rank `root` passed.
    pub fn broadcast(&self, bytes: Vec<u8>, root: usize) -> Vec<u8> {
        match &self.link {
            Some(link) => link.broadcast(bytes, root),
            None => bytes,
        }
    }

    /// Returns when every rank has called it.
    pub fn barrier(&self) {
        if let Some(link) = &self.link {
            link.barrier();
        }
    }

    /// Names with lengths of every rank. Names have no line break.
    pub(crate) fn gather_lengths(&self, own: &[(String, usize)]) -> Vec<Vec<(String, usize)>> {
        let Some(link) = &self.link else { return vec![own.to_vec()] };
        let text: Vec<String> = own.iter().map(|(name, n)| format!("{n} {name}")).collect();
        let read = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).expect("ranks send text");
            let line = |line: &str| {
                let (n, name) = line.split_once(' ').expect("ranks send lengths with names");
                (name.to_owned(), n.parse().expect("ranks send lengths"))
            };
            text.lines().map(line).collect()
        };
        link.gather(text.join("\n").into_bytes()).into_iter().map(read).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Barrier, Mutex};

    /// Ranks that are threads of one process.
    #[derive(Debug)]
    struct Threads {
        rank: usize,
        shared: Arc<(Barrier, Mutex<Vec<Vec<u8>>>)>,
    }

    impl Link for Threads {
        fn rank(&self) -> usize {
            self.rank
        }

        fn size(&self) -> usize {
            self.shared.1.lock().unwrap().len()
        }

        fn gather(&self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
            let (barrier, slots) = &*self.shared;
            slots.lock().unwrap()[self.rank] = bytes;
            barrier.wait();
            let gathered = slots.lock().unwrap().clone();
            barrier.wait();
            gathered
        }
    }

    /// Runs `f` on `n` ranks at once; results in the order of the ranks.
    pub(crate) fn on_ranks<R: Send>(n: usize, f: impl Fn(World) -> R + Sync) -> Vec<R> {
        let shared = Arc::new((Barrier::new(n), Mutex::new(vec![Vec::new(); n])));
        std::thread::scope(|scope| {
            let start = |rank| {
                let (world, f) = (World::linked(Threads { rank, shared: Arc::clone(&shared) }), &f);
                scope.spawn(move || f(world))
            };
            let threads: Vec<_> = (0..n).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn every_rank_reads_the_same_sums_and_lists() {
        let seen = on_ranks(3, |world| {
            let rank = world.rank() as f64;
            let mut sums = [rank, 1.0];
            world.sum_f64(&mut sums);
            let mut short = [rank as f32];
            world.sum_f32(&mut short);
            world.barrier();
            let list = world.concat(vec![rank; world.rank()]);
            (sums, short, list, world.broadcast(vec![world.rank() as u8], 2), world.share(7))
        });
        for (rank, (sums, short, list, from_root, share)) in seen.into_iter().enumerate() {
            assert_eq!((sums, short), ([3.0, 3.0], [3.0]));
            assert_eq!((list, from_root), (vec![1.0, 2.0, 2.0], vec![2]));
            assert_eq!(share, [0..2, 2..4, 4..7][rank]);
        }
    }

    #[test]
    fn alone_nothing_changes() {
        let world = World::alone();
        let mut values = [1.5];
        world.sum_f64(&mut values);
        assert_eq!((values, world.rank(), world.size(), world.share(7)), ([1.5], 0, 1, 0..7));
        assert_eq!((world.concat(vec![2.0]), world.broadcast(vec![7], 0)), (vec![2.0], vec![7]));
    }
}
