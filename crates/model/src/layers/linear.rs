//! A linear map, with an optional low-rank adapter.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, RngExt};
use temper_kernels::linear;

/// x W + b, and where there is an adapter its output in addition.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_in, d_out]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// A low-rank addition to the weight.
    pub adapter: Option<Adapter>,
}

/// A low-rank addition to a weight (LoRA: Hu et al. 2021, section 4.1): `scale · A B`.
///
/// A layer that is several layers of a published model side by side, such as the queries, keys and values of a Llama, has
/// an A and a B for each of these parts that is adapted.
#[derive(Module, Debug)]
pub struct Adapter {
    /// The A of each part, side by side: `[d_in, parts · rank]`.
    pub lora_a: Param<Tensor<2>>,
    /// The B of each part, `[rank, width]`: zero at the start, so that a fresh adapter changes nothing.
    pub lora_b: Vec<Param<Tensor<2>>>,
    /// The columns of the output that each part adds to, in order.
    #[module(skip)]
    parts: Vec<Range<usize>>,
    /// α / rank in the paper.
    scale: f64,
}

impl Linear {
    /// A map whose weight and bias are 0.
    pub fn zeros(d_in: usize, d_out: usize, has_bias: bool, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::zeros([d_in, d_out], device)),
            bias: has_bias.then(|| Param::from_tensor(Tensor::zeros([d_out], device))),
            adapter: None,
        }
    }

    /// x W + b + scale · (x A) B; the last term only with an adapter.
    ///
    /// # Shapes
    /// - `x`: `[.., d_in]`
    /// - output: `[.., d_out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(|bias| bias.val());
        match &self.adapter {
            None => linear(x, self.weight.val(), bias),
            Some(adapter) => {
                let d_out = self.weight.dims()[1];
                linear(x.clone(), self.weight.val(), bias) + adapter.forward(x, d_out)
            }
        }
    }

    /// The same map with a fresh adapter on some columns of its output, given in order: A from U(−1/√d_in, 1/√d_in), as
    /// PEFT draws it, and B zero. A former adapter is folded in.
    ///
    /// # Panics
    /// If `rank` is 0, or there are no parts.
    #[must_use]
    pub fn with_adapter(self, rank: usize, scale: f64, parts: Vec<Range<usize>>, rng: &mut impl Rng) -> Self {
        assert!(rank > 0 && !parts.is_empty(), "an adapter has a rank of 1 or more, and something to adapt");
        let [d_in, _] = self.weight.dims();
        let bound = 1.0 / (d_in as f32).sqrt();
        let a: Vec<f32> = (0..d_in * parts.len() * rank).map(|_| rng.random_range(-bound..=bound)).collect();
        let b = parts.iter().map(|part| vec![0.0; rank * part.len()]).collect();
        self.with_adapter_of(rank, scale, parts, a, b)
    }

    /// The same map with the adapter of these numbers: `a` is `[d_in, parts · rank]`, and each of `b` `[rank, width]`.
    pub(crate) fn with_adapter_of(
        self,
        rank: usize,
        scale: f64,
        parts: Vec<Range<usize>>,
        a: Vec<f32>,
        b: Vec<Vec<f32>>,
    ) -> Self {
        let ([d_in, _], device) = (self.weight.dims(), self.weight.device().inner());
        let matrix = |numbers: Vec<f32>, dims: [usize; 2]| {
            Param::from_tensor(Tensor::<2>::from_data(TensorData::new(numbers, dims), &device))
        };
        let lora_b = b.into_iter().zip(&parts).map(|(b, part)| matrix(b, [rank, part.len()])).collect();
        let adapter = Adapter { lora_a: matrix(a, [d_in, parts.len() * rank]), lora_b, parts, scale };
        let is_trained = self.weight.val().is_autodiff();
        let adapter = if is_trained { adapter.train() } else { adapter };
        Self { adapter: Some(adapter), ..self.merge() }
    }

    /// The same map without an adapter: W + scale · A B is the weight.
    #[must_use]
    pub fn merge(self) -> Self {
        let Some(adapter) = &self.adapter else { return self };
        let addition = adapter.product(self.weight.dims()[1]);
        let weight = self.weight.map(|weight| {
            let (is_autodiff, wants_gradient) = (weight.is_autodiff(), weight.is_require_grad());
            let sum = weight.inner() + addition;
            if is_autodiff { Tensor::from_inner(sum).set_require_grad(wants_gradient) } else { sum }
        });
        Self { weight, bias: self.bias, adapter: None }
    }
}

impl Adapter {
    /// The columns of the output that each part adds to, in order.
    pub(crate) fn parts(&self) -> &[Range<usize>] {
        &self.parts
    }

    /// The rank of each part.
    pub(crate) fn rank(&self) -> usize {
        self.lora_b[0].dims()[0]
    }

    /// scale · (x A) B, which is 0 where no part is.
    fn forward<const D: usize>(&self, x: Tensor<D>, d_out: usize) -> Tensor<D> {
        let narrow = linear(x, self.lora_a.val(), None).mul_scalar(self.scale); // [.., parts · rank]
        let rank = self.rank();
        self.beside_each_other(d_out, |i| {
            linear(narrow.clone().narrow(D - 1, i * rank, rank), self.lora_b[i].val(), None)
        })
    }

    /// scale · A B, off the tape: `[d_in, d_out]`.
    fn product(&self, d_out: usize) -> Tensor<2> {
        let (a, rank) = (self.lora_a.val().inner().mul_scalar(self.scale), self.rank());
        self.beside_each_other(d_out, |i| {
            a.clone().narrow(1, i * rank, rank).matmul(self.lora_b[i].val().inner())
        })
    }

    /// What `of_part` gives for each part, in its columns of the output, with 0 in the others.
    fn beside_each_other<const D: usize>(
        &self,
        d_out: usize,
        of_part: impl Fn(usize) -> Tensor<D>,
    ) -> Tensor<D> {
        let (mut columns, mut end) = (Vec::new(), 0);
        let add_gap = |columns: &mut Vec<Tensor<D>>, like: &Tensor<D>, width: usize| {
            if width > 0 {
                let mut dims = like.dims();
                dims[D - 1] = width;
                columns.push(Tensor::zeros(dims, &like.device()));
            }
        };
        for (i, part) in self.parts.iter().enumerate() {
            let output = of_part(i);
            add_gap(&mut columns, &output, part.start - end);
            columns.push(output);
            end = part.end;
        }
        let first = columns[0].clone();
        add_gap(&mut columns, &first, d_out - end);
        if columns.len() == 1 { first } else { Tensor::cat(columns, D - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use temper_tensor::{Gradients, Trainable, values_of};

    fn tensor<const D: usize, const N: usize>(values: [f32; N], dims: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), dims), &Device::flex())
    }

    /// One part, which is the whole output.
    fn both_columns() -> Vec<Range<usize>> {
        std::iter::once(0..2).collect()
    }

    /// W = [[1, 2], [3, 4]], b = [10, 20], A = [[1], [2]], B = [[1, −1]], scale 0.5; x = [1, 1].
    /// x W + b = [14, 26]; x A = 3; 0.5 · 3 B = [1.5, −1.5].
    #[test]
    fn an_adapter_adds_its_product_before_and_after_it_is_merged() {
        let mut layer = Linear::zeros(2, 2, true, &Device::flex());
        layer.weight = Param::from_tensor(tensor([1.0, 2.0, 3.0, 4.0], [2, 2]));
        layer.bias = Some(Param::from_tensor(tensor([10.0, 20.0], [2])));
        let x = || tensor([1.0, 1.0], [1, 2]);
        assert_eq!(values_of(layer.forward(x())), [14.0, 26.0]);

        let fresh = layer.clone().with_adapter(1, 0.5, both_columns(), &mut ChaCha8Rng::seed_from_u64(0));
        assert_eq!(values_of(fresh.forward(x())), [14.0, 26.0], "a fresh adapter changes nothing");

        layer = layer.with_adapter_of(1, 0.5, both_columns(), vec![1.0, 2.0], vec![vec![1.0, -1.0]]);
        assert_eq!(values_of(layer.forward(x())), [15.5, 24.5]);
        let merged = layer.merge();
        assert!(merged.adapter.is_none());
        assert_eq!(values_of(merged.forward(x())), [15.5, 24.5]);
        assert_eq!(values_of(merged.weight.val()), [1.5, 1.5, 4.0, 3.0]);
    }

    /// The output has six columns. One part is the second and third column, the other part is the fifth.
    /// x = [1, 1] and A = [1 2; 2 3], so x A = [3, 5]. B is [1 10] for the first part and [−1] for the second; the scale is 2.
    #[test]
    fn parts_add_to_their_own_columns() {
        let layer = Linear::zeros(2, 6, false, &Device::flex());
        let layer = layer.with_adapter_of(
            1,
            2.0,
            vec![1..3, 4..5],
            vec![1.0, 2.0, 2.0, 3.0],
            vec![vec![1.0, 10.0], vec![-1.0]],
        );
        let x = || tensor([1.0, 1.0], [1, 2]);
        let expected = [0.0, 6.0, 60.0, 0.0, -10.0, 0.0];
        assert_eq!(values_of(layer.forward(x())), expected);
        assert_eq!(values_of(layer.merge().forward(x())), expected);
    }

    /// A frozen weight has no gradient, and the adapter has one, also in rows of several tokens.
    #[test]
    fn only_the_adapter_is_learned() {
        let layer = Linear::zeros(3, 4, true, &Device::flex());
        let layer = layer.with_adapter(2, 1.0, vec![0..1, 1..4], &mut ChaCha8Rng::seed_from_u64(0));
        let layer = Trainable::only(|path| path.contains("lora_")).mark(layer).train();
        let x = Tensor::<3>::ones([2, 5, 3], &Device::flex().autodiff());
        let mut gradients = Gradients::of(&layer, layer.forward(x).sum());
        assert_eq!(
            gradients.paths().collect::<Vec<_>>(),
            ["adapter.lora_a", "adapter.lora_b.0", "adapter.lora_b.1"]
        );
        assert!(
            values_of(gradients.take("adapter.lora_b.1").unwrap()).iter().all(|gradient| *gradient != 0.0)
        );
    }
}
