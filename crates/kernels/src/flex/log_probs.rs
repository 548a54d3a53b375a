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
    /// Of each row, the logarithm of the sum of the exponentials.
    log_sums: Vec<f32>,
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
        let log_sums = rows.map(|row| log_sum_of_row(row, factor)).collect();
        Self { logits, targets, log_sums, factor }
    }

    /// The log-probabilities of the targets.
    fn logprobs(&self) -> FlexTensor {
        let vocab = self.logits.layout().shape()[1];
        let rows = numbers(&self.logits).chunks_exact(vocab).zip(&self.targets).zip(&self.log_sums);
        vector(rows.map(|((row, &target), log_sum)| row[target] * self.factor - log_sum).collect())
    }

    /// The gradient of the logits from that of the log-probabilities, g: g (1 − p) at the target and −g p elsewhere, by the
    /// temperature. It takes the place of the logits, unless somebody else reads them.
    fn backward(self, gradient: &FlexTensor) -> FlexTensor {
        let Self { logits, targets, log_sums, factor } = self;
        let vocab = logits.layout().shape()[1];
        let gradient = numbers(gradient);
        changed(logits, |logits| {
            let rows = logits.chunks_exact_mut(vocab).zip(&targets).zip(log_sums.iter().zip(gradient));
            for ((row, &target), (log_sum, g)) in rows {
                gradient_of_row(row, factor, *log_sum, g * factor);
                row[target] += g * factor;
            }
        })
    }
}

vectorized! {
    fn log_sum_of_row<'a>(row: &'a [f32], factor: f32) -> f32 {
        log_sum(row, factor)
    }
}

vectorized! {
    /// −g p for every token.
    fn gradient_of_row<'a>(row: &'a mut [f32], factor: f32, log_sum: f32, g: f32) {
        for x in row.iter_mut() {
            *x = -g * exp(*x * factor - log_sum);
        }
    }
}

vectorized! {
    fn log_probs_of_row<'a>(row: &'a mut [f32], factor: f32) {
        let log_sum = log_sum(row, factor);
        for x in row.iter_mut() {
            *x = *x * factor - log_sum;
        }
    }
}

#[inline(always)]
fn log_sum(row: &[f32], factor: f32) -> f32 {
    let largest = max(row) * factor;
    largest + sum(row.len(), |i| exp(row[i] * factor - largest)).ln()
}

vectorized! {
    /// Entropy: log-sum − Σ p x, for logits x that are already divided by the temperature.
    fn entropy_of_row<'a>(row: &'a [f32], factor: f32) -> f32 {
        let log_sum = log_sum(row, factor);
        log_sum - sum(row.len(), |i| weighted(row[i] * factor, log_sum))
    }
}

/// p x; a token of probability 0 counts nothing, also if its logit is −∞.
#[inline(always)]
fn weighted(x: f32, log_sum: f32) -> f32 {
    let p = exp(x - log_sum);
    if p == 0.0 { 0.0 } else { p * x }
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
