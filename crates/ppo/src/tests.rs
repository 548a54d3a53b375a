//! Rollouts and updates of a small model: what must hold whatever the model has learned. This file has the fixtures.

use burn::tensor::{Device, Tensor};
use temper_data::EncodedPrompt;
use temper_model::{CausalLm, Init, ModelConfig, Pooling, ScalarModel};
use temper_tokenizer::Tokenizer;
use temper_train::Seed;

use crate::advantage::Targets;
use crate::learner::{Learner, LearningRates, UpdateInput};
use crate::metrics::PpoMetrics;
use crate::networks::Critic;
use crate::rollout::{Rollout, collect_rollout};
use crate::scores::{Sample, ScoreError};
use crate::{MissingEos, PpoConfig};

mod evaluations;
mod groups;
mod refusals;
mod rollouts;
mod targets;
mod token_rewards;
mod updates;

pub(crate) const EOS: u32 = 3;
const VOCAB: usize = 8;

/// A small model whose logits are wide enough that tokens differ in probability, with dropout that must stay off.
pub(crate) fn model_config() -> ModelConfig {
    ModelConfig {
        vocab_size: VOCAB,
        max_seq_len: 32,
        d_model: 16,
        n_layers: 2,
        n_heads: 2,
        d_ff: 32,
        tie_head: false,
        dropout: 0.3,
        attention_dropout: 0.3,
        init: Init::Torch,
        ..ModelConfig::preset("gpt2-tiny").unwrap()
    }
}

pub(crate) fn language_model(seed: u64) -> CausalLm {
    CausalLm::new(&model_config(), &mut Seed(seed).stream("init"), &Device::flex())
}

pub(crate) fn scalar_model(seed: u64) -> ScalarModel {
    let backbone = language_model(seed).transformer;
    let mut model = ScalarModel::new(backbone, Pooling::Last, &mut Seed(seed).stream("head"));
    model.score.bias = model.score.bias.map(|bias| bias.map(|bias| bias + 0.75));
    model
}

/// Prompts of 1 to 6 tokens.
pub(crate) fn prompts(n: usize) -> Vec<EncodedPrompt> {
    let row = [1, 4, 5, 6, 7, 2];
    (0..n).map(|i| EncodedPrompt::new("", row[..1 + i % 6].to_vec())).collect()
}

pub(crate) fn config() -> PpoConfig {
    let mut config = PpoConfig::default();
    (config.training.batch_size, config.training.learning_rate) = (8, 1e-2);
    config.rollout.max_new_tokens = 6;
    config.rollout.temperature = 0.7;
    config.rollout.missing_eos = MissingEos::Keep;
    config.kl.coef = 0.1;
    config
}

/// One point for each token 5.
#[allow(clippy::unnecessary_wraps, reason = "the type of a scoring function")]
fn count_fives(samples: &[Sample<'_>]) -> Result<Vec<f32>, ScoreError> {
    let count = |sample: &Sample<'_>| sample.completion_tokens.iter().filter(|&&t| t == 5).count() as f32;
    Ok(samples.iter().map(count).collect())
}

/// A rollout whose answers are scored by [`count_fives`].
pub(crate) fn collect(
    config: &PpoConfig,
    learner: &Learner,
    ref_policy: &CausalLm,
    prompts: &[EncodedPrompt],
) -> Rollout {
    let tokenizer = Tokenizer::byte();
    let models = learner.models(ref_policy, &tokenizer);
    let prompts: Vec<&EncodedPrompt> = prompts.iter().collect();
    collect_rollout(config, &models, &prompts, &mut (&mut count_fives).into(), 17, 1).unwrap()
}

/// The targets of a rollout, and the metrics that follow from it.
pub(crate) fn targets(config: &PpoConfig, rollout: &Rollout) -> (Targets, PpoMetrics) {
    let targets = config.estimator().targets(rollout, config.kl.coef);
    let metrics = PpoMetrics::of_rollout(rollout, &targets, config.kl.coef);
    (targets, metrics)
}

/// The metrics of a rollout, and the learner after its updates from it.
pub(crate) fn updated(config: &PpoConfig, mut learner: Learner, rollout: &Rollout) -> (PpoMetrics, Learner) {
    let (targets, mut metrics) = targets(config, rollout);
    let learning_rates =
        LearningRates { policy: config.training.learning_rate, critic: config.critic.learning_rate };
    let input =
        UpdateInput { rollout, targets: &targets, texts: None, learning_rates, step: 0, seed: Seed(5) };
    let stats = learner.update(config, &input).unwrap();
    metrics.set_update(&stats, &targets);
    (metrics, learner)
}

pub(crate) fn learner(config: &PpoConfig, critic: Critic) -> Learner {
    Learner::new(config, language_model(1), critic, VOCAB)
}

fn both_critics() -> [Critic; 2] {
    [Critic::ValueHead, Critic::Separate(Box::new(scalar_model(2)))]
}

/// The same rollout with three more columns of padding.
pub(crate) fn padded(rollout: &Rollout) -> Rollout {
    let mut padded = rollout.clone();
    padded.episodes.completion_len += 3;
    let pad = |x: &Tensor<2>| Tensor::cat(vec![x.clone(), Tensor::zeros([rollout.len(), 3], &x.device())], 1);
    padded.completion_mask = pad(&rollout.completion_mask);
    padded.value_mask = pad(&rollout.value_mask);
    padded.old_logprobs = pad(&rollout.old_logprobs);
    padded.ref_logprobs = pad(&rollout.ref_logprobs);
    padded.values = rollout.values.as_ref().map(pad);
    padded
}

pub(crate) fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.inner().into_data().as_slice::<f32>().unwrap().iter().map(|&x| f64::from(x)).collect()
}

pub(crate) fn tensor<const N: usize>(numbers: [f32; N]) -> Tensor<1> {
    Tensor::from_data(numbers, &Device::flex())
}

pub(crate) fn assert_close(values: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(values.len(), expected.len());
    let close = values.iter().zip(expected).all(|(a, b)| (a - b).abs() < tolerance);
    assert!(close, "{values:?} {expected:?}");
}

/// Every metric is the same up to rounding.
pub(crate) fn assert_same_metrics(a: &PpoMetrics, b: &PpoMetrics) {
    let [a, b] = [a, b].map(|metrics| serde_json::to_value(metrics).unwrap());
    for (key, a) in a.as_object().unwrap() {
        let (a, b) = (a.as_f64().unwrap(), b[key].as_f64().unwrap());
        assert!((a - b).abs() <= 1e-4 * a.abs().max(0.01), "{key}: {a} {b}");
    }
}
