//! Rewards of single tokens.

use temper_data::EncodedPrompt;
use temper_tokenizer::Tokenizer;

use super::{config, language_model, learner, numbers, prompts, targets};
use crate::PpoConfig;
use crate::networks::Critic;
use crate::rollout::{Rollout, collect_rollout};
use crate::scores::{Sample, Scorers};

/// The rewards 1, 2, 3, … for the tokens of an answer, without the last `n_short` of them.
fn counted(samples: &[Sample<'_>], n_short: usize) -> Vec<Vec<f32>> {
    let row =
        |sample: &Sample<'_>| (1..=sample.completion_tokens.len() - n_short).map(|t| t as f32).collect();
    samples.iter().map(row).collect()
}

/// A rollout with the token rewards of [`counted`], and score 0.
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
    collect_rollout(config, &learner.models(&reference, &tokenizer), &prompts, &mut scorers, 17, 1)
}

/// With γ = λ = 1 and a zero critic, the return of a token is the sum of the rewards from it on.
#[test]
fn the_return_of_a_token_is_the_sum_of_the_token_rewards_from_it_on() {
    let mut config = config();
    (config.kl.coef, config.update.gae_lambda) = (0.0, 1.0);
    let rollout = collect_counted(&config, 0).unwrap();
    let (targets, metrics) = targets(&config, &rollout);
    let returns = numbers(targets.returns.unwrap());
    let lens: Vec<usize> = rollout.episodes.completion_lens().collect();
    for (row, &len) in lens.iter().enumerate() {
        for t in 0..rollout.episodes.completion_len {
            let to_come: usize = (t + 1..=len).sum();
            let value = returns[row * rollout.episodes.completion_len + t];
            assert!((value - to_come as f64).abs() < 1e-4, "row {row}, token {t}: {value} {to_come}");
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

/// Equal scores are no reason for a warning where the rewards of tokens differ.
#[test]
fn a_run_that_learns_from_token_rewards_alone_has_something_to_learn() {
    let (tokenizer, template) = (Tokenizer::byte(), temper_tokenizer::Template::bare());
    let mut config = config();
    (config.training.epochs, config.training.batch_size) = (6, 8);
    let warned = |learns_from_tokens: bool| {
        let warnings = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = warnings.clone();
        let mut run = temper_train::Run::ephemeral().unwrap().with_observer(move |event| {
            if let temper_train::Event::Warning { message } = event {
                sink.lock().unwrap().push(message.to_owned());
            }
        });
        let models = crate::Models {
            policy: language_model(1),
            ref_policy: language_model(1),
            critic: Critic::ValueHead,
        };
        let mut of_tokens = |samples: &[Sample<'_>]| Ok(counted(samples, 0));
        let scorers = Scorers {
            score: &mut |samples: &[Sample<'_>]| Ok(vec![0.0; samples.len()]),
            token_rewards: learns_from_tokens.then_some(&mut of_tokens as _),
            gold: None,
        };
        let text = temper_tokenizer::TextSide::new(tokenizer.clone(), template.clone());
        let prompts = temper_data::Prompts::from(prompts(8));
        crate::train(&config, models, &text, &prompts, scorers, &mut run).unwrap();
        warnings.lock().unwrap().iter().any(|warning: &String| warning.contains("score the same"))
    };
    assert!(warned(false));
    assert!(!warned(true));
}
