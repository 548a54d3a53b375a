//! Attention of a row to itself, without the table of all pairs of tokens.
//!
//! Scores and probabilities of a block of queries fit into the cache of a core, and blocks of keys that none of these queries
//! sees are left out: under a causal bias that is half of them. The backward pass computes the probabilities again, from
//! one number for each query (Dao et al. 2022, section 3.1 and appendix B.4). Queries, keys and values are read where the
//! projection has written them.

use std::ops::Range;

use burn::tensor::Tensor;
use burn::tensor::{Bytes, DType};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn_flex::{Flex, FlexTensor, Layout};

use super::Taped;
use super::buffer::{contiguous, numbers, tensor_like};
use super::matrix::{Matrix, Output, multiply};
use crate::math::{exp, max, sum};
use crate::vectorized::vectorized;

/// Queries that are computed together, and keys that are left out together.
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
        assert!(
            width.is_multiple_of(n_all) && n_heads.is_multiple_of(n_kv_heads),
            "{n_all} heads of {width} numbers"
        );
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
        [head, self.n_heads + kv_head, self.n_heads + self.n_kv_heads + kv_head]
            .map(|head| head * self.d_head)
    }

    /// The factor of the scores.
    fn scale(self) -> f32 {
        1.0 / (self.d_head as f32).sqrt()
    }
}

/// A part of the work: some queries of one row of the batch, and the keys that any of them may see.
#[derive(Clone, Debug)]
struct Block {
    row: usize,
    queries: Range<usize>,
    /// One stretch, or several: an answer that shares a row with others sees the prompt and itself.
    keys: Vec<Range<usize>>,
}

impl Block {
    fn n_keys(&self) -> usize {
        self.keys.iter().map(Range::len).sum()
    }

    /// Every stretch of keys, with the place of its first one among all keys of the block.
    fn stretches(&self) -> impl Iterator<Item = (usize, &Range<usize>)> {
        self.keys.iter().scan(0, |next, keys| {
            let first = *next;
            *next += keys.len();
            Some((first, keys))
        })
    }

    /// Writes `factor` · a bᵀ for all keys, where a is a vector of each query and b one of each key.
    fn products<'a>(
        &self,
        output: &mut [f32],
        factor: f32,
        a: Matrix<'_>,
        b: impl Fn(&Range<usize>) -> Matrix<'a>,
    ) {
        for (first, keys) in self.stretches() {
            multiply(
                &mut output[first..],
                self.n_keys(),
                Output::Overwritten,
                factor,
                a,
                b(keys).transposed(),
            );
        }
    }

    /// Calls `write` with each stretch of keys and the columns of `weights` that belong to it. The first call replaces what
    /// is in the output, and later calls add to it.
    fn by_stretch(&self, weights: &[f32], mut write: impl FnMut(&Range<usize>, Output, Matrix<'_>)) {
        for (first, keys) in self.stretches() {
            let weights = Matrix::new(&weights[first..], [self.queries.len(), keys.len()], self.n_keys());
            write(keys, if first == 0 { Output::Overwritten } else { Output::Added }, weights);
        }
    }

    /// A part of the tokens of this row, from the number `place` of the first one on.
    fn of<'a>(
        &self,
        x: &'a [f32],
        width: usize,
        place: usize,
        tokens: &Range<usize>,
        sizes: Sizes,
    ) -> Matrix<'a> {
        let start = self.start(width, place, tokens, sizes);
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
        let starts = || (0..self.seq).step_by(BLOCK);
        let stretch = |start: usize| start..(start + BLOCK).min(self.seq);
        let block = |queries: Range<usize>| {
            let mut seen: Vec<Range<usize>> = Vec::new();
            for keys in starts().map(stretch).filter(|keys| self.sees(row, &queries, keys)) {
                match seen.last_mut() {
                    Some(last) if last.end == keys.start => last.end = keys.end,
                    _ => seen.push(keys),
                }
            }
            Block { row, queries, keys: seen }
        };
        starts().map(stretch).map(block).collect()
    }

    /// Whether any of the queries sees any of the keys.
    fn sees(&self, row: usize, queries: &Range<usize>, keys: &Range<usize>) -> bool {
        // The last query mostly sees the most keys.
        queries.clone().rev().any(|query| sees(&self.of_query(row, query)[keys.clone()]))
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
        let n_keys = block.n_keys();
        let probs = &mut probs[..block.queries.len() * n_keys];
        for head in 0..n_heads {
            let [q, k, v] = sizes.places(head);
            let queries = block.of(x, width, q, &block.queries, sizes);
            block.products(probs, sizes.scale(), queries, |keys| block.of(x, width, k, keys, sizes));
            let first = (block.row * n_heads + head) * seq + block.queries.start;
            let log_sums = &mut log_sums[first..first + block.queries.len()];
            let rows = probs.chunks_exact_mut(n_keys).zip(log_sums.iter_mut()).zip(block.queries.clone());
            for ((scores, log_sum), query) in rows {
                *log_sum = softmax(scores, bias.of_query(block.row, query), &block.keys);
            }
            let start = block.start(output_width, head * d_head, &block.queries, sizes);
            block.by_stretch(probs, |keys, written, probs| {
                let values = block.of(x, width, v, keys, sizes);
                multiply(&mut output[start..], output_width, written, 1.0, probs, values);
            });
        }
    }
    (output, log_sums)
}

/// Adds the bias of a query to its scores for these keys.
#[inline(always)]
fn add_bias(scores: &mut [f32], bias: &[f32], keys: &[Range<usize>]) {
    let mut first = 0;
    for keys in keys {
        for (score, bias) in scores[first..].iter_mut().zip(&bias[keys.start..keys.end]) {
            *score += bias;
        }
        first += keys.len();
    }
}

vectorized! {
    /// Turns the scores of a query into probabilities, and returns the logarithm of the sum of the exponentials.
    fn softmax<'a>(scores: &'a mut [f32], bias: &'a [f32], keys: &'a [Range<usize>]) -> f32 {
        add_bias(scores, bias, keys);
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
}

vectorized! {
    /// Turns the scores of a query into probabilities p, and the gradients d of these into those of the scores:
    /// p (d − Σ p d).
    fn gradients_of_query<'a>(
        probs: &'a mut [f32],
        slopes: &'a mut [f32],
        bias: &'a [f32],
        keys: &'a [Range<usize>],
        log_sum: f32,
    ) {
        add_bias(probs, bias, keys);
        for p in probs.iter_mut() {
            *p = exp(*p - log_sum);
        }
        let mean = sum(probs.len(), |i| probs[i] * slopes[i]);
        for (slope, p) in slopes.iter_mut().zip(probs.iter()) {
            *slope = p * (*slope - mean);
        }
    }
}

vectorized! {
    /// Whether a query sees any of these keys.
    fn sees<'a>(bias: &'a [f32]) -> bool {
        max(bias) > f32::NEG_INFINITY
    }
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
    /// With probabilities p, d = g vᵀ and s = p (d − Σ p d) · scale:
    /// - that of the values is pᵀ g,
    /// - that of the queries s k,
    /// - that of the keys sᵀ q.
    ///
    /// Keys and values collect from every block and every head that reads them.
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
            let (n_queries, n_keys) = (block.queries.len(), block.n_keys());
            let probs = &mut probs[..n_queries * n_keys];
            let slopes = &mut slopes[..n_queries * n_keys];
            for head in 0..n_heads {
                let [q, k, v] = sizes.places(head);
                let queries = block.of(x, width, q, &block.queries, sizes);
                let g = block.of(g, output_width, head * d_head, &block.queries, sizes);
                block.products(probs, sizes.scale(), queries, |keys| block.of(x, width, k, keys, sizes));
                block.products(slopes, 1.0, g, |keys| block.of(x, width, v, keys, sizes));
                let first = (block.row * n_heads + head) * seq + block.queries.start;
                let log_sums = &self.log_sums[first..first + n_queries];
                let rows = probs.chunks_exact_mut(n_keys).zip(slopes.chunks_exact_mut(n_keys));
                for ((probs, slopes), (query, log_sum)) in rows.zip(block.queries.clone().zip(log_sums)) {
                    gradients_of_query(probs, slopes, bias.of_query(block.row, query), &block.keys, *log_sum);
                }
                let mut write =
                    |place, tokens: &Range<usize>, written, factor, a: Matrix<'_>, b: Matrix<'_>| {
                        let start = block.start(width, place, tokens, sizes);
                        multiply(&mut of_x[start..], width, written, factor, a, b);
                    };
                block.by_stretch(slopes, |keys, written, slopes| {
                    let of_keys = block.of(x, width, k, keys, sizes);
                    write(q, &block.queries, written, sizes.scale(), slopes, of_keys);
                    write(k, keys, Output::Added, sizes.scale(), slopes.transposed(), queries);
                });
                block.by_stretch(probs, |keys, _, probs| {
                    write(v, keys, Output::Added, 1.0, probs.transposed(), g);
                });
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
