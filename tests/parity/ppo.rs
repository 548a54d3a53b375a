//! One whole PPO step: reward shaping, advantages, epochs over minibatches, both networks, and what is logged.
//!
//! [`temper_ppo::train`] samples the rollout itself; `assets/goldens/ppo.py` and `groups.py` were given the rows that it
//! samples at the case's seed, and do all the rest by themselves.

use std::collections::BTreeMap;

use serde_json::Value;
use temper_data::{EncodedPrompt, Prompts, Texts};
use temper_model::{CausalLm, ScalarModel};
use temper_ppo::{Critic, CriticKind, Data, Models, PpoConfig, Sample, train};
use temper_tokenizer::{Example, Template, TextSide, Tokenizer};
use temper_train::{Run, Seed, read_metrics, resolve, shuffled};

use crate::backends::{Backend, backends};
use crate::golden::{Stored, assert_weights, number, numbers, path, read, section};

/// As in `model`: nine steps of 2e-3 and 3e-3 with an epsilon of 1e-5. Rounding leaves 1e-6.
const WEIGHT_TOLERANCE: f64 = 1e-5;
/// Sums over 12 tokens of log-probabilities of up to 10, in float32.
const METRIC_TOLERANCE: f64 = 2e-5;
/// The share that one token has of all tokens of the updates.
const ONE_TOKEN: f64 = 5e-3;

fn rows(value: &Value) -> Vec<Vec<u32>> {
    let row = |row: &Value| numbers(row).iter().map(|&id| id as u32).collect();
    value.as_array().unwrap().iter().map(row).collect()
}

fn models(case: &str, backend: &Backend) -> Models {
    let lm = |name: &str| CausalLm::load(&path(name), &backend.device).unwrap();
    let critic = || ScalarModel::load(&path("gpt2-reward"), &backend.device).unwrap();
    match case {
        "separate" | "full" => Models {
            policy: lm("gpt2"),
            ref_policy: lm("gpt2-untied"),
            critic: Critic::Separate(Box::new(critic())),
        },
        "rloo" | "grpo" => Models { policy: lm("gpt2"), ref_policy: lm("gpt2-untied"), critic: Critic::None },
        _ => Models { policy: lm("notebook"), ref_policy: lm("gpt2"), critic: Critic::ValueHead },
    }
}

/// What the golden was told about chance must be what the seed gives; else `ppo.py` needs the new rows.
fn assert_minibatches(config: &PpoConfig, expected: &Value) {
    let episodes = config.training.batch_size * config.rollout.samples_per_prompt;
    let size = if config.update.minibatch_size == 0 { episodes } else { config.update.minibatch_size };
    for (epoch, expected) in expected.as_array().unwrap().iter().enumerate() {
        let mut stream = Seed(config.training.seed).stream_at("minibatches", epoch as u64);
        let mut order = shuffled(episodes, &mut stream);
        let mut expected = rows(expected);
        if expected.len() == 1 {
            // The whole rollout: a sum, in whatever order.
            order.sort_unstable();
            expected[0].sort_unstable();
        }
        let found: Vec<Vec<u32>> =
            order.chunks(size).map(|part| part.iter().map(|&i| i as u32).collect()).collect();
        assert_eq!(found, expected, "minibatches of epoch {epoch}");
    }
}

/// The texts of a case with pretraining, and a check that chance draws them as the golden was told.
fn texts(config: &PpoConfig, texts: &Value, minibatches: &Value) -> Option<Texts> {
    let text = |text: &Value| {
        Example::new(numbers(&text[0]).iter().map(|&id| id as u32).collect(), number(&text[1]) as usize)
    };
    let examples: Vec<Example> = texts.as_array()?.iter().map(text).collect();
    let expected: Vec<u32> = minibatches.as_array()?.iter().flat_map(rows).flatten().collect();
    let pass = |pass: u64| shuffled(examples.len(), &mut Seed(config.training.seed).stream_at("ptx", pass));
    let found: Vec<u32> = (0..).flat_map(pass).map(|i| i as u32).take(expected.len()).collect();
    assert_eq!(found, expected, "the texts of the minibatches");
    Some(examples.into())
}

/// Weights of a file whose names start with `network.`, and without it.
fn of(network: &str, all: &BTreeMap<String, Stored>) -> BTreeMap<String, Stored> {
    let prefix = format!("{network}.");
    let named =
        |(name, tensor): (&String, &Stored)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor.clone()));
    all.iter().filter_map(named).collect()
}

/// The settings of a golden as `--set` takes them. Goldens that are older than a setting have its default, and those that
/// are older than the name of a setting have its old name.
fn add_sets(config: &serde_json::Value, prefix: &str, sets: &mut Vec<String>) {
    match config {
        serde_json::Value::Object(section) => {
            section.iter().for_each(|(key, value)| add_sets(value, &format!("{prefix}{key}."), sets));
        }
        serde_json::Value::String(text) => sets.push(format!("{}={text}", prefix.trim_end_matches('.'))),
        value => sets.push(format!("{}={value}", prefix.trim_end_matches('.'))),
    }
}

fn assert_step_equals_pytorchs(name: &str) {
    let file = format!("ppo/{name}.json");
    let golden = |key: &str| section(&file, key);
    let mut sets = Vec::new();
    add_sets(&golden("config"), "", &mut sets);
    let config: PpoConfig = resolve(None, None, &sets).unwrap();
    let has_critic = config.estimator().needs_critic();
    assert_eq!(
        has_critic && config.critic.kind == CriticKind::RewardModel,
        ["separate", "full"].contains(&name)
    );
    let prompts = rows(&golden("prompts"));
    let prompts = prompts.into_iter().map(|tokens| EncodedPrompt::new("", tokens));
    let prompts = Prompts::from(prompts.collect::<Vec<_>>());
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let scores: Vec<f32> = numbers(&golden("scores")).iter().map(|&s| s as f32).collect();
    assert_minibatches(&config, &golden("minibatches"));
    let texts = texts(&config, &golden("texts"), &golden("text_minibatches"));
    let weights = read(&path(&format!("ppo/{name}.safetensors")));

    for backend in backends() {
        let mut sampled = vec![];
        let mut score = |samples: &[Sample<'_>]| {
            sampled = samples.iter().map(|s| [s.prompt_tokens, s.completion_tokens].concat()).collect();
            Ok(scores.clone())
        };
        let mut run = Run::ephemeral().unwrap();
        let text = TextSide::new(tokenizer.clone(), template.clone());
        let data = Data { texts: texts.as_ref(), ..Data::from(&prompts) };
        train(&config, models(name, &backend), &text, data, &mut score, &mut run).unwrap();
        assert_eq!(sampled, rows(&golden("rows")), "{}: the rollout", backend.name);

        let lines = read_metrics(&run.dir().join("metrics.jsonl")).unwrap();
        for (key, expected) in golden("metrics").as_object().unwrap() {
            let found = number(&lines[0][key]);
            // A ratio at the edge of its range may be rounded to either side of it.
            let tolerance = if key.contains("clipfrac") { ONE_TOKEN } else { METRIC_TOLERANCE };
            backend.assert_close(key, &[found], &[number(expected)], tolerance);
        }
        let networks = [("policy", "final"), ("critic", "final/critic")];
        for (network, dir) in networks.into_iter().take(if has_critic { 2 } else { 1 }) {
            let found = read(&run.dir().join(dir).join("model.safetensors"));
            let mut expected = of(network, &weights);
            if !found.contains_key("score.bias") {
                move_bias_into_norm(&mut expected);
            }
            assert_weights(&backend, network, &found, &expected, WEIGHT_TOLERANCE);
        }
    }
}

/// A finished critic is written as transformers reads it, without a bias of its head: β + b · w / ‖w‖² takes its place.
fn move_bias_into_norm(weights: &mut BTreeMap<String, Stored>) {
    let Some(bias) = weights.remove("score.bias").map(|bias| bias.values[0]) else { return };
    let head = weights["score.weight"].values.clone();
    let square: f64 = head.iter().map(|w| w * w).sum();
    let beta = weights.get_mut("transformer.ln_f.bias").expect("the critic is a GPT-2");
    beta.values.iter_mut().zip(head).for_each(|(beta, w)| *beta += bias * w / square);
}

/// InstructGPT's arrangement: two networks, two optimizers, clips of their own; minibatches of 4 and 2 episodes, one at a
/// time through the networks.
#[test]
fn a_ppo_step_with_a_critic_of_its_own_equals_pytorchs() {
    assert_step_equals_pytorchs("separate");
}

/// With the score one past the end, pretraining text in each update, the moving average of the policy, and
/// TensorFlow's epsilon: what is left of the paper, and of lm-human-preferences.
#[test]
fn a_whole_step_of_ppo_ptx_equals_pytorchs() {
    assert_step_equals_pytorchs("full");
}

/// The notebook's arrangement: one network with a value head, one optimizer for the weighted sum of the losses.
#[test]
fn a_ppo_step_with_a_value_head_equals_pytorchs() {
    assert_step_equals_pytorchs("shared");
}

/// Three answers to each of two prompts, the KL in the reward; minibatches split the groups.
#[test]
fn a_step_of_rloo_equals_pytorchs() {
    assert_step_equals_pytorchs("rloo");
}

/// The same with the KL in the loss and an entropy bonus.
#[test]
fn a_step_of_grpo_equals_pytorchs() {
    assert_step_equals_pytorchs("grpo");
}
