//! Answers to held-out prompts.

use temper_data::{EncodedPrompt, Prompts};
use temper_tokenizer::Tokenizer;

use super::{config, language_model};
use crate::scores::{Sample, ScoreError};

/// Scores each answer by its length.
#[allow(clippy::unnecessary_wraps, reason = "the type of a scoring function")]
fn lengths(samples: &[Sample<'_>]) -> Result<Vec<f32>, ScoreError> {
    Ok(samples.iter().map(|sample| sample.completion_tokens.len() as f32).collect())
}

/// Eight answers to the same prompt, in an evaluation of `batch_size` prompts at a time.
fn evaluated(batch_size: usize, sampling_batch_size: usize) -> Vec<Vec<u32>> {
    let mut config = config();
    config.training.batch_size = batch_size;
    config.rollout.sampling_batch_size = sampling_batch_size;
    let one = EncodedPrompt::new("", vec![1, 5, 2]);
    let prompts = Prompts::from(vec![one; 8]);
    let mut answers = Vec::new();
    let mut score = |samples: &[Sample<'_>]| {
        answers.extend(samples.iter().map(|sample| sample.completion_tokens.to_vec()));
        lengths(samples)
    };
    let (lm, tokenizer) = (language_model(1), Tokenizer::byte());
    crate::evaluate(&config, &lm, &tokenizer, &prompts, 1, crate::ScoreScale::NONE, &mut (&mut score).into())
        .unwrap();
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
