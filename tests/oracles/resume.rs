//! Oracle 16: a run that resumes from a checkpoint ends with the same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use temper_data::Texts;
use temper_dpo::DpoConfig;
use temper_model::{Decoder, ModelConfig, Pooling};
use temper_ppo::{AdvantageKind, Critic, Data, Models, Sample, ScoreAt, Scorers};
use temper_reward::RewardConfig;
use temper_sft::SftConfig;
use temper_tokenizer::{Example, Template, TextSide, Tokenizer};
use temper_train::{Inputs, Run, Schedule, ScheduleKind, TrainingConfig};

use crate::setup::{
    Log, byte_model, comparisons, demonstrations, prompts, reward_model, toy_config, toy_model,
};

/// A schedule that differs from step to step.
const LINEAR: Schedule =
    Schedule { kind: ScheduleKind::Linear, warmup_steps: 2, warmup_from: 0.0, final_fraction: 0.1 };

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn lines(log: &Log) -> Vec<String> {
    let clock = |key: &str| key.starts_with("time/") || key.starts_with("tokens_per_second") || key == "eps";
    let line = |row: &serde_json::Map<String, serde_json::Value>| {
        row.iter().filter(|(key, _)| !clock(key)).map(|(key, value)| format!("{key} {value} ")).collect()
    };
    log.rows.lock().unwrap().iter().map(line).collect()
}

/// Seven steps with a checkpoint every second; then again from the one of step 4, as after a crash in step 6.
fn assert_resumes(train: impl Fn(&mut Run)) {
    let dir = tempfile::tempdir().unwrap();
    let whole = Log::default();
    train(&mut whole.watch(Run::open(dir.path(), "test", "", &Inputs::default(), false).unwrap()));
    let last = dir.path().join("final");
    let expected = files(&last);
    assert!(expected.len() > 3, "{expected:?}");
    std::fs::remove_dir_all(&last).unwrap();
    std::fs::remove_dir_all(dir.path().join("checkpoints/step-000006")).unwrap();

    let rest = Log::default();
    let mut run = rest.watch(Run::open(dir.path(), "test", "", &Inputs::default(), true).unwrap());
    assert_eq!(run.resume_from().map(|(step, _)| step), Some(4));
    train(&mut run);
    let (whole, rest) = (lines(&whole), lines(&rest));
    assert_eq!(rest, whole[4..]);
    assert_ne!(whole[4], whole[5]);
    for (path, expected) in expected {
        assert!(std::fs::read(&path).unwrap() == expected, "{} differs", path.display());
    }
}

#[test]
fn sft_with_dropout_resumes_to_the_same_bytes() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let training = TrainingConfig {
        epochs: 3,
        max_steps: 7,
        batch_size: 3,
        checkpoint_every: 2,
        schedule: LINEAR,
        ..SftConfig::default().training
    };
    let config = SftConfig { training, ..SftConfig::default() };
    assert_resumes(|run| {
        let text = TextSide::new(tokenizer.clone(), template.clone());
        temper_sft::train(&config, byte_model(0.2), &text, &demonstrations(), None, run).unwrap();
    });
}

#[test]
fn the_reward_model_resumes_to_the_same_bytes() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let training = TrainingConfig {
        epochs: 4,
        max_steps: 7,
        batch_size: 2,
        checkpoint_every: 2,
        schedule: LINEAR,
        ..RewardConfig::default().training
    };
    let config = RewardConfig { training, ..RewardConfig::default() };
    assert_resumes(|run| {
        let text = TextSide::new(tokenizer.clone(), template.clone());
        let model = reward_model(Pooling::Mean, 0.2);
        temper_reward::train(&config, model, &text, &comparisons(), None, run).unwrap();
    });
}

/// The reference is the model of the start, not that of the checkpoint.
#[test]
fn dpo_resumes_to_the_same_bytes() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::notebook());
    let training = TrainingConfig {
        epochs: 4,
        max_steps: 7,
        batch_size: 2,
        learning_rate: 1e-3,
        checkpoint_every: 2,
        schedule: LINEAR,
        ..DpoConfig::default().training
    };
    let config = DpoConfig { training, label_smoothing: 0.1, ..DpoConfig::default() };
    assert_resumes(|run| {
        let text = TextSide::new(tokenizer.clone(), template.clone());
        temper_dpo::train(&config, byte_model(0.2), &text, &comparisons(), None, run).unwrap();
    });
}

/// Weights, both optimizers, the adaptive coefficient, the place among the prompts, the schedule, every stream.
#[test]
fn ppo_resumes_to_the_same_bytes_with_either_critic() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::bare());
    let data = prompts([&[1, 4], &[1, 5, 2], &[1, 6], &[1, 7, 7, 2], &[1, 8]]);
    let mut config = toy_config(4, 6);
    (config.training.max_steps, config.training.learning_rate, config.training.checkpoint_every) =
        (7, 1e-2, 2);
    (config.update.ppo_epochs, config.update.minibatch_size) = (2, 3);
    (config.kl.coef, config.kl.target, config.kl.horizon) = (0.1, 0.05, 50.0);
    config.training.schedule = LINEAR;
    for separate in [false, true] {
        assert_resumes(|run| {
            let critic = || {
                // A critic may have a shorter context than the policy.
                let shape = ModelConfig { max_seq_len: 32, ..toy_model(2).config().clone() };
                let backbone =
                    Decoder::new(&shape, &mut temper_train::Seed(2).stream("init"), &Device::flex());
                let head = &mut temper_train::Seed(1).stream("head");
                Critic::Separate(Box::new(temper_model::ScalarModel::new(backbone, Pooling::Last, head)))
            };
            let critic = if separate { critic() } else { Critic::ValueHead };
            let models = Models { policy: toy_model(1), ref_policy: toy_model(1), critic };
            let text = TextSide::new(tokenizer.clone(), template.clone());
            let mut score = |samples: &[Sample<'_>]| {
                Ok(samples.iter().map(|sample| sample.completion_tokens[0] as f32 / 8.0).collect())
            };
            temper_ppo::train(&config, models, &text, &data, &mut score, run).unwrap();
        });
    }
}

/// The averaged policy and the place among the texts too; and what is only recorded.
#[test]
fn ppo_ptx_with_an_average_resumes_to_the_same_bytes() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::bare());
    let data = prompts([&[1, 4], &[1, 5, 2], &[1, 6], &[1, 7, 7, 2], &[1, 8]]);
    let text = |tokens: &[u32]| Example::new(tokens.into(), 1);
    let texts = Texts::from(vec![text(&[1, 4, 5, 3]), text(&[1, 6, 3]), text(&[1, 7, 8, 9, 3])]);
    let mut config = toy_config(4, 6);
    (config.training.max_steps, config.training.learning_rate, config.training.checkpoint_every) =
        (7, 1e-2, 2);
    (config.update.ppo_epochs, config.update.minibatch_size) = (2, 3);
    (config.ptx.sequences_per_episode, config.ema_decay) = (0.6, 0.9);
    config.rollout.score_at = ScoreAt::PastEnd;
    assert_resumes(|run| {
        let models = Models { policy: toy_model(1), ref_policy: toy_model(1), critic: Critic::ValueHead };
        let side = TextSide::new(tokenizer.clone(), template.clone());
        let first = |sample: &Sample<'_>| sample.completion_tokens[0] as f32 / 8.0;
        let scorers = Scorers {
            score: &mut |samples: &[Sample<'_>]| Ok(samples.iter().map(first).collect()),
            token_rewards: Some(&mut |samples: &[Sample<'_>]| {
                Ok(samples
                    .iter()
                    .map(|s| s.completion_tokens.iter().map(|&t| t as f32 / 99.0).collect())
                    .collect())
            }),
            gold: Some(&mut |samples: &[Sample<'_>]| Ok(samples.iter().map(|s| -first(s)).collect())),
        };
        let data = Data { texts: Some(&texts), ..Data::from(&data) };
        temper_ppo::train(&config, models, &side, data, scorers, run).unwrap();
        let differ = |a: &str, b: &str| {
            let read = |dir: &str| std::fs::read(run.dir().join(dir).join("model.safetensors")).unwrap();
            assert_ne!(read(a), read(b), "{a} and {b}");
        };
        differ("checkpoints/step-000004", "checkpoints/step-000004/ema");
        differ("final", "checkpoints/step-000006/ema");
    });
}

#[test]
fn rloo_and_grpo_resume_to_the_same_bytes_without_a_critic() {
    let (tokenizer, template) = (Tokenizer::byte(), Template::bare());
    let data = prompts([&[1, 4], &[1, 5, 2], &[1, 6], &[1, 7, 7, 2], &[1, 8]]);
    for kind in [AdvantageKind::Rloo, AdvantageKind::Grpo] {
        let mut config = toy_config(2, 6);
        (config.advantage.kind, config.rollout.samples_per_prompt) = (kind, 3);
        (config.training.max_steps, config.training.learning_rate, config.training.checkpoint_every) =
            (7, 1e-2, 2);
        (config.update.ppo_epochs, config.update.minibatch_size) = (2, 4);
        (config.kl.coef, config.kl.target, config.kl.horizon) = (0.1, 0.05, 50.0);
        config.training.schedule = LINEAR;
        assert_resumes(|run| {
            let models = Models { policy: toy_model(1), ref_policy: toy_model(2), critic: Critic::None };
            let text = TextSide::new(tokenizer.clone(), template.clone());
            let mut score = |samples: &[Sample<'_>]| {
                Ok(samples.iter().map(|sample| sample.completion_tokens[0] as f32 / 8.0).collect())
            };
            temper_ppo::train(&config, models, &text, &data, &mut score, run).unwrap();
            for dir in ["final/critic", "best/critic", "checkpoints/step-000004/critic"] {
                assert!(!run.dir().join(dir).exists(), "{dir}");
            }
        });
    }
}
