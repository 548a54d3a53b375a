//! Parts of a forward pass that are computed a second time for the backward pass, so that autodiff keeps their inputs only
//! (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost").
//!
//! [`recomputed`] runs a part without a tape and remembers how to run it again. [`Gradients::of`](crate::Gradients::of) then
//! goes back part by part: it runs the last one with a tape, takes the gradients of its weights and of its input, and drops
//! that tape before it turns to the part before. The gradients are those of one tape, to the bit.
//!
//! What is remembered belongs to the thread, as the rows of a shard do. [`accumulate`](crate::accumulate) forgets what a step
//! has left over.

use std::cell::RefCell;

use burn::module::Module;
use burn::tensor::{Gradients, Tensor};

thread_local! {
    /// The parts that were run since gradients were last taken, in order.
    static PARTS: RefCell<Vec<Part>> = const { RefCell::new(Vec::new()) };
}

/// A part of a forward pass.
struct Part {
    /// What it gave, as a leaf: what follows it ends here.
    output: Tensor<3>,
    /// Runs it again, from its input, which what comes before it leads to.
    run: Box<dyn FnOnce() -> Tensor<3>>,
}

/// `part` of `module` and `x`, whose gradients are computed from a second run. `state` is what `part` changes, such as a
/// random stream: the second run starts from the same one.
///
/// Without autodiff it is `part` alone.
///
/// # Shapes
/// - `x`: any
/// - output: as `part` gives it
pub fn recomputed<M, S>(
    module: &M,
    x: Tensor<3>,
    state: &mut S,
    part: impl Fn(&M, Tensor<3>, &mut S) -> Tensor<3> + 'static,
) -> Tensor<3>
where
    M: Module + 'static,
    S: Clone + 'static,
{
    if !x.is_autodiff() {
        return part(module, x, state);
    }
    let mut start = state.clone();
    let output = part(&module.valid(), x.clone().inner(), state);
    let output = Tensor::from_inner(output).require_grad();
    let module = module.clone();
    let run = Box::new(move || part(&module, x, &mut start));
    PARTS.with_borrow_mut(|parts| parts.push(Part { output: output.clone(), run }));
    output
}

/// Backpropagates `loss` through everything that it was computed from, and gives `take` the gradients of each tape: that of
/// the loss first, then those of the parts, from the last to the first.
pub(crate) fn backpropagate(loss: Tensor<1>, mut take: impl FnMut(Gradients)) {
    let parts = PARTS.take();
    // The gradient of each output, as far as it is known.
    let mut parts: Vec<(Part, Option<Tensor<3>>)> = parts.into_iter().map(|part| (part, None)).collect();
    let mut others = Vec::new();
    let mut loss = loss;
    loop {
        let gradients = loss.backward();
        for (part, sum) in &mut parts {
            if let Some(gradient) = part.output.grad(&gradients) {
                *sum = Some(match sum.take() {
                    Some(sum) => sum + gradient,
                    None => gradient,
                });
            }
        }
        take(gradients);
        // A part that this loss does not depend on is another's.
        let next = loop {
            match parts.pop() {
                Some((part, Some(gradient))) => break Some((part, gradient)),
                Some((part, None)) => others.push(part),
                None => break None,
            }
        };
        let Some((part, gradient)) = next else { break };
        // The gradient of this sum is `gradient` at the output of the part.
        loss = ((part.run)() * Tensor::from_inner(gradient)).sum();
    }
    others.reverse();
    PARTS.set(others);
}

/// Forgets the parts that no gradients were taken of.
pub(crate) fn forget() {
    PARTS.take();
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    use super::*;
    use crate::{Gradients, values_of};

    fn layers(n: usize) -> Vec<Linear> {
        (0..n)
            .map(|i| {
                let layer: Linear = LinearConfig::new(3, 3).init(&Device::flex());
                let weight: Vec<f32> = (0..9).map(|j| ((i * 9 + j) as f32 * 0.7).sin()).collect();
                let weight = Tensor::<1>::from_data(weight.as_slice(), &Device::flex()).reshape([3, 3]);
                Linear { weight: Param::from_tensor(weight), ..layer }.train()
            })
            .collect()
    }

    fn x(phase: f32) -> Tensor<3> {
        let values: Vec<f32> = (0..6).map(|i| (i as f32 + phase).cos()).collect();
        Tensor::<1>::from_data(values.as_slice(), &Device::flex()).reshape([1, 2, 3])
    }

    /// Each layer is scaled by one more than the one before it, as by a random stream.
    fn part(layer: &Linear, x: Tensor<3>, state: &mut f64) -> Tensor<3> {
        *state += 1.0;
        (layer.forward(x) * *state).tanh()
    }

    fn run(layers: &[Linear], x: Tensor<3>, again: bool) -> Tensor<3> {
        let mut state = 0.0;
        layers.iter().fold(x, |x, layer| match again {
            true => recomputed(layer, x, &mut state, part),
            false => part(layer, x, &mut state),
        })
    }

    fn gradients(layers: &Vec<Linear>, loss: Tensor<1>) -> Vec<(String, Vec<f32>)> {
        let mut gradients = Gradients::of(layers, loss);
        let paths: Vec<String> = gradients.paths().map(str::to_owned).collect();
        paths.into_iter().map(|path| (path.clone(), values_of(gradients.take(&path).unwrap()))).collect()
    }

    /// A first layer before the parts, two readers of the last output, one more of an earlier one, and a layer that is used
    /// twice.
    #[test]
    fn gradients_are_those_of_one_tape() {
        let layers = layers(4);
        let loss = |again| {
            let first = layers[0].forward(x(0.0));
            let (middle, used_twice) = (&layers[1..3], &layers[1..2]);
            let earlier = run(middle, first, again);
            let hidden = run(used_twice, earlier.clone(), again);
            let squares = hidden.clone().powf_scalar(2.0).sum() + (earlier * 0.5).sum();
            squares + layers[3].forward(hidden).sum()
        };
        let expected = gradients(&layers, loss(false));
        assert_eq!(expected.len(), 8);
        assert_eq!(gradients(&layers, loss(true)), expected);
        assert_eq!(PARTS.with_borrow(Vec::len), 0);
    }

    #[test]
    fn parts_of_another_loss_are_left_to_it() {
        let (a, b) = (layers(2), layers(3));
        let expected =
            [gradients(&a, run(&a, x(0.0), false).sum()), gradients(&b, run(&b, x(1.0), false).sum())];
        // Both forward passes come first, as those of a policy and its critic do.
        let first = layers_with_gradient(&a, 0.0);
        let second = layers_with_gradient(&b, 1.0);
        assert_eq!([gradients(&a, first), gradients(&b, second)], expected);
        let first = layers_with_gradient(&a, 0.0);
        drop((first, layers_with_gradient(&b, 1.0)));
        forget();
        assert_eq!(PARTS.with_borrow(Vec::len), 0);
    }

    fn layers_with_gradient(layers: &[Linear], phase: f32) -> Tensor<1> {
        run(layers, Tensor::from_inner(x(phase)), true).sum()
    }

    #[test]
    fn nothing_is_remembered_without_autodiff() {
        let layers: Vec<Linear> = layers(2).iter().map(Module::valid).collect();
        assert_eq!(values_of(run(&layers, x(0.0), true)), values_of(run(&layers, x(0.0), false)));
        assert_eq!(PARTS.with_borrow(Vec::len), 0);
    }
}
