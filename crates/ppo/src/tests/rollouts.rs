//! What is sampled, and what is recorded about it.

use burn::tensor::{Device, Tensor};
use temper_data::EncodedPrompt;

use super::{EOS, VOCAB, collect, config, language_model, learner, numbers, prompts, scalar_model, targets};
use crate::learner::Learner;
use crate::networks::Critic;
use crate::rewards::shape_rewards;
use crate::{MissingEos, ScaleFrom, ScoreAt};

/// Oracle 5 (padding changes nothing): longer neighbours in the batch change nothing that is recorded.
#[test]
fn neighbours_change_nothing_that_is_recorded() {
    let config = config();
    let learner = learner(&config, Critic::Separate(Box::new(scalar_model(2))));
    let together = collect(&config, &learner, &language_model(3), &prompts(6));
    let columns = together.episodes.completion_len;
    // The first row draws from the stream of row 0, alone as well.
    let alone = collect(&config, &learner, &language_model(3), &prompts(1));
    assert_eq!(alone.episodes.rows[0], together.episodes.rows[0]);
    assert!(
        alone.episodes.completion_len <= columns
            && together.episodes.rows.iter().any(|row| row.len() != alone.episodes.rows[0].len())
    );
    for (what, a, b) in [
        ("old log-probs", alone.old_logprobs, together.old_logprobs),
        ("reference", alone.ref_logprobs, together.ref_logprobs),
        ("values", alone.values.unwrap(), together.values.unwrap()),
    ] {
        let (a, b) = (numbers(a), numbers(b));
        assert!(a.iter().zip(&b[..columns]).all(|(a, b)| (a - b).abs() < 1e-5), "{what}: {a:?} {b:?}");
    }
}

#[test]
fn a_rollout_that_is_sampled_in_parts_has_the_same_answers() {
    let rows = |sampling_batch_size| {
        let mut config = config();
        config.rollout.sampling_batch_size = sampling_batch_size;
        collect(&config, &learner(&config, Critic::ValueHead), &language_model(3), &prompts(8)).episodes.rows
    };
    for size in [1, 3, 100] {
        assert_eq!(rows(size), rows(0), "{size} at once");
    }
}

#[test]
fn answers_to_one_prompt_are_neighbours_and_differ() {
    let mut config = config();
    config.rollout.samples_per_prompt = 4;
    let rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(3));
    assert_eq!(rollout.episodes.prompt_lens, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
    for group in rollout.episodes.rows.chunks(4) {
        assert!(group[1..].iter().any(|row| row != &group[0]), "{group:?}");
    }
    // The same seed, the same groups.
    let again = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(3));
    assert_eq!(again.episodes.rows, rollout.episodes.rows);
}

/// Oracle 8 (the sampler draws from the distribution that is recorded), and D5 (the notebook cuts a nucleus off):
/// tokens are drawn as often as their recorded log-probabilities say, at a temperature and without a cut.
#[test]
fn tokens_come_as_often_as_their_recorded_log_probs_say() {
    const N: usize = 4000;
    let mut config = config();
    config.rollout.max_new_tokens = 1;
    config.rollout.temperature = 0.5;
    let learner = learner(&config, Critic::ValueHead);
    let one = EncodedPrompt::new("", vec![1, 5, 2]);
    let rollout = collect(&config, &learner, &language_model(1), &vec![one; N]);
    let logprobs = numbers(rollout.old_logprobs);
    let mut expected = [0.0; VOCAB];
    let mut shares = [0.0; VOCAB];
    for (row, logprob) in rollout.episodes.rows.iter().zip(logprobs) {
        let token = row[3] as usize;
        expected[token] = logprob.exp();
        shares[token] += 1.0 / N as f64;
    }
    assert!((expected.iter().sum::<f64>() - 1.0).abs() < 1e-5, "every token was drawn: {expected:?}");
    for (share, p) in shares.iter().zip(expected) {
        // Four standard deviations of a share of N draws.
        assert!((share - p).abs() < 4.0 * (p * (1.0 - p) / N as f64).sqrt(), "{share} {p}");
    }
    // The test can fail: at temperature 1 the shares would be far from these.
    let roots: Vec<f64> = expected.iter().map(|p| p.sqrt()).collect();
    let plain = roots.iter().map(|root| root / roots.iter().sum::<f64>());
    assert!(plain.zip(expected).any(|(plain, p)| (plain - p).abs() > 0.05), "{expected:?}");
}

/// Oracle 10 (only answers without an end are penalised): an end token in the last possible place is an end.
#[test]
fn an_end_in_the_last_column_is_an_end() {
    let mut config = config();
    config.rollout.missing_eos = MissingEos::Subtract;
    config.rollout.missing_eos_value = 10.0;
    config.kl.coef = 0.0;
    let rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(1), &prompts(96));
    let (mask, scores) = (rollout.completion_mask.clone(), rollout.scores.clone());
    let zeros = Tensor::zeros([96, rollout.episodes.completion_len], &Device::flex());
    let rewards = numbers(shape_rewards(zeros.clone(), zeros, scores, mask.clone(), mask, 0.0));
    let mut seen = [0; 3];
    for (i, row) in rollout.episodes.rows.iter().enumerate() {
        let completion = &row[rollout.episodes.prompt_lens[i]..];
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

/// With `score_at = past_end`, an answer that ended early is scored one past its end. An answer that fills all places
/// is scored at its last token, whether it ended or not (oracle 10).
#[test]
fn a_score_is_placed_one_past_the_end_where_there_is_room() {
    let mut config = config();
    config.rollout.score_at = ScoreAt::PastEnd;
    (config.kl.coef, config.update.gae_lambda) = (0.0, 1.0);
    let learner = learner(&config, Critic::ValueHead);
    let rollout = collect(&config, &learner, &language_model(1), &prompts(32));
    // With γ = λ = 1, no penalty and a zero critic, the return is the score up to its place and 0 after it.
    let returns = numbers(targets(&config, &rollout).0.returns.unwrap());
    let scores = numbers(rollout.scores.clone());
    let mut seen = [0; 3];
    for (row, tokens) in rollout.episodes.rows.iter().enumerate() {
        let len = tokens.len() - rollout.episodes.prompt_lens[row];
        let (place, case) = match (rollout.ended[row], len == config.rollout.max_new_tokens) {
            (true, false) => (len, 0),
            (true, true) => (len - 1, 1),
            (false, _) => (len - 1, 2),
        };
        seen[case] += 1;
        for t in 0..rollout.episodes.completion_len {
            let expected = if t <= place { scores[row] } else { 0.0 };
            assert_eq!(returns[row * rollout.episodes.completion_len + t], expected, "row {row}, column {t}");
        }
    }
    assert!(seen.iter().all(|&n| n > 0), "every kind of answer occurs: {seen:?}");
}

/// The identity of TRL: score plus penalty is the reward.
#[test]
fn scores_plus_the_penalty_are_the_reward() {
    let mut config = config();
    (config.rollout.missing_eos, config.rollout.missing_eos_value) = (MissingEos::Subtract, 10.0);
    let rollout = collect(&config, &learner(&config, Critic::ValueHead), &language_model(3), &prompts(48));
    let (_, metrics) = targets(&config, &rollout);
    assert!(metrics.num_eos_tokens < 48 && metrics.num_eos_tokens > 0, "{metrics:?}");
    let missing = 10.0 * (1.0 - metrics.eos_rate);
    assert!((metrics.scores - (metrics.raw_scores - missing)).abs() < 1e-5, "{metrics:?}");
    assert!((metrics.scores + metrics.non_score_reward - metrics.rlhf_reward).abs() < 1e-6, "{metrics:?}");
}

/// Ziegler et al. 2019, section 2.2: scores of mean 0 and deviation 1. The values of the critic come with them.
#[test]
fn the_first_scores_set_the_scale_of_scores_and_values_once() {
    let mut config = config();
    config.rollout.score_scale = ScaleFrom::FirstRollout;
    let mut learner = learner(&config, Critic::Separate(Box::new(scalar_model(2))));
    let rollout = |learner: &Learner| collect(&config, learner, &language_model(1), &prompts(48));
    let before = rollout(&learner);
    assert_eq!(
        numbers(before.scores.clone()),
        before.raw_scores.iter().map(|&x| f64::from(x)).collect::<Vec<_>>()
    );
    // Equal scores set nothing.
    assert_eq!(learner.set_scale(&[3.0; 8]), None);
    let scale = learner.set_scale(&before.raw_scores).unwrap();
    assert_eq!((learner.scale(), learner.set_scale(&[0.0, 1.0])), (scale, None));
    let after = rollout(&learner);
    let scores = numbers(after.scores.clone());
    let mean = scores.iter().sum::<f64>() / 48.0;
    let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / 48.0;
    assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
    let mask = numbers(after.value_mask.clone());
    let (old, new) = (numbers(before.values.unwrap()), numbers(after.values.unwrap()));
    for ((old, new), mask) in old.into_iter().zip(new).zip(mask) {
        let expected = mask * (old - scale.mean) / scale.deviation;
        assert!((new - expected).abs() < 1e-5, "{new} {expected}");
    }
}
