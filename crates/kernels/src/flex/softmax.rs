//! Softmax under a bias.

use burn::tensor::Tensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn_flex::{Flex, FlexTensor};

use super::Taped;
use super::buffer::{changed, contiguous, numbers};
use crate::math::{exp, max, sum};
use crate::vectorized::vectorized;

/// Which rows of a bias go with which rows of the scores.
#[derive(Clone, Copy)]
struct Rows {
    /// Numbers in a row.
    keys: usize,
    /// Rows of one head.
    queries: usize,
    /// Rows of all heads of one batch element.
    of_element: usize,
    /// Whether every batch element has a bias of its own.
    has_batch: bool,
}

impl Rows {
    /// The row of the bias for a row of the scores.
    #[inline(always)]
    fn of_bias(self, row: usize) -> usize {
        let element = if self.has_batch { row / self.of_element } else { 0 };
        element * self.queries + row % self.queries
    }
}

fn forward(scores: FlexTensor, bias: FlexTensor) -> FlexTensor {
    let bias = contiguous(bias);
    let [batch, n_heads, queries, keys] = dims(&scores);
    let [bias_batch, bias_heads, bias_queries, bias_keys] = dims(&bias);
    assert!(
        (bias_batch == batch || bias_batch == 1)
            && (bias_heads, bias_queries, bias_keys) == (1, queries, keys),
        "a bias of {:?} for scores of {:?}",
        dims(&bias),
        dims(&scores)
    );
    let rows = Rows { keys, queries, of_element: n_heads * queries, has_batch: bias_batch > 1 };
    let bias = numbers(&bias);
    changed(scores, |scores| softmax_of_rows(scores, bias, rows))
}

vectorized! {
    fn softmax_of_rows<'a>(scores: &'a mut [f32], bias: &'a [f32], rows: Rows) {
        for (i, row) in scores.chunks_exact_mut(rows.keys).enumerate() {
            let start = rows.of_bias(i) * rows.keys;
            softmax(row, &bias[start..start + rows.keys]);
        }
    }
}

vectorized! {
    /// Turns the gradient of the probabilities p into that of the scores: p (g − Σ g p).
    fn gradients<'a>(probs: &'a [f32], gradient: &'a mut [f32], keys: usize) {
        for (gradient, probs) in gradient.chunks_exact_mut(keys).zip(probs.chunks_exact(keys)) {
            let mean = sum(keys, |i| gradient[i] * probs[i]);
            for (gradient, p) in gradient.iter_mut().zip(probs) {
                *gradient = p * (*gradient - mean);
            }
        }
    }
}

/// One row: e to each number less the largest, by their sum.
#[inline(always)]
fn softmax(row: &mut [f32], bias: &[f32]) {
    for (score, bias) in row.iter_mut().zip(bias) {
        *score += bias;
    }
    let largest = max(row);
    for score in row.iter_mut() {
        *score = exp(*score - largest);
    }
    let share = 1.0 / sum(row.len(), |i| row[i]);
    for score in row.iter_mut() {
        *score *= share;
    }
}

fn backward(probs: &FlexTensor, gradient: FlexTensor) -> FlexTensor {
    let keys = dims(probs)[3];
    changed(gradient, |gradient| gradients(numbers(probs), gradient, keys))
}

fn dims(x: &FlexTensor) -> [usize; 4] {
    x.layout().shape().dims()
}

#[derive(Debug)]
struct SoftmaxBackward;

impl Backward<Flex, 1> for SoftmaxBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let probs = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| backward(&probs, gradient));
    }
}

pub(crate) fn softmax_with_bias(scores: Tensor<4>, bias: Tensor<4>) -> Tensor<4> {
    let bias = if bias.is_autodiff() { bias.inner() } else { bias };
    let bias = bias.try_into_primitive::<Flex>().expect("it is where the scores are");
    if !scores.is_autodiff() {
        let scores = scores.try_into_primitive::<Flex>().expect("they are on flex");
        return Tensor::from_primitive::<Flex>(forward(scores, bias));
    }
    let (scores, node) =
        scores.try_into_primitive::<Taped>().expect("they are on flex, with a tape").into_parts();
    let output = match SoftmaxBackward.prepare::<NoCheckpointing>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let probs = forward(scores, bias);
            prep.finish(probs.clone(), probs)
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(scores, bias)),
    };
    Tensor::from_primitive::<Taped>(output)
}
