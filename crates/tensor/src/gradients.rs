//! Gradients of a module by the dotted paths of its parameters.

use std::collections::BTreeMap;

use burn::module::{Module, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSlice;
use temper_kernels::sum_of_squares;

use crate::host::{is_host, values_of};
use crate::params::{Visit, walk};
use crate::recompute::backpropagate;
use crate::world::World;

/// How many numbers a thread takes at a time where threads share the values of a parameter.
pub const VALUES_PER_TASK: usize = 1 << 16;

/// Gradients of a module's trained parameters, under their dotted paths, flattened and off the tape.
#[derive(Debug, Default)]
pub struct Gradients {
    by_path: BTreeMap<String, Tensor<1>>,
}

impl Gradients {
    /// Backpropagates `loss` and takes the gradients of `module`, also through what is [recomputed](crate::recomputed).
    pub fn of<M: Module>(module: &M, loss: Tensor<1>) -> Self {
        let mut sum = Self::default();
        backpropagate(loss, |gradients| {
            let gradients = GradientsParams::from_grads(gradients, module);
            let mut collector = Collector { gradients, by_path: BTreeMap::new() };
            walk(module, &mut collector);
            sum.add(Self { by_path: collector.by_path });
        });
        sum
    }

    /// Adds other gradients to these.
    pub fn add(&mut self, other: Gradients) {
        for (path, gradient) in other.by_path {
            let sum = match self.by_path.remove(&path) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.by_path.insert(path, sum);
        }
    }

    /// Dotted paths of the parameters that have a gradient, in alphabetical order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.by_path.keys().map(String::as_str)
    }

    /// Removes and returns the gradient of one parameter: `[n]`.
    pub fn take(&mut self, path: &str) -> Option<Tensor<1>> {
        self.by_path.remove(path)
    }

    /// √Σ g² over all gradients together: the global norm. It takes `&mut self` because each gradient is read and put
    /// back, which copies nothing on a CPU.
    pub fn norm(&mut self) -> f64 {
        let on_host = self.by_path.values().next().is_some_and(|gradient| is_host(&gradient.device()));
        let squares = if on_host { self.squares_on_host() } else { self.squares_on_device() };
        squares.iter().sum::<f64>().sqrt()
    }

    /// Σ g² of each gradient.
    fn squares_on_host(&mut self) -> Vec<f64> {
        let square = |gradient: &mut Tensor<1>| {
            let device = gradient.device();
            let data = std::mem::replace(gradient, Tensor::empty([1], &device)).into_data();
            let values = data.as_slice::<f32>().expect("gradients are f32");
            // The parts are summed in order, so that the number of threads changes nothing.
            let parts: Vec<f64> = values.par_chunks(VALUES_PER_TASK).map(sum_of_squares).collect();
            let sum = parts.iter().sum();
            *gradient = Tensor::from_data(data, &device);
            sum
        };
        self.by_path.values_mut().map(square).collect()
    }

    /// The same on a graphics card, where every read waits for all computations: one read for all gradients.
    fn squares_on_device(&self) -> Vec<f64> {
        let sums: Vec<Tensor<1>> =
            self.by_path.values().map(|gradient| gradient.clone().square().sum()).collect();
        if sums.is_empty() {
            return Vec::new();
        }
        values_of(Tensor::cat(sums, 0)).into_iter().map(f64::from).collect()
    }

    /// Replaces these by the sums over all ranks. A rank without rows has no gradients and counts as zero.
    pub(crate) fn sum_over_ranks(&mut self, world: &World, device: &Device) {
        if world.size() == 1 {
            return;
        }
        let mut lengths = BTreeMap::new();
        let own: Vec<(String, usize)> =
            self.by_path.iter().map(|(path, gradient)| (path.clone(), gradient.dims()[0])).collect();
        for list in world.gather_lengths(&own) {
            lengths.extend(list);
        }
        for (path, n) in lengths {
            let mut values = match self.by_path.remove(&path) {
                Some(gradient) => values_of(gradient),
                None => vec![0.0; n],
            };
            world.sum_f32(&mut values);
            self.by_path.insert(path, Tensor::from_data(values.as_slice(), &device.clone().inner()));
        }
    }
}

struct Collector {
    gradients: GradientsParams,
    by_path: BTreeMap<String, Tensor<1>>,
}

impl Visit for Collector {
    fn visit<const D: usize>(&mut self, path: &str, id: ParamId, _value: Tensor<D>) {
        let Some(gradient) = self.gradients.remove::<D>(id) else { return };
        let n = gradient.shape().num_elements();
        self.by_path.insert(path.to_owned(), gradient.reshape([n]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3² + 4² and 12²: the norm is 13. The computation of a graphics card is checked on a CPU.
    #[test]
    fn the_norm_is_that_of_all_gradients_together_on_every_device() {
        let tensor = |values: &[f32]| Tensor::<1>::from_data(values, &Device::flex());
        let by_path =
            BTreeMap::from([("a".to_owned(), tensor(&[3.0, 4.0])), ("b".to_owned(), tensor(&[12.0]))]);
        let mut gradients = Gradients { by_path };
        assert_eq!(gradients.squares_on_device(), [25.0, 144.0]);
        assert_eq!(gradients.squares_on_host(), [25.0, 144.0]);
        assert_eq!(gradients.norm(), 13.0);
        assert_eq!(Gradients::default().norm(), 0.0);
    }
}
