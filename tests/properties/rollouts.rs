//! Neighbours, padding, microbatches and minibatches change no log-prob, no value and no loss of PPO.

use burn::tensor::{Device, Int, Tensor, TensorData};
use proptest::prelude::*;
use temper_data::{EncodedPrompt, Prompts};
use temper_model::{
    CausalLm, Dropout, GenerateOptions, ModelConfig, Pooling, Sampler, ScalarModel, TokenBatch, generate,
    select_positions,
};
use temper_ppo::{Critic, Models, PpoConfig, Sample};
use temper_tensor::{log_probs, token_logprobs};
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::TrainingConfig;

use crate::losses::{read, watched_run};
use crate::tiny::{
    VOCAB, cases, check_close, configs, language_model, scalar_model, smooth, tokens, values, weights,
};

const MAX_NEW_TOKENS: usize = 6;

/// log p of each token of a completion after its prompt, in one pass over this row alone.
fn logprobs_alone(model: &CausalLm, prompt: &[u32], completion: &[u32], temperature: f64) -> Vec<f32> {
    values(token_logprobs(distributions(model, prompt, completion, temperature), ints(completion)))
}

/// The log-probabilities of every token at each place of the completion: `[completion, vocab]`.
fn distributions(model: &CausalLm, prompt: &[u32], completion: &[u32], temperature: f64) -> Tensor<2> {
    let batch = TokenBatch::right_padded(&[[prompt, completion].concat()], &Device::flex());
    let hidden = model.transformer.forward(&batch, &mut Dropout::off());
    let places: Vec<_> = (0..completion.len()).map(|t| (0, prompt.len() - 1 + t)).collect();
    log_probs(model.logits(select_positions(hidden, &places)), temperature)
}

fn ints(tokens: &[u32]) -> Tensor<1, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|&t| t as i32).collect();
    let n = tokens.len();
    Tensor::from_data(TensorData::new(tokens, [n]), &Device::flex())
}

/// The distance between the two most probable tokens.
fn gap(distribution: &[f32]) -> f32 {
    let mut sorted = distribution.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted[0] - sorted[1]
}

/// What one rollout and its update leave: logged numbers, then the weights of policy and critic.
struct Step {
    recorded: Vec<f32>,
    losses: Vec<f32>,
    weights: Vec<f32>,
    /// Prompt and completion of every answer.
    answers: Vec<(Vec<u32>, Vec<u32>)>,
}

#[derive(Clone, Debug)]
struct Setup {
    config: ModelConfig,
    prompts: Vec<Vec<u32>>,
    own_critic: bool,
    temperature: f64,
    seed: u64,
}

fn setups() -> impl Strategy<Value = Setup> {
    let prompts = prop::collection::vec(tokens(1..9), 3..=8);
    (configs(), prompts, any::<bool>(), prop_oneof![Just(1.0), Just(0.7)], 0u64..1000).prop_map(
        |(config, prompts, own_critic, temperature, seed)| Setup {
            config,
            prompts,
            own_critic,
            temperature,
            seed,
        },
    )
}

impl Setup {
    fn policy(&self) -> CausalLm {
        language_model(&self.config, self.seed)
    }

    fn ref_policy(&self) -> CausalLm {
        language_model(&self.config, self.seed + 1)
    }

    fn critic(&self) -> ScalarModel {
        scalar_model(&self.config, Pooling::Last, self.seed + 2)
    }

    fn step(&self, minibatch_size: usize, microbatch_size: usize, learning_rate: f64) -> Step {
        let training = TrainingConfig {
            epochs: 1,
            max_steps: 1,
            learning_rate,
            batch_size: self.prompts.len(),
            seed: self.seed,
            optimizer: smooth(),
            ..PpoConfig::default().training
        };
        let mut config = PpoConfig { training, ..PpoConfig::default() };
        config.critic.learning_rate = learning_rate;
        config.rollout.max_new_tokens = MAX_NEW_TOKENS;
        config.rollout.temperature = self.temperature;
        (config.update.minibatch_size, config.update.microbatch_size) = (minibatch_size, microbatch_size);
        let critic =
            if self.own_critic { Critic::Separate(Box::new(self.critic())) } else { Critic::ValueHead };
        let models = Models { policy: self.policy(), ref_policy: self.ref_policy(), critic };
        let encoded = |tokens: &Vec<u32>| EncodedPrompt::new("", tokens.clone());
        let prompts = Prompts::from(self.prompts.iter().map(encoded).collect::<Vec<_>>());
        let text = TextSide::new(Tokenizer::byte(), Template::bare());
        let mut answers = Vec::new();
        let mut score = |samples: &[Sample<'_>]| {
            answers.extend(samples.iter().map(|s| (s.prompt_tokens.to_vec(), s.completion_tokens.to_vec())));
            Ok(samples.iter().map(|s| (s.completion_tokens.iter().sum::<u32>() % 7) as f32 * 0.3).collect())
        };
        let (mut run, seen) = watched_run();
        let policy =
            temper_ppo::train(&config, models, &text, &prompts, &mut score, &mut run).expect("one step");
        let critic =
            ScalarModel::load(&run.dir().join("final/critic"), &Device::flex()).expect("our own file");
        let metrics = seen.lock().expect("nothing panics with the lock");
        let recorded = [
            "objective/kl",
            "objective/entropy",
            "objective/scores",
            "objective/rlhf_reward",
            "val/explained_var",
            "response_length/mean",
        ];
        let losses = [
            "loss/policy_avg",
            "loss/value_avg",
            "policy/approxkl_avg",
            "policy/entropy_avg",
            "policy/grad_norm",
            "val/ratio",
        ];
        Step {
            recorded: read(&metrics, &recorded),
            losses: read(&metrics, &losses),
            weights: [weights(&policy), weights(&critic)].concat(),
            answers,
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn sampled_log_probs_are_those_of_each_row_alone(
        config in configs(),
        prompts in prop::collection::vec(tokens(1..10), 1..6),
        temperature in prop_oneof![Just(1.0), Just(0.5), Just(2.0)],
        end_tokens in prop::collection::vec(0..VOCAB, 0..3),
        seed in 0u64..1000,
    ) {
        let model = language_model(&config, seed);
        let sampler = Sampler::Random { temperature, top_k: 0, top_p: 1.0 };
        let options = GenerateOptions { max_new_tokens: 12, sampler, end_tokens, seed, ..GenerateOptions::default() };
        for (prompt, completion) in prompts.iter().zip(generate(&model, &prompts, &options).expect("it fits")) {
            let alone = logprobs_alone(&model, prompt, &completion.tokens, temperature);
            check_close(&completion.logprobs, &alone, "log-probs");
            let before_last = &completion.tokens[..completion.tokens.len() - 1];
            let has_end = before_last.iter().any(|token| options.end_tokens.contains(token));
            prop_assert!(!has_end, "nothing comes after the end");
        }
    }

    #[test]
    fn greedy_answers_are_the_same_alone_and_in_any_batch(
        config in configs(),
        prompts in prop::collection::vec(tokens(1..10), 2..6),
        end_tokens in prop::collection::vec(0..VOCAB, 0..3),
        seed in 0u64..1000,
    ) {
        let model = language_model(&config, seed);
        let options = GenerateOptions { max_new_tokens: 8, sampler: Sampler::Greedy, end_tokens, seed, ..GenerateOptions::default() };
        let together = generate(&model, &prompts, &options).expect("it fits");
        for (prompt, expected) in prompts.iter().zip(&together) {
            let alone = generate(&model, std::slice::from_ref(prompt), &options).expect("it fits").remove(0);
            let differs = alone.tokens.iter().zip(&expected.tokens).position(|(a, b)| a != b);
            match differs {
                None => prop_assert_eq!(alone.tokens.len(), expected.tokens.len()),
                // Rounding may decide between two tokens of the same probability, and nothing else may.
                Some(t) => {
                    let all = values(distributions(&model, prompt, &alone.tokens, 1.0));
                    let gap = gap(&all[t * VOCAB as usize..(t + 1) * VOCAB as usize]);
                    prop_assert!(gap < crate::tiny::TOLERANCE, "a gap of {gap}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn what_a_rollout_records_is_what_each_answer_has_alone(setup in setups()) {
        let step = setup.step(0, 0, 1e-30);
        let (policy, reference) = (setup.policy(), setup.ref_policy());
        let (mut kl, mut entropy, n) = (0.0, 0.0, step.answers.len() as f32);
        for (prompt, completion) in &step.answers {
            let own = logprobs_alone(&policy, prompt, completion, setup.temperature);
            let other = logprobs_alone(&reference, prompt, completion, setup.temperature);
            kl += own.iter().zip(&other).map(|(a, b)| a - b).sum::<f32>() / n;
            entropy -= own.iter().sum::<f32>() / n;
        }
        check_close(&step.recorded[..2], &[kl, entropy], "KL and entropy");
        prop_assert!(kl.abs() > 1e-3, "the reference is another model");
    }

    #[test]
    fn microbatches_change_no_update_of_ppo(setup in setups(), size in 1usize..5) {
        let [whole, parts] = [0, size].map(|size| setup.step(0, size, 1.0));
        prop_assert_eq!(&parts.answers, &whole.answers);
        check_close(&parts.recorded, &whole.recorded, "recorded");
        check_close(&parts.losses, &whole.losses, "losses");
        check_close(&parts.weights, &whole.weights, "weights");
        prop_assert!(weights(&setup.policy()) != whole.weights[..weights(&setup.policy()).len()]);
    }

    #[test]
    fn minibatches_change_nothing_that_a_rollout_records(setup in setups(), size in 1usize..5) {
        let [whole, parts] = [0, size].map(|size| setup.step(size, 0, 1e-30));
        prop_assert_eq!(&parts.answers, &whole.answers);
        check_close(&parts.recorded, &whole.recorded, "recorded");
    }
}

/// What the pure functions work on: rows of different lengths, and garbage after their ends.
#[derive(Clone, Debug)]
struct Episodes {
    lens: Vec<usize>,
    width: usize,
    /// One number for each of six quantities at every place, garbage included.
    numbers: Vec<f32>,
    scores: Vec<f32>,
}

const MOST_WIDTH: usize = 9;

fn episodes() -> impl Strategy<Value = Episodes> {
    (prop::collection::vec(1usize..6, 1..6), 1usize..4).prop_flat_map(|(lens, pads)| {
        let width = lens.iter().max().expect("there are rows") + pads;
        let n = lens.len();
        let numbers = prop::collection::vec(-3.0f32..3.0, 6 * n * MOST_WIDTH);
        let scores = prop::collection::vec(-2.0f32..2.0, n);
        (Just(lens), Just(width), numbers, scores).prop_map(|(lens, width, numbers, scores)| Episodes {
            lens,
            width,
            numbers,
            scores,
        })
    })
}

impl Episodes {
    /// One of the quantities for some rows, `width` columns wide, `garbage` times as large after the ends.
    fn quantity(&self, which: usize, rows: &[usize], width: usize, garbage: f32) -> Tensor<2> {
        let at = |row: usize, column: usize| {
            let number = self.numbers[(which * self.lens.len() + row) * MOST_WIDTH + column];
            if column < self.lens[row] { number } else { number * garbage }
        };
        self.tensor(rows, width, at)
    }

    fn mask(&self, rows: &[usize], width: usize) -> Tensor<2> {
        self.tensor(rows, width, |row, column| if column < self.lens[row] { 1.0 } else { 0.0 })
    }

    fn tensor(&self, rows: &[usize], width: usize, at: impl Fn(usize, usize) -> f32) -> Tensor<2> {
        let all: Vec<f32> = rows
            .iter()
            .flat_map(|&row| (0..width).map(move |column| (row, column)))
            .map(|(row, column)| at(row, column))
            .collect();
        Tensor::from_data(TensorData::new(all, [rows.len(), width]), &Device::flex())
    }

    /// Losses, their statistics and their gradients at the places that count, in the order of the rows.
    fn losses(&self, rows: &[usize], width: usize, garbage: f32) -> (Vec<f32>, Vec<f32>) {
        let device = Device::flex().autodiff();
        let [logprobs, old, advantages, now, before, returns] =
            std::array::from_fn(|which| self.quantity(which, rows, width, garbage));
        let on_tape = |x: Tensor<2>| Tensor::from_data(x.into_data(), &device).require_grad();
        let (logprobs, now) = (on_tape(logprobs), on_tape(now));
        let mask = self.mask(rows, width);
        let policy = temper_ppo::policy_loss(logprobs.clone(), old, advantages, mask.clone(), 0.2);
        let value = temper_ppo::value_loss(now.clone(), before, returns, mask, 0.2);
        let statistics = [
            &policy.loss,
            &policy.clip_frac,
            &policy.approx_kl,
            &policy.ratio,
            &value.loss,
            &value.clip_frac,
        ]
        .map(|x| values(x.clone().inner())[0]);
        let gradients = (policy.loss + value.loss).backward();
        let gradient = |x: &Tensor<2>| self.real(&x.grad(&gradients).expect("it is on the tape"), rows);
        (statistics.to_vec(), [gradient(&logprobs), gradient(&now)].concat())
    }

    /// Shaped rewards, advantages and returns, whitened and not, at the places that count.
    fn targets(&self, rows: &[usize], width: usize, garbage: f32) -> Vec<f32> {
        let quantity = |which| self.quantity(which, rows, width, garbage);
        let scores: Vec<f32> = rows.iter().map(|&row| self.scores[row]).collect();
        let scores = Tensor::from_data(TensorData::new(scores, [rows.len()]), &Device::flex());
        let mask = || self.mask(rows, width);
        let kl = temper_ppo::token_kl(quantity(0), quantity(1), mask()).sum_dim(1);
        let rewards = temper_ppo::shape_rewards(quantity(0), quantity(1), scores, mask(), mask(), 0.1);
        let estimate = temper_ppo::estimate_advantages(rewards.clone(), quantity(4), mask(), 0.9, 0.8);
        let white = temper_tensor::whiten(estimate.advantages.clone(), mask());
        let scaled = temper_tensor::scale_to_unit_variance(quantity(2), mask());
        let parts = [rewards, estimate.advantages, estimate.returns, white, scaled];
        [parts.map(|x| self.real(&x, rows)).concat(), values(kl)].concat()
    }

    fn real(&self, x: &Tensor<2>, rows: &[usize]) -> Vec<f32> {
        let [_, width] = x.dims();
        let all = values(x.clone());
        rows.iter()
            .zip(all.chunks_exact(width))
            .flat_map(|(&row, all)| all[..self.lens[row]].to_vec())
            .collect()
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn what_follows_an_end_changes_no_loss_and_no_target(
        episodes in episodes(), garbage in -20f32..20.0,
    ) {
        let rows: Vec<usize> = (0..episodes.lens.len()).collect();
        let tight = *episodes.lens.iter().max().expect("there are rows");
        let (expected, expected_gradients) = episodes.losses(&rows, tight, 0.0);
        let (found, gradients) = episodes.losses(&rows, episodes.width, garbage);
        check_close(&found, &expected, "losses");
        check_close(&gradients, &expected_gradients, "gradients");
        check_close(
            &episodes.targets(&rows, episodes.width, garbage),
            &episodes.targets(&rows, tight, 0.0),
            "targets",
        );
    }

    #[test]
    fn token_weighted_parts_of_a_minibatch_have_its_losses(episodes in episodes(), cut in 0usize..6) {
        let rows: Vec<usize> = (0..episodes.lens.len()).rev().collect();
        let (first, second) = rows.split_at(cut % rows.len());
        let (expected, expected_gradients) = episodes.losses(&rows, episodes.width, 1.0);
        let total: usize = episodes.lens.iter().sum();
        let mut sums = vec![0.0; expected.len()];
        let mut all_gradients = Vec::new();
        for part in [first, second] {
            if part.is_empty() {
                continue;
            }
            let weight = part.iter().map(|&row| episodes.lens[row]).sum::<usize>() as f32 / total as f32;
            let (found, gradients) = episodes.losses(part, episodes.width, 1.0);
            sums.iter_mut().zip(&found).for_each(|(sum, x)| *sum += weight * x);
            all_gradients.push(gradients.iter().map(|g| g * weight).collect::<Vec<_>>());
        }
        check_close(&sums, &expected, "losses");
        // Each part has its log-probs' gradients before its values'.
        let halves = |which: usize| {
            all_gradients.iter().flat_map(move |g| g[which * g.len() / 2..(which + 1) * g.len() / 2].to_vec())
        };
        check_close(&halves(0).chain(halves(1)).collect::<Vec<_>>(), &expected_gradients, "gradients");
    }
}
