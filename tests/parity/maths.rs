//! Formulas without a model: whitening, log-probabilities under a temperature, entropy.

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::Value;
use temper_model::{
    entropy, log_probs, masked_mean, masked_variance, scale_to_unit_variance, token_logprobs, whiten,
};

use crate::golden::{assert_close, devices, path, values};

/// A handful of float32 operations on numbers of size 1 to 10.
const TOLERANCE: f64 = 2e-6;

fn golden(section: &str) -> Value {
    let text = std::fs::read_to_string(path("maths.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()[section].clone()
}

/// The numbers of a list of any depth, or one number.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(inner) => inner.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap_or_else(|| panic!("{number} is no number"))],
    }
}

fn matrix(value: &Value, device: &Device) -> Tensor<2> {
    let rows = value.as_array().unwrap().len();
    let data: Vec<f32> = numbers(value).iter().map(|&v| v as f32).collect();
    let columns = data.len() / rows;
    Tensor::from_data(TensorData::new(data, [rows, columns]), device)
}

#[test]
fn masked_statistics_equal_pytorchs() {
    let golden = golden("whitening");
    for (device_name, device) in devices() {
        for (i, case) in golden.as_array().unwrap().iter().enumerate() {
            let (x, mask) = (matrix(&case["x"], &device), matrix(&case["mask"], &device));
            for (what, found) in [
                ("mean", values(masked_mean(x.clone(), mask.clone()))),
                ("variance", values(masked_variance(x.clone(), mask.clone()))),
                ("whitened", values(whiten(x.clone(), mask.clone()))),
                ("scaled", values(scale_to_unit_variance(x.clone(), mask.clone()))),
            ] {
                let what_where = format!("{device_name}, case {i}: {what}");
                assert_close(&what_where, &found, &numbers(&case[what]), TOLERANCE);
            }
        }
    }
}

#[test]
fn log_probs_and_entropy_equal_pytorchs() {
    let golden = golden("log_probs");
    let temperature = golden["temperature"].as_f64().unwrap();
    let targets: Vec<i32> = numbers(&golden["targets"]).iter().map(|&t| t as i32).collect();
    for (device_name, device) in devices() {
        let logits = matrix(&golden["logits"], &device.clone().autodiff()).require_grad();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets.clone(), [targets.len()]), &device);
        let mask = Tensor::<1>::from_data(
            numbers(&golden["mask"]).iter().map(|&m| m as f32).collect::<Vec<_>>().as_slice(),
            &device,
        );
        let log_probs = log_probs(logits.clone(), temperature);
        let entropy = entropy(log_probs.clone());
        let mean_entropy = masked_mean(entropy.clone(), mask);
        let gradients = mean_entropy.backward();
        for (what, found) in [
            ("log_probs", values(log_probs.clone().inner())),
            ("token_logprobs", values(token_logprobs(log_probs.inner(), targets))),
            ("entropy", values(entropy.inner())),
            ("mean_entropy", values(mean_entropy.inner())),
            ("grad_logits", values(logits.grad(&gradients).unwrap())),
        ] {
            assert_close(&format!("{device_name}: {what}"), &found, &numbers(&golden[what]), TOLERANCE);
        }
    }
}
