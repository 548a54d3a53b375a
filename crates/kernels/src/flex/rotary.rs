//! The rotation of queries and keys by their positions.

use burn::tensor::Tensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn_flex::{Flex, FlexTensor};

use super::Taped;
use super::buffer::{changed, contiguous, numbers};
use crate::slices::turn;

/// Cosines and sines of some columns, `[batch or 1, seq, 1, pairs]`.
#[derive(Clone, Debug)]
struct Angles {
    cos: FlexTensor,
    sin: FlexTensor,
    /// Heads that are turned, from the first one on.
    n_rotated: usize,
}

/// Whether heads are turned by their angles, or back.
#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Forward,
    Back,
}

/// Turns each pair of the heads that are turned. The gradient of a rotation is the rotation back.
fn rotated(heads: FlexTensor, angles: &Angles, direction: Direction) -> FlexTensor {
    let [batch, seq, n_heads, d_head] = heads.layout().shape().dims();
    let [angles_batch, angles_seq, _, n_pairs] = angles.cos.layout().shape().dims();
    assert!(
        (angles_batch == batch || angles_batch == 1)
            && angles_seq == seq
            && 2 * n_pairs <= d_head
            && angles.n_rotated <= n_heads,
        "angles of {angles_batch} × {angles_seq} × {n_pairs} for heads of {batch} × {seq} × {d_head}"
    );
    let (cos, sin) = (numbers(&angles.cos), numbers(&angles.sin));
    let sign = if direction == Direction::Forward { 1.0 } else { -1.0 };
    changed(heads, |heads| {
        for (column, heads) in heads.chunks_exact_mut(n_heads * d_head).enumerate() {
            let start = (if angles_batch == 1 { column % seq } else { column }) * n_pairs;
            let (cos, sin) = (&cos[start..start + n_pairs], &sin[start..start + n_pairs]);
            turn(&mut heads[..angles.n_rotated * d_head], d_head, cos, sin, sign);
        }
    })
}

#[derive(Debug)]
struct RotaryBackward;

impl Backward<Flex, 1> for RotaryBackward {
    type State = Angles;

    fn backward(self, ops: Ops<Angles, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let angles = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            rotated(gradient, &angles, Direction::Back)
        });
    }
}

pub(crate) fn rotate(heads: Tensor<4>, n_rotated: usize, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let [cos, sin] = [cos, sin].map(|angles| {
        let angles = if angles.is_autodiff() { angles.inner() } else { angles };
        contiguous(angles.try_into_primitive::<Flex>().expect("they are where the heads are"))
    });
    let angles = Angles { cos, sin, n_rotated };
    if !heads.is_autodiff() {
        let heads = heads.try_into_primitive::<Flex>().expect("they are on flex");
        return Tensor::from_primitive::<Flex>(rotated(heads, &angles, Direction::Forward));
    }
    let (heads, node) = heads.try_into_primitive::<Taped>().expect("they have a tape").into_parts();
    let output = rotated(heads, &angles, Direction::Forward);
    let prep = RotaryBackward.prepare::<NoCheckpointing>([node]).compute_bound().stateful();
    Tensor::from_primitive::<Taped>(match prep {
        OpsKind::Tracked(prep) => prep.finish(angles, output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    })
}
