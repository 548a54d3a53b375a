//! One training step, summed over microbatches, threads and processes, always in the same order.

use burn::module::Module;
use burn::tensor::Device;

use crate::gradients::Gradients;
use crate::parallel::{in_parallel, shards};
use crate::params::device_of;
use crate::recompute;
use crate::world::World;

/// What can be summed over the parts of a batch: gradients, losses, counts, lists of scores, and tuples of these.
///
/// The default value is the sum of no parts.
pub trait Sum: Default + Send {
    /// Adds the part that comes after these.
    fn add(&mut self, other: Self);

    /// Replaces this by the sum over all ranks. Every rank calls it, also one without rows.
    fn sum_over_ranks(&mut self, world: &World, device: &Device);
}

impl Sum for Gradients {
    fn add(&mut self, other: Self) {
        Gradients::add(self, other);
    }

    fn sum_over_ranks(&mut self, world: &World, device: &Device) {
        Gradients::sum_over_ranks(self, world, device);
    }
}

impl Sum for () {
    fn add(&mut self, (): Self) {}

    fn sum_over_ranks(&mut self, _world: &World, _device: &Device) {}
}

impl Sum for f64 {
    fn add(&mut self, other: Self) {
        *self += other;
    }

    fn sum_over_ranks(&mut self, world: &World, _device: &Device) {
        world.sum_f64(std::slice::from_mut(self));
    }
}

/// Exact up to 2⁵³.
impl Sum for usize {
    fn add(&mut self, other: Self) {
        *self += other;
    }

    fn sum_over_ranks(&mut self, world: &World, _device: &Device) {
        let mut sum = [*self as f64];
        world.sum_f64(&mut sum);
        *self = sum[0] as usize;
    }
}

impl<const N: usize> Sum for [f64; N]
where
    [f64; N]: Default,
{
    fn add(&mut self, other: Self) {
        self.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
    }

    fn sum_over_ranks(&mut self, world: &World, _device: &Device) {
        world.sum_f64(self);
    }
}

/// The sum of lists is one after the other.
impl Sum for Vec<f64> {
    fn add(&mut self, other: Self) {
        self.extend(other);
    }

    fn sum_over_ranks(&mut self, world: &World, _device: &Device) {
        *self = world.concat(std::mem::take(self));
    }
}

macro_rules! sum_of_tuple {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Sum),+> Sum for ($($name,)+) {
            fn add(&mut self, other: Self) {
                $(self.$index.add(other.$index);)+
            }

            fn sum_over_ranks(&mut self, world: &World, device: &Device) {
                $(self.$index.sum_over_ranks(world, device);)+
            }
        }
    };
}

sum_of_tuple!(A 0, B 1);
sum_of_tuple!(A 0, B 1, C 2);

/// Sums what `step` computes from the rows of a batch, `microbatch` rows at a time: gradients, loss and metrics.
///
/// The rows are cut into one part for each rank, that into one shard for each thread ([`shards`]), and that into
/// microbatches. Each shard adds its microbatches in order, each rank its shards, and all ranks their parts, so that the
/// same threads and ranks give the same bits. Several modules may be trained in one step: put them into a tuple.
///
/// `step` gets a copy of the model whose parameters are leaves of their own, some rows, and the sum of its shard, to
/// which it adds. Its loss must already carry the share that these rows have of the whole batch.
///
/// # Panics
/// If `step` does, if `microbatch` is 0, or if `model` has no parameters.
pub fn accumulate<M: Module, T: Sync, S: Sum>(
    world: &World,
    model: &M,
    rows: &[T],
    microbatch: usize,
    step: impl Fn(&M, &[T], &mut S) + Sync,
) -> S {
    accumulate_with(world, model, rows, microbatch, |_| (), |model, (), rows, sum| step(model, rows, sum))
}

/// [`accumulate`] with a state for each shard: `start` makes it from the index that the shard's first row has in the
/// whole batch, and it runs through the microbatches of the shard. Random streams belong here.
///
/// # Panics
/// As [`accumulate`].
pub fn accumulate_with<M: Module, T: Sync, C, S: Sum>(
    world: &World,
    model: &M,
    rows: &[T],
    microbatch: usize,
    start: impl Fn(usize) -> C + Sync,
    step: impl Fn(&M, &mut C, &[T], &mut S) + Sync,
) -> S {
    sum_onto(world, S::default(), model, rows, microbatch, start, step)
}

/// [`accumulate`] onto `sum`, a sum over all ranks that came before, such as the gradients of another loss of the same
/// update. The shards are added to it one after the other.
///
/// # Panics
/// As [`accumulate`].
pub fn accumulate_onto<M: Module, T: Sync, S: Sum>(
    world: &World,
    sum: S,
    model: &M,
    rows: &[T],
    microbatch: usize,
    step: impl Fn(&M, &[T], &mut S) + Sync,
) -> S {
    // All ranks have the same sum, and it counts once.
    let sum = if world.rank() == 0 { sum } else { S::default() };
    sum_onto(world, sum, model, rows, microbatch, |_| (), |model, (), rows, sum| step(model, rows, sum))
}

/// Adds the shards of this rank to `sum`, and then the sums of all ranks.
fn sum_onto<M: Module, T: Sync, C, S: Sum>(
    world: &World,
    mut sum: S,
    model: &M,
    rows: &[T],
    microbatch: usize,
    start: impl Fn(usize) -> C + Sync,
    step: impl Fn(&M, &mut C, &[T], &mut S) + Sync,
) -> S {
    let device = device_of(model).expect("a model that is trained has parameters");
    let share = world.share(rows.len());
    let first_of_rank = share.start;
    let parts = shards(&rows[share], &device).into_iter();
    let parts = parts.map(|(first, rows)| (model.clone().fork(&device), first_of_rank + first, rows));
    let of_shards = in_parallel(parts.collect(), |(model, first, rows)| {
        let (mut state, mut sum) = (start(first), S::default());
        for rows in rows.chunks(microbatch) {
            step(&model, &mut state, rows, &mut sum);
            recompute::forget();
        }
        sum
    });
    of_shards.into_iter().for_each(|of_shard| sum.add(of_shard));
    sum.sum_over_ranks(world, &device);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::values_of;
    use crate::world::tests::on_ranks;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Tensor;

    /// Sums of a few f32 products.
    const ROUNDING: f32 = 1e-6;

    fn layer() -> Linear {
        LinearConfig::new(2, 1).init(&Device::flex()).train()
    }

    fn rows(n: usize) -> Vec<[f32; 2]> {
        (0..n).map(|i| [0.5 - i as f32 / 7.0, (i as f32).sin()]).collect()
    }

    type Step = (Gradients, (f64, usize), Vec<f64>);

    /// Squares of the layer's outputs, each with its share of the batch, and the outputs themselves.
    fn step(layer: &Linear, rows: &[[f32; 2]], n: usize) -> Step {
        let device = Device::flex();
        let input: Vec<Tensor<2>> = rows.iter().map(|row| Tensor::from_data([*row], &device)).collect();
        let output = layer.forward(Tensor::cat(input, 0));
        let loss = output.clone().square().sum() / n as f32;
        let outputs = values_of(output.inner()).into_iter().map(f64::from).collect();
        let value = f64::from(values_of(loss.clone().inner())[0]);
        (Gradients::of(layer, loss), (value, rows.len()), outputs)
    }

    fn run(world: &World, layer: &Linear, n: usize, microbatch: usize) -> Step {
        accumulate(world, layer, &rows(n), microbatch, |layer, rows, sum: &mut Step| {
            sum.add(step(layer, rows, n))
        })
    }

    fn numbers((mut gradients, (loss, n), outputs): Step) -> (Vec<f32>, usize, Vec<f64>) {
        let taken = ["bias", "weight"].map(|path| values_of(gradients.take(path).unwrap()));
        ([taken.concat(), vec![loss as f32]].concat(), n, outputs)
    }

    /// Also with fewer rows than ranks, where a rank has none.
    #[test]
    fn ranks_with_a_part_of_the_rows_each_give_what_one_gives_with_all() {
        let layer = layer();
        for (n, size) in [(9, 2), (9, 3), (1, 2)] {
            let (expected, n_rows, outputs) = numbers(step(&layer, &rows(n), n));
            let layers = std::sync::Mutex::new(vec![layer.clone(); size]);
            let of_ranks = on_ranks(size, |world| {
                let layer = layers.lock().unwrap().pop().unwrap();
                numbers(run(&world, &layer, n, 2))
            });
            assert_eq!(of_ranks[0], of_ranks[size - 1], "every rank has the same sums");
            let (sums, rows_seen, outputs_seen) = &of_ranks[0];
            assert!(
                sums.iter().zip(&expected).all(|(a, b)| (a - b).abs() < ROUNDING),
                "{sums:?} {expected:?}"
            );
            assert_eq!(*rows_seen, n_rows);
            assert!(outputs_seen.iter().zip(&outputs).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }

    /// Every rank passes the sum of 1000 that all of them know; it counts once, and the nine rows after it.
    #[test]
    fn a_sum_that_came_before_counts_once() {
        let layer = layer();
        for size in [1, 3] {
            let layers = std::sync::Mutex::new(vec![layer.clone(); size]);
            let of_ranks = on_ranks(size, |world| {
                let layer = layers.lock().unwrap().pop().unwrap();
                let count = |_: &Linear, rows: &[[f32; 2]], n: &mut usize| *n += rows.len();
                accumulate_onto(&world, 1000, &layer, &rows(9), 2, count)
            });
            assert_eq!(of_ranks, vec![1009; size]);
        }
    }

    #[test]
    fn the_size_of_a_microbatch_changes_the_sums_by_rounding_only() {
        let layer = layer();
        let (expected, ..) = numbers(step(&layer, &rows(9), 9));
        for microbatch in [1, 2, 9, 100] {
            let (sums, n, _) = numbers(run(&World::alone(), &layer, 9, microbatch));
            assert!(
                sums.iter().zip(&expected).all(|(a, b)| (a - b).abs() < ROUNDING),
                "{sums:?} {expected:?}"
            );
            assert_eq!(n, 9);
        }
    }

    /// A state is made from the index in the whole batch, whatever rank the shard is on, and counts on within it.
    #[test]
    fn the_state_of_a_shard_starts_at_its_first_row_and_runs_through_its_microbatches() {
        let rows: Vec<usize> = (0..11).collect();
        let layer = layer();
        let run = |world: &World, layer: &Linear| -> Vec<f64> {
            let step = |_: &Linear, place: &mut usize, rows: &[usize], seen: &mut Vec<f64>| {
                assert_eq!(rows[0], *place, "the state counts the rows before");
                *place += rows.len();
                seen.extend(rows.iter().map(|&row| row as f64));
            };
            accumulate_with(world, layer, &rows, 2, |first| first, step)
        };
        let expected: Vec<f64> = rows.iter().map(|&row| row as f64).collect();
        assert_eq!(run(&World::alone(), &layer), expected);
        let layers = std::sync::Mutex::new(vec![layer.clone(); 2]);
        let of_ranks = on_ranks(2, |world| {
            let layer = layers.lock().unwrap().pop().unwrap();
            run(&world, &layer)
        });
        for seen in of_ranks {
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn two_modules_are_trained_in_one_step() {
        let pair = (layer(), Some(layer()));
        let (mut first, mut second): (Gradients, Gradients) =
            accumulate(&World::alone(), &pair, &rows(4), 4, |(first, second), rows, sum: &mut (_, _)| {
                sum.add((step(first, rows, 4).0, step(second.as_ref().unwrap(), rows, 4).0));
            });
        assert!(first.take("weight").is_some() && second.take("weight").is_some());
    }
}
