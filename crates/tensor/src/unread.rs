//! Sums of numbers that are still on the device.

use std::fmt;

use burn::tensor::{Device, Tensor};

use crate::accumulate::Sum;
use crate::host::values_of;
use crate::world::World;

/// A sum over microbatches whose numbers are read from the device together, when all of them are on their way.
///
/// A read waits for everything that was computed before it. One for each microbatch would let a graphics card stand still
/// until the host has sent it the next one.
pub struct Unread<'a, S> {
    sum: S,
    terms: Vec<Term<'a, S>>,
}

struct Term<'a, S> {
    numbers: Tensor<1>,
    add: Box<dyn FnOnce(&mut S, &[f32]) + Send + 'a>,
}

impl<'a, S: Sum> Unread<'a, S> {
    /// Adds a term: `add` gets the numbers once they are read.
    ///
    /// # Shapes
    /// - `numbers`: `[n]`, without gradients; n ≥ 1
    pub fn push(&mut self, numbers: Tensor<1>, add: impl FnOnce(&mut S, &[f32]) + Send + 'a) {
        self.terms.push(Term { numbers, add: Box::new(add) });
    }

    /// Reads all numbers in one transfer and adds the terms in their order.
    pub fn read(mut self) -> S {
        if self.terms.is_empty() {
            return self.sum;
        }
        let numbers = self.terms.iter().map(|term| term.numbers.clone()).collect();
        let numbers = values_of(Tensor::cat(numbers, 0));
        let mut rest = numbers.as_slice();
        for term in self.terms {
            let (of_term, others) = rest.split_at(term.numbers.dims()[0]);
            (term.add)(&mut self.sum, of_term);
            rest = others;
        }
        self.sum
    }
}

impl<S: Default> Default for Unread<'_, S> {
    fn default() -> Self {
        Self { sum: S::default(), terms: Vec::new() }
    }
}

impl<S: fmt::Debug> fmt::Debug for Unread<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unread").field("sum", &self.sum).field("n_terms", &self.terms.len()).finish()
    }
}

/// Terms are read before they are sent to other ranks.
impl<S: Sum> Sum for Unread<'_, S> {
    fn add(&mut self, other: Self) {
        self.sum.add(other.sum);
        self.terms.extend(other.terms);
    }

    fn sum_over_ranks(&mut self, world: &World, device: &Device) {
        self.sum = std::mem::take(self).read();
        self.sum.sum_over_ranks(world, device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::floats;

    /// In the order in which they were pushed, each with its own numbers, whether or not they were added up before.
    #[test]
    fn every_term_gets_its_numbers_in_its_turn() {
        let device = Device::flex();
        let push = |sum: &mut Unread<'_, Vec<f64>>, numbers: &[f32]| {
            let n = numbers.len();
            sum.push(floats(numbers.to_vec(), [n], &device), move |list, read| {
                assert_eq!(read.len(), n);
                list.extend(read.iter().map(|&x| f64::from(x)));
            });
        };
        let (mut first, mut second) = (Unread::default(), Unread::default());
        push(&mut first, &[1.0, 2.0]);
        push(&mut second, &[3.0]);
        push(&mut second, &[4.0, 5.0, 6.0]);
        first.add(second);
        first.sum_over_ranks(&World::alone(), &device);
        push(&mut first, &[7.0]);
        assert_eq!(first.read(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert!(Unread::<Vec<f64>>::default().read().is_empty());
    }
}
