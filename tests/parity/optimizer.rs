//! AdamW and clipping by the global norm.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use serde_json::Value;
use temper_train::{AdamWConfig, Optimizer};

use crate::backends::backends;
use crate::golden::{matrix, number, numbers, section, values, vector};

/// Parameters of size 2 after three steps in float32.
const TOLERANCE: f64 = 1e-6;
/// A norm of 13 has steps of 1e-6.
const NORM_TOLERANCE: f64 = 2e-6;

/// The numbers of an optimizer under the names of its settings, and its learning rate.
pub fn settings(golden: &Value) -> (AdamWConfig, f64) {
    let config = AdamWConfig {
        beta_1: number(&golden["beta_1"]),
        beta_2: number(&golden["beta_2"]),
        epsilon: number(&golden["epsilon"]),
        weight_decay: number(&golden["weight_decay"]),
        max_grad_norm: golden.get("max_grad_norm").map_or(0.0, number),
        ..AdamWConfig::default()
    };
    (config, number(&golden["learning_rate"]))
}

/// Two parameters of different shapes.
#[derive(Module, Debug)]
struct Pair {
    first: Param<Tensor<1>>,
    second: Param<Tensor<2>>,
}

impl Pair {
    fn new(initial: &Value, device: &Device) -> Self {
        Self {
            first: Param::from_tensor(vector(&initial[0], device)),
            second: Param::from_tensor(matrix(&initial[1], device)),
        }
        .train()
    }

    /// A loss with these gradients.
    fn loss(&self, gradients: &Value, device: &Device) -> Tensor<1> {
        (self.first.val() * vector(&gradients[0], device)).sum()
            + (self.second.val() * matrix(&gradients[1], device)).sum()
    }

    fn values(&self) -> Vec<f64> {
        [values(self.first.val().inner()), values(self.second.val().inner())].concat()
    }
}

/// A limit per parameter would shorten the second one's gradient less than the first one's.
#[test]
fn clipping_by_the_global_norm_equals_pytorchs() {
    let golden = section("maths.json", "clip_grad_norm");
    let (config, learning_rate) = settings(&golden);
    for backend in backends() {
        let mut pair = Pair::new(&golden["initial"], &backend.device);
        let mut optimizer = Optimizer::new(&config);
        for (i, step) in golden["steps"].as_array().unwrap().iter().enumerate() {
            optimizer.accumulate(&pair, pair.loss(&step["gradients"], &backend.device));
            let norm;
            (pair, norm) = optimizer.step(pair, learning_rate).unwrap();
            let expected = [number(&step["norm"])];
            backend.assert_close(&format!("step {i}: norm"), &[norm], &expected, NORM_TOLERANCE);
            let expected = numbers(&step["parameters"]);
            backend.assert_close(&format!("step {i}: parameters"), &pair.values(), &expected, TOLERANCE);
        }
    }
}

/// One of the gradients is 0 at first, one is small against ε.
#[test]
fn adamw_equals_pytorchs() {
    #[derive(Module, Debug)]
    struct One {
        parameter: Param<Tensor<1>>,
    }
    let golden = section("maths.json", "adamw");
    for backend in backends() {
        for (i, case) in golden.as_array().unwrap().iter().enumerate() {
            let (config, learning_rate) = settings(case);
            let initial = vector(&case["initial"], &backend.device);
            let mut one = One { parameter: Param::from_tensor(initial) }.train();
            let mut optimizer = Optimizer::new(&config);
            let expected = case["parameters"].as_array().unwrap();
            for (step, (gradient, expected)) in
                case["gradients"].as_array().unwrap().iter().zip(expected).enumerate()
            {
                let gradient = vector(gradient, &backend.device);
                optimizer.accumulate(&one, (one.parameter.val() * gradient).sum());
                one = optimizer.step(one, learning_rate).unwrap().0;
                let what = format!("case {i}, step {step}");
                let found = values(one.parameter.val().inner());
                backend.assert_close(&what, &found, &numbers(expected), TOLERANCE);
            }
        }
    }
}
