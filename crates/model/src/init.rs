//! Fresh weights, drawn on the host: one seed gives one model on every backend.

use std::f64::consts::TAU;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use rand::{Rng, RngExt};
use temper_tensor::map;

use crate::config::ModelConfig;
use crate::families;

/// Gives every parameter of `module` the start of its family, one after the other in the order of the fields.
pub(crate) fn initialise<M: Module>(module: M, config: &ModelConfig, rng: &mut impl Rng) -> M {
    let family = families::of(config);
    map(module, |parameter| {
        let n = parameter.value.dims()[0];
        let data: Vec<f32> = match family.start(parameter.path, parameter.dims, config) {
            Start::Zeros => vec![0.0; n],
            Start::Ones => vec![1.0; n],
            Start::Normal(std) => (0..n).map(|_| (normal(rng) * std) as f32).collect(),
            Start::Uniform(bound) => {
                (0..n).map(|_| ((2.0 * rng.random::<f64>() - 1.0) * bound) as f32).collect()
            }
        };
        Tensor::from_data(TensorData::new(data, [n]), &parameter.value.device())
    })
}

/// How one parameter starts.
pub(crate) enum Start {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// N(0, σ²), given σ.
    Normal(f64),
    /// Uniform between −bound and bound.
    Uniform(f64),
}

/// One draw from N(0, 1) by Box and Muller's transform.
pub(crate) fn normal(rng: &mut impl Rng) -> f64 {
    let u = 1.0 - rng.random::<f64>(); // in (0, 1]: its logarithm exists
    let v = rng.random::<f64>();
    (-2.0 * u.ln()).sqrt() * (TAU * v).cos()
}
