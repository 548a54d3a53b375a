//! DPO: the loss of given log-probabilities, and from the tokens of rankings to every gradient of a policy.

use burn::module::Module;
use burn::tensor::Tensor;
use serde_json::Value;
use temper_data::{Pair, Ranking, ScorePairs};
use temper_dpo::{completion_logprobs, dpo_loss, implicit_rewards};
use temper_model::CausalLm;
use temper_tokenizer::Example;

use crate::backends::backends;
use crate::golden::{assert_gradients, number, numbers, path, read, section, values, vector};
use crate::model::GRADIENT_TOLERANCE;

/// A handful of float32 operations on numbers up to 20, times β.
const TOLERANCE: f64 = 4e-6;
/// Sums of up to six log-probabilities of size 5, each after two blocks.
const LOGPROB_TOLERANCE: f64 = 2e-5;

#[test]
fn the_loss_and_its_gradients_equal_pytorchs() {
    for name in ["plain", "conservative"] {
        let golden = section("dpo.json", name);
        for backend in backends() {
            let leaf = |name: &str| vector(&golden[name], &backend.device.clone().autodiff()).require_grad();
            let (chosen, rejected) = (leaf("chosen"), leaf("rejected"));
            let n = chosen.dims()[0];
            let reference = |name: &str| vector(&golden[name], &backend.device);
            let ref_logprobs = Tensor::cat(vec![reference("ref_chosen"), reference("ref_rejected")], 0);
            let logprobs = Tensor::cat(vec![chosen.clone(), rejected.clone()], 0);
            let rewards = implicit_rewards(logprobs, ref_logprobs, number(&golden["beta"]));
            let pairs: Vec<Pair> = (0..n).map(|i| Pair { chosen: i, rejected: n + i, gap: 1.0 }).collect();
            let pairs = ScorePairs::new(&[(2 * n, &pairs)], &backend.device);
            let loss = dpo_loss(rewards, &pairs, number(&golden["label_smoothing"]));
            let gradients = loss.backward();
            backend.assert_close("loss", &values(loss.inner()), &numbers(&golden["loss"]), TOLERANCE);
            for (what, logprobs) in [("grad_chosen", chosen), ("grad_rejected", rejected)] {
                let found = values(logprobs.grad(&gradients).unwrap());
                backend.assert_close(what, &found, &numbers(&golden[what]), TOLERANCE);
            }
        }
    }
}

/// A golden ranking with the pairs of its ranks; the lowest rank is the best.
fn ranking(golden: &Value) -> Ranking {
    let ids = |value: &Value| numbers(value).into_iter().map(|id| id as u32).collect::<Vec<u32>>();
    let prompt = ids(&golden["prompt"]);
    let example = |completion: &Value| Example::new([prompt.clone(), ids(completion)].concat(), prompt.len());
    let ranks = numbers(&golden["ranks"]);
    let all = (0..ranks.len()).flat_map(|a| (0..ranks.len()).map(move |b| (a, b)));
    let pairs = all.filter(|&(a, b)| ranks[a] < ranks[b]);
    let pairs = pairs.map(|(chosen, rejected)| Pair { chosen, rejected, gap: 1.0 });
    let completions = golden["completions"].as_array().unwrap().iter().map(example).collect();
    Ranking { completions, pairs: pairs.collect(), row: 0 }
}

#[test]
fn log_probs_of_completions_and_every_gradient_of_the_policy_equal_pytorchs() {
    let golden = section("dpo.json", "model");
    let name = golden["model"].as_str().unwrap();
    let expected = |key: &str| -> Vec<f64> {
        golden["rankings"].as_array().unwrap().iter().flat_map(|ranking| numbers(&ranking[key])).collect()
    };
    let gradients = read(&path("dpo.safetensors"));
    let gradients = gradients.into_iter().map(|(name, stored)| (name["grad.".len()..].to_owned(), stored));
    let gradients = gradients.collect();
    let rankings: Vec<Ranking> = golden["rankings"].as_array().unwrap().iter().map(ranking).collect();
    let rankings: Vec<&Ranking> = rankings.iter().collect();
    for backend in backends() {
        let policy = CausalLm::load(&path(name), &backend.device).unwrap().train();
        let logprobs = completion_logprobs(&policy, &rankings);
        let found = values(logprobs.clone().inner());
        backend.assert_close("logprobs", &found, &expected("logprobs"), LOGPROB_TOLERANCE);

        let ref_logprobs: Vec<f32> = expected("ref_logprobs").iter().map(|&x| x as f32).collect();
        let ref_logprobs = Tensor::from_data(ref_logprobs.as_slice(), &backend.device);
        let rewards = implicit_rewards(logprobs, ref_logprobs, number(&golden["beta"]));
        let found = values(rewards.clone().inner());
        backend.assert_close("rewards", &found, &expected("rewards"), LOGPROB_TOLERANCE);
        let pairs = ScorePairs::of(&rankings, &backend.device);
        let loss = dpo_loss(rewards, &pairs, number(&golden["label_smoothing"]));
        backend.assert_close("loss", &values(loss.clone().inner()), &numbers(&golden["loss"]), TOLERANCE);
        assert_gradients(&backend, &policy, loss, &gradients, GRADIENT_TOLERANCE);
    }
}
