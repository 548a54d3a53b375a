//! A linear map, with an optional low-rank adapter.

use burn::module::{Module, Param};
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;

use crate::init::normal;

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
/// Its parameters have the paths `….adapter.lora_a` and `….adapter.lora_b` of their own. To train adapters alone, mark
/// the model with [`Trainable::only`](temper_tensor::Trainable::only) and a predicate on `lora_`.
#[derive(Module, Debug)]
pub struct Adapter {
    /// A: `[d_in, rank]`.
    pub lora_a: Param<Tensor<2>>,
    /// B: `[rank, d_out]`, zero at the start, so that a fresh adapter changes nothing.
    pub lora_b: Param<Tensor<2>>,
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
        let mut dims = x.dims();
        let n_vectors = dims[..D - 1].iter().product();
        if D > 2 && n_vectors == dims[D - 2] {
            // A single row as a matrix: burn would copy the transposed weight in the backward pass.
            let output = self.map(x.reshape([n_vectors, dims[D - 1]]));
            dims[D - 1] = output.dims()[1];
            return output.reshape(dims);
        }
        self.map(x)
    }

    fn map<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(|bias| bias.val());
        match &self.adapter {
            None => linear(x, self.weight.val(), bias),
            Some(adapter) => linear(x.clone(), self.weight.val(), bias) + adapter.forward(x),
        }
    }

    /// The same map with a fresh adapter of this rank: A from N(0, 1/rank), B zero. A former adapter is folded in.
    ///
    /// # Panics
    /// If `rank` is 0.
    #[must_use]
    pub fn with_adapter(self, rank: usize, scale: f64, rng: &mut impl Rng) -> Self {
        assert!(rank > 0, "an adapter has a rank of 1 or more");
        let ([d_in, d_out], device) = (self.weight.dims(), self.weight.device().inner());
        let a: Vec<f32> = (0..d_in * rank).map(|_| (normal(rng) / (rank as f64).sqrt()) as f32).collect();
        let adapter = Adapter {
            lora_a: Param::from_tensor(Tensor::from_data(TensorData::new(a, [d_in, rank]), &device)),
            lora_b: Param::from_tensor(Tensor::zeros([rank, d_out], &device)),
            scale,
        };
        let is_trained = self.weight.val().is_autodiff();
        let adapter = if is_trained { adapter.train() } else { adapter };
        Self { adapter: Some(adapter), ..self.merge() }
    }

    /// The same map without an adapter: W + scale · A B is the weight.
    #[must_use]
    pub fn merge(self) -> Self {
        let Some(adapter) = &self.adapter else { return self };
        let addition = adapter.product();
        let weight = self.weight.map(|weight| {
            let (is_autodiff, wants_gradient) = (weight.is_autodiff(), weight.is_require_grad());
            let sum = weight.inner() + addition;
            if is_autodiff { Tensor::from_inner(sum).set_require_grad(wants_gradient) } else { sum }
        });
        Self { weight, bias: self.bias, adapter: None }
    }
}

impl Adapter {
    /// scale · (x A) B.
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let narrow = linear(x, self.lora_a.val(), None).mul_scalar(self.scale); // [.., rank]
        linear(narrow, self.lora_b.val(), None)
    }

    /// scale · A B, off the tape: `[d_in, d_out]`.
    fn product(&self) -> Tensor<2> {
        self.lora_a.val().inner().matmul(self.lora_b.val().inner()).mul_scalar(self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use temper_tensor::values_of;

    fn tensor<const D: usize, const N: usize>(values: [f32; N], dims: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), dims), &Device::flex())
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

        let fresh = layer.clone().with_adapter(1, 0.5, &mut ChaCha8Rng::seed_from_u64(0));
        assert_eq!(values_of(fresh.forward(x())), [14.0, 26.0], "a fresh adapter changes nothing");

        layer.adapter = Some(Adapter {
            lora_a: Param::from_tensor(tensor([1.0, 2.0], [2, 1])),
            lora_b: Param::from_tensor(tensor([1.0, -1.0], [1, 2])),
            scale: 0.5,
        });
        assert_eq!(values_of(layer.forward(x())), [15.5, 24.5]);
        let merged = layer.merge();
        assert!(merged.adapter.is_none());
        assert_eq!(values_of(merged.forward(x())), [15.5, 24.5]);
        assert_eq!(values_of(merged.weight.val()), [1.5, 1.5, 4.0, 3.0]);
    }
}
