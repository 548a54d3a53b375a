//! Rollouts and updates of a small model: what must hold whatever it has learned.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use temper_data::{EncodedPrompt, Prompts};
use temper_model::{CausalLm, Init, ModelConfig, Pooling, ScalarModel};
use temper_tokenizer::{TextSide, Tokenizer};
use temper_train::Seed;

use crate::critic::{Critic, Entropy};
use crate::gae::Advantages;
use crate::learner::{Learner, Recorded};
use crate::metrics::PpoMetrics;
use crate::rewards::shape_rewards;
use crate::rollout::{Rollout, Scorers, collect_rollout};
use crate::train::Targets;
use crate::{MissingEos, PpoConfig, Sample, ScoreAt};

mod sampling;

pub(crate) const EOS: u32 = 3;
const VOCAB: usize = 8;

/// Wide enough logits that tokens differ in probability, and dropout that must stay off.
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
    (0..n).map(|i| EncodedPrompt { text: String::new(), tokens: row[..1 + i % 6].to_vec() }).collect()
}

pub(crate) fn config() -> PpoConfig {
    let mut config = PpoConfig { batch_size: 8, learning_rate: 1e-2, ..PpoConfig::default() };
    config.rollout.max_new_tokens = 6;
    config.rollout.temperature = 0.7;
    config.rollout.missing_eos = MissingEos::Keep;
    config.kl.coef = 0.1;
    config
}

/// One point for each token 5.
#[allow(clippy::unnecessary_wraps, reason = "the type of a scoring function")]
fn count_fives(samples: &[Sample<'_>]) -> Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>> {
    let count = |sample: &Sample<'_>| sample.completion_tokens.iter().filter(|&&t| t == 5).count() as f32;
    Ok(samples.iter().map(count).collect())
}

pub(crate) fn collect(
    config: &PpoConfig,
    learner: &Learner,
    ref_policy: &CausalLm,
    prompts: &[EncodedPrompt],
) -> Rollout {
    let tokenizer = Tokenizer::byte();
    let actors = learner.actors(ref_policy, &tokenizer);
    let prompts: Vec<&EncodedPrompt> = prompts.iter().collect();
    collect_rollout(config, &actors, &prompts, 17, 1, &mut (&mut count_fives).into()).unwrap()
}

/// What the rollout teaches, with its part of the metrics, and Σ d of each answer.
pub(crate) fn targets(config: &PpoConfig, rollout: &Rollout) -> (Advantages, PpoMetrics, Vec<f64>) {
    let Targets { shaped, advantages } = crate::train::targets(config, rollout, config.kl.coef);
    let metrics = PpoMetrics::of_rollout(rollout, &shaped, &advantages, config.kl.coef);
    (advantages, metrics, numbers(shaped.kl))
}

/// One rollout's metrics, and the learner after its update.
pub(crate) fn updated(config: &PpoConfig, mut learner: Learner, rollout: &Rollout) -> (PpoMetrics, Learner) {
    let (advantages, mut metrics, _) = targets(config, rollout);
    let rates = (config.learning_rate, config.critic.learning_rate);
    let kl_in_loss = (config.advantage.kind == crate::AdvantageKind::Grpo).then_some(learner.kl.coef);
    let recorded = Recorded { rollout, targets: &advantages, texts: None, kl_in_loss };
    learner.update(config, &recorded, rates, 0, Seed(5)).unwrap().fill(&mut metrics);
    (metrics, learner)
}

pub(crate) fn learner(config: &PpoConfig, critic: Critic) -> Learner {
    Learner::new(config, language_model(1), critic, VOCAB)
}

fn both_critics() -> [Critic; 2] {
    [Critic::ValueHead, Critic::Separate(Box::new(scalar_model(2)))]
}

pub(crate) fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.inner().into_data().as_slice::<f32>().unwrap().iter().map(|&x| f64::from(x)).collect()
}

/// Oracle 1: before its first update the policy is the one that sampled. After whitening the advantages have
/// mean 0, and so has the loss.
#[test]
fn the_first_minibatch_has_ratio_1_and_nothing_clipped() {
    for critic in both_critics() {
        let config = config();
        let learner = learner(&config, critic);
        let rollout = collect(&config, &learner, &language_model(3), &prompts(8));
        let (metrics, _) = updated(&config, learner, &rollout);
        // A few float32 roundings of a log-probability near 2.
        assert!(metrics.first_ratio_error <= 1e-5, "{metrics:?}");
        assert!((metrics.ratio - 1.0).abs() <= 1e-6, "{metrics:?}");
        assert!(metrics.approx_kl <= 1e-11, "{metrics:?}");
        assert_eq!((metrics.policy_clip_frac, metrics.value_clip_frac), (0.0, Some(0.0)));
        assert!(metrics.policy_loss.abs() <= 1e-6, "{metrics:?}");
        assert!(metrics.sampler_error <= 1e-5, "{metrics:?}");
    }
}

#[test]
fn later_minibatches_move_away_from_ratio_1() {
    let mut config = config();
    (config.ppo.ppo_epochs, config.ppo.minibatch_size) = (4, 4);
    let learner = learner(&config, Critic::ValueHead);
    let rollout = collect(&config, &learner, &language_model(3), &prompts(8));
    let (metrics, _) = updated(&config, learner, &rollout);
    assert!(metrics.first_ratio_error <= 1e-5, "the first alone: {metrics:?}");
    assert!(metrics.approx_kl > 1e-4 && metrics.ratio_var > 0.0, "{metrics:?}");
}

/// The self-check sees a policy that is not the one that sampled.
#[test]
fn the_ratio_check_measures_what_is_off() {
    let config = config();
    let learner = learner(&config, Critic::ValueHead);
    let mut rollout = collect(&config, &learner, &language_model(3), &prompts(8));
    rollout.old_logprobs = rollout.old_logprobs - 0.05;
    let (metrics, _) = updated(&config, learner, &rollout);
    assert!((metrics.first_ratio_error - (0.05f64.exp() - 1.0)).abs() < 1e-5, "{metrics:?}");
}

/// Oracle 2.
#[test]
fn a_policy_that_is_its_reference_has_no_kl() {
    for critic in both_critics() {
        let config = config();
        let learner = learner(&config, critic);
        let rollout = collect(&config, &learner, &language_model(1), &prompts(8));
        let (_, metrics, kl) = targets(&config, &rollout);
        assert_eq!((metrics.kl, metrics.non_score_reward), (0.0, 0.0));
        assert_eq!(kl, [0.0; 8]);
        assert!((metrics.rlhf_reward - metrics.scores).abs() < 1e-6, "{metrics:?}");
    }
}

/// Another reference has one, above 0 in the mean over many answers.
#[test]
fn a_policy_away_from_its_reference_has_a_positive_kl() {
    let config = config();
    let rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(3), &prompts(192));
    let (_, metrics, kl) = targets(&config, &rollout);
    assert!((metrics.kl - kl.iter().sum::<f64>() / 192.0).abs() < 1e-5);
    assert!(metrics.kl > 0.5, "{}", metrics.kl);
    assert!((metrics.non_score_reward + 0.1 * metrics.kl).abs() < 1e-9);
    assert!((metrics.rlhf_reward - metrics.scores - metrics.non_score_reward).abs() < 1e-4, "{metrics:?}");
}

/// Oracle 5: three more columns behind the longest answer change nothing.
#[test]
fn pad_columns_change_no_metric() {
    for critic in [0, 1] {
        let mut config = config();
        (config.ppo.ppo_epochs, config.ppo.whiten_rewards) = (2, true);
        let learner = || learner(&config, both_critics().into_iter().nth(critic).unwrap());
        let rollout = collect(&config, &learner(), &language_model(3), &prompts(8));
        let mut padded = rollout.clone();
        padded.completion_len += 3;
        let pad = |x: Tensor<2>| Tensor::cat(vec![x, Tensor::zeros([8, 3], &Device::flex())], 1);
        padded.completion_mask = pad(rollout.completion_mask.clone());
        padded.value_mask = pad(rollout.value_mask.clone());
        padded.old_logprobs = pad(rollout.old_logprobs.clone());
        padded.ref_logprobs = pad(rollout.ref_logprobs.clone());
        padded.values = pad(rollout.values.clone());
        let [a, b] = [&rollout, &padded].map(|rollout| {
            let Value::Object(row) = serde_json::to_value(updated(&config, learner(), rollout).0).unwrap()
            else {
                panic!("metrics are an object")
            };
            row
        });
        for (key, a) in &a {
            let (a, b) = (a.as_f64().unwrap(), b[key].as_f64().unwrap());
            assert!((a - b).abs() <= 1e-4 * a.abs().max(0.01), "{key}: {a} {b}");
        }
    }
}

/// Oracle 5: nor do longer neighbours, in front or behind.
#[test]
fn neighbours_change_nothing_that_is_recorded() {
    let config = config();
    let learner = learner(&config, Critic::Separate(Box::new(scalar_model(2))));
    let together = collect(&config, &learner, &language_model(3), &prompts(6));
    let columns = together.completion_len;
    // The first row draws from the stream of row 0, alone as well.
    let alone = collect(&config, &learner, &language_model(3), &prompts(1));
    assert_eq!(alone.rows[0], together.rows[0]);
    assert!(
        alone.completion_len <= columns && together.rows.iter().any(|row| row.len() != alone.rows[0].len())
    );
    for (what, a, b) in [
        ("old log-probs", alone.old_logprobs, together.old_logprobs),
        ("reference", alone.ref_logprobs, together.ref_logprobs),
        ("values", alone.values, together.values),
    ] {
        let (a, b) = (numbers(a), numbers(b));
        assert!(a.iter().zip(&b[..columns]).all(|(a, b)| (a - b).abs() < 1e-5), "{what}: {a:?} {b:?}");
    }
}

/// Oracle 8, D5: tokens are drawn as often as the ratio's own log-probabilities say, at a temperature and with
/// nothing cut off.
#[test]
fn tokens_come_as_often_as_their_recorded_log_probs_say() {
    const N: usize = 4000;
    let mut config = config();
    config.rollout.max_new_tokens = 1;
    config.rollout.temperature = 0.5;
    let learner = learner(&config, Critic::ValueHead);
    let one = EncodedPrompt { text: String::new(), tokens: vec![1, 5, 2] };
    let rollout = collect(&config, &learner, &language_model(1), &vec![one; N]);
    let logprobs = numbers(rollout.old_logprobs);
    let mut expected = [0.0; VOCAB];
    let mut found = [0.0; VOCAB];
    for (row, logprob) in rollout.rows.iter().zip(logprobs) {
        let token = row[3] as usize;
        expected[token] = logprob.exp();
        found[token] += 1.0 / N as f64;
    }
    assert!((expected.iter().sum::<f64>() - 1.0).abs() < 1e-5, "every token was drawn: {expected:?}");
    for (found, p) in found.iter().zip(expected) {
        // Four standard deviations of a share of N draws.
        assert!((found - p).abs() < 4.0 * (p * (1.0 - p) / N as f64).sqrt(), "{found} {p}");
    }
    // The test has teeth: at temperature 1 the shares would be far from these.
    let roots: Vec<f64> = expected.iter().map(|p| p.sqrt()).collect();
    let plain = roots.iter().map(|root| root / roots.iter().sum::<f64>());
    assert!(plain.zip(expected).any(|(plain, p)| (plain - p).abs() > 0.05), "{expected:?}");
}

/// Oracle 10: whether an answer has its end is asked of its tokens, the last possible place included.
#[test]
fn an_end_in_the_last_column_is_an_end() {
    let mut config = config();
    config.rollout.missing_eos = MissingEos::Subtract;
    config.rollout.missing_eos_value = 10.0;
    config.kl.coef = 0.0;
    let rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(96));
    let (mask, scores) = (rollout.completion_mask.clone(), rollout.scores.clone());
    let zeros = Tensor::zeros([96, rollout.completion_len], &Device::flex());
    let rewards = numbers(shape_rewards(zeros.clone(), zeros, scores, mask.clone(), mask, 0.0).rewards);
    let mut seen = [0; 3];
    for (i, row) in rollout.rows.iter().enumerate() {
        let completion = &row[rollout.prompt_lens[i]..];
        let ended = completion.last() == Some(&EOS);
        seen[if ended { usize::from(completion.len() == 6) } else { 2 }] += 1;
        assert!(!completion[..completion.len() - 1].contains(&EOS) && (ended || completion.len() == 6));
        assert_eq!(rollout.ended[i], ended);
        let fives = completion.iter().filter(|&&t| t == 5).count() as f64;
        let mut expected = [0.0; 6];
        expected[completion.len() - 1] = if ended { fives } else { fives - 10.0 };
        assert_eq!(rewards[i * 6..][..6], expected, "{row:?}");
    }
    assert!(seen.iter().all(|&n| n > 0), "ended early, at the limit, not at all: {seen:?}");
}

/// D2: the notebook's policy gets no gradient. Here the answer that was better becomes more probable.
#[test]
fn d2_an_update_moves_the_policy_towards_the_better_answers() {
    for critic in both_critics() {
        let config = PpoConfig { learning_rate: 1e-3, ..config() };
        let learner = learner(&config, critic);
        let rollout = collect(&config, &learner, &language_model(1), &prompts(48));
        let before = numbers(rollout.old_logprobs.clone());
        let advantages = numbers(targets(&config, &rollout).0.advantages);
        let (_, learner) = updated(&config, learner, &rollout);
        let all: Vec<usize> = (0..48).collect();
        let output =
            learner.policy.valid().forward(&rollout.episodes(&all, &Device::flex()), 0.7, Entropy::Skipped);
        let after = numbers(output.logprobs * rollout.completion_mask.clone());
        let gain: f64 = advantages.iter().zip(before.iter().zip(&after)).map(|(a, (b, c))| a * (c - b)).sum();
        assert!(gain > 0.1, "{gain}");
    }
}

/// The value loss reaches the head that it is for, weighted by `vf_coef` where it shares the policy's network.
#[test]
fn a_value_head_learns_at_its_weight() {
    let weight = |vf_coef: f64| {
        let mut config = config();
        config.ppo.vf_coef = vf_coef;
        // So large an epsilon makes of Adam's step the gradient times 10⁴ / 10⁶.
        config.optimizer.epsilon = 1e6;
        (config.optimizer.max_grad_norm, config.learning_rate) = (0.0, 1e4);
        let learner = learner(&config, Critic::ValueHead);
        let rollout = collect(&config, &learner, &language_model(1), &prompts(8));
        let head = updated(&config, learner, &rollout).1.policy.value_head.unwrap();
        numbers(head.weight.val())
    };
    assert_eq!(weight(0.0), [0.0; 16]);
    let [one, three] = [weight(0.1), weight(0.3)];
    assert!(one.iter().any(|w| w.abs() > 1e-5), "{one:?}");
    assert!(one.iter().zip(&three).all(|(a, b)| (3.0 * a - b).abs() < 1e-6), "{one:?} {three:?}");
}

/// A critic of its own comes nearer to the returns of the same rollout with every update.
#[test]
fn a_separate_critic_learns_the_returns() {
    let mut config = config();
    (config.critic.learning_rate, config.ppo.ppo_epochs, config.ppo.value_clip_range) = (1e-2, 8, 100.0);
    let learner = learner(&config, Critic::Separate(Box::new(scalar_model(2))));
    let rollout = collect(&config, &learner, &language_model(1), &prompts(8));
    let (first, learner) = updated(&config, learner, &rollout);
    let (second, _) = updated(&config, learner, &rollout);
    let [first, second] = [first, second].map(|metrics| metrics.value_loss.unwrap());
    assert!(second < 0.7 * first, "{first} {second}");
}

/// The bonus is for entropy, not against it: with nothing to gain the policy becomes flatter.
#[test]
fn an_entropy_bonus_raises_the_entropy() {
    let entropies: Vec<f64> = [0.0, 1.0]
        .into_iter()
        .map(|entropy_coef| {
            let mut config = config();
            config.ppo.entropy_coef = entropy_coef;
            (config.ppo.ppo_epochs, config.kl.coef) = (8, 0.0);
            let learner = learner(&config, Critic::ValueHead);
            let mut rollout = collect(&config, &learner, &language_model(1), &prompts(8));
            rollout.scores = Tensor::zeros([8], &Device::flex());
            updated(&config, learner, &rollout).0.entropy
        })
        .collect();
    assert!(entropies[1] > entropies[0] + 0.01, "{entropies:?}");
}

/// D10: the notebook's "entropy" is −p log p of the taken token, at most 1/e.
#[test]
fn d10_the_entropy_of_a_uniform_policy_is_the_log_of_its_vocabulary() {
    let config = config();
    let mut lm = language_model(1);
    let head = lm.lm_head.as_mut().unwrap();
    head.weight = head.weight.clone().map(|weight| weight * 0.0);
    let learner = Learner::new(&config, lm.clone(), Critic::ValueHead, VOCAB);
    let rollout = collect(&config, &learner, &lm, &prompts(8));
    let (metrics, _) = updated(&config, learner, &rollout);
    let ln_vocab = (VOCAB as f64).ln();
    assert!((metrics.entropy - ln_vocab).abs() < 1e-5, "{metrics:?}");
    assert!((metrics.sampled_entropy - ln_vocab * metrics.length_mean).abs() < 1e-4, "{metrics:?}");
}

/// D11: the notebook whitens each answer by itself, which is 0 / 0 for one of a single token.
#[test]
fn d11_one_token_answers_are_compared_with_each_other() {
    let mut config = config();
    config.rollout.max_new_tokens = 1;
    let rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(48));
    let (found, _, _) = targets(&config, &rollout);
    let advantages = numbers(found.advantages);
    let fives = rollout.rows.iter().map(|row| row.last() == Some(&5));
    for (advantage, five) in advantages.iter().zip(fives) {
        assert!(advantage.is_finite() && (*advantage > 0.0) == five, "{advantages:?}");
    }
    let alone = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(1));
    assert_eq!(numbers(targets(&config, &alone).0.advantages), [0.0]);
}

/// Advantages are whitened over all tokens that count; returns are made of the plain ones, so that the critic learns
/// what is to come and not what is unusual. With γ = λ = 1 that is the rewards still to come.
#[test]
fn returns_are_what_is_to_come_and_advantages_are_whitened() {
    for whiten_rewards in [false, true] {
        let mut config = config();
        (config.ppo.gae_lambda, config.ppo.whiten_rewards) = (1.0, whiten_rewards);
        let learner = learner(&config, Critic::Separate(Box::new(scalar_model(2))));
        let rollout = collect(&config, &learner, &language_model(3), &prompts(12));
        let columns = rollout.completion_len;
        let [old, reference, values, mask] =
            [&rollout.old_logprobs, &rollout.ref_logprobs, &rollout.values, &rollout.completion_mask]
                .map(|x| numbers(x.clone()));
        let lens: Vec<usize> =
            rollout.rows.iter().zip(&rollout.prompt_lens).map(|(r, p)| r.len() - p).collect();
        let mut rewards: Vec<f64> = (0..old.len()).map(|i| -0.1 * (old[i] - reference[i])).collect();
        for (i, len) in lens.iter().enumerate() {
            rewards[i * columns + len - 1] += f64::from(rollout.raw_scores[i]);
        }
        let counts: Vec<usize> = (0..mask.len()).filter(|&i| mask[i] == 1.0).collect();
        let statistics = |x: &[f64]| {
            let mean = counts.iter().map(|&i| x[i]).sum::<f64>() / counts.len() as f64;
            let variance = counts.iter().map(|&i| (x[i] - mean).powi(2)).sum::<f64>() / counts.len() as f64;
            (mean, variance.sqrt())
        };
        if whiten_rewards {
            let (mean, std) = statistics(&rewards);
            rewards.iter_mut().for_each(|reward| *reward = (*reward - mean) / std + mean);
        }
        let to_come = |i: usize| {
            let (row, t) = (i / columns, i % columns);
            (t..lens[row]).map(|t| rewards[row * columns + t]).sum::<f64>()
        };
        let expected: Vec<f64> =
            (0..mask.len()).map(|i| if mask[i] == 1.0 { to_come(i) } else { 0.0 }).collect();
        let plain: Vec<f64> = expected.iter().zip(&values).map(|(r, v)| r - v).collect();
        let (mean, std) = statistics(&plain);
        let (found, _, _) = targets(&config, &rollout);
        let (advantages, returns) = (numbers(found.advantages), numbers(found.returns));
        for i in 0..mask.len() {
            let whitened = mask[i] * (plain[i] - mean) / std;
            assert!((returns[i] - expected[i]).abs() < 2e-5, "{i}: {} {}", returns[i], expected[i]);
            assert!((advantages[i] - whitened).abs() < 2e-5, "{i}: {} {whitened}", advantages[i]);
        }
    }
}

/// The share of the returns' scatter that the values account for.
#[test]
fn values_that_are_the_returns_explain_all_of_them() {
    let config = config();
    let mut rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(8));
    let explained = |rollout: &Rollout, returns: Tensor<2>| {
        let zeros = Tensor::zeros_like(&returns);
        let shaped = shape_rewards(
            zeros.clone(),
            zeros.clone(),
            rollout.scores.clone(),
            rollout.completion_mask.clone(),
            rollout.value_mask.clone(),
            0.0,
        );
        let found = Advantages { advantages: zeros, returns };
        PpoMetrics::of_rollout(rollout, &shaped, &found, 0.0).explained_var.unwrap()
    };
    let [batch, len] = rollout.values.dims();
    let ramp: Vec<f32> = (0..batch * len).map(|i| i as f32).collect();
    let returns = Tensor::from_data(TensorData::new(ramp, [batch, len]), &Device::flex());
    rollout.values = returns.clone() + 3.0;
    assert!((explained(&rollout, returns.clone()) - 1.0).abs() < 1e-6, "a constant error does not scatter");
    rollout.values = Tensor::zeros([batch, len], &Device::flex());
    assert!(explained(&rollout, returns.clone()).abs() < 1e-6);
    rollout.values = returns.clone() * 0.5;
    assert!((explained(&rollout, returns) - 0.75).abs() < 1e-5);
}

#[test]
fn advantage_estimation_without_a_critic_is_refused() {
    let (tokenizer, template) = (Tokenizer::byte(), temper_tokenizer::Template::bare());
    let models =
        crate::Models { policy: language_model(1), ref_policy: language_model(1), critic: Critic::None };
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let prompts = Prompts::from(prompts(2));
    let mut run = temper_train::Run::ephemeral().unwrap();
    let error = crate::train(&config(), models, &text, &prompts, &mut count_fives, &mut run).unwrap_err();
    assert_eq!(error.to_string(), "`advantage.kind` is gae, which needs a critic, and there is none");
}

/// One reward for each token of an answer, 1, 2, 3, …, less one at the end if `n_short` is 1.
fn counted(samples: &[Sample<'_>], n_short: usize) -> Vec<Vec<f32>> {
    let row =
        |sample: &Sample<'_>| (1..=sample.completion_tokens.len() - n_short).map(|t| t as f32).collect();
    samples.iter().map(row).collect()
}

/// A rollout of `config` with token rewards and no score.
fn collect_counted(config: &PpoConfig, n_short: usize) -> Result<Rollout, crate::Error> {
    let (tokenizer, learner) = (Tokenizer::byte(), learner(config, Critic::ValueHead));
    let reference = language_model(1);
    let prompts = prompts(8);
    let prompts: Vec<&EncodedPrompt> = prompts.iter().collect();
    let mut scorers = Scorers {
        score: &mut |samples: &[Sample<'_>]| Ok(vec![0.0; samples.len()]),
        token_rewards: Some(&mut |samples: &[Sample<'_>]| Ok(counted(samples, n_short))),
        gold: None,
    };
    collect_rollout(config, &learner.actors(&reference, &tokenizer), &prompts, 17, 1, &mut scorers)
}

#[test]
fn token_rewards_are_to_come_until_their_token_is_there() {
    let mut config = config();
    (config.kl.coef, config.ppo.gae_lambda) = (0.0, 1.0);
    let rollout = collect_counted(&config, 0).unwrap();
    let (found, metrics, _) = targets(&config, &rollout);
    let returns = numbers(found.returns);
    let lens: Vec<usize> =
        rollout.rows.iter().zip(&rollout.prompt_lens).map(|(row, p)| row.len() - p).collect();
    for (row, &len) in lens.iter().enumerate() {
        for t in 0..rollout.completion_len {
            let to_come: usize = (t + 1..=len).sum();
            let found = returns[row * rollout.completion_len + t];
            assert!((found - to_come as f64).abs() < 1e-4, "row {row}, token {t}: {found} {to_come}");
        }
    }
    let mean = lens.iter().map(|len| len * (len + 1) / 2).sum::<usize>() as f64 / lens.len() as f64;
    assert!((metrics.token_rewards.unwrap() - mean).abs() < 1e-4, "{metrics:?}");
}

#[test]
fn too_few_token_rewards_are_refused() {
    let error = collect_counted(&config(), 1).unwrap_err().to_string();
    assert!(error.contains("token rewards for an answer of") && error.contains("step 1"), "{error}");
}

/// Oracle 10: an answer that ends in the last place is scored there, wherever scores stand; and so is one that does not
/// end.
#[test]
fn a_score_stands_one_past_the_end_where_there_is_room() {
    let mut config = config();
    config.rollout.score_at = ScoreAt::PastEnd;
    config.kl.coef = 0.0;
    let learner = learner(&config, Critic::ValueHead);
    let rollout = collect(&config, &learner, &language_model(1), &prompts(32));
    let shaped = crate::train::targets(&config, &rollout, 0.0).shaped;
    let (rewards, scores) = (numbers(shaped.rewards), numbers(rollout.scores.clone()));
    let mut seen = [0; 3];
    for (row, tokens) in rollout.rows.iter().enumerate() {
        let len = tokens.len() - rollout.prompt_lens[row];
        let (place, case) = match (rollout.ended[row], len == config.rollout.max_new_tokens) {
            (true, false) => (len, 0),
            (true, true) => (len - 1, 1),
            (false, _) => (len - 1, 2),
        };
        seen[case] += 1;
        for t in 0..rollout.completion_len {
            let expected = if t == place { scores[row] } else { 0.0 };
            assert_eq!(rewards[row * rollout.completion_len + t], expected, "row {row}, column {t}");
        }
    }
    assert!(seen.iter().all(|&n| n > 0), "each kind of answer was there: {seen:?}");
}
