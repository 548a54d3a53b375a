//! Linear maps.
//!
//! burn multiplies each row of a batch with the matrix by itself, and adds the gradients of the matrix that each row gives.
//! It also clears every output before it is written, and copies it once. Here all tokens are one matrix.

use burn::tensor::{Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn_flex::{Flex, FlexTensor};

use super::Taped;
use super::buffer::{contiguous, numbers, tensor};
use super::matrix::{Matrix, add_product, product};
use crate::vectorized::vectorized;

/// The matrix of a linear map.
#[derive(Clone, Debug)]
struct Weight {
    numbers: FlexTensor,
    /// Whether its rows are the columns of the map.
    is_transposed: bool,
}

impl Weight {
    /// `[d_in, d_out]`.
    fn matrix(&self) -> Matrix<'_> {
        let [rows, columns] = self.numbers.layout().shape().dims();
        let matrix = Matrix::new(numbers(&self.numbers), [rows, columns], columns);
        if self.is_transposed { matrix.transposed() } else { matrix }
    }

    /// x W + b, as rows: `[tokens, d_out]`.
    fn output(&self, x: &FlexTensor, bias: Option<&[f32]>) -> FlexTensor {
        let (x_matrix, weight) = (tokens(x), self.matrix());
        let d_out = weight.columns();
        let mut shape: Shape = x.layout().shape().clone();
        let last = shape.num_dims() - 1;
        shape[last] = d_out;
        let Some(bias) = bias else { return tensor(shape, product(x_matrix, weight)) };
        assert_eq!(bias.len(), d_out, "a number for each output");
        let mut output = Vec::with_capacity(x_matrix.rows() * d_out);
        (0..x_matrix.rows()).for_each(|_| output.extend_from_slice(bias));
        add_product(&mut output, x_matrix, weight);
        tensor(shape, output)
    }

    /// The gradient of the matrix, in its own layout.
    fn gradient(shape: Shape, is_transposed: bool, x: &FlexTensor, gradient: &FlexTensor) -> FlexTensor {
        let (x, gradient) = (tokens(x), tokens(gradient));
        let [left, right] = if is_transposed { [gradient, x] } else { [x, gradient] };
        tensor(shape, product(left.transposed(), right))
    }
}

/// The vectors of a tensor as the rows of a matrix.
fn tokens(x: &FlexTensor) -> Matrix<'_> {
    let shape = x.layout().shape();
    let width = shape[shape.num_dims() - 1];
    let x = numbers(x);
    Matrix::new(x, [x.len() / width, width], width)
}

vectorized! {
    fn add_rows<'a>(rows: &'a [f32], sum: &'a mut [f32]) {
        for row in rows.chunks_exact(sum.len()) {
            for (sum, x) in sum.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}

/// What the backward pass reads.
#[derive(Clone, Debug)]
struct Applied {
    /// There if the weight has a gradient.
    x: Option<FlexTensor>,
    /// There if `x` has a gradient.
    weight: Option<Weight>,
    of_weight: Shape,
    of_x: Shape,
    is_transposed: bool,
}

/// The backward pass of a map with N inputs: x, the weight, and perhaps a bias.
#[derive(Debug)]
struct LinearBackward;

impl<const N: usize> Backward<Flex, N> for LinearBackward {
    type State = Applied;

    fn backward(self, ops: Ops<Applied, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous(gradients.consume::<Flex>(&ops.node));
        let Applied { x, weight, of_weight, of_x, is_transposed } = ops.state;
        for (i, parent) in ops.parents.into_iter().enumerate() {
            let Some(parent) = parent else { continue };
            let of_parent = match i {
                0 => {
                    let weight = weight.as_ref().expect("it is kept where x has a gradient");
                    tensor(of_x.clone(), product(tokens(&gradient), weight.matrix().transposed()))
                }
                1 => {
                    let x = x.as_ref().expect("it is kept where the weight has a gradient");
                    Weight::gradient(of_weight.clone(), is_transposed, x, &gradient)
                }
                _ => {
                    let d_out = tokens(&gradient).columns();
                    let mut sum = vec![0.0; d_out];
                    add_rows(numbers(&gradient), &mut sum);
                    tensor([d_out].into(), sum)
                }
            };
            gradients.register::<Flex>(parent.id, of_parent);
        }
    }
}

fn taped<const N: usize, const D: usize>(
    nodes: [NodeGuard; N],
    applied: Applied,
    output: FlexTensor,
) -> Tensor<D> {
    let output = match LinearBackward.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(applied, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    };
    Tensor::from_primitive::<Taped>(output)
}

/// The map whose matrix is `[d_in, d_out]`, or `[d_out, d_in]` if it is transposed.
fn mapped<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    is_transposed: bool,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    if !x.is_autodiff() {
        let plain = |weight: Tensor<2>| weight.try_into_primitive::<Flex>().expect("it is on flex");
        let weight = Weight { numbers: contiguous(plain(weight)), is_transposed };
        let bias = bias.map(|bias| contiguous(bias.try_into_primitive::<Flex>().expect("it is on flex")));
        let x = contiguous(x.try_into_primitive::<Flex>().expect("it is on flex"));
        return Tensor::from_primitive::<Flex>(weight.output(&x, bias.as_ref().map(numbers)));
    }
    let x = x.try_into_primitive::<Taped>().expect("it has a tape");
    let weight = weight.try_into_primitive::<Taped>().expect("it has a tape");
    let (learns_x, learns_weight) = (x.is_tracked(), weight.is_tracked());
    let ((x, node_of_x), (weight, node_of_weight)) = (x.into_parts(), weight.into_parts());
    let (x, weight) = (contiguous(x), Weight { numbers: contiguous(weight), is_transposed });
    let applied = |x: FlexTensor, weight: Weight| Applied {
        of_x: x.layout().shape().clone(),
        of_weight: weight.numbers.layout().shape().clone(),
        x: learns_weight.then_some(x),
        weight: learns_x.then_some(weight),
        is_transposed,
    };
    match bias {
        None => {
            let output = weight.output(&x, None);
            taped([node_of_x, node_of_weight], applied(x, weight), output)
        }
        Some(bias) => {
            let bias = bias.try_into_primitive::<Taped>().expect("it has a tape");
            let (bias, node_of_bias) = bias.into_parts();
            let output = weight.output(&x, Some(numbers(&contiguous(bias))));
            taped([node_of_x, node_of_weight, node_of_bias], applied(x, weight), output)
        }
    }
}

pub(crate) fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    mapped(x, weight, false, bias)
}

pub(crate) fn transposed_linear<const D: usize>(x: Tensor<D>, matrix: Tensor<2>) -> Tensor<D> {
    mapped(x, matrix, true, None)
}
