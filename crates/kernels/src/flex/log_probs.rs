//! Log-probabilities of single tokens, without the table of those of all tokens.

use burn::tensor::{Bytes, DType, Int, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn_flex::{Flex, FlexTensor, Layout};

use super::Taped;
use super::buffer::{changed, contiguous, numbers};
use crate::math::{exp, max, sum};
use crate::vectorized::vectorized;

/// What the backward pass reads.
#[derive(Clone, Debug)]
struct Measured {
    logits: FlexTensor,
    targets: Vec<usize>,
    /// The shift of each row.
    shifts: Vec<Shift>,
    /// 1 / temperature.
    factor: f32,
}

impl Measured {
    fn of(logits: FlexTensor, targets: Vec<usize>, temperature: f64) -> Self {
        let logits = contiguous(logits);
        let factor = (1.0 / temperature) as f32;
        let [n, vocab] = logits.layout().shape().dims();
        assert!(
            targets.len() == n && targets.iter().all(|&target| target < vocab),
            "{n} targets below {vocab}"
        );
        let rows = numbers(&logits).chunks_exact(vocab);
        let shifts = rows.map(|row| shift_of_row(row, factor)).collect();
        Self { logits, targets, shifts, factor }
    }

    /// The log-probabilities of the targets.
    fn logprobs(&self) -> FlexTensor {
        let vocab = self.logits.layout().shape()[1];
        let rows = numbers(&self.logits).chunks_exact(vocab).zip(&self.targets).zip(&self.shifts);
        vector(rows.map(|((row, &target), shift)| shift.log_prob(row[target] * self.factor)).collect())
    }

    /// The gradient of the logits from that of the log-probabilities, g: g (1 − p) at the target and −g p elsewhere, by the
    /// temperature. It takes the place of the logits, unless somebody else reads them.
    fn backward(self, gradient: &FlexTensor) -> FlexTensor {
        let Self { logits, targets, shifts, factor } = self;
        let vocab = logits.layout().shape()[1];
        let gradient = numbers(gradient);
        changed(logits, |logits| {
            let rows = logits.chunks_exact_mut(vocab).zip(&targets).zip(shifts.iter().zip(gradient));
            for ((row, &target), (shift, g)) in rows {
                gradient_of_row(row, factor, *shift, g * factor);
                row[target] += g * factor;
            }
        })
    }
}

/// What turns logits x of a row into log-probabilities: (x − largest) − ln Σ exp(x − largest). One number for both would
/// lose the last digits where logits are large.
#[derive(Clone, Copy, Debug)]
struct Shift {
    largest: f32,
    log_sum: f32,
}

impl Shift {
    #[inline(always)]
    fn of(row: &[f32], factor: f32) -> Self {
        let largest = max(row) * factor;
        Self { largest, log_sum: sum(row.len(), |i| exp(row[i] * factor - largest)).ln() }
    }

    /// Of a logit that is already divided by the temperature.
    #[inline(always)]
    fn log_prob(self, x: f32) -> f32 {
        (x - self.largest) - self.log_sum
    }
}

vectorized! {
    fn shift_of_row<'a>(row: &'a [f32], factor: f32) -> Shift {
        Shift::of(row, factor)
    }
}

vectorized! {
    /// −g p for every token.
    fn gradient_of_row<'a>(row: &'a mut [f32], factor: f32, shift: Shift, g: f32) {
        for x in row.iter_mut() {
            *x = -g * exp(shift.log_prob(*x * factor));
        }
    }
}

vectorized! {
    fn log_probs_of_row<'a>(row: &'a mut [f32], factor: f32) {
        let shift = Shift::of(row, factor);
        for x in row.iter_mut() {
            *x = shift.log_prob(*x * factor);
        }
    }
}

vectorized! {
    /// −Σ p ln p.
    fn entropy_of_row<'a>(row: &'a [f32], factor: f32) -> f32 {
        let shift = Shift::of(row, factor);
        -sum(row.len(), |i| weighted(shift.log_prob(row[i] * factor)))
    }
}

/// p ln p; a token of probability 0 counts nothing, also if its logit is −∞.
#[inline(always)]
fn weighted(log_prob: f32) -> f32 {
    let p = exp(log_prob);
    if p == 0.0 { 0.0 } else { p * log_prob }
}

fn vector(numbers: Vec<f32>) -> FlexTensor {
    let shape = [numbers.len()].into();
    FlexTensor::new(Bytes::from_elems(numbers), Layout::contiguous(shape), DType::F32)
}

#[derive(Debug)]
struct LogProbsBackward;

impl Backward<Flex, 1> for LogProbsBackward {
    type State = Measured;

    fn backward(self, ops: Ops<Measured, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let measured = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            measured.backward(&contiguous(gradient))
        });
    }
}

pub(crate) fn target_log_probs(logits: Tensor<2>, targets: Tensor<1, Int>, temperature: f64) -> Tensor<1> {
    let targets: Vec<usize> = targets.into_data().iter::<i64>().map(|target| target as usize).collect();
    if !logits.is_autodiff() {
        let logits = logits.try_into_primitive::<Flex>().expect("they are on flex");
        return Tensor::from_primitive::<Flex>(Measured::of(logits, targets, temperature).logprobs());
    }
    let (logits, node) =
        logits.try_into_primitive::<Taped>().expect("they are on flex, with a tape").into_parts();
    let measured = Measured::of(logits, targets, temperature);
    let logprobs = measured.logprobs();
    let prep = LogProbsBackward.prepare::<NoCheckpointing>([node]).compute_bound().stateful();
    Tensor::from_primitive::<Taped>(match prep {
        OpsKind::Tracked(prep) => prep.finish(measured, logprobs),
        OpsKind::UnTracked(prep) => prep.finish(logprobs),
    })
}

pub(crate) fn log_probs(logits: Tensor<2>, temperature: f64) -> Tensor<2> {
    let logits = logits.try_into_primitive::<Flex>().expect("they are on flex, without a tape");
    let vocab = logits.layout().shape()[1];
    let factor = (1.0 / temperature) as f32;
    let logprobs = changed(logits, |logits| {
        for row in logits.chunks_exact_mut(vocab) {
            log_probs_of_row(row, factor);
        }
    });
    Tensor::from_primitive::<Flex>(logprobs)
}

pub(crate) fn entropy(logits: Tensor<2>, temperature: f64) -> Tensor<1> {
    let logits = contiguous(logits.try_into_primitive::<Flex>().expect("they are on flex, without a tape"));
    let vocab = logits.layout().shape()[1];
    let factor = (1.0 / temperature) as f32;
    let rows = numbers(&logits).chunks_exact(vocab);
    Tensor::from_primitive::<Flex>(vector(rows.map(|row| entropy_of_row(row, factor)).collect()))
}
