//! Answers as each other's baseline, where the best is known, on three seeds.

use burn::tensor::Device;
use temper_model::{Dropout, TokenBatch};
use temper_ppo::{AdvantageKind, PpoConfig, Sample};
use temper_train::{Schedule, ScheduleKind};

use crate::optimum::{SEEDS, run};
use crate::setup::{constant_model, numbers, prompts, toy_config, toy_model};

const BETA: f64 = 0.5;
/// Answers to each prompt of the bandit.
const SAMPLES: usize = 64;

fn config(kind: AdvantageKind, n_prompts: usize, samples: usize, max_new_tokens: usize) -> PpoConfig {
    let mut config = toy_config(n_prompts, max_new_tokens);
    (config.advantage.kind, config.rollout.samples_per_prompt) = (kind, samples);
    config.training.schedule = Schedule { kind: ScheduleKind::Linear, ..Schedule::default() };
    config
}

/// The task of `ppo_comes_to_nine_tenths_of_a_countable_reward`, with as many answers: 16 prompts, 4 to each.
#[test]
fn rloo_and_grpo_come_to_nine_tenths_of_a_countable_reward() {
    let named = |sample: &Sample<'_>| {
        let named = sample.prompt_tokens[1];
        sample.completion_tokens.iter().filter(|&&token| token == named).count() as f32 / 4.0
    };
    let data = prompts([&[1, 4, 2], &[1, 5, 2], &[1, 6, 2], &[1, 7, 2]]);
    for (kind, seed) in
        [AdvantageKind::Rloo, AdvantageKind::Grpo].into_iter().flat_map(|k| SEEDS.map(|s| (k, s)))
    {
        let mut config = config(kind, 16, 4, 4);
        // At 3e-3 a policy may settle on one wrong place of four, by a difference in the last bits.
        (config.training.max_steps, config.training.learning_rate, config.training.seed) = (100, 2e-3, seed);
        (config.update.ppo_epochs, config.update.minibatch_size) = (2, 32);
        let (_, log) = run(&config, &toy_model(seed), &data, named);
        let scores = log.column("objective/scores");
        let last = scores[95..].iter().sum::<f64>() / 5.0;
        println!("{kind:?}, seed {seed}: from {:.3} to {last:.3}", scores[0]);
        assert!(scores[0] < 0.2, "there is something to learn: {}", scores[0]);
        assert!(last >= 0.9, "{kind:?}, seed {seed}: {last}, {scores:?}");
    }
}

fn reward(token: usize) -> f64 {
    if token < 8 { token as f64 / 8.0 } else { 0.0 }
}

fn logits() -> [f64; 16] {
    std::array::from_fn(|token| if token < 8 { (token as f64 * 2.1).sin() } else { -20.0 })
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let total: f64 = logits.iter().map(|l| l.exp()).sum();
    logits.iter().map(|l| l.exp() / total).collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
}

/// Where a run ends that starts as its reference, one token an answer.
fn end_of(kind: AdvantageKind, seed: u64) -> Vec<f64> {
    let mut config = config(kind, 8, SAMPLES, 1);
    (config.training.max_steps, config.training.learning_rate, config.training.seed) = (80, 1e-2, seed);
    (config.kl.coef, config.advantage.scale_by_std) = (BETA, false);
    let (policy, _) = run(&config, &constant_model(logits()), &prompts([&[1, 2]]), |sample| {
        reward(sample.completion_tokens[0] as usize) as f32
    });
    let batch = TokenBatch::right_padded(&[[1, 2]], &Device::flex());
    softmax(&numbers(policy.forward(&batch, &mut Dropout::off()))[16..])
}

/// With the KL in the reward, reference · exp(r / β), as PPO.
fn tilted() -> Vec<f64> {
    let tilted: Vec<f64> = (0..16).map(|token| logits()[token] + reward(token) / BETA).collect();
    softmax(&tilted)
}

/// With exp(r) − r − 1 in the loss, whose expected gradient is that of KL(reference, policy), and a mean that counts
/// the answer itself: c Σ p r − β KL(reference, p) with c = (k − 1) / k is greatest at p = β reference / (λ − c r), and
/// λ is such that the sum is 1.
fn by_the_loss() -> Vec<f64> {
    let reference = softmax(&logits());
    let c = (SAMPLES as f64 - 1.0) / SAMPLES as f64;
    let at = |lambda: f64| -> Vec<f64> {
        (0..16).map(|token| BETA * reference[token] / (lambda - c * reward(token))).collect()
    };
    let (mut low, mut high) = (c * reward(7) + 1e-9, 10.0);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        *(if at(middle).iter().sum::<f64>() > 1.0 { &mut low } else { &mut high }) = middle;
    }
    at(low)
}

#[test]
fn rloo_ends_at_the_tilted_reference_and_grpo_where_its_loss_says() {
    let reference = softmax(&logits());
    let (tilted, by_the_loss) = (tilted(), by_the_loss());
    assert!((by_the_loss.iter().sum::<f64>() - 1.0).abs() < 1e-6);
    for (kind, best) in [(AdvantageKind::Rloo, &tilted), (AdvantageKind::Grpo, &by_the_loss)] {
        for seed in SEEDS {
            let found = end_of(kind, seed);
            let (off, from) = (distance(&found, best), distance(&reference, best));
            let [a, b] = [&tilted, &by_the_loss].map(|end| distance(&found, end));
            println!("{kind:?}, seed {seed}: {from:.3} at first; {a:.3} from RLOO's end, {b:.3} from GRPO's");
            assert!(off < 0.25 * from, "{kind:?}, seed {seed}: {off} {from} {found:?} {best:?}");
        }
    }
}
