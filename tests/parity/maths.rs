//! Formulas of `temper-model`: whitening, log-probabilities under a temperature, entropy.

use temper_tensor::{
    entropy, log_probs, masked_mean, masked_variance, scale_to_unit_variance, token_logprobs, whiten,
};

use crate::backends::backends;
use crate::golden::{ids, matrix, number, numbers, section, values, vector};

/// A handful of float32 operations on numbers of size 1 to 10.
const TOLERANCE: f64 = 2e-6;

#[test]
fn masked_statistics_equal_pytorchs() {
    let golden = section("maths.json", "whitening");
    for backend in backends() {
        for (i, case) in golden.as_array().unwrap().iter().enumerate() {
            let (x, mask) = (matrix(&case["x"], &backend.device), matrix(&case["mask"], &backend.device));
            for (what, found) in [
                ("mean", values(masked_mean(x.clone(), mask.clone()))),
                ("variance", values(masked_variance(x.clone(), mask.clone()))),
                ("whitened", values(whiten(x.clone(), mask.clone()))),
                ("scaled", values(scale_to_unit_variance(x.clone(), mask.clone()))),
            ] {
                backend.assert_close(&format!("case {i}: {what}"), &found, &numbers(&case[what]), TOLERANCE);
            }
        }
    }
}

#[test]
fn log_probs_and_entropy_equal_pytorchs() {
    let golden = section("maths.json", "log_probs");
    for backend in backends() {
        let logits = matrix(&golden["logits"], &backend.device.clone().autodiff()).require_grad();
        let targets = ids(&golden["targets"], &backend.device);
        let mask = vector(&golden["mask"], &backend.device);
        let log_probs = log_probs(logits.clone(), number(&golden["temperature"]));
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
            backend.assert_close(what, &found, &numbers(&golden[what]), TOLERANCE);
        }
    }
}
