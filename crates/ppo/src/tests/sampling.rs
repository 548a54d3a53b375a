//! What is sampled for rollouts and evaluations, and how long it may be.

use temper_data::{EncodedPrompt, Prompts};
use temper_tokenizer::{TextSide, Tokenizer};

use super::{collect, config, count_fives, language_model, learner, prompts, targets};
use crate::critic::Critic;
use crate::{MissingEos, PpoConfig, Sample};

/// A scorer of each answer by its length, so that equal numbers mean equal answers.
#[allow(clippy::unnecessary_wraps, reason = "the type of a scoring function")]
fn lengths(samples: &[Sample<'_>]) -> Result<Vec<f32>, Box<dyn std::error::Error + Send + Sync>> {
    Ok(samples.iter().map(|sample| sample.completion_tokens.len() as f32).collect())
}

/// The answers of one prompt, asked eight times, in evaluations of `batch_size` prompts at once.
fn evaluated(batch_size: usize, sampling_batch_size: usize) -> Vec<Vec<u32>> {
    let mut config = PpoConfig { batch_size, ..config() };
    config.rollout.sampling_batch_size = sampling_batch_size;
    let one = EncodedPrompt { text: String::new(), tokens: vec![1, 5, 2] };
    let prompts = Prompts::from(vec![one; 8]);
    let mut answers = Vec::new();
    let mut score = |samples: &[Sample<'_>]| {
        answers.extend(samples.iter().map(|sample| sample.completion_tokens.to_vec()));
        lengths(samples)
    };
    let (lm, tokenizer) = (language_model(1), Tokenizer::byte());
    crate::evaluate(&config, &lm, &tokenizer, &prompts, 1, &mut (&mut score).into()).unwrap();
    answers
}

#[test]
fn every_prompt_of_an_evaluation_has_random_numbers_of_its_own() {
    let answers = evaluated(1, 0);
    assert!(answers.iter().any(|answer| *answer != answers[0]), "the same eight times: {answers:?}");
    for (batch_size, sampling_batch_size) in [(8, 0), (3, 0), (8, 3)] {
        assert_eq!(evaluated(batch_size, sampling_batch_size), answers);
    }
}

#[test]
fn a_rollout_that_is_sampled_in_parts_has_the_same_answers() {
    let rows = |sampling_batch_size| {
        let mut config = config();
        config.rollout.sampling_batch_size = sampling_batch_size;
        collect(&config, &learner(&config, Critic::ValueHead), &language_model(3), &prompts(8)).rows
    };
    for size in [1, 3, 100] {
        assert_eq!(rows(size), rows(0), "{size} at once");
    }
}

#[test]
fn prompts_without_room_for_a_whole_answer_are_refused() {
    let (tokenizer, template) = (Tokenizer::byte(), temper_tokenizer::Template::bare());
    let models =
        crate::Models { policy: language_model(1), ref_policy: language_model(1), critic: Critic::ValueHead };
    let text = TextSide::new(tokenizer.clone(), template.clone());
    // Contexts of 32 tokens, answers of 6.
    let long = |len| EncodedPrompt { text: String::new(), tokens: vec![4; len] };
    let prompts = Prompts::from(vec![long(26), long(27)]);
    let mut run = temper_train::Run::ephemeral().unwrap();
    let error = crate::train(&config(), models, &text, &prompts, &mut count_fives, &mut run).unwrap_err();
    assert_eq!(error.to_string(), "prompt 2 has 27 tokens: with 6 new ones it does not fit into 32");
}

/// TRL's identity: what is logged adds up.
#[test]
fn scores_plus_the_penalty_are_the_reward() {
    let mut config = config();
    (config.rollout.missing_eos, config.rollout.missing_eos_value) = (MissingEos::Subtract, 10.0);
    let rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(3), &prompts(48));
    let (_, metrics, _) = targets(&config, &rollout);
    assert!(metrics.num_eos_tokens < 48 && metrics.num_eos_tokens > 0, "{metrics:?}");
    let missing = 10.0 * (1.0 - metrics.eos_rate);
    assert!((metrics.scores - (metrics.raw_scores - missing)).abs() < 1e-5, "{metrics:?}");
    assert!((metrics.scores + metrics.non_score_reward - metrics.rlhf_reward).abs() < 1e-6, "{metrics:?}");
}
