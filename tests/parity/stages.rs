//! Formulas of the reward and PPO stages: rewards, advantages, losses, and their gradients.

use temper_ppo::{estimate_advantages, policy_loss, shape_rewards, token_kl, value_loss};
use temper_tensor::{entropy, log_probs, masked_mean, token_logprobs};

use crate::backends::backends;
use crate::golden::{ids, matrix, number, numbers, pairwise_loss, section, values, vector};

/// A handful of float32 operations on numbers of size 1 to 10.
const TOLERANCE: f64 = 2e-6;
/// Half a unit of the fourth decimal: what is lost by printing four.
const PRINTED: f64 = 5.1e-5;
/// The mean of five losses of up to 95: a float32 there has steps of 8e-6.
const PAIRWISE_TOLERANCE: f64 = 8e-6;

/// N9: the example that the notebook works out, and the numbers that it prints.
#[test]
fn the_notebooks_advantages_and_returns_come_out() {
    let golden = section("maths.json", "gae_notebook");
    let advantages = [0.9801, 0.2000, 0.4423, 0.7085, 1.0000, 0.6623, -0.0326, 0.1886, 0.4323, 0.7000];
    let returns = [0.9801, 1.0000, 1.0423, 1.1085, 1.2000, 0.6623, 0.6674, 0.6886, 0.7323, 0.8000];
    for backend in backends() {
        let input = |name: &str| matrix(&golden[name], &backend.device);
        let (gamma, lambda) = (number(&golden["gamma"]), number(&golden["lambda"]));
        let found = estimate_advantages(input("rewards"), input("values"), input("mask"), gamma, lambda);
        backend.assert_close("printed advantages", &values(found.advantages), &advantages, PRINTED);
        backend.assert_close("printed returns", &values(found.returns), &returns, PRINTED);
    }
}

#[test]
fn advantages_and_returns_equal_pytorchs() {
    for name in ["gae_notebook", "gae_unequal"] {
        let golden = section("maths.json", name);
        for backend in backends() {
            let input = |name: &str| matrix(&golden[name], &backend.device);
            let (gamma, lambda) = (number(&golden["gamma"]), number(&golden["lambda"]));
            let found = estimate_advantages(input("rewards"), input("values"), input("mask"), gamma, lambda);
            for (what, found) in [("advantages", found.advantages), ("returns", found.returns)] {
                let what_where = format!("{name}: {what}");
                backend.assert_close(&what_where, &values(found), &numbers(&golden[what]), TOLERANCE);
            }
        }
    }
}

#[test]
fn rewards_per_token_equal_pytorchs() {
    let golden = section("maths.json", "shaped_rewards");
    for backend in backends() {
        let input = |name: &str| matrix(&golden[name], &backend.device);
        let scores = vector(&golden["scores"], &backend.device);
        let coef = number(&golden["kl_coef"]);
        let kl = token_kl(input("old_logprobs"), input("ref_logprobs"), input("mask")).sum_dim(1);
        let rewards = shape_rewards(
            input("old_logprobs"),
            input("ref_logprobs"),
            scores,
            input("mask"),
            input("mask"),
            coef,
        );
        backend.assert_close("rewards", &values(rewards), &numbers(&golden["rewards"]), TOLERANCE);
        backend.assert_close("kl", &values(kl), &numbers(&golden["kl"]), TOLERANCE);
    }
}

#[test]
fn policy_loss_and_its_gradient_equal_pytorchs() {
    let golden = section("maths.json", "policy_loss");
    for backend in backends() {
        let input = |name: &str| matrix(&golden[name], &backend.device);
        let logprobs = matrix(&golden["logprobs"], &backend.device.clone().autodiff()).require_grad();
        let found = policy_loss(
            logprobs.clone(),
            input("old_logprobs"),
            input("advantages"),
            input("mask"),
            number(&golden["clip"]),
        );
        let gradients = found.loss.backward();
        for (what, found) in [
            ("loss", values(found.loss.inner())),
            ("mean_ratio", values(found.ratio)),
            ("clip_fraction", values(found.clip_frac)),
            ("approx_kl", values(found.approx_kl)),
            ("grad_logprobs", values(logprobs.grad(&gradients).unwrap())),
        ] {
            backend.assert_close(what, &found, &numbers(&golden[what]), TOLERANCE);
        }
    }
}

#[test]
fn value_loss_and_its_gradient_equal_pytorchs() {
    let golden = section("maths.json", "value_loss");
    for backend in backends() {
        let input = |name: &str| matrix(&golden[name], &backend.device);
        let critic = matrix(&golden["values"], &backend.device.clone().autodiff()).require_grad();
        let clip = number(&golden["clip"]);
        let found = value_loss(critic.clone(), input("old_values"), input("returns"), input("mask"), clip);
        let gradients = found.loss.backward();
        for (what, found) in [
            ("loss", values(found.loss.inner())),
            ("clip_fraction", values(found.clip_frac)),
            ("grad_values", values(critic.grad(&gradients).unwrap())),
        ] {
            backend.assert_close(what, &found, &numbers(&golden[what]), TOLERANCE);
        }
    }
}

/// From the policy's head to the objective and back: temperature, gather, ratio, clip, entropy bonus and mask together.
#[test]
fn the_objectives_gradient_with_respect_to_logits_equals_pytorchs() {
    let golden = section("maths.json", "objective_from_logits");
    let rows = golden["targets"].as_array().unwrap().len();
    for backend in backends() {
        let input = |name: &str| matrix(&golden[name], &backend.device);
        let targets = ids(&golden["targets"], &backend.device);
        let tokens = targets.dims()[0];
        let all = vector(&golden["logits"], &backend.device.clone().autodiff());
        let vocab = all.dims()[0] / tokens;
        let logits = all.reshape([tokens, vocab]).detach().require_grad();
        let log_probs = log_probs(logits.clone(), number(&golden["temperature"]));
        let shape = [rows, tokens / rows];
        let entropy = masked_mean(entropy(log_probs.clone()).reshape(shape), input("mask"));
        let found = policy_loss(
            token_logprobs(log_probs, targets).reshape(shape),
            input("old_logprobs"),
            input("advantages"),
            input("mask"),
            number(&golden["clip"]),
        );
        let objective = found.loss.clone() - entropy.clone().mul_scalar(number(&golden["entropy_coef"]));
        let gradients = objective.backward();
        for (what, found) in [
            ("loss", values(found.loss.inner())),
            ("entropy", values(entropy.inner())),
            ("clip_fraction", values(found.clip_frac)),
            ("grad_logits", values(logits.grad(&gradients).unwrap())),
        ] {
            backend.assert_close(what, &found, &numbers(&golden[what]), TOLERANCE);
        }
    }
}

#[test]
fn pairwise_loss_and_its_gradients_equal_pytorchs() {
    let golden = section("maths.json", "pairwise_loss");
    for backend in backends() {
        let input = |name: &str| vector(&golden[name], &backend.device.clone().autodiff()).require_grad();
        let (chosen, rejected) = (input("chosen"), input("rejected"));
        let loss = pairwise_loss(chosen.clone(), rejected.clone());
        let gradients = loss.backward();
        backend.assert_close("loss", &values(loss.inner()), &numbers(&golden["loss"]), PAIRWISE_TOLERANCE);
        for (what, scores) in [("grad_chosen", chosen), ("grad_rejected", rejected)] {
            let found = values(scores.grad(&gradients).unwrap());
            backend.assert_close(what, &found, &numbers(&golden[what]), TOLERANCE);
        }
    }
}
