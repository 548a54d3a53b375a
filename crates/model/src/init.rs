//! Fresh weights, drawn on the host: one seed gives one model on every backend.

use std::f64::consts::TAU;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use rand::{Rng, RngExt};
use temper_tensor::map;

use crate::config::{INIT_STD, Init, ModelConfig};

/// Gives every parameter of `module` the start that `config.init` names.
pub(crate) fn initialise<M: Module>(module: M, config: &ModelConfig, rng: &mut impl Rng) -> M {
    map(module, |parameter| {
        let n = parameter.value.dims()[0];
        let data: Vec<f32> = match start(parameter.path, parameter.dims, config) {
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
enum Start {
    Zeros,
    Ones,
    Normal(f64),
    Uniform(f64),
}

fn start(path: &str, dims: &[usize], config: &ModelConfig) -> Start {
    let (owner, kind) = path.rsplit_once('.').unwrap_or(("", path));
    let embedding = owner.ends_with("wte") || owner.ends_with("wpe");
    match (kind, config.init) {
        ("gamma", _) => Start::Ones,
        ("beta", _) => Start::Zeros,
        _ if owner.ends_with("score") => {
            // N(0, 1/√(d+1)), bias 0: the scalar head of Stiennon et al. 2020.
            if kind == "bias" { Start::Zeros } else { Start::Normal(1.0 / (dims[0] as f64 + 1.0).sqrt()) }
        }
        _ if embedding => Start::Normal(INIT_STD),
        ("bias", Init::Normal) => Start::Zeros,
        (_, Init::Normal) if owner.ends_with("c_proj") => {
            Start::Normal(INIT_STD / (2.0 * config.n_layers as f64).sqrt())
        }
        (_, Init::Normal) => Start::Normal(INIT_STD),
        ("bias", Init::Torch) if owner.contains("attn") => Start::Zeros,
        ("bias", Init::Torch) if owner.ends_with("c_fc") => {
            Start::Uniform(1.0 / (config.d_model as f64).sqrt())
        }
        ("bias", Init::Torch) => Start::Uniform(1.0 / (config.d_ff as f64).sqrt()),
        // Xavier over the fused matrix, as torch's MultiheadAttention: √(6 / (fan_in + fan_out)).
        (_, Init::Torch) if owner.ends_with("c_attn") => {
            Start::Uniform((6.0 / (dims[0] + dims[1]) as f64).sqrt())
        }
        (_, Init::Torch) => Start::Uniform(1.0 / (dims[0] as f64).sqrt()),
    }
}

/// One draw from N(0, 1) by Box and Muller's transform.
fn normal(rng: &mut impl Rng) -> f64 {
    let u = 1.0 - rng.random::<f64>(); // in (0, 1]: its logarithm exists
    let v = rng.random::<f64>();
    (-2.0 * u.ln()).sqrt() * (TAU * v).cos()
}
