//! Oracle 19: a KL below 0 is reported.

use temper_model::CausalLm;
use temper_ppo::{Critic, Models, train};
use temper_tokenizer::{Template, TextSide, Tokenizer};
use temper_train::Run;

use crate::setup::{Log, constant_model, prompts, toy_config};

const EOS: usize = 3;
const RARE: usize = 7;

/// All tokens alike but two: no end, and one token with this logit.
fn model(rare: f64) -> CausalLm {
    let mut logits = [0.0; 16];
    (logits[EOS], logits[RARE]) = (-30.0, rare);
    constant_model(logits)
}

/// The warnings of six rollouts of two long answers each, by a policy that does not move, but the one that it is not
/// the reference (oracle 2): that one must be there.
fn warnings(policy: &CausalLm, reference: &CausalLm, seed: u64) -> Vec<String> {
    let (tokenizer, template) = (Tokenizer::byte(), Template::bare());
    let mut config = toy_config(2, 40);
    (config.training.max_steps, config.training.learning_rate, config.training.seed) = (6, 1e-12, seed);
    let models = Models { policy: policy.clone(), ref_policy: reference.clone(), critic: Critic::ValueHead };
    let text = TextSide::new(tokenizer.clone(), template.clone());
    let log = Log::default();
    let mut run = log.watch(Run::ephemeral().unwrap());
    // Equal ones would raise another alarm.
    let mut score = |samples: &[temper_ppo::Sample<'_>]| Ok((0..samples.len()).map(|i| i as f32).collect());
    let data = prompts([&[1, 2]]);
    train(&config, models, &text, &data, &mut score, &mut run).unwrap();
    let (start, others): (Vec<String>, Vec<String>) = log
        .warnings()
        .into_iter()
        .partition(|said| said.contains("policy and reference are not the same model"));
    assert!(start.len() == 1 && start[0].starts_with("step 1: "), "{start:?}");
    others
}

/// The policy gives a token one chance in a thousand that the reference does not give it. Where chance never draws
/// it, every other token is a thousandth less probable than under the reference, in each of 40 places: the same
/// picture as a sampler that holds the token back.
#[test]
fn a_token_that_is_never_sampled_raises_the_alarm_once() {
    let (policy, reference) = (model((14.0f64 / 999.0).ln()), model(-30.0));
    // Six rollouts have 480 tokens: most seeds have three without the token somewhere, hardly one has it in all.
    let said: Vec<Vec<String>> = (0..4).map(|seed| warnings(&policy, &reference, seed)).collect();
    assert!(said.iter().all(|said| said.len() <= 1), "{said:?}");
    let found: Vec<&String> = said.iter().flatten().collect();
    assert!(!found.is_empty(), "no alarm in four runs");
    assert!(found.iter().all(|said| said.contains("KL to the reference has been below 0")), "{found:?}");
    // The other way round the same token has a KL above 0 in every rollout that draws it, and 0 without.
    for seed in 0..4 {
        assert_eq!(warnings(&reference, &policy, seed), Vec::<String>::new());
    }
}
