//! Attention of a row to itself, without the table of all pairs of tokens.
//!
//! Scores and probabilities of a block of queries fit into the cache of a core, and no block computes keys that all of its
//! queries are blind to: under a causal bias that is half of them. The backward pass computes the probabilities again, from
//! one number for each query (Dao et al. 2022, section 3.1 and appendix B.4). Queries, keys and values are read where the
//! projection has written them.

use std::ops::Range;

use burn::tensor::Tensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn_flex::{Flex, FlexTensor, Layout};
use burn::tensor::{Bytes, DType};
use pulp::Arch;

use super::Taped;
use super::buffer::{contiguous, numbers, tensor_like};
use crate::math::{exp, max, sum};
use super::matrix::{Former, Matrix, multiply};

/// Queries that are computed together.
const BLOCK: usize = 64;

/// Sizes of a fused projection.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    seq: usize,
    n_heads: usize,
    n_kv_heads: usize,
    d_head: usize,
}

impl Sizes {
    fn of(projected: &FlexTensor, n_heads: usize, n_kv_heads: usize) -> Self {
        let [batch, seq, width] = projected.layout().shape().dims();
        let n_all = n_heads + 2 * n_kv_heads;
        assert!(width.is_multiple_of(n_all) && n_heads.is_multiple_of(n_kv_heads), "{n_all} heads of {width} numbers");
        Self { batch, seq, n_heads, n_kv_heads, d_head: width / n_all }
    }

    /// Numbers of a token in the projection.
    fn width(self) -> usize {
        (self.n_heads + 2 * self.n_kv_heads) * self.d_head
    }

    /// Numbers of a token in the output.
    fn output_width(self) -> usize {
        self.n_heads * self.d_head
    }

    /// Where query, key and value of a head begin in the numbers of a token.
    fn places(self, head: usize) -> [usize; 3] {
        let kv_head = head / (self.n_heads / self.n_kv_heads);
        [head, self.n_heads + kv_head, self.n_heads + self.n_kv_heads + kv_head].map(|head| head * self.d_head)
    }

    /// The factor of the scores.
    fn scale(self) -> f32 {
        1.0 / (self.d_head as f32).sqrt()
    }
}

/// A part of the work: some queries of one row of the batch, and the keys that any of them sees.
#[derive(Clone, Debug)]
struct Block {
    row: usize,
    queries: Range<usize>,
    keys: Range<usize>,
}

impl Block {
    /// A part of the tokens of this row, from the number `place` of the first one on.
    fn of<'a>(&self, x: &'a [f32], width: usize, place: usize, tokens: &Range<usize>, sizes: Sizes) -> Matrix<'a> {
        let start = (self.row * sizes.seq + tokens.start) * width + place;
        Matrix::new(&x[start..], [tokens.len(), sizes.d_head], width)
    }

    /// Where the numbers of these tokens begin.
    fn start(&self, width: usize, place: usize, tokens: &Range<usize>, sizes: Sizes) -> usize {
        (self.row * sizes.seq + tokens.start) * width + place
    }
}

/// The bias of all queries.
struct Bias<'a> {
    numbers: &'a [f32],
    seq: usize,
    has_batch: bool,
}

impl<'a> Bias<'a> {
    fn of(bias: &'a FlexTensor, sizes: Sizes) -> Self {
        let [batch, heads, queries, keys] = bias.layout().shape().dims();
        let seq = sizes.seq;
        assert!(
            (batch == sizes.batch || batch == 1) && [heads, queries, keys] == [1, seq, seq],
            "a bias of {batch} × {heads} × {queries} × {keys} for {} rows of {seq} tokens",
            sizes.batch
        );
        Self { numbers: numbers(bias), seq, has_batch: batch > 1 }
    }

    /// What is added to the scores of one query.
    fn of_query(&self, row: usize, query: usize) -> &'a [f32] {
        let row = if self.has_batch { row } else { 0 };
        &self.numbers[(row * self.seq + query) * self.seq..][..self.seq]
    }

    /// The blocks of one row.
    fn blocks(&self, row: usize) -> Vec<Block> {
        let starts = (0..self.seq).step_by(BLOCK);
        let block = |start: usize| {
            let queries = start..(start + BLOCK).min(self.seq);
            let keys = self.seen(row, &queries);
            Block { row, queries, keys }
        };
        starts.map(block).collect()
    }

    /// From the first key that any of the queries sees to the last one.
    fn seen(&self, row: usize, queries: &Range<usize>) -> Range<usize> {
        let is_seen = |bias: &f32| *bias > f32::NEG_INFINITY;
        let (mut first, mut end) = (self.seq, 0);
        // The last query mostly sees the most keys.
        for query in queries.clone().rev() {
            let bias = self.of_query(row, query);
            first = bias[..first].iter().position(is_seen).unwrap_or(first);
            if end < self.seq && max(&bias[end..]) > f32::NEG_INFINITY {
                end = bias.iter().rposition(is_seen).map_or(end, |last| last + 1);
            }
        }
        if first < end { first..end } else { 0..self.seq }
    }
}

/// The output, and for each head, row and query the logarithm of the sum of its exponentials: `[batch, n_heads, seq]`.
fn forward(projected: &FlexTensor, bias: &FlexTensor, sizes: Sizes) -> (Vec<f32>, Vec<f32>) {
    let (x, bias) = (numbers(projected), Bias::of(bias, sizes));
    let Sizes { batch, seq, n_heads, d_head, .. } = sizes;
    let (width, output_width) = (sizes.width(), sizes.output_width());
    let mut output = vec![0.0; batch * seq * output_width];
    let mut log_sums = vec![0.0; batch * n_heads * seq];
    let mut probs = vec![0.0; BLOCK.min(seq) * seq];
    for block in (0..batch).flat_map(|row| bias.blocks(row)) {
        let n_keys = block.keys.len();
        let probs = &mut probs[..block.queries.len() * n_keys];
        for head in 0..n_heads {
            let [q, k, v] = sizes.places(head);
            let queries = block.of(x, width, q, &block.queries, sizes);
            let keys = block.of(x, width, k, &block.keys, sizes);
            multiply(probs, n_keys, Former::Replaced, sizes.scale(), queries, keys.transposed());
            let first = (block.row * n_heads + head) * seq + block.queries.start;
            let log_sums = &mut log_sums[first..first + block.queries.len()];
            Arch::new().dispatch(|| {
                let rows = probs.chunks_exact_mut(n_keys).zip(log_sums.iter_mut()).zip(block.queries.clone());
                for ((scores, log_sum), query) in rows {
                    *log_sum = softmax(scores, &bias.of_query(block.row, query)[block.keys.clone()]);
                }
            });
            let values = block.of(x, width, v, &block.keys, sizes);
            let start = block.start(output_width, head * d_head, &block.queries, sizes);
            let probs = Matrix::new(probs, [block.queries.len(), n_keys], n_keys);
            multiply(&mut output[start..], output_width, Former::Replaced, 1.0, probs, values);
        }
    }
    (output, log_sums)
}

/// Turns scores into probabilities, and returns the logarithm of the sum of the exponentials.
#[inline(always)]
fn softmax(scores: &mut [f32], bias: &[f32]) -> f32 {
    for (score, bias) in scores.iter_mut().zip(bias) {
        *score += bias;
    }
    let largest = max(scores);
    for score in scores.iter_mut() {
        *score = exp(*score - largest);
    }
    let total = sum(scores.len(), |i| scores[i]);
    let share = 1.0 / total;
    for score in scores.iter_mut() {
        *score *= share;
    }
    largest + total.ln()
}

/// What the backward pass reads.
#[derive(Clone, Debug)]
struct Attended {
    projected: FlexTensor,
    bias: FlexTensor,
    log_sums: Vec<f32>,
    sizes: Sizes,
}

impl Attended {
    /// The gradient of the projection from that of the output, g.
    ///
    /// With probabilities p, d = g vᵀ and s = p (d − Σ p d) · scale, that of the values is pᵀ g, that of the queries s k, and that of the keys
    /// sᵀ q. Keys and values collect from every block and every head that reads them.
    fn backward(&self, gradient: &FlexTensor) -> FlexTensor {
        let sizes = self.sizes;
        let (x, g) = (numbers(&self.projected), numbers(gradient));
        let bias = Bias::of(&self.bias, sizes);
        let Sizes { batch, seq, n_heads, d_head, .. } = sizes;
        let (width, output_width) = (sizes.width(), sizes.output_width());
        let mut of_x = vec![0.0; x.len()];
        let size = BLOCK.min(seq) * seq;
        let (mut probs, mut slopes) = (vec![0.0; size], vec![0.0; size]);
        for block in (0..batch).flat_map(|row| bias.blocks(row)) {
            let (n_queries, n_keys) = (block.queries.len(), block.keys.len());
            let probs = &mut probs[..n_queries * n_keys];
            let slopes = &mut slopes[..n_queries * n_keys];
            for head in 0..n_heads {
                let [q, k, v] = sizes.places(head);
                let queries = block.of(x, width, q, &block.queries, sizes);
                let keys = block.of(x, width, k, &block.keys, sizes);
                let values = block.of(x, width, v, &block.keys, sizes);
                let g = block.of(g, output_width, head * d_head, &block.queries, sizes);
                multiply(probs, n_keys, Former::Replaced, sizes.scale(), queries, keys.transposed());
                multiply(slopes, n_keys, Former::Replaced, 1.0, g, values.transposed());
                let first = (block.row * n_heads + head) * seq + block.queries.start;
                let log_sums = &self.log_sums[first..first + n_queries];
                Arch::new().dispatch(|| {
                    let rows = probs.chunks_exact_mut(n_keys).zip(slopes.chunks_exact_mut(n_keys));
                    for ((probs, slopes), (query, log_sum)) in rows.zip(block.queries.clone().zip(log_sums)) {
                        let bias = &bias.of_query(block.row, query)[block.keys.clone()];
                        for (p, bias) in probs.iter_mut().zip(bias) {
                            *p = exp(*p + bias - log_sum);
                        }
                        let mean = sum(n_keys, |i| probs[i] * slopes[i]);
                        for (slope, p) in slopes.iter_mut().zip(probs.iter()) {
                            *slope = p * (*slope - mean);
                        }
                    }
                });
                let probs = Matrix::new(probs, [n_queries, n_keys], n_keys);
                let slopes = Matrix::new(slopes, [n_queries, n_keys], n_keys);
                let mut write = |place, tokens: &Range<usize>, former, factor, a, b| {
                    let start = block.start(width, place, tokens, sizes);
                    multiply(&mut of_x[start..], width, former, factor, a, b);
                };
                write(q, &block.queries, Former::Replaced, sizes.scale(), slopes, keys);
                write(k, &block.keys, Former::Kept, sizes.scale(), slopes.transposed(), queries);
                write(v, &block.keys, Former::Kept, 1.0, probs.transposed(), g);
            }
        }
        tensor_like(&self.projected, of_x)
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl Backward<Flex, 1> for AttentionBackward {
    type State = Attended;

    fn backward(self, ops: Ops<Attended, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let attended = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, gradients, |gradient| {
            attended.backward(&contiguous(gradient))
        });
    }
}

pub(crate) fn self_attention(
    projected: Tensor<3>,
    bias: Tensor<4>,
    n_heads: usize,
    n_kv_heads: usize,
) -> Tensor<3> {
    let bias = if bias.is_autodiff() { bias.inner() } else { bias };
    let bias = contiguous(bias.try_into_primitive::<Flex>().expect("it is where the projection is"));
    let output = |output: Vec<f32>, sizes: Sizes| {
        let shape = [sizes.batch, sizes.seq, sizes.output_width()].into();
        FlexTensor::new(Bytes::from_elems(output), Layout::contiguous(shape), DType::F32)
    };
    if !projected.is_autodiff() {
        let projected = contiguous(projected.try_into_primitive::<Flex>().expect("it is on flex"));
        let sizes = Sizes::of(&projected, n_heads, n_kv_heads);
        return Tensor::from_primitive::<Flex>(output(forward(&projected, &bias, sizes).0, sizes));
    }
    let (projected, node) =
        projected.try_into_primitive::<Taped>().expect("it is on flex, with a tape").into_parts();
    let projected = contiguous(projected);
    let sizes = Sizes::of(&projected, n_heads, n_kv_heads);
    let (mixed, log_sums) = forward(&projected, &bias, sizes);
    let mixed = output(mixed, sizes);
    let prep = AttentionBackward.prepare::<NoCheckpointing>([node]).compute_bound().stateful();
    Tensor::from_primitive::<Taped>(match prep {
        OpsKind::Tracked(prep) => prep.finish(Attended { projected, bias, log_sums, sizes }, mixed),
        OpsKind::UnTracked(prep) => prep.finish(mixed),
    })
}
